"""Status conditions as the built-in workload kinds keep them.

A condition is written only when its status or reason changes; its ``lastTransitionTime`` moves only with its status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetplane.model.objects import Object


def make(type: str, status: str, reason: str, message: str, now: str, *, update_time: bool = False) -> Object:
    """``now`` is a ``metav1.Time``; ``update_time`` adds ``lastUpdateTime``, which Deployments have."""
    made = {"type": type, "status": status}
    if update_time:
        made["lastUpdateTime"] = now
    return {**made, "lastTransitionTime": now, "reason": reason, "message": message}


def find(conditions: Sequence[Mapping[str, Any]] | None, type: str) -> Mapping[str, Any] | None:
    return next((one for one in conditions or () if one.get("type") == type), None)


def without(conditions: Sequence[Object] | None, type: str) -> list[Object]:
    return [one for one in conditions or () if one.get("type") != type]


def with_condition(conditions: Sequence[Object] | None, new: Object) -> list[Object]:
    """The same list with ``new`` in it; unchanged when its status and reason stand there already."""
    current = find(conditions, new["type"])
    if current is not None:
        if current.get("status") == new["status"] and current.get("reason") == new["reason"]:
            return list(conditions or ())
        if current.get("status") == new["status"] and current.get("lastTransitionTime"):
            new = {**new, "lastTransitionTime": current["lastTransitionTime"]}
    return [*without(conditions, new["type"]), new]
