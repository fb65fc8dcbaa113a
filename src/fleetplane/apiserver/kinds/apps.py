"""The apps group: Deployments, ReplicaSets, StatefulSets, DaemonSets and the revisions they keep."""

from __future__ import annotations

from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, fill, made, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    Errors,
    at_most_hundred_percent,
    collected,
    not_negative,
    percent_of,
    percent_or_count,
    spec_of,
    status_of,
    unchanged,
)
from fleetplane.apiserver.kinds.columns import (
    NONE,
    integer_column,
    labels_text,
    selector_column,
    template_columns,
    text_column,
)
from fleetplane.apiserver.kinds.pod_defaults import default_template
from fleetplane.apiserver.kinds.volume_rules import claim_spec
from fleetplane.apiserver.kinds.workload_rules import (
    CURRENT,
    DESIRED,
    READY,
    always_restarting,
    collision_count,
    count,
    ready_of,
    replica_counts,
    selector_and_template,
)
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object, controller_of
from fleetplane.model.table import AGE, NAME

_HISTORY: Final = 10


def _default_workload(obj: Object) -> Object:
    """Fill in the template; returns the specification."""
    spec = made(obj, "spec")
    if isinstance(spec.get("template"), dict):
        default_template(spec["template"])
    return spec


def _selector_is_kept(new: Object, old: Object | None) -> Errors:
    if old is not None:
        yield from unchanged(spec_of(new).get("selector"), spec_of(old).get("selector"), "spec.selector")


def _is_zero(value: Any) -> bool:
    return value == 0 or percent_of(value) == 0


# Deployments


def _default_deployment(deployment: Object) -> None:
    spec = _default_workload(deployment)
    fill(spec, replicas=1, revisionHistoryLimit=_HISTORY, progressDeadlineSeconds=600)
    strategy = made(spec, "strategy")
    fill(strategy, type="RollingUpdate")
    if strategy.get("type") == "RollingUpdate":
        fill(made(strategy, "rollingUpdate"), maxUnavailable="25%", maxSurge="25%")


def _validate_deployment(deployment: Object, old: Object | None) -> Errors:
    spec = spec_of(deployment)
    yield from not_negative(spec.get("replicas"), "spec.replicas")
    yield from selector_and_template(spec)
    yield from always_restarting(spec, "ReplicaSet")
    yield from _deployment_strategy(spec.get("strategy") or {}, "spec.strategy")
    for key in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        yield from not_negative(spec.get(key), f"spec.{key}")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        yield FieldError.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")
    yield from _selector_is_kept(deployment, old)


