"""What the controllers of pods have in common: replicas, selectors that match templates, and their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, number, section
from fleetplane.apiserver.kinds.checks import Errors, not_negative
from fleetplane.apiserver.kinds.columns import integer_column
from fleetplane.apiserver.kinds.pod_rules import pod_template
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.selectors import LabelSelector, validate_label_selector
from fleetplane.model.table import Column

_MISMATCH: Final = "`selector` does not match template `labels`"


def selector_and_template(spec: Object, path: str = "spec", *, owner: str = "deployment") -> Errors:
    """A structured selector that selects something, and a template it selects; ``owner`` is whose they are, in words."""
    selector = spec.get("selector")
    if selector is None:
        yield FieldError.required(f"{path}.selector")
    else:
        yield from validate_label_selector(selector, f"{path}.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            yield FieldError.invalid(f"{path}.selector", selector, f"empty selector is invalid for {owner}")
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector and not _matches(selector, labels):
        yield FieldError.invalid(f"{path}.template.metadata.labels", labels, _MISMATCH)
    yield from pod_template(template, f"{path}.template")


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    try:
        return LabelSelector.from_object(selector).matches(labels)
    except ValueError:
        return True  # said already


def always_restarting(spec: Object, what: str, path: str = "spec.template.spec") -> Errors:
    """Controllers that keep pods running need pods that do."""
    pod = (spec.get("template") or {}).get("spec") or {}
    if pod.get("restartPolicy") != "Always":
        yield FieldError.not_supported(f"{path}.restartPolicy", pod.get("restartPolicy"), ["Always"])
    if pod.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {what} is not Supported"
        yield FieldError.forbidden(f"{path}.activeDeadlineSeconds", detail)


def replica_counts(status: Object, keys: tuple[str, ...]) -> Errors:
    """Status counters: not negative, and none above those they are part of."""
    for key in (*keys, "observedGeneration"):
        yield from not_negative(status.get(key), f"status.{key}")
    total = number(status, "replicas")
    for key in ("fullyLabeledReplicas", "readyReplicas", "availableReplicas", "updatedReplicas"):
        if key in keys and number(status, key) > total:
            detail = "cannot be greater than status.replicas"
            yield FieldError.invalid(f"status.{key}", number(status, key), detail)
    if "readyReplicas" in keys and number(status, "availableReplicas") > number(status, "readyReplicas"):
        detail = "cannot be greater than readyReplicas"
        yield FieldError.invalid("status.availableReplicas", number(status, "availableReplicas"), detail)


def collision_count(status: Object, old: Object | None) -> Errors:
    """Only ever rises."""
    before = section(old or {}, "status").get("collisionCount")
    now = status.get("collisionCount")
    if before is not None and (now is None or now < before):
        yield FieldError.invalid("status.collisionCount", now, "cannot be decremented")


def count(*path: str) -> Any:
    """The number at a path, 0 when absent."""
    return lambda obj: number(section(obj, *path[:-1]), path[-1])


def ready_of(wanted: str = "replicas") -> Any:
    return lambda obj: f"{number(section(obj, 'status'), 'readyReplicas')}/{number(section(obj, 'spec'), wanted)}"


DESIRED: Final[Column] = integer_column("Desired", "Pods there should be.", count("spec", "replicas"))
CURRENT: Final[Column] = integer_column("Current", "Pods there are.", count("status", "replicas"))
READY: Final[Column] = integer_column("Ready", "Pods that are ready.", count("status", "readyReplicas"))


def pod_conditions(obj: Mapping[str, Any]) -> list[Object]:
    return entries(section(obj, "status"), "conditions")
