"""A machine whose node agent dies, with what outlives it: containers, a runtime that goes on, a disk, and the watchdog.

The agent is the real one, above a simulated runtime that takes its time: what it was asked for is done although who asked
has died. The agent is killed at any turn of the event loop, most of all when something has just happened to a container,
and is away for a moment or for long.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.node.watchdogs import SimulatedWatchdog

from fleetplane.client.protocol import Client
from fleetplane.model.environment import Environment
from fleetplane.node.agent import RECORDS, NodeAgent, NodeSettings
from fleetplane.node.engine import PodEngine
from fleetplane.node.runtime import RuntimeEvent, RuntimeFailure
from fleetplane.node.simulated import SimulatedRuntime
from fleetplane.node.simulated_builder import SimulatedBuilder
from fleetplane.node.simulated_rules import Behaviour, node_networks
from fleetplane.node.sources import Sources
from fleetplane.node.worker import PodWorker

SLOWEST = 0.05
"""Seconds a call of the runtime takes at most."""
DELICATE = 0.04
"""How often an event of a container is the agent's last."""


class SlowRuntime(SimulatedRuntime):
    """It takes its time, and finishes what it has begun. ``hangs``: it refuses to stop anything."""

    def __init__(self, environment: Environment, behaviour: Behaviour, chance: random.Random) -> None:
        super().__init__(environment, behaviour)
        self._chance = chance
        self._under_way: set[asyncio.Task[None]] = set()
        self.hangs = False

    async def _surely(self, work: Coroutine[Any, Any, None]) -> None:
        async def later() -> None:
            await asyncio.sleep(self._chance.random() * SLOWEST)
            await work

        task = asyncio.ensure_future(later())
        self._under_way.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be dead

    async def start_container(self, container_id: str) -> None:
        await self._surely(super().start_container(container_id))

    async def pause_container(self, container_id: str) -> None:
        await self._surely(super().pause_container(container_id))

    async def resume_container(self, container_id: str) -> None:
        await self._surely(super().resume_container(container_id))

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        if self.hangs:
            await asyncio.sleep(1.0)
            raise RuntimeFailure("the runtime hangs")
        await self._surely(super().stop_container(container_id, grace_seconds))


class FarMachine:
    """See the module. ``client`` makes the way to the server of one life of the agent, and tells how to cut it off."""

    def __init__(
        self,
        name: str,
        client: Callable[[], tuple[Client, Callable[[], None]]],
        environment: Environment,
        behaviour: Behaviour,
        cpu: str,
        chance: random.Random,
    ) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self.deaths = 0
        self.runtime = SlowRuntime(environment, behaviour, chance)
        self.runtime.add_node(name, node_networks(100))
        self.runtime._listeners.add(self._happened)
        memory = "/dev/shm"
        self._folder = Path(tempfile.mkdtemp(prefix="fp-far-", dir=memory if Path(memory).is_dir() else None))
        self.watchdog = SimulatedWatchdog(self.runtime, environment, self._folder / "disk" / RECORDS)
        self.mortal = False
        """Whether the agent may be killed now."""
        self._client = client
        self._environment = environment
        self._chance = chance
        self._settings = NodeSettings(
            self._folder / "disk",
            name=name,
            addresses=("192.0.2.100",),
            resources={"cpu": cpu, "memory": "64Gi", "ephemeral-storage": "512Gi"},
            volatile=self._folder / "volatile",
        )
        for one in (self._folder / "disk", self._folder / "volatile"):
            one.mkdir()
        self._agent: NodeAgent | None = None
        self._workers: dict[str, PodWorker] = {}
        self._killed = asyncio.Event()
        self._next: float | None = None

    @property
    def engine(self) -> PodEngine:
        """That of the agent, also of one that has died."""
        assert self._agent is not None
        return self._agent.engine

    def workers(self) -> list[PodWorker]:
        """What is known of the pods whose containers are here, by the last agent that knew."""
        if self._agent is not None:
            self._workers |= self._agent.engine.workers
        self._workers = {uid: one for uid, one in self._workers.items() if uid in self.runtime._by_pod}
        return list(self._workers.values())

    async def run(self) -> None:
        """One agent after another, until cancelled."""
        try:
            while True:
                self._killed.clear()
                async with self._living():
                    await self._killed.wait()
                self.deaths += 1
                await asyncio.sleep(self._away())
        finally:
            self.watchdog.die()
            shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self, seconds: float) -> None:
        """The agent, for so long."""
        self._next = seconds
        self._killed.set()

    def _away(self) -> float:
        if self._next is not None:
            seconds, self._next = self._next, None
            return seconds
        choice = self._chance.random()
        if choice < 0.6:
            return self._chance.uniform(0.05, 3.0)
        return self._chance.uniform(5.0, 18.0) if choice < 0.8 else self._chance.uniform(20.0, 100.0)

    @asynccontextmanager
    async def _living(self) -> AsyncIterator[None]:
        client, cut_off = self._client()
        info = await self.runtime.info()
        agent = NodeAgent(client, self.runtime, self._settings, self._environment, info, self.watchdog.holder())
        # What looks at the real machine has no place in a simulation.
        agent._watch_pressure = agent._plugins.run = agent.usage.run = _forever  # type: ignore[method-assign]
        agent._refresh_volumes = _forever  # type: ignore[method-assign]
        agent.engine.builder = SimulatedBuilder(Sources(client, None), self._environment)
        self.workers()
        self._agent = agent
        task = asyncio.ensure_future(agent.run())
        watching = asyncio.ensure_future(self._tell_ready(agent))
        try:
            yield
            assert not task.done(), "an agent does not end by itself"
        finally:
            cut_off()
            for one in (watching, task):
                one.cancel()
                with suppress(asyncio.CancelledError):
                    await one

    async def _tell_ready(self, agent: NodeAgent) -> None:
        await agent.ready.wait()
        self.ready.set()

    async def die(self) -> None:
        """The agent is killed now and then; the runtime hangs, and the watchdog itself is killed, seldom."""
        self.mortal = True
        try:
            while True:
                await asyncio.sleep(self._chance.uniform(15.0, 90.0))
                choice = self._chance.random()
                if choice < 0.75:
                    self._kill_soon()
                elif choice < 0.9:
                    self.runtime.hangs = True
                    await asyncio.sleep(self._chance.uniform(5.0, 60.0))
                    self.runtime.hangs = False
                else:
                    self.mortal = False  # both at once is more than anybody promised
                    self.watchdog.die()
                    await asyncio.sleep(3.0)
                    self.mortal = True
        finally:
            self.mortal = self.runtime.hangs = False

    def _happened(self, _event: RuntimeEvent) -> None:
        if self.mortal and self._chance.random() < DELICATE:
            self._kill_soon()

    def _kill_soon(self) -> None:
        """After a few more turns: somewhere between two awaits."""
        loop = asyncio.get_running_loop()

        def turn(left: int) -> None:
            if left <= 0:
                self._killed.set()
            else:
                loop.call_soon(turn, left - 1)

        turn(self._chance.randint(0, 40))


async def _forever() -> None:
    await asyncio.Event().wait()
