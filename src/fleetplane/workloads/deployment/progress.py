"""What a Deployment says about itself: counts, Available, Progressing, ReplicaFailure. Pure.

``kubectl rollout status`` and ``kubectl wait`` read these words, so they are Kubernetes' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.objects import Object, generation, name
from fleetplane.workloads.deployment.sets import fenceposts, replicas, status_count
from fleetplane.workloads.shared import conditions

_NO_DEADLINE: Final = (1 << 31) - 1
_COUNTS: Final = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")

NEW_AVAILABLE: Final = "NewReplicaSetAvailable"
TIMED_OUT: Final = "ProgressDeadlineExceeded"


def deadline(deployment: Mapping[str, Any]) -> int | None:
    """Seconds the Deployment may take to make progress; None when it may take forever."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds is None or int(seconds) >= _NO_DEADLINE else int(seconds)


def progressing(status: str, reason: str, message: str, now: datetime) -> Object:
    return conditions.make("Progressing", status, reason, message, timestamp(now), update_time=True)


def counts(deployment: Mapping[str, Any], new: Object | None, sets: Sequence[Object], now: datetime) -> Object:
    """The status as the sets tell it, with the conditions that only depend on counts."""
    old = deployment.get("status") or {}
    existing = sum(map(replicas, sets))
    available = sum(status_count(one, "availableReplicas") for one in sets)
    found: Object = {
        "observedGeneration": generation(deployment),
        "replicas": sum(status_count(one, "replicas") for one in sets),
        "updatedReplicas": status_count(new, "replicas") if new is not None else 0,
        "readyReplicas": sum(status_count(one, "readyReplicas") for one in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, existing - available),
    }
    status = {key: value for key, value in found.items() if value}
    if old.get("collisionCount"):
        status["collisionCount"] = old["collisionCount"]
    minimum = replicas(deployment) - fenceposts(deployment)[1]
    if available >= minimum:
        verdict = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        verdict = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    made = conditions.make("Available", *verdict, timestamp(now), update_time=True)
    status["conditions"] = conditions.with_condition(old.get("conditions"), made)
    return status


def is_complete(deployment: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """All replicas are of the new template and available, and nothing old is left."""
    total = replicas(deployment)
    return all(
        int(status.get(field) or 0) == total for field in ("updatedReplicas", "replicas", "availableReplicas")
    ) and int(status.get("observedGeneration") or 0) >= generation(deployment)


def _has_progressed(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    was = {field: int(old.get(field) or 0) for field in _COUNTS}
    now = {field: int(new.get(field) or 0) for field in _COUNTS}
    return (
        now["updatedReplicas"] > was["updatedReplicas"]
        or now["replicas"] - now["updatedReplicas"] < was["replicas"] - was["updatedReplicas"]
        or now["readyReplicas"] > was["readyReplicas"]
        or now["availableReplicas"] > was["availableReplicas"]
    )


def _has_timed_out(deployment: Mapping[str, Any], current: Mapping[str, Any] | None, now: datetime) -> bool:
    limit = deadline(deployment)
    if limit is None or current is None or current.get("reason") == NEW_AVAILABLE:
        return False
    if current.get("reason") == TIMED_OUT:
        return True
    since = current.get("lastUpdateTime") or current.get("lastTransitionTime")
    return bool(since) and parse_timestamp(str(since)) + timedelta(seconds=limit) < now


def rollout_status(deployment: Mapping[str, Any], new: Object | None, sets: Sequence[Object], now: datetime) -> Object:
    """``counts``, and how the roll-out is getting on."""
    status = counts(deployment, new, sets, now)
    old = deployment.get("status") or {}
    current = conditions.find(status["conditions"], "Progressing")
    if deadline(deployment) is None:
        status["conditions"] = conditions.without(status["conditions"], "Progressing")
    elif not _is_settled(status, current):
        status["conditions"] = _with_progress(deployment, new, status, old, current, now)
    return _with_failures(status, new, sets)


def _is_settled(status: Mapping[str, Any], current: Mapping[str, Any] | None) -> bool:
    """A finished roll-out stays finished: pods that come and go later are no new progress."""
    return (
        status.get("replicas", 0) == status.get("updatedReplicas", 0)
        and current is not None
        and current.get("reason") == NEW_AVAILABLE
    )


def _with_progress(
    deployment: Mapping[str, Any],
    new: Object | None,
    status: Object,
    old: Mapping[str, Any],
    current: Mapping[str, Any] | None,
    now: datetime,
) -> list[Object]:
    subject = f'ReplicaSet "{name(new)}"' if new is not None else f'Deployment "{name(deployment)}"'
    found: list[Object] = status["conditions"]
    if is_complete(deployment, status):
        made = progressing("True", NEW_AVAILABLE, f"{subject} has successfully progressed.", now)
        return conditions.with_condition(found, made)
    if _has_progressed(old, status):
        made = progressing("True", "ReplicaSetUpdated", f"{subject} is progressing.", now)
        if current is not None and current.get("status") == "True" and current.get("lastTransitionTime"):
            made["lastTransitionTime"] = current["lastTransitionTime"]
        return [*conditions.without(found, "Progressing"), made]
    if _has_timed_out(deployment, current, now):
        made = progressing("False", TIMED_OUT, f"{subject} has timed out progressing.", now)
        return conditions.with_condition(found, made)
    return found


def _with_failures(status: Object, new: Object | None, sets: Sequence[Object]) -> Object:
    """The new set's failure is the Deployment's; for want of one, any old set's."""
    ordered = [*([new] if new is not None else []), *sets]
    failures = (conditions.find((one.get("status") or {}).get("conditions"), "ReplicaFailure") for one in ordered)
    failure = next((one for one in failures if one is not None), None)
    if failure is None:
        status["conditions"] = conditions.without(status["conditions"], "ReplicaFailure")
        return status
    made = {
        "type": "ReplicaFailure",
        "status": failure.get("status"),
        "lastUpdateTime": failure.get("lastTransitionTime"),
        "lastTransitionTime": failure.get("lastTransitionTime"),
        "reason": failure.get("reason"),
        "message": failure.get("message"),
    }
    status["conditions"] = conditions.with_condition(status["conditions"], made)
    return status


def recheck_after(deployment: Mapping[str, Any], status: Mapping[str, Any], now: datetime) -> float | None:
    """Seconds until the deadline is to be looked at again; None when no deadline runs."""
    limit = deadline(deployment)
    current = conditions.find(status.get("conditions"), "Progressing")
    if limit is None or current is None or current.get("reason") in {NEW_AVAILABLE, TIMED_OUT}:
        return None
    if is_complete(deployment, status) or deployment["spec"].get("paused"):
        return None
    since = current.get("lastUpdateTime") or current.get("lastTransitionTime")
    if not since:
        return None
    return max((parse_timestamp(str(since)) - now).total_seconds() + limit, 0.0) + 1.0