def _deployment_strategy(strategy: Object, path: str) -> Errors:
    kind, rolling = text(strategy, "type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            yield FieldError.forbidden(f"{path}.rollingUpdate", detail)
    elif kind == "RollingUpdate":
        yield from rolling_update(rolling or {}, f"{path}.rollingUpdate")
    else:
        yield FieldError.not_supported(path, kind, ["Recreate", "RollingUpdate"])


def rolling_update(rolling: Object, path: str) -> Errors:
    """How many pods may be missing and how many too many, not both none."""
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    yield from percent_or_count(unavailable, f"{path}.maxUnavailable")
    yield from percent_or_count(surge, f"{path}.maxSurge")
    if _is_zero(unavailable) and _is_zero(surge):
        yield FieldError.invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")
    yield from at_most_hundred_percent(unavailable, f"{path}.maxUnavailable")


def _validate_deployment_status(deployment: Object, old: Object | None) -> Errors:
    status = status_of(deployment)
    keys = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
    yield from replica_counts(status, keys)
    yield from collision_count(status, old)


DEPLOYMENTS: Final = KindBehaviour(
    default=_default_deployment,
    validate=collected(_validate_deployment),
    validate_status=collected(_validate_deployment_status),
    columns=(
        NAME,
        text_column("Ready", "Pods that are ready, of those wanted.", ready_of()),
        text_column("Up-to-date", "Pods of the newest template.", count("status", "updatedReplicas")),
        text_column("Available", "Pods that can be used.", count("status", "availableReplicas")),
        AGE,
        *template_columns("spec", "template"),
        selector_column("spec", "selector"),
    ),
)

# ReplicaSets


def _default_replica_set(replica_set: Object) -> None:
    fill(_default_workload(replica_set), replicas=1)


def _validate_replica_set(replica_set: Object, old: Object | None) -> Errors:
    spec = spec_of(replica_set)
    yield from not_negative(spec.get("replicas"), "spec.replicas")
    yield from not_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
    yield from selector_and_template(spec)
    yield from always_restarting(spec, "ReplicaSet")
    yield from _selector_is_kept(replica_set, old)


def _validate_replica_set_status(replica_set: Object, old: Object | None) -> Errors:
    keys = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
    yield from replica_counts(status_of(replica_set), keys)


REPLICA_SETS: Final = KindBehaviour(
    default=_default_replica_set,
    validate=collected(_validate_replica_set),
    validate_status=collected(_validate_replica_set_status),
    columns=(
        NAME,
        DESIRED,
        CURRENT,
        READY,
        AGE,
        *template_columns("spec", "template"),
        selector_column("spec", "selector"),
    ),
    fields={"status.replicas": lambda obj: str(count("status", "replicas")(obj))},
)

# StatefulSets

_STATEFUL_MUTABLE: Final = (
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "replicas",
    "revisionHistoryLimit",
    "template",
    "updateStrategy",
)


def _default_stateful_set(stateful_set: Object) -> None:
    spec = _default_workload(stateful_set)
    fill(spec, podManagementPolicy="OrderedReady", replicas=1, revisionHistoryLimit=_HISTORY)
    strategy = made(spec, "updateStrategy")
    if strategy.get("type") is None:
        strategy["type"] = "RollingUpdate"
    if strategy.get("type") == "RollingUpdate":
        fill(made(strategy, "rollingUpdate"), partition=0)
    fill(made(spec, "persistentVolumeClaimRetentionPolicy"), whenDeleted="Retain", whenScaled="Retain")
    for claim in entries(spec, "volumeClaimTemplates"):
        fill(claim, apiVersion="v1", kind="PersistentVolumeClaim")
        fill(made(claim, "spec"), volumeMode="Filesystem")
        fill(made(claim, "status"), phase="Pending")


def _validate_stateful_set(stateful_set: Object, old: Object | None) -> Errors:
    spec = spec_of(stateful_set)
    policy = text(spec, "podManagementPolicy")
    if policy not in ("OrderedReady", "Parallel"):
        detail = "must be 'OrderedReady' or 'Parallel'"
        yield FieldError.invalid("spec.podManagementPolicy", policy, detail)
    yield from _stateful_strategy(spec.get("updateStrategy") or {}, "spec.updateStrategy")
    for key in ("whenDeleted", "whenScaled"):
        found = section(spec, "persistentVolumeClaimRetentionPolicy").get(key)
        if found not in ("Delete", "Retain"):
            path = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
            yield FieldError.not_supported(path, found, ["Delete", "Retain"])
    for key in ("replicas", "minReadySeconds", "revisionHistoryLimit"):
        yield from not_negative(spec.get(key), f"spec.{key}")
    yield from not_negative(section(spec, "ordinals").get("start"), "spec.ordinals.start")
    yield from selector_and_template(_with_claimed_volumes(spec))
    yield from always_restarting(spec, "StatefulSet")
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        yield from claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{index}].spec")
    if old is not None:
        before = spec_of(old)
        changed = [key for key in spec.keys() | before.keys() if spec.get(key) != before.get(key)]
        if set(changed) - set(_STATEFUL_MUTABLE):
            detail = (
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
                "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
                "'minReadySeconds' are forbidden"
            )
            yield FieldError.forbidden("spec", detail)


def _with_claimed_volumes(spec: Object) -> Object:
    """The spec with the volumes that each pod gets from the claim templates, which its containers may mount."""
    template = section(spec, "template")
    pod = section(template, "spec")
    listed = [*(pod.get("volumes") or ())]
    known = {volume.get("name") for volume in listed}
    for claim in spec.get("volumeClaimTemplates") or ():
        name = section(claim, "metadata").get("name")
        if name not in known:
            listed.append({"name": name, "persistentVolumeClaim": {"claimName": name}})
    return {**spec, "template": {**template, "spec": {**pod, "volumes": listed}}}


def _stateful_strategy(strategy: Object, path: str) -> Errors:
    kind, rolling = text(strategy, "type"), strategy.get("rollingUpdate")
    if kind == "OnDelete":
        if rolling is not None:
            detail = "only allowed for updateStrategy 'RollingUpdate'"
            yield FieldError.invalid(f"{path}.rollingUpdate", rolling, detail)
    elif kind == "RollingUpdate":
        yield from not_negative((rolling or {}).get("partition"), f"{path}.rollingUpdate.partition")
        unavailable = (rolling or {}).get("maxUnavailable")
        if unavailable is not None:
            yield from percent_or_count(unavailable, f"{path}.rollingUpdate.maxUnavailable")
            yield from at_most_hundred_percent(unavailable, f"{path}.rollingUpdate.maxUnavailable")
            if _is_zero(unavailable):
                yield FieldError.invalid(f"{path}.rollingUpdate.maxUnavailable", unavailable, "cannot be 0")
    else:
        yield FieldError.invalid(path, kind, "must be 'RollingUpdate' or 'OnDelete'")


