"""What a pod tells: is it alive, ready, available, and which of several goes first when there are too many.

Rules and their order are those of kube-controller-manager (KEP-2255 for the deletion cost, KEP-2185 for the
logarithmic comparison of ages). Readers never change the pod.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object, condition, is_deleting, metadata, uid
from fleetplane.model.objects import annotations as annotations_of

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER: Final = {"Pending": 0, "Unknown": 1, "Running": 2}
_INT32_MAX: Final = (1 << 31) - 1


def phase(pod: Mapping[str, Any]) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def node_name(pod: Mapping[str, Any]) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


def is_terminal(pod: Mapping[str, Any]) -> bool:
    """It has run to its end, well or badly."""
    return phase(pod) in {"Succeeded", "Failed"}


def is_active(pod: Mapping[str, Any]) -> bool:
    """It counts against the wanted number: not at its end and not being deleted."""
    return not is_deleting(pod) and not is_terminal(pod)


def is_ready(pod: Mapping[str, Any]) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def ready_since(pod: Mapping[str, Any]) -> datetime | None:
    """When it became ready; None when it is not, or does not say."""
    ready = condition(pod, "Ready")
    if ready is None or ready.get("status") != "True" or not ready.get("lastTransitionTime"):
        return None
    return parse_timestamp(ready["lastTransitionTime"])


def available_at(pod: Mapping[str, Any], min_ready_seconds: int) -> datetime | None:
    """The moment from which a ready pod counts as available; None while it is not ready."""
    since = ready_since(pod)
    return None if since is None else since + timedelta(seconds=min_ready_seconds)


def is_available(pod: Mapping[str, Any], min_ready_seconds: int, now: datetime) -> bool:
    """Ready for at least ``min_ready_seconds``."""
    if not is_ready(pod):
        return False
    if min_ready_seconds == 0:
        return True
    at = available_at(pod, min_ready_seconds)
    return at is not None and at <= now


def next_available(pods: Iterable[Mapping[str, Any]], min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the next ready pod becomes available; None when there is nothing to wait for."""
    if min_ready_seconds == 0:
        return None
    moments = [at for pod in pods if (at := available_at(pod, min_ready_seconds)) is not None and at > now]
    return (min(moments) - now).total_seconds() if moments else None


def restarts(pod: Mapping[str, Any]) -> int:
    status = pod.get("status") or {}
    statuses = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return max((int(one.get("restartCount") or 0) for one in statuses), default=0)


def deletion_cost(pod: Mapping[str, Any]) -> int:
    """What its annotation says it costs to delete it; 0 when absent or unreadable."""
    text = annotations_of(pod).get(DELETION_COST, "")
    try:
        return int(text)
    except ValueError:
        return 0


def _age_bucket(moment: datetime | None, now: datetime) -> int:
    """log2 of the age in whole seconds, so that pods of nearly one age compare equal; -1 when unknown."""
    if moment is None:
        return -1
    age = int((now - moment).total_seconds())
    return int(math.log2(age)) if age > 0 else 0


def creation_time(obj: Mapping[str, Any]) -> datetime | None:
    text = metadata(obj).get("creationTimestamp")
    return parse_timestamp(text) if text else None


def deletion_rank(pod: Mapping[str, Any], related_on_node: int, now: datetime) -> tuple[Any, ...]:
    """A sort key: the pod with the smallest goes first.

    ``related_on_node`` is how many pods of the same owner (or of its sibling ReplicaSets) run on this pod's node.
    """
    ready = is_ready(pod)
    return (
        bool(node_name(pod)),
        _PHASE_ORDER.get(phase(pod), 0),
        ready,
        deletion_cost(pod),
        -related_on_node,
        _age_bucket(ready_since(pod), now) if ready else 0,
        -restarts(pod),
        _age_bucket(creation_time(pod), now),
        uid(pod),
    )


def choose_for_deletion(
    pods: Sequence[Mapping[str, Any]], count: int, related: Iterable[Mapping[str, Any]], now: datetime
) -> list[Mapping[str, Any]]:
    """The ``count`` pods that go first; ``related`` are all active pods whose doubling up on a node should end."""
    if count <= 0:
        return []
    if count >= len(pods):
        return list(pods)
    per_node: dict[str, int] = {}
    for pod in related:
        if node := node_name(pod):
            per_node[node] = per_node.get(node, 0) + 1
    return sorted(pods, key=lambda pod: deletion_rank(pod, per_node.get(node_name(pod), 0), now))[:count]


def from_template(template: Mapping[str, Any], name: str, namespace: str, owner: Object) -> Object:
    """A pod as the template describes it, controlled by ``owner`` (an ownerReference)."""
    meta = template.get("metadata") or {}
    made: Object = {"name": name, "namespace": namespace, "ownerReferences": [owner]}
    for part in ("labels", "annotations"):
        if meta.get(part):
            made[part] = dict(meta[part])
    if meta.get("finalizers"):
        made["finalizers"] = list(meta["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": dict(template.get("spec") or {})}


def name_prefix(owner_name: str) -> str:
    """What stands before the random part of a pod's name; cut so that the whole stays a valid name."""
    return owner_name[:243].rstrip("-.") + "-" if len(owner_name) > 243 else owner_name + "-"
