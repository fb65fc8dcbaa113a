"""A watchdog above simulated containers: the decisions are the real one's, the killing is a crash. It outlives agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fleetplane.model.environment import Environment
from fleetplane.node.guard import Held
from fleetplane.node.simulated import SimulatedRuntime
from fleetplane.node.watchdog.process import SEARCH_SECONDS
from fleetplane.node.watchdog.watch import TURN_SECONDS, Pod, Watch


class SimulatedWatchdog:
    """``holder`` is one agent's connection. ``killed`` are uids, ``kills`` counts those of all its lives; ``starts`` counts how often there was none before."""

    def __init__(self, runtime: SimulatedRuntime, environment: Environment, records: Path) -> None:
        self.watch = Watch()
        self.killed: set[str] = set()
        self.starts = 0
        self.kills = 0
        self._runtime = runtime
        self._environment = environment
        self._records = records
        self._peers: set[Holder] = set()
        self._woken = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._searched: dict[str, float] = {}

    @property
    def is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    def holder(self) -> Holder:
        return Holder(self)

    def start(self) -> None:
        self.starts += 1
        self.killed = set()
        self._running = asyncio.ensure_future(self._run())

    def die(self) -> None:
        """It is killed itself."""
        if self._running is not None:
            self._running.cancel()
        for peer in list(self._peers):
            peer.leave()

    def told(self, peer: Holder, message: str) -> None:
        self._peers.add(peer)
        self.watch.told(json.loads(message))
        self._woken.set()

    def left(self, peer: Holder) -> None:
        self._peers.discard(peer)
        self._woken.set()

    async def _run(self) -> None:
        while True:
            now, connected = self._environment.monotonic(), bool(self._peers)
            for pod in self.watch.due(now, connected=connected):
                self._kill(pod)
            alive = {uid for uid, pod in self.watch.pods.items() if self._lives(pod)}
            if self.watch.is_over(alive, connected=connected):
                for peer in list(self._peers):
                    peer.leave()
                return
            self._woken.clear()
            try:
                async with asyncio.timeout(max(0.01, min(TURN_SECONDS, self.watch.seconds_left(now)))):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _phase(self, container: str) -> str:
        found = self._runtime._containers.get(container)
        return found.phase if found is not None else "exited"

    def _lives(self, pod: Pod) -> bool:
        phases = [self._phase(one.id) for one in pod.processes]
        if any(one in {"running", "paused"} for one in phases):
            return True
        since = self._searched.get(pod.uid, self._environment.monotonic())
        return "created" in phases and self._environment.monotonic() - since < SEARCH_SECONDS

    def _kill(self, pod: Pod) -> None:
        self._searched.setdefault(pod.uid, self._environment.monotonic())
        for process in pod.processes:
            if self._phase(process.id) in {"running", "paused"}:
                self._runtime.crash(process.id, 137)
                self._record(pod.uid)

    def _record(self, uid: str) -> None:
        self.kills += uid not in self.killed
        self.killed.add(uid)
        self._records.mkdir(parents=True, exist_ok=True)
        (self._records / f"{uid}.json").write_text("{}")
        for peer in self._peers:
            peer.news.set()


class Holder:
    """As ``guard.Holder`` says."""

    def __init__(self, watchdog: SimulatedWatchdog) -> None:
        self.watchdog = watchdog
        self.news = asyncio.Event()
        self._connected = False

    async def hold(self, pods: Sequence[Held], *, stay: bool, start: bool) -> None:
        message = json.dumps({"stay": stay, "pods": [asdict(one) for one in pods]})
        await asyncio.sleep(0)
        if not self.watchdog.is_running:
            if not start:
                raise ConnectionError("there is none")
            self.watchdog.start()
        self.watchdog.told(self, message)
        self._connected = True
        self.news.set()
        await asyncio.sleep(0)

    async def fenced(self) -> frozenset[str]:
        await self.news.wait()
        self.news.clear()
        if not self._connected:
            raise ConnectionError("it has ended")
        return frozenset(self.watchdog.killed)

    def leave(self) -> None:
        self._connected = False
        self.watchdog.left(self)
        self.news.set()
