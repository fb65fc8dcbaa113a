"""A node that is cut off: it stops its actives itself, and only then does somebody else begin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.operators.staging import running
from tests.operators.vehicles.stage import VehDeployment, veh_deployment
from tests.operators.vehicles.world import CUT_OFF, PROMISE, World, world_of

from fleetplane.testing import run_virtually

GRACE = 40.0
"""Seconds: a node's lease, after which the control plane calls it lost."""
LOOKS = 15.0
"""Seconds: how often a node renews, and how often the control plane looks."""


async def until(what: Callable[[], Any], seconds: float = 300.0) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.05)


def active_on(world: World, fleet: Any) -> list[str]:
    """Names of pods that execute there and are not frozen."""
    found = []
    for worker in list(fleet.engine.workers.values()):
        states = fleet.runtime._by_pod.get(worker.uid, {}).values()
        if worker.pod.annotations.get("node.fleetplane.io/group") and any(one.phase == "running" for one in states):
            found.append(worker.pod.name)
    return found


async def active_on_the_far_node(world: World) -> None:
    app = veh_deployment("brake", "PassiveRedundant", placement="Spread")
    await world.client.create(VehDeployment, app, "default")
    await ready(world)
    if not active_on(world, world.away):
        for container in list(world.near.runtime._containers):
            world.near.runtime.crash(container)
        await until(lambda: active_on(world, world.away))
        await ready(world)


async def ready(world: World) -> None:
    async with asyncio.timeout(300):
        while True:
            found = await world.client.get(VehDeployment, "brake", "default")
            if (found.get("status") or {}).get("phase") == "Running":
                return
            await asyncio.sleep(0.1)


async def cut_off(seed: int) -> tuple[float, float]:
    """Seconds from the cut to the end of the active on the far node, and to the beginning of its successor."""
    async with world_of(seed, nodes=1) as world, running(world.operate()):
        await active_on_the_far_node(world)
        await asyncio.sleep(world.chance.uniform(0.0, 20.0))
        loop = asyncio.get_running_loop()
        began = loop.time()
        world.far.cut = True
        await until(lambda: not active_on(world, world.away))
        stopped = loop.time() - began
        await until(lambda: active_on(world, world.near))
        took_over = loop.time() - began
        world.far.cut = False
        await asyncio.sleep(60.0)
        world._check()
        assert active_on(world, world.near), "who took over stays"
        assert not active_on(world, world.away), "who was fenced stays stopped"
        return stopped, took_over


async def agent_killed(seed: int) -> tuple[float, float]:
    """The same from the death of the far node's agent, which comes back too late."""
    async with world_of(seed, nodes=1) as world, running(world.operate()):
        await active_on_the_far_node(world)
        await asyncio.sleep(world.chance.uniform(0.0, 20.0))
        loop = asyncio.get_running_loop()
        began = loop.time()
        world.away.kill(200.0)
        await until(lambda: not active_on(world, world.away))
        stopped = loop.time() - began
        await until(lambda: active_on(world, world.near))
        took_over = loop.time() - began
        await asyncio.sleep(200.0)
        world._check()
        assert active_on(world, world.near), "who took over stays"
        assert not active_on(world, world.away), "who was fenced stays stopped"
        return stopped, took_over


def test_a_dead_agents_watchdog_keeps_the_promise_in_the_same_bounds() -> None:
    stopped, took_over = run_virtually(agent_killed(1))
    assert stopped < PROMISE
    assert max(GRACE, stopped) < took_over <= GRACE + PROMISE + LOOKS


def test_across_nodes_the_active_stops_before_its_successor_begins_and_the_time_is_bounded() -> None:
    stopped, took_over = run_virtually(cut_off(1))
    assert stopped < PROMISE
    assert GRACE < took_over <= GRACE + PROMISE + LOOKS
    assert stopped < took_over
    assert CUT_OFF == "car-0"
