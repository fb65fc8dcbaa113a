"""Who is next, and who waits for what.

A pod is *active* (to be tried, highest priority first, then oldest), *backing off* (tried lately, 1 s doubling to
10 s), or *parked* (refused, and nothing has changed that could help). What could help is told by ``wake``: parked pods
are kept by shape, so the question is asked once for all siblings. A pod that nothing wakes is tried again after five
minutes anyway, in case a change was missed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from fleetplane.workloads.scheduler.shape import PodInfo, Shape

FIRST_BACKOFF: Final = 1.0
LAST_BACKOFF: Final = 10.0
PARKED_LIMIT: Final = 300.0

State = Literal["active", "backoff", "parked", "tried"]


@dataclass(slots=True, eq=False)
class Entry:
    """``since`` is when the pod was first queued, ``ready_at`` when its back-off ends (both monotonic seconds).

    ``rules`` are those that refused it last. ``woken`` remembers that something changed while it was being tried.
    """

    pod: PodInfo
    since: float
    attempts: int = 0
    ready_at: float = 0.0
    parked_at: float = 0.0
    state: State = "active"
    rules: frozenset[str] = field(default_factory=frozenset)
    woken: bool = False


class Queue:
    """All times are monotonic seconds."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._active: list[tuple[int, float, int, Entry]] = []
        self._backoff: list[tuple[float, int, Entry]] = []
        self._parked: dict[tuple[str, Shape], dict[str, Entry]] = {}
        self._trying: dict[str, Entry] = {}
        self._order = 0
        self._overdue_check = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def counts(self) -> dict[str, int]:
        """Pods by state, for the ``scheduler_pending_pods`` metric."""
        found = {"active": 0, "backoff": 0, "parked": 0, "tried": 0}
        for entry in self._entries.values():
            found[entry.state] += 1
        return found

    def put(self, pod: PodInfo, now: float) -> None:
        """A pod to schedule, new or changed. A changed one is tried again at once."""
        entry = self._entries.get(pod.uid)
        if entry is None:
            self._entries[pod.uid] = entry = Entry(pod, now)
            self._activate(entry)
            return
        changed = entry.pod.shape is not pod.shape
        if changed and entry.state == "parked":
            self._unpark(entry)
            entry.pod = pod
            self._activate(entry)
            return
        entry.woken = entry.woken or changed
        nominated = entry.pod.nominated
        entry.pod = pod
        pod.nominated = pod.nominated or nominated

    def remove(self, uid: str) -> None:
        entry = self._entries.pop(uid, None)
        if entry is not None:
            if entry.state == "parked":
                self._unpark(entry)
            entry.state = "tried"
            self._trying.pop(uid, None)

    def pop(self, now: float) -> Entry | None:
        """The next pod to try; it is the caller's until ``park``, ``retry`` or ``remove``."""
        while self._backoff and self._backoff[0][0] <= now:
            entry = heapq.heappop(self._backoff)[2]
            if entry.state == "backoff" and self._is_mine(entry):
                self._activate(entry)
        while self._active:
            entry = heapq.heappop(self._active)[3]
            if entry.state == "active" and self._is_mine(entry):
                entry.state = "tried"
                entry.attempts += 1
                entry.woken = False
                self._trying[entry.pod.uid] = entry
                return entry
        return None

    def park(self, entry: Entry, rules: Iterable[str], now: float) -> None:
        """Nothing fits: waits for ``wake``."""
        if not self._is_mine(entry):
            return
        self._trying.pop(entry.pod.uid, None)
        entry.rules = frozenset(rules)
        entry.ready_at = now + backoff(entry.attempts)
        if entry.woken:
            self._back_off(entry)
            return
        entry.state, entry.parked_at = "parked", now
        self._parked.setdefault((entry.pod.cluster, entry.pod.shape), {})[entry.pod.uid] = entry

    def retry(self, entry: Entry, now: float) -> None:
        """It failed for a passing reason: tries again after its back-off."""
        if self._is_mine(entry):
            self._trying.pop(entry.pod.uid, None)
            entry.ready_at = now + backoff(entry.attempts)
            self._back_off(entry)

    def wake(self, cluster: str, helps: Callable[[Shape, frozenset[str]], bool], now: float) -> None:
        """Something changed: parked pods of the cluster that it may help are tried again."""
        for (where, shape), entries in list(self._parked.items()):
            if where != cluster:
                continue
            rules = frozenset().union(*(entry.rules for entry in entries.values()))
            if helps(shape, rules):
                for entry in list(entries.values()):
                    self._release(entry, now)
        for entry in self._trying.values():
            entry.woken = entry.woken or entry.pod.cluster == cluster

    def wake_overdue(self, now: float) -> None:
        if now < self._overdue_check:
            return
        self._overdue_check = now + PARKED_LIMIT / 10
        for entries in list(self._parked.values()):
            for entry in [one for one in entries.values() if now - one.parked_at >= PARKED_LIMIT]:
                self._release(entry, now)

    def next_due(self, now: float) -> float | None:
        """Seconds until a back-off ends; 0 when a pod can be tried now; None when none waits for time."""
        if self._active:
            return 0.0
        return max(0.0, self._backoff[0][0] - now) if self._backoff else None

    # inside

    def _is_mine(self, entry: Entry) -> bool:
        return self._entries.get(entry.pod.uid) is entry

    def _release(self, entry: Entry, now: float) -> None:
        self._unpark(entry)
        if entry.ready_at > now:
            self._back_off(entry)
        else:
            self._activate(entry)

    def _unpark(self, entry: Entry) -> None:
        key = (entry.pod.cluster, entry.pod.shape)
        entries = self._parked[key]
        del entries[entry.pod.uid]
        if not entries:
            del self._parked[key]

    def _activate(self, entry: Entry) -> None:
        entry.state = "active"
        self._order += 1
        heapq.heappush(self._active, (-entry.pod.shape.priority, entry.since, self._order, entry))

    def _back_off(self, entry: Entry) -> None:
        entry.state = "backoff"
        self._order += 1
        heapq.heappush(self._backoff, (entry.ready_at, self._order, entry))


def backoff(attempts: int) -> float:
    """Seconds to wait after so many attempts."""
    return float(min(FIRST_BACKOFF * 2 ** (min(attempts, 10) - 1), LAST_BACKOFF)) if attempts > 0 else 0.0
