"""The agent of a real node that promised to fence itself: cut off, restarted, rebooted; and who follows whom on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.node.test_agent import Machine, create, machine, pod
from tests.node.watchdogs import SimulatedWatchdog

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.objects import is_condition_true
from fleetplane.node.agent import NodeAgent, NodeSettings
from fleetplane.node.runtime import Label, RuntimeFailure
from fleetplane.testing import Faults, Simulation, simulated

PAUSED, GROUP = "node.fleetplane.io/paused", "node.fleetplane.io/group"
SUCCESSOR, PROMISE = "node.fleetplane.io/successor", "node.fleetplane.io/self-fencing-seconds"


def member(name: str, **notes: str) -> dict[str, Any]:
    made = pod(
        name, restartPolicy="Never", containers=[{"name": "main", "image": "app:1", "command": ["sleep", "inf"]}]
    )
    keys = {"frozen": PAUSED, "successor": SUCCESSOR}
    made["metadata"]["annotations"] = {GROUP: "g", **{keys[key]: value for key, value in notes.items()}}
    return made


def watchdog_of(made: Machine) -> SimulatedWatchdog:
    return SimulatedWatchdog(made.runtime, made.simulation.environment, made.directory / "disk" / "fenced")


def agent_of(made: Machine, watchdog: SimulatedWatchdog | None = None) -> Callable[[Client], Awaitable[None]]:
    """The machine's agent, with volatile storage that survives it and not a reboot."""

    async def run(client: Client) -> None:
        volatile = made.directory / "volatile"
        volatile.mkdir(exist_ok=True)
        settings = NodeSettings(made.directory / "disk", name="here", addresses=("192.0.2.7",), volatile=volatile)
        settings.directory.mkdir(exist_ok=True)
        info = await made.runtime.info()
        holder = watchdog.holder() if watchdog is not None else None
        await NodeAgent(client, made.runtime, settings, made.simulation.environment, info, holder).run()

    return run


async def names(made: Machine, phase: str = "running") -> set[str]:
    return {state.labels[Label.NAME] for state in await made.runtime.containers() if state.phase == phase}


async def promised(simulation: Simulation, made: Machine, watchdog: SimulatedWatchdog | None = None) -> Any:
    agent = simulation.process("agent", agent_of(made, watchdog))
    await simulation.run(seconds=3)
    await simulation.client.patch(NODES, "here", {"metadata": {"annotations": {PROMISE: "20"}}})
    await create(simulation, member("active"))
    await create(simulation, member("standby", frozen="true"))
    await create(simulation, pod("other"))
    await simulation.run(seconds=12)
    assert await names(made) == {"active", "other"}
    assert await names(made, "paused") == {"standby"}
    return agent


@simulated()
async def test_a_node_that_is_cut_off_stops_its_active_in_time_and_nothing_else(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = await promised(simulation, made)
        agent._transport.faults = Faults(lost_request=1.0)
        await simulation.run(seconds=12)
        assert await names(made) == {"active", "other"}, "it renewed less than 18 seconds ago"
        await simulation.run(seconds=8)
        assert await names(made) == {"other"}
        assert await names(made, "paused") == {"standby"}

        agent._transport.faults = Faults()
        await simulation.run(seconds=60)
        found = await simulation.client.get(PODS, "active", "default")
        assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "SelfFenced")
        assert await names(made) == {"other"}, "who was fenced stays stopped"
        await simulation.end()


