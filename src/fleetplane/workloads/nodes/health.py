"""What a node's silence and its conditions mean for it: which conditions and taints it should have. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from fleetplane.model.environment import timestamp
from fleetplane.model.objects import Object, condition

GRACE_SECONDS: Final = 50.0
"""A node that neither renewed its lease nor its status for so long is not known to be alive."""
STARTUP_GRACE_SECONDS: Final = 60.0

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
_PRESSURES: Final = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_REPORTED: Final = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
OURS: Final = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE, *_PRESSURES.values()})
"""Taints that say nothing but what conditions say: they come and go with them."""


class Silence(NamedTuple):
    """Conditions as they should be once nobody heard of the node for too long."""

    conditions: list[Object]
    became_unknown: bool


def silence(node: Mapping[str, Any], now: datetime) -> Silence:
    """Every condition the node reports becomes unknown; those it never reported are said never to have been."""
    found: list[Object] = [dict(one) for one in (node.get("status") or {}).get("conditions") or ()]
    became_unknown = False
    for kind in _REPORTED:
        current = next((one for one in found if one.get("type") == kind), None)
        if current is None:
            made = {
                "type": kind,
                "status": "Unknown",
                "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": (node.get("metadata") or {}).get("creationTimestamp"),
                "lastTransitionTime": timestamp(now),
            }
            found.append(made)
        elif current.get("status") != "Unknown":
            became_unknown = became_unknown or (kind == "Ready" and current.get("status") == "True")
            current |= {
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastTransitionTime": timestamp(now),
            }
    return Silence(found, became_unknown)


def readiness(node: Mapping[str, Any]) -> str:
    """``True``, ``False`` or ``Unknown``; a node that says nothing is not ready."""
    found = condition(node, "Ready")
    return str(found.get("status") or "Unknown") if found is not None else "Unknown"


def taints(node: Mapping[str, Any], now: datetime, *, evict: bool = True) -> list[Object]:
    """All taints the node should have: those of others as they are, ours as the conditions say.

    Without ``evict`` none of ours drives pods away. So it should be while not a single node of the cluster is ready:
    then more likely we are cut off than they, and pods that were moved would have nowhere to go.
    """
    spec = node.get("spec") or {}
    current: Sequence[Object] = spec.get("taints") or ()
    wanted = _wanted(node, bool(spec.get("unschedulable")))
    if not evict:
        wanted = [one for one in wanted if one[1] != "NoExecute"]
    kept = [one for one in current if one.get("key") not in OURS or (one["key"], one.get("effect")) in wanted]
    present = {(one.get("key"), one.get("effect")) for one in kept}
    for key, effect in wanted:
        if (key, effect) not in present:
            made = {"key": key, "effect": effect}
            if effect == "NoExecute" or key == UNSCHEDULABLE:
                made["timeAdded"] = timestamp(now)
            kept.append(made)
    return kept


def _wanted(node: Mapping[str, Any], unschedulable: bool) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    ready = readiness(node)
    if ready != "True":
        key = NOT_READY if ready == "False" or condition(node, "Ready") is None else UNREACHABLE
        found.append((key, "NoSchedule"))
        if condition(node, "Ready") is not None:
            found.append((key, "NoExecute"))
    for kind, key in _PRESSURES.items():
        one = condition(node, kind)
        if one is not None and one.get("status") == "True":
            found.append((key, "NoSchedule"))
    if unschedulable:
        found.append((UNSCHEDULABLE, "NoSchedule"))
    return found
