"""PodDisruptionBudgets, PriorityClasses, RuntimeClasses and Leases: small kinds that steer pods and controllers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import fill, number, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    Errors,
    at_most_hundred_percent,
    collected,
    label_errors,
    not_negative,
    percent_or_count,
    positive,
    required_name,
    spec_of,
    status_of,
    supported,
    unchanged,
)
from fleetplane.apiserver.kinds.columns import at, boolean_column, integer_column, text_column
from fleetplane.apiserver.kinds.resource_rules import resource_list
from fleetplane.apiserver.kinds.scheduling_rules import tolerations
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.selectors import validate_label_selector
from fleetplane.model.table import AGE, NAME

HIGHEST_USER_PRIORITY: Final = 1_000_000_000
SYSTEM_PREFIX: Final = "system-"


def _validate_budget(budget: Object, old: Object | None) -> Errors:
    spec = spec_of(budget)
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if least is not None and most is not None:
        yield FieldError.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for key, value in (("minAvailable", least), ("maxUnavailable", most)):
        yield from percent_or_count(value, f"spec.{key}")
        yield from at_most_hundred_percent(value, f"spec.{key}")
    yield from validate_label_selector(spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None:
        yield from supported(policy, ("AlwaysAllow", "IfHealthyBudget"), "spec.unhealthyPodEvictionPolicy")


def _validate_budget_status(budget: Object, old: Object | None) -> Errors:
    for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        yield from not_negative(status_of(budget).get(key), f"status.{key}")


def _or_not_applicable(key: str) -> Any:
    def read(budget: Mapping[str, Any]) -> str:
        found = section(budget, "spec").get(key)
        return "N/A" if found is None else str(found)

    return read


POD_DISRUPTION_BUDGETS: Final = KindBehaviour(
    validate=collected(_validate_budget),
    validate_status=collected(_validate_budget_status),
    columns=(
        NAME,
        text_column("Min Available", "Pods that must stay.", _or_not_applicable("minAvailable")),
        text_column("Max Unavailable", "Pods that may go.", _or_not_applicable("maxUnavailable")),
        integer_column(
            "Allowed Disruptions",
            "Pods that may go now.",
            lambda obj: number(section(obj, "status"), "disruptionsAllowed"),
        ),
        AGE,
    ),
    unconditional_update=False,
)


def _default_priority(priority: Object) -> None:
    fill(priority, preemptionPolicy="PreemptLowerPriority")


def _validate_priority(priority: Object, old: Object | None) -> Errors:
    name, value = text(priority["metadata"], "name"), number(priority, "value")
    if name.startswith(SYSTEM_PREFIX):
        if name not in ("system-node-critical", "system-cluster-critical"):
            detail = "priority class names with 'system-' prefix are reserved for system use only"
            yield FieldError.forbidden("metadata.name", detail)
    elif value > HIGHEST_USER_PRIORITY:
        detail = f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        yield FieldError.forbidden("value", detail)
    choices = ("Never", "PreemptLowerPriority")
    yield from supported(text(priority, "preemptionPolicy"), choices, "preemptionPolicy")
    if old is not None:
        if value != number(old, "value"):
            yield FieldError.forbidden("value", "may not be changed in an update.")
        yield from unchanged(priority.get("preemptionPolicy"), old.get("preemptionPolicy"), "preemptionPolicy")


PRIORITY_CLASSES: Final = KindBehaviour(
    default=_default_priority,
    validate=collected(_validate_priority),
    columns=(
        NAME,
        integer_column("Value", "The priority; higher goes first.", lambda obj: number(obj, "value")),
        boolean_column("Global-Default", "Whether pods get it that name none.", at("globalDefault", default=False)),
        AGE,
        text_column("PreemptionPolicy", "Whether others must make room.", at("preemptionPolicy")),
    ),
)


def _validate_runtime(runtime: Object, old: Object | None) -> Errors:
    yield from required_name(names.dns1123_label, text(runtime, "handler"), "handler")
    yield from resource_list(section(runtime, "overhead", "podFixed"), "overhead.podFixed")
    scheduling = runtime.get("scheduling") or {}
    yield from label_errors(scheduling.get("nodeSelector") or {}, "scheduling.nodeSelector")
    yield from tolerations(scheduling.get("tolerations") or (), "scheduling.tolerations")
    if old is not None:
        yield from unchanged(runtime.get("handler"), old.get("handler"), "handler")


RUNTIME_CLASSES: Final = KindBehaviour(
    validate=collected(_validate_runtime),
    columns=(NAME, text_column("Handler", "The runtime that is meant.", at("handler")), AGE),
    has_generation=False,
    unconditional_update=False,
)


def _validate_lease(lease: Object, old: Object | None) -> Errors:
    spec = spec_of(lease)
    yield from positive(spec.get("leaseDurationSeconds"), "spec.leaseDurationSeconds")
    transitions = spec.get("leaseTransitions")
    if transitions is not None and transitions < 0:
        yield FieldError.invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0")
    if spec.get("strategy") is not None and not spec["strategy"]:
        yield FieldError.invalid("spec.strategy", spec["strategy"], "must not be empty when it is set")


LEASES: Final = KindBehaviour(
    validate=collected(_validate_lease),
    columns=(NAME, text_column("Holder", "Who holds it.", at("spec", "holderIdentity")), AGE),
    has_generation=False,
    create_on_update=True,
    unconditional_update=False,
)
