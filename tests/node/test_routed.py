"""Several runtimes behind one face: the handler of a pod's RuntimeClass chooses, and what runs is found again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.node.test_agent import create, machine, pod

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import PODS, RUNTIME_CLASSES
from fleetplane.node.agent import NodeAgent, NodeSettings
from fleetplane.node.routed import RoutedRuntime
from fleetplane.node.runtime import (
    ContainerSpec,
    NotThere,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeInfo,
    SandboxSpec,
    Stats,
)
from fleetplane.node.simulated import SimulatedRuntime
from fleetplane.testing import SimulatedEnvironment, Simulation, simulated


class Stage:
    """Two runtimes with something in each."""

    def __init__(self) -> None:
        environment = SimulatedEnvironment()
        self.plain, self.virtual = SimulatedRuntime(environment), SimulatedRuntime(environment)
        self.routed = self.again()

    def again(self, default_handlers: Sequence[str] | None = None) -> RoutedRuntime:
        """As another agent would make it."""
        return RoutedRuntime(self.plain, {"vm": self.virtual, "vm-large": self.virtual}, default_handlers)

    async def run(self, uid: str, handler: str = "") -> tuple[str, str]:
        spec = SandboxSpec("default", uid, uid, node="here", handler=handler)
        sandbox = await self.routed.start_sandbox(spec)
        container_id = await self.routed.create_container(sandbox, ContainerSpec("main", "app:1"), spec)
        await self.routed.start_container(container_id)
        return sandbox.id, container_id


async def test_the_handler_chooses() -> None:
    stage = Stage()

    await stage.run("a")
    await stage.run("b", "vm")
    await stage.run("c", "vm-large")

    assert [one.uid for one in await stage.plain.sandboxes()] == ["a"]
    assert [one.uid for one in await stage.virtual.sandboxes()] == ["b", "c"]


async def test_the_default_judges_other_handlers_itself() -> None:
    stage = Stage()

    await stage.run("a", "crun")

    assert [one.uid for one in await stage.plain.sandboxes()] == ["a"]


async def test_a_handler_nobody_knows_is_refused() -> None:
    routed = Stage().again(default_handlers=["crun"])

    assert await routed.start_sandbox(SandboxSpec("default", "a", "a", handler="crun"))
    with pytest.raises(RuntimeFailure, match=r'^failed to get sandbox runtime: no runtime for "gvisor" is configured$'):
        await routed.start_sandbox(SandboxSpec("default", "b", "b", handler="gvisor"))


async def test_everything_is_listed_once() -> None:
    stage = Stage()
    ids = [(await stage.run("a"))[1], (await stage.run("b", "vm"))[1]]

    assert [one.id for one in await stage.routed.containers()] == ids
    assert [one.id for one in await stage.routed.containers("b")] == ids[1:]
    assert [one.container_id for one in await stage.routed.stats()] == ids


async def test_a_new_agent_finds_who_holds_what() -> None:
    stage = Stage()
    sandbox_id, container_id = await stage.run("b", "vm")
    routed = stage.again()

    await routed.stop_container(container_id, 0)
    assert (await stage.virtual.inspect_container(container_id)).phase == "exited"
    await stage.again().remove_sandbox(sandbox_id)
    assert await stage.virtual.sandboxes() == []


async def test_a_container_is_made_where_its_sandbox_is() -> None:
    """The RuntimeClass may have been made anew with another handler meanwhile."""
    stage = Stage()
    spec = SandboxSpec("default", "b", "b", handler="vm")
    sandbox = await stage.routed.start_sandbox(spec)

    await stage.again().create_container(sandbox, ContainerSpec("main", "app:1"), replace(spec, handler=""))

    assert len(await stage.virtual.containers()) == 1


async def test_what_nobody_has_is_not_there() -> None:
    routed = Stage().routed

    with pytest.raises(NotThere):
        await routed.inspect_container("nothing")
    await routed.remove_container("nothing")
    await routed.remove_sandbox("nothing")


async def test_events_of_all_are_heard() -> None:
    stage = Stage()
    _, first = await stage.run("a")
    _, second = await stage.run("b", "vm")
    heard: list[RuntimeEvent] = []

    async def listen() -> None:
        async for event in stage.routed.events():
            heard.append(event)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stage.plain.crash(first)
    stage.virtual.crash(second)
    async with asyncio.timeout(5):
        while len(heard) < 2:
            await asyncio.sleep(0)
    listening.cancel()

    assert {(event.pod_uid, event.what) for event in heard} == {("a", "exited"), ("b", "exited")}


class _Silent(SimulatedRuntime):
    """Its service does not answer."""

    async def containers(self, pod_uid: str = "") -> Any:
        raise RuntimeFailure("the service does not answer")

    async def stats(self, pod_uid: str = "") -> Sequence[Stats]:
        raise RuntimeFailure("the service does not answer")

    async def events(self) -> Any:
        raise RuntimeFailure("the service does not answer")
        yield


async def test_a_list_is_whole_or_refused_and_usage_may_lack_some() -> None:
    stage = Stage()
    _, container_id = await stage.run("a")
    routed = RoutedRuntime(stage.plain, {"vm": _Silent(SimulatedEnvironment())})

    with pytest.raises(RuntimeFailure):
        await routed.containers()
    with pytest.raises(RuntimeFailure):
        await anext(routed.events())
    assert [one.container_id for one in await routed.stats()] == [container_id]


async def test_an_image_is_looked_for_where_its_pod_will_run() -> None:
    stage = Stage()
    await stage.routed.pull_image("app:1", handler="vm")

    assert await stage.routed.image("app:1", handler="vm") is not None
    assert await stage.routed.image("app:1") is None


async def test_the_node_is_described_by_the_default() -> None:
    info = await Stage().routed.info()

    assert isinstance(info, RuntimeInfo)
    assert (info.name, len(info.notes)) == ("simulated", 2)


@simulated()
async def test_pods_of_a_runtime_class_go_where_it_says(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        virtual = SimulatedRuntime(simulation.environment)
        routed = RoutedRuntime(made.runtime, {"vm": virtual}, default_handlers=())

        async def agent(client: Client) -> None:
            settings = NodeSettings(made.directory, name="here", addresses=("192.0.2.7",))
            await NodeAgent(client, routed, settings, simulation.environment, await routed.info()).run()

        for name, handler in (("isolated", "vm"), ("unknown", "gvisor")):
            await simulation.client.create(RUNTIME_CLASSES, {"metadata": {"name": name}, "handler": handler})
        simulation.process("agent", agent)
        await create(simulation, pod("plain"))
        await create(simulation, pod("inside", runtimeClassName="isolated"))
        await create(simulation, pod("lost", runtimeClassName="unknown"))
        await simulation.run(seconds=10)

        assert len(await virtual.sandboxes()) == 1
        assert len(await made.runtime.sandboxes()) == 1
        found = (await simulation.client.list(PODS, "default")).items
        phases = {one["metadata"]["name"]: one["status"]["phase"] for one in found}
        assert phases == {"plain": "Running", "inside": "Running", "lost": "Pending"}
        await simulation.end()
