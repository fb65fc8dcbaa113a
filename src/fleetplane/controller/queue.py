"""The queue between what happened and what is done about it.

It holds keys, never events: ten changes of one object are one entry, and reconcile looks at the state when its turn
comes. Three promises carry the whole framework:

* a key is worked on by at most one worker at a time; added meanwhile, it comes again afterwards, once;
* a failing key waits longer each time (5 ms doubling to 1000 s, with jitter) and keeps nobody else waiting;
* what just changed goes before what is only looked at again (resyncs, the first list); every eighth turn goes to the
  latter, so that a busy fleet cannot starve its own repairs.

It runs on one event loop and needs no locks. Nothing in it knows Kubernetes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Hashable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from fleetplane.client.backoff import Backoff
from fleetplane.controller.errors import QueueClosed
from fleetplane.controller.metrics import QueueMetrics
from fleetplane.model.environment import Environment

K = TypeVar("K", bound=Hashable)

RETRY: Final = Backoff(base=0.005, cap=1000.0, jitter=0.1)
_FAIRNESS: Final = 8


class WorkQueue(Generic[K]):
    def __init__(
        self, environment: Environment, *, backoff: Backoff = RETRY, metrics: QueueMetrics | None = None
    ) -> None:
        self._environment = environment
        self._backoff = backoff
        self._metrics = metrics
        self._fresh: OrderedDict[K, float] = OrderedDict()
        self._resync: OrderedDict[K, float] = OrderedDict()
        self._working: dict[K, float] = {}
        self._again: dict[K, bool] = {}  # added while being worked on; the value is whether it is low priority
        self._failures: dict[K, int] = {}
        self._due: dict[K, tuple[float, bool]] = {}  # when, and whether it is a retry
        self._timetable: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._turns = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._fresh) + len(self._resync)

    @property
    def is_idle(self) -> bool:
        """Nothing waits, nothing is worked on; delayed keys do not count."""
        return not self._fresh and not self._resync and not self._working

    @property
    def delayed(self) -> int:
        return len(self._due)

    # -- adding

    def add(self, key: K, *, low: bool = False) -> None:
        """Have the key worked on; ``low`` after everything fresh. Adding again changes nothing but raises priority."""
        if self._closed:
            return
        if key in self._working:
            self._again[key] = low and self._again.get(key, True)
            return
        if key in self._fresh:
            return
        now = self._environment.monotonic()
        if key in self._resync:
            if low:
                return
            now = self._resync.pop(key)
        (self._resync if low else self._fresh)[key] = now
        if self._metrics is not None:
            self._metrics.adds.inc()
            self._metrics.depth.set(len(self))
        self._wake_one()

    def add_after(self, key: K, delay: float, *, low: bool = False) -> None:
        """Add the key in ``delay`` seconds, or earlier if something else already asked for that."""
        if delay <= 0:
            self.add(key, low=low)
            return
        self._schedule(key, delay, is_retry=False)

    def add_rate_limited(self, key: K) -> float:
        """Add the key after a failure; returns the delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(failures, self._environment)
        if self._metrics is not None:
            self._metrics.retries.inc()
        self._schedule(key, delay, is_retry=True)
        return delay

    def forget(self, key: K) -> None:
        """The key is well: its next failure starts counting anew, and a retry still due is dropped."""
        self._failures.pop(key, None)
        if (due := self._due.get(key)) is not None and due[1]:
            del self._due[key]

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    # -- taking

    async def get(self) -> K:
        """The next key; say ``done`` afterwards. Raises QueueClosed when the queue is closed, even with keys in it."""
        while not self._closed:
            if self._fresh or self._resync:
                return self._take()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():
                    self._wake_one()  # woken and cancelled at once: somebody else must go
                else:
                    with suppress(ValueError):  # passed over by a wake-up, or the queue was closed
                        self._waiters.remove(waiter)
                raise
        raise QueueClosed

    def done(self, key: K) -> None:
        now = self._environment.monotonic()
        started = self._working.pop(key)
        if self._metrics is not None:
            self._metrics.work_seconds.observe(now - started)
        if key in self._again:
            self.add(key, low=self._again.pop(key))

    def close(self) -> None:
        """Give out nothing more. Work that was taken may be finished and ``done``."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def observe(self) -> None:
        """Bring the gauges that only make sense when looked at up to date."""
        if self._metrics is not None:
            now = self._environment.monotonic()
            running = [now - started for started in self._working.values()]
            self._metrics.unfinished_seconds.set(sum(running))
            self._metrics.longest_seconds.set(max(running, default=0.0))
            self._metrics.depth.set(len(self))

    # -- inside

    def _take(self) -> K:
        self._turns += 1
        prefer_resync = self._turns % _FAIRNESS == 0 and self._resync
        chosen = self._resync if prefer_resync or not self._fresh else self._fresh
        key, added = chosen.popitem(last=False)
        now = self._working[key] = self._environment.monotonic()
        if self._metrics is not None:
            self._metrics.queue_seconds.observe(now - added)
            self._metrics.depth.set(len(self))
        return key

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _schedule(self, key: K, delay: float, *, is_retry: bool) -> None:
        if self._closed:
            return
        when = asyncio.get_running_loop().time() + delay
        known = self._due.get(key)
        if known is not None and known[0] <= when:
            return
        self._due[key] = (when, is_retry)
        self._sequence += 1
        heapq.heappush(self._timetable, (when, self._sequence, key))
        if self._timetable[0][2] == key:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timetable:
            self._timer = asyncio.get_running_loop().call_at(self._timetable[0][0], self._add_due)

    def _add_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._timetable and self._timetable[0][0] <= now:
            when, _, key = heapq.heappop(self._timetable)
            due = self._due.get(key)
            if due is not None and due[0] == when:  # otherwise it was moved or dropped meanwhile
                del self._due[key]
                self.add(key)
        self._set_timer()
