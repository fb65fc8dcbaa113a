"""When a cluster sleeps, wakes and ends. Pure: times are seconds since the epoch.

It falls asleep when it runs and nobody has used it for as long as it says. It wakes when somebody uses it after that. Of
logical clusters the host's API server knows who uses them; clusters of pods are asked by a script of their image while
they run (``last-used.sh``), and woken by the annotation ``used-at``, because nobody sees a request to what is not there.
Where nobody can tell when a cluster was last used it never sleeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fleetplane.operators.vclusters.kinds import Lifetime

LONGEST_LOOK = 300.0


class Limits(NamedTuple):
    """Seconds; None: no limit."""

    ttl: float | None
    sleep_after: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """``used``: None where nobody knows. ``ready``: since when it runs; None while it does not. ``asleep``: since when."""

    now: float
    created: float
    used: float | None
    ready: float | None
    asleep: float | None


class Rest(NamedTuple):
    """``ended``: its time is over. ``asleep``: whether it should sleep. ``again``: seconds until this may change."""

    ended: bool
    asleep: bool
    again: float | None


def limits_of(lifetime: Lifetime, policies: Iterable[Mapping[str, Any]]) -> Limits:
    """What holds for a cluster: its own words, within and in default of its tenant's policies."""
    ttl: float | None = lifetime.ttl_seconds
    sleep: float | None = lifetime.sleep_after_seconds
    for policy in policies:
        spec = policy.get("spec") or {}
        longest, usual = spec.get("maxTtlSeconds"), spec.get("sleepAfterSeconds")
        if longest is not None:
            ttl = float(longest) if ttl is None else min(ttl, float(longest))
        if usual is not None and lifetime.sleep_after_seconds is None:
            sleep = float(usual) if sleep is None else min(sleep, float(usual))
    return Limits(ttl, sleep)


def rest(limits: Limits, seen: Seen) -> Rest:
    """What to do now. The same arguments always give the same answer."""
    waits: list[float] = []
    if limits.ttl is not None:
        left = seen.created + limits.ttl - seen.now
        if left <= 0:
            return Rest(True, seen.asleep is not None, None)
        waits.append(left)
    asleep = _asleep(limits, seen, waits)
    return Rest(False, asleep, min(waits, default=None))


def _asleep(limits: Limits, seen: Seen, waits: list[float]) -> bool:
    if limits.sleep_after is None:
        return False
    if seen.asleep is not None:
        return seen.used is None or seen.used < seen.asleep
    if seen.ready is None or seen.used is None:
        return False  # not yet, or nobody can tell
    left = max(seen.used, seen.ready) + limits.sleep_after - seen.now
    if left <= 0:
        return True
    waits.append(left)
    return False


def look_after(limits: Limits) -> float:
    """How often to ask a cluster when it was last used."""
    return min(LONGEST_LOOK, max(2.0, (limits.sleep_after or LONGEST_LOOK) / 4))
