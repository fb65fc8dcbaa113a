"""Can every realtime workload of a node keep its deadlines? Tests from the literature, pure, asked before a pod is placed.

A workload says how long it runs in each period and by when (``runtimeMicroseconds``, ``deadlineMicroseconds``,
``periodMicroseconds`` of its reservation; worst cases, for all of its processes together). With SCHED_FIFO and SCHED_RR the
higher priority comes first; with SCHED_DEADLINE the earlier deadline, and before every priority, as Linux does it. Equal
priorities count as higher: who of them is first is left to chance.

Alone on one CPU the answer is exact: response times for priorities, processor demand for deadlines. On several CPUs,
or where the sets of CPUs only overlap, it is a sufficient test: it may refuse what would have worked, and never the other
way round. What is never counted: the time of interrupts and of the kernel, caches, switches, waiting for locks. Who
measures runtimes adds these. A realtime workload that does not say how long it runs is not tested itself; where it comes before
one that does, no promise to that one can be kept, and they are kept apart.

Sources: Joseph and Pandya 1986, Audsley et al. 1993 (response times); Baruah, Rosier and Howell 1990 (processor demand),
Zhang and Burns 2009 (at which moments); Bertogna, Cirinei and Lipari 2005 and 2009 (global tests, workload in a window);
sched(7) (the share left to others).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from fleetplane.operators.vehicles.reservations import REALTIME, cpus_of

DEADLINE: Final = "SCHED_DEADLINE"
SHARE: Final = 95
"""Percent of each CPU that realtime may take; the kernel keeps the rest for others (``sched_rt_runtime_us``)."""
_MOST_STEPS: Final = 2_000
_ABOVE_ALL: Final = 100


class Task(NamedTuple):
    """Times in microseconds; ``runtime`` is 0 where it is not said. ``cpus`` is empty where any may be used."""

    name: str
    priority: int
    runtime: int
    deadline: int
    period: int
    cpus: frozenset[int] = frozenset()

    @property
    def by_deadline(self) -> bool:
        return self.priority == _ABOVE_ALL


@lru_cache(4096)
def task_of(name: str, reservation: str) -> Task | None:
    """The task a reservation (JSON, as on a pod) stands for; ``None`` where it is not realtime or cannot be read."""
    try:
        found: Any = orjson.loads(reservation)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, Mapping) or found.get("schedulingPolicy") not in REALTIME:
        return None
    try:
        runtime, deadline, period = (
            int(found.get(f"{key}Microseconds") or 0) for key in ("runtime", "deadline", "period")
        )
        own = _ABOVE_ALL if found["schedulingPolicy"] == DEADLINE else int(found.get("schedulingPriority") or 1)
    except (TypeError, ValueError):
        return None
    cpus = cpus_of(str(found.get("affinity") or found.get("cpuSet") or ""))
    period = period or deadline
    return Task(name, own, runtime if period > 0 else 0, min(deadline or period, period), period, cpus)


def missed(new: Task, there: Sequence[Task], cpu_count: int) -> str:
    """Why a deadline could be missed if ``new`` came to a node with these tasks; empty where all are kept.

    Args:
        new: What should come.
        there: The realtime tasks of the node.
        cpu_count: How many CPUs the node has; tasks without a set of their own use all.
    """
    every = frozenset(range(max(1, cpu_count)))
    tasks = [one._replace(cpus=one.cpus or every) for one in (*there, new)]
    own = tasks[-1]
    touched = [one for one in tasks if one.cpus & own.cpus]
    for cpus in {one.cpus: None for one in touched}:
        if why := _overloaded(tasks, cpus):
            return why
    for one in touched:
        if not one.runtime:
            continue
        others = [other for other in tasks if other is not one and other.cpus & one.cpus and _comes_before(other, one)]
        unknown = next((other for other in others if not other.runtime), None)
        if unknown is not None and own in (one, unknown):
            return f"nobody says how long {unknown.name} runs, which comes before {one.name}"
        known = [other for other in others if other.runtime]
        if not _is_kept(one, known):
            return f"{one.name} could miss its deadline of {one.deadline} microseconds"
    return ""


def _comes_before(other: Task, one: Task) -> bool:
    """Whether ``other`` can keep ``one`` waiting. Between deadlines either can."""
    return other.priority >= one.priority


def _overloaded(tasks: Iterable[Task], cpus: frozenset[int]) -> str:
    """Work that fits nowhere else than on these CPUs must not be more than they may give."""
    inside = [one for one in tasks if one.runtime and one.cpus <= cpus]
    share = sum(100 * one.runtime / one.period for one in inside)
    if share > SHARE * len(cpus) + 1e-9:
        return f"realtime would take {share / len(cpus):.0f} percent of its CPUs, and may take {SHARE}"
    return ""


def _is_kept(one: Task, before: Sequence[Task]) -> bool:
    alone = len(one.cpus) == 1 and all(other.cpus == one.cpus for other in before)
    if one.by_deadline:
        if alone:
            return _demand_is_met([one, *before])
        return _global_deadline(one, before)
    if alone and not any(other.by_deadline for other in before):
        return _response(one, before, len(one.cpus), _released) <= one.deadline
    return _response(one, before, len(one.cpus), _carried) <= one.deadline


# -- by priority


def _released(other: Task, window: int) -> int:
    """Most work in a window that begins when all are released: the critical instant of one CPU."""
    return -(-window // other.period) * other.runtime


def _carried(other: Task, window: int) -> int:
    """Most work in any window, what was begun before it included; the other keeps its own deadline."""
    length = window + other.deadline - other.runtime
    whole = length // other.period
    return whole * other.runtime + min(other.runtime, length - whole * other.period)


def _response(one: Task, before: Sequence[Task], cpus: int, work: Callable[[Task, int], int]) -> int:
    """The longest it takes to be done; beyond its deadline the search ends."""
    length = one.runtime
    for _ in range(_MOST_STEPS):
        room = length - one.runtime + 1
        delay = sum(work(other, length) if cpus == 1 else min(work(other, length), room) for other in before)
        longer = one.runtime + delay // cpus
        if longer > one.deadline or longer <= length:
            return longer
        length = longer
    return one.deadline + 1


# -- by deadline


def _demand_is_met(tasks: Sequence[Task]) -> bool:
    """Whether one CPU has the time for all that must be done by any moment (at most 100 percent are asked for)."""
    use = sum(one.runtime / one.period for one in tasks)
    if use > 1:
        return False
    if all(one.deadline == one.period for one in tasks):
        return True
    if (moment := _busy(tasks)) is None:
        return False
    first = min(one.deadline for one in tasks)
    moment = _deadline_before(tasks, moment + 1)
    for _ in range(_MOST_STEPS):
        demand = sum(_demand(one, moment) for one in tasks)
        if demand > moment or demand <= first:
            return demand <= first
        moment = demand if demand < moment else _deadline_before(tasks, moment)
    return False


def _demand(one: Task, moment: int) -> int:
    return max(0, (moment - one.deadline) // one.period + 1) * one.runtime


def _busy(tasks: Sequence[Task]) -> int | None:
    """How long the CPU is busy when all begin at once: no later moment is worse. ``None``: too long to look."""
    length = sum(one.runtime for one in tasks)
    for _ in range(_MOST_STEPS):
        longer = sum(-(-length // one.period) * one.runtime for one in tasks)
        if longer == length:
            return length
        length = longer
    return None


def _deadline_before(tasks: Sequence[Task], moment: int) -> int:
    """The last deadline before a moment; the first one of all where there is none."""
    found = [one.deadline + (moment - 1 - one.deadline) // one.period * one.period for one in tasks]
    return max([*(at for at in found if at > 0), min(one.deadline for one in tasks)])


def _global_deadline(one: Task, before: Sequence[Task]) -> bool:
    """Whether all others together cannot keep every CPU of it busy for longer than it can wait."""
    cpus, wait = len(one.cpus), one.deadline - one.runtime + 1
    busy = 0
    for other in before:
        jobs = max(0, (one.deadline - other.deadline) // other.period + 1)
        rest = min(other.runtime, max(0, one.deadline - jobs * other.period))
        busy += min(jobs * other.runtime + rest, wait)
    return busy < cpus * wait


__all__ = ["SHARE", "Task", "missed", "task_of"]