@simulated()
async def test_an_agent_that_was_away_goes_on_counting(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = await promised(simulation, made)
        agent.kill(restart=False)
        await agent.ended()
        await simulation.run(seconds=30)
        assert "active" in await names(made), "without an agent nobody fences"
        simulation.process("again", agent_of(made), faults=Faults(lost_request=1.0))
        await simulation.run(seconds=2)
        assert await names(made) == {"other"}
        await simulation.end()


@simulated()
async def test_after_a_reboot_the_active_waits_for_the_control_plane(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = await promised(simulation, made)
        agent.kill(restart=False)
        await agent.ended()
        for sandbox in await made.runtime.sandboxes():
            await made.runtime.remove_sandbox(sandbox.id)
        (made.directory / "volatile" / "contact.json").unlink()

        again = simulation.process("rebooted", agent_of(made), faults=Faults(lost_request=1.0))
        await simulation.run(seconds=15)
        assert "active" not in await names(made)
        assert "other" in await names(made)
        again._transport.faults = Faults()
        await simulation.run(seconds=30)
        assert "active" in await names(made)
        await simulation.end()


@simulated()
async def test_a_successor_goes_on_and_the_restarted_agent_remembers_it(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = await promised(simulation, made)
        uid = (await simulation.client.get(PODS, "standby", "default"))["metadata"]["uid"]
        await simulation.client.patch(PODS, "active", {"metadata": {"annotations": {SUCCESSOR: uid}}}, "default")
        await simulation.run(seconds=2)
        (state,) = [one for one in await made.runtime.containers() if one.labels["io.fleetplane.pod.name"] == "active"]
        made.runtime.crash(state.id, 137)
        await simulation.run(seconds=2)
        assert await names(made) == {"standby", "other"}
        assert is_condition_true(await simulation.client.get(PODS, "standby", "default"), "node.fleetplane.io/Promoted")

        agent.kill()
        await simulation.run(seconds=10)
        assert await names(made) == {"standby", "other"}, "it is not frozen again"
        await simulation.end()


@simulated()
async def test_a_node_that_may_have_been_given_up_promotes_nobody(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = await promised(simulation, made)
        uid = (await simulation.client.get(PODS, "standby", "default"))["metadata"]["uid"]
        await simulation.client.patch(PODS, "active", {"metadata": {"annotations": {SUCCESSOR: uid}}}, "default")
        await simulation.run(seconds=2)
        agent._transport.faults = Faults(lost_request=1.0)
        await simulation.run(seconds=25)
        assert await names(made) == {"other"}, "the active was fenced, and its successor is none of ours any more"
        agent._transport.faults = Faults()
        await simulation.run(seconds=60)
        assert await names(made) == {"other"}
        await simulation.end()


@simulated()
async def test_while_the_agent_is_dead_its_watchdog_stops_the_active_in_time(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        watchdog = watchdog_of(made)
        agent = await promised(simulation, made, watchdog)
        agent.kill(restart=False)
        await agent.ended()
        await simulation.run(seconds=10)
        assert await names(made) == {"active", "other"}, "it renewed at most five seconds ago"
        await simulation.run(seconds=10)
        assert await names(made) == {"other"}
        assert await names(made, "paused") == {"standby"}
        await simulation.run(seconds=1)
        assert not watchdog.is_running, "there is nothing left to hold"

        started = made.started.copy()
        simulation.process("again", agent_of(made, watchdog))
        await simulation.run(seconds=60)
        found = await simulation.client.get(PODS, "active", "default")
        assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "SelfFenced")
        assert made.started == started, "who was fenced stays stopped"
        await simulation.client.delete(PODS, "active", "default", grace_period_seconds=0)
        await simulation.run(seconds=10)
        assert not list((made.directory / "disk" / "fenced").iterdir()), "its record goes with the pod"
        await simulation.end()


@simulated()
async def test_an_agent_that_is_back_in_time_takes_the_watchdog_over(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        watchdog = watchdog_of(made)
        agent = await promised(simulation, made, watchdog)
        agent.kill()
        await simulation.run(seconds=60)
        assert await names(made) == {"active", "other"}
        assert watchdog.starts == 1
        for name in ("active", "standby"):
            await simulation.client.delete(PODS, name, "default", grace_period_seconds=0)
        await simulation.run(seconds=5)
        assert not watchdog.is_running
        await simulation.end()


@simulated()
async def test_a_container_that_is_always_restarted_is_not_once_the_watchdog_killed_it(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        watchdog = watchdog_of(made)
        agent = simulation.process("agent", agent_of(made, watchdog))
        own = pod("own")
        own["metadata"]["annotations"] = {PROMISE: "20"}
        await create(simulation, own)
        await simulation.run(seconds=5)
        agent.kill(restart=False)
        await agent.ended()
        await simulation.run(seconds=25)
        assert await names(made) == set()
        agent.start()
        await simulation.run(seconds=120)
        assert await names(made) == set()
        found = await simulation.client.get(PODS, "own", "default")
        assert found["status"]["reason"] == "SelfFenced"
        await simulation.end()


@simulated()
async def test_what_the_agent_cannot_stop_its_watchdog_does(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        watchdog = watchdog_of(made)
        agent = await promised(simulation, made, watchdog)

        async def refuse(_container_id: str, _grace: float) -> None:
            raise RuntimeFailure("the runtime hangs")

        made.runtime.stop_container = refuse  # type: ignore[method-assign]
        agent._transport.faults = Faults(lost_request=1.0)
        await simulation.run(seconds=20)
        assert await names(made) == {"other"}
        assert len(watchdog.killed) == 1
        await simulation.end()


@simulated()
async def test_an_active_that_is_being_deleted_slowly_is_stopped_in_time_too(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = await promised(simulation, made)
        slow = member("slow")
        slow["metadata"]["annotations"]["simulated.fleetplane.io/stop-delay"] = "500s"
        await create(simulation, slow)
        await simulation.run(seconds=5)
        await simulation.client.delete(PODS, "slow", "default", grace_period_seconds=400)
        await simulation.run(seconds=2)
        agent._transport.faults = Faults(lost_request=1.0)
        await simulation.run(seconds=20)
        assert await names(made) == {"other"}
        await simulation.end()


@simulated()
async def test_a_standby_that_was_not_frozen_yet_does_not_outlive_the_agent(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        watchdog = watchdog_of(made)
        agent = await promised(simulation, made, watchdog)

        async def never(_container_id: str) -> None:
            await asyncio.sleep(3600)

        made.runtime.pause_container = never  # type: ignore[method-assign]
        await create(simulation, member("second", frozen="true"))
        await simulation.run(seconds=2)
        assert await names(made) == {"active", "other", "second"}
        agent.kill(restart=False)
        await simulation.run(seconds=1)
        assert await names(made) == {"active", "other"}
        await simulation.end()
