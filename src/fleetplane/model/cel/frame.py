"""The state of one evaluation, and its meter.

A frame is a plain list, because every look-up of a variable and every charge goes through it: five places for the
meter, then the values of variables. Costs that are certain are added up when an expression is compiled and charged once
per branch; only what depends on data is charged as it happens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from fleetplane.model.cel.errors import CelCostExceeded

Frame: TypeAlias = list[Any]
Step: TypeAlias = Callable[[Frame], Any]

COST: Final = 0
SOFT: Final = 1
"""Where to look up next: the limit, or earlier when someone may interrupt."""
HARD: Final = 2
INTERRUPTED: Final = 3
WORK: Final = 4
"""A second meter for time and memory that Kubernetes' cost model does not see; same limit, but at least FREE_WORK."""
FIRST: Final = 5
"""The first variable's place."""

FREE_WORK: Final = 100_000
"""So much is always granted (a tenth of a second), or the end of a budget would refuse what Kubernetes accepts."""

CHUNK: Final = 2_000
"""Cost units between two looks at whether to stop."""


def new_frame(limit: int, interrupted: Callable[[], bool] | None) -> Frame:
    return [0, limit if interrupted is None else min(limit, CHUNK), limit, interrupted, 0]


def charge(frame: Frame, cost: int) -> None:
    total = frame[COST] = frame[COST] + cost
    if total > frame[SOFT]:
        over(frame)


def toil(frame: Frame, work: int) -> None:
    """Charge the private meter."""
    total = frame[WORK] = frame[WORK] + work
    if total > frame[HARD] and total > FREE_WORK:
        raise CelCostExceeded("operation cancelled: the expression takes too much time or memory")
    if frame[INTERRUPTED] is not None and work > CHUNK:
        over(frame)


def over(frame: Frame) -> None:
    """Called when the cost passed SOFT: stop, or go on to the next look."""
    if frame[COST] > frame[HARD]:
        raise CelCostExceeded("operation cancelled: actual cost limit exceeded")
    if frame[INTERRUPTED] is not None and frame[INTERRUPTED]():
        raise CelCostExceeded("operation interrupted: it took too long")
    frame[SOFT] = min(frame[HARD], frame[COST] + CHUNK)
