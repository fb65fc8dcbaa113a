"""What a workload may have kept for it: whether a reservation makes sense, and whether its class may ask for it.

Pure. A reservation is applied by the node after the start, where nobody is there any more to be told that it is wrong. So
what can be known before is refused when it is written: a list of CPUs that is none, a deadline before the time
that is needed until then. Realtime, CPUs and memory of one application are missing to the others: a limited class gets
what its AppType lists.

Sources: cpuset(7), sched(7).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fleetplane.model.quantity import Quantity
from fleetplane.operators.vehicles.limits import Profile, Violation

REALTIME: Final = ("SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE")
KEPT: Final = ("cpuSet", "affinity", "memoryMin", "memoryLow", "memoryBandwidthPercent")
_TIMES: Final = ("runtimeMicroseconds", "deadlineMicroseconds", "periodMicroseconds")
_MOST_CPUS: Final = 4096


def reservation_violations(profile: Profile, spec: Mapping[str, Any]) -> Iterator[Violation]:
    """Rule ``reservation``: it means nothing. Rule ``reservation-permission``: the class may not have it."""
    for key in ("cpuSet", "affinity"):
        if spec.get(key) and not cpus_of(str(spec[key])):
            yield Violation("reservation", f"spec.reservation.{key}", f"{spec[key]} is no list of CPUs such as 0-1,3")
    for key in ("memoryMin", "memoryLow"):
        if spec.get(key) and not _is_amount(str(spec[key])):
            yield Violation("reservation", f"spec.reservation.{key}", f"{spec[key]} is no amount such as 64Mi")
    yield from _time_violations(spec)
    if profile.limited and "*" not in profile.spec.reservations:
        asked = [key for key in KEPT if spec.get(key)]
        if spec.get("schedulingPolicy") in REALTIME:
            asked.append(str(spec["schedulingPolicy"]))
        for one in asked:
            if one not in profile.spec.reservations:
                field = f"spec.reservation.{one if one in KEPT else 'schedulingPolicy'}"
                text = f"applications of type {profile.name} may not have {one}; its AppType lists what in reservations"
                yield Violation("reservation-permission", field, text)


def _time_violations(spec: Mapping[str, Any]) -> Iterator[Violation]:
    where, policy = "spec.reservation", str(spec.get("schedulingPolicy") or "")
    runtime, deadline, period = (int(spec.get(key) or 0) for key in _TIMES)
    if (runtime or deadline or period) and policy not in REALTIME:
        yield Violation("reservation", where, "has times and no realtime schedulingPolicy that would keep them")
    elif policy == "SCHED_DEADLINE" and not (runtime and (deadline or period)):
        yield Violation("reservation", where, "SCHED_DEADLINE needs runtimeMicroseconds and a deadline or period")
    elif (deadline or period) and not runtime:
        yield Violation("reservation", where, "a deadline or period needs runtimeMicroseconds too")
    elif runtime and not (deadline or period):
        yield Violation("reservation", where, "runtimeMicroseconds needs a deadline or period too")
    elif runtime > (deadline or period):
        text = f"needs {runtime} microseconds of the {deadline or period} it has"
        yield Violation("reservation", f"{where}.runtimeMicroseconds", text)
    elif period and deadline > period:
        yield Violation("reservation", f"{where}.deadlineMicroseconds", "comes after the next period has begun")


def cpus_of(text: str) -> frozenset[int]:
    """``0-1,3`` as cpuset(7) writes it; empty for what is no such list."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first) > 4 or len(last) > 4:
            return frozenset()
        low, high = int(first), int(last or first)
        if not low <= high < _MOST_CPUS:
            return frozenset()
        found.update(range(low, high + 1))
    return frozenset(found)


def _is_amount(text: str) -> bool:
    try:
        return Quantity.parse(text).value() >= 0
    except ValueError:
        return False
