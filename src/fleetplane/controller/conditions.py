"""Conditions: what an object says about itself, one line per question (``metav1.Condition``).

Pure functions. A condition's ``lastTransitionTime`` moves only when its status does, so that setting what already holds
yields an equal list and status is not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from fleetplane.model.environment import timestamp
from fleetplane.model.objects import Object


class Condition(NamedTuple):
    """``reason`` is CamelCase and required; ``message`` is one sentence for people."""

    type: str
    status: bool | Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""

    @property
    def status_text(self) -> str:
        return str(self.status)


def with_conditions(
    existing: Sequence[Mapping[str, Any]] | None,
    conditions: Iterable[Condition],
    *,
    now: datetime,
    generation: int = 0,
) -> list[Object]:
    """The list with these conditions set; those of other types, and the order, stay as they are."""
    result: list[Object] = [dict(one) for one in existing or ()]
    for condition in conditions:
        index = next((i for i, one in enumerate(result) if one.get("type") == condition.type), None)
        old = result[index] if index is not None else {}
        new: Object = {
            "type": condition.type,
            "status": condition.status_text,
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": timestamp(now),
        }
        if old.get("status") == new["status"] and old.get("lastTransitionTime"):
            new["lastTransitionTime"] = old["lastTransitionTime"]
        if generation:
            new["observedGeneration"] = generation
        if index is None:
            result.append(new)
        else:
            result[index] = new
    return result


def without_conditions(existing: Sequence[Mapping[str, Any]] | None, *types: str) -> list[Object]:
    return [dict(one) for one in existing or () if one.get("type") not in types]