def _validate_stateful_status(stateful_set: Object, old: Object | None) -> Errors:
    status = status_of(stateful_set)
    keys = ("replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
    yield from replica_counts(status, keys)
    yield from collision_count(status, old)


STATEFUL_SETS: Final = KindBehaviour(
    default=_default_stateful_set,
    validate=collected(_validate_stateful_set),
    validate_status=collected(_validate_stateful_status),
    columns=(
        NAME,
        text_column("Ready", "Pods that are ready, of those wanted.", ready_of()),
        AGE,
        *template_columns("spec", "template"),
    ),
)

# DaemonSets

_TEMPLATE_GENERATION: Final = "deprecated.daemonset.template.generation"


def _default_daemon_set(daemon_set: Object) -> None:
    spec = _default_workload(daemon_set)
    fill(spec, revisionHistoryLimit=_HISTORY)
    strategy = made(spec, "updateStrategy")
    fill(strategy, type="RollingUpdate")
    if strategy.get("type") == "RollingUpdate":
        fill(made(strategy, "rollingUpdate"), maxUnavailable=1, maxSurge=0)


def _count_template(daemon_set: Object) -> None:
    made(daemon_set, "metadata", "annotations")[_TEMPLATE_GENERATION] = "1"


def _recount_template(daemon_set: Object, old: Object) -> None:
    """The annotation that older clients know the template's generation by."""
    before = text(section(old, "metadata", "annotations"), _TEMPLATE_GENERATION) or "1"
    changed = section(daemon_set, "spec").get("template") != section(old, "spec").get("template")
    count = int(before) + 1 if changed and before.isdigit() else before
    made(daemon_set, "metadata", "annotations")[_TEMPLATE_GENERATION] = str(count)


def _validate_daemon_set(daemon_set: Object, old: Object | None) -> Errors:
    spec = spec_of(daemon_set)
    yield from selector_and_template(spec, owner="daemonset")
    yield from always_restarting(spec, "DaemonSet")
    for key in ("minReadySeconds", "revisionHistoryLimit"):
        yield from not_negative(spec.get(key), f"spec.{key}")
    strategy = spec.get("updateStrategy") or {}
    kind, path = text(strategy, "type"), "spec.updateStrategy"
    if kind == "RollingUpdate":
        yield from _daemon_rolling_update(strategy.get("rollingUpdate") or {}, f"{path}.rollingUpdate")
    elif kind != "OnDelete":
        yield FieldError.not_supported(path, kind, ["OnDelete", "RollingUpdate"])
    yield from _selector_is_kept(daemon_set, old)


def _daemon_rolling_update(rolling: Object, path: str) -> Errors:
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    for key, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        yield from percent_or_count(value, f"{path}.{key}")
        yield from at_most_hundred_percent(value, f"{path}.{key}")
    if not _is_zero(unavailable) and not _is_zero(surge):
        yield FieldError.invalid(f"{path}.maxSurge", surge, "may not be set when maxUnavailable is non-zero")
    elif _is_zero(unavailable) and _is_zero(surge):
        yield FieldError.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0")


def _validate_daemon_status(daemon_set: Object, old: Object | None) -> Errors:
    status = status_of(daemon_set)
    for key in (
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ):
        yield from not_negative(status.get(key), f"status.{key}")
    yield from collision_count(status, old)


DAEMON_SETS: Final = KindBehaviour(
    default=_default_daemon_set,
    prepare_create=_count_template,
    prepare_update=_recount_template,
    validate=collected(_validate_daemon_set),
    validate_status=collected(_validate_daemon_status),
    columns=(
        NAME,
        integer_column("Desired", "Nodes that should run a pod.", count("status", "desiredNumberScheduled")),
        integer_column("Current", "Nodes that run a pod.", count("status", "currentNumberScheduled")),
        integer_column("Ready", "Nodes whose pod is ready.", count("status", "numberReady")),
        integer_column(
            "Up-to-date", "Nodes with a pod of the newest template.", count("status", "updatedNumberScheduled")
        ),
        integer_column("Available", "Nodes whose pod can be used.", count("status", "numberAvailable")),
        text_column(
            "Node Selector",
            "Labels of the nodes it is for.",
            lambda obj: labels_text(section(obj, "spec", "template", "spec").get("nodeSelector")),
        ),
        AGE,
        *template_columns("spec", "template"),
        selector_column("spec", "selector"),
    ),
)

# ControllerRevisions


def _validate_revision(revision: Object, old: Object | None) -> Errors:
    if revision.get("data") is None:
        yield FieldError.required("data", "data is mandatory")
    yield from not_negative(revision.get("revision"), "revision")
    if old is not None:
        yield from unchanged(revision.get("data"), old.get("data"), "data")


def _controller(revision: Any) -> str:
    owner = controller_of(revision)
    if owner is None:
        return NONE
    group = owner.api_version.rpartition("/")[0]
    kind = owner.kind.lower()
    return f"{kind}.{group}/{owner.name}" if group else f"{kind}/{owner.name}"


CONTROLLER_REVISIONS: Final = KindBehaviour(
    validate=collected(_validate_revision),
    columns=(
        NAME,
        text_column("Controller", "Whose revision it is.", _controller),
        text_column("Revision", "Its number.", count("revision")),
        AGE,
    ),
    has_generation=False,
)
