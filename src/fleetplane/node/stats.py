"""How much pods use: samples of the runtime's counters, and what two of them say about now.

CPU is a rate, so it takes two samples; memory is what the last one says. The same numbers feed ``metrics.k8s.io``, the
summary of a node, and the choice whom to evict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from fleetplane.model.environment import Environment
from fleetplane.node import machine
from fleetplane.node.runtime import ContainerRuntime, ContainerState, RuntimeFailure, Stats

SAMPLE_SECONDS: Final = 15.0
FIRST_SAMPLE_SECONDS: Final = 3.0
"""The second sample comes soon, so that there are rates soon."""


@dataclass(frozen=True, slots=True)
class ContainerUse:
    """One container's use; ``cpu_nanocores`` is the rate over ``window_seconds``, 1e9 being one core."""

    pod_uid: str
    name: str
    container_id: str
    cpu_nanocores: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class NodeUse:
    """All of it at one time."""

    time: datetime | None = None
    window_seconds: float = 0.0
    cpu_nanocores: int = 0
    memory_bytes: int = 0
    containers: Sequence[ContainerUse] = field(default_factory=tuple)

    def of_pod(self, uid: str) -> list[ContainerUse]:
        return [one for one in self.containers if one.pod_uid == uid]


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    time: datetime
    node_cpu: int
    stats: dict[str, Stats]


def rates(before: dict[str, int], after: dict[str, int], seconds: float) -> dict[str, int]:
    """Nanocores from cumulative nanoseconds; what was not there before counts from its own zero."""
    if seconds <= 0:
        return dict.fromkeys(after, 0)
    return {key: max(0, int((value - before.get(key, 0)) / seconds)) for key, value in after.items()}


class Usage:
    """Samples until cancelled; ``latest`` is the newest result."""

    def __init__(self, runtime: ContainerRuntime, environment: Environment) -> None:
        self._runtime = runtime
        self._environment = environment
        self._last: _Sample | None = None
        self.latest = NodeUse()

    async def run(self) -> None:
        await self.sample()
        await asyncio.sleep(FIRST_SAMPLE_SECONDS)
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_SECONDS)

    async def sample(self) -> None:
        """Take one sample; the runtime being away leaves the last result in place."""
        try:
            states = {state.id: state for state in await self._runtime.containers()}
            stats = {one.container_id: one for one in await self._runtime.stats()}
        except RuntimeFailure:
            return
        taken = _Sample(self._environment.monotonic(), self._environment.now(), machine.cpu_nanoseconds(), stats)
        before, self._last = self._last, taken
        self.latest = _use(before, taken, states)


def _use(before: _Sample | None, now: _Sample, states: dict[str, ContainerState]) -> NodeUse:
    seconds = now.at - before.at if before is not None else 0.0
    old = {key: one.cpu_nanoseconds for key, one in before.stats.items()} if before is not None else {}
    new = {key: one.cpu_nanoseconds for key, one in now.stats.items()}
    cpu = rates(old, new, seconds)
    node = rates({"": before.node_cpu}, {"": now.node_cpu}, seconds)[""] if before is not None else 0
    return NodeUse(
        time=now.time,
        window_seconds=seconds,
        cpu_nanocores=node,
        memory_bytes=machine.memory_in_use(),
        containers=tuple(
            ContainerUse(states[key].pod_uid, states[key].name, key, cpu[key], one.memory_bytes)
            for key, one in now.stats.items()
            if key in states
        ),
    )
