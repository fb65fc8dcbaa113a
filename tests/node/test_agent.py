"""The agent of a real node, above simulated containers that outlive it: restarts, a lost control plane, clean-up."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import CONFIG_MAPS, NODES, PODS
from fleetplane.model.objects import is_condition_true
from fleetplane.node.agent import NodeAgent, NodeSettings
from fleetplane.node.runtime import ContainerState, RuntimeFailure
from fleetplane.node.simulated import SimulatedRuntime
from fleetplane.testing import Faults, Simulation, simulated

Object = dict[str, Any]


class Machine:
    """What survives the agent: containers and a disk."""

    def __init__(self, simulation: Simulation, directory: Path) -> None:
        self.simulation = simulation
        self.directory = directory
        self.runtime = SimulatedRuntime(simulation.environment)
        self.runtime.add_node("here", ["10.9.0.0/24"])
        self.started: Counter[tuple[str, str]] = Counter()
        self._start = self.runtime.start_container
        self.runtime.start_container = self._counted  # type: ignore[method-assign]

    async def _counted(self, container_id: str) -> None:
        await self._start(container_id)
        state = await self.runtime.inspect_container(container_id)
        self.started[state.pod_uid, state.name] += 1
        running = [c for c in await self.runtime.containers(state.pod_uid) if c.phase == "running"]
        assert len({c.name for c in running}) == len(running), "one container runs twice"

    def agent(self) -> Callable[[Client], Awaitable[None]]:
        async def run(client: Client) -> None:
            settings = NodeSettings(self.directory, name="here", addresses=("192.0.2.7",))
            info = await self.runtime.info()
            await NodeAgent(client, self.runtime, settings, self.simulation.environment, info).run()

        return run

    async def running(self) -> list[ContainerState]:
        return [c for c in await self.runtime.containers() if c.phase == "running"]


@asynccontextmanager
async def machine(simulation: Simulation) -> AsyncIterator[Machine]:
    with tempfile.TemporaryDirectory() as directory:
        yield Machine(simulation, Path(directory))


def pod(name: str, **spec: Any) -> Object:
    containers = [{"name": "main", "image": "app:1"}]
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": "here", "containers": containers, "automountServiceAccountToken": False, **spec},
    }


async def create(simulation: Simulation, made: Object) -> None:
    await simulation.client.create(PODS, made, "default")


async def phases(simulation: Simulation) -> Counter[str]:
    found = (await simulation.client.list(PODS, "default")).items
    return Counter(str(one["status"].get("phase")) for one in found)


@simulated()
async def test_the_node_registers_with_what_the_machine_has(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        simulation.process("agent", made.agent())
        await simulation.run(seconds=3)

        node = await simulation.client.get(NODES, "here")
        assert is_condition_true(node, "Ready")
        assert node["status"]["addresses"][0] == {"type": "InternalIP", "address": "192.0.2.7"}
        assert int(node["status"]["capacity"]["cpu"]) >= 1
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"] == "simulated://1.0.0"
        await simulation.end()


@simulated()
async def test_a_killed_agent_finds_its_pods_running_and_touches_none(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = simulation.process("agent", made.agent())
        for number in range(20):
            await create(simulation, pod(f"p{number}"))
        await simulation.run(seconds=10)
        before = {state.id for state in await made.running()}
        assert len(before) == 20
        agent.kill()
        await simulation.run(seconds=6)

        assert {state.id for state in await made.running()} == before
        assert set(made.started.values()) == {1}
        for found in (await simulation.client.list(PODS, "default")).items:
            assert is_condition_true(found, "Ready")
            assert found["status"]["containerStatuses"][0]["restartCount"] == 0
        await simulation.end()


@simulated()
async def test_without_a_control_plane_crashes_are_restarted_and_told_later(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = simulation.process("agent", made.agent())
        await create(simulation, pod("web"))
        await simulation.run(seconds=5)
        transport = agent._transport
        assert transport is not None
        transport.faults = Faults(lost_request=1.0)
        (state,) = await made.running()
        made.runtime.crash(state.id, 9)
        await simulation.run(seconds=60)

        (again,) = await made.running()
        assert again.attempt == 1
        transport.faults = Faults()
        await simulation.run(seconds=60)
        status = (await simulation.client.get(PODS, "web", "default"))["status"]["containerStatuses"][0]
        assert (status["restartCount"], status["lastState"]["terminated"]["exitCode"]) == (1, 9)
        await simulation.end()


@simulated()
async def test_a_runtime_that_stops_answering_in_between_makes_no_second_container(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        inspect = made.runtime.inspect_container
        silent = 3

        async def unsure(container_id: str) -> ContainerState:
            nonlocal silent
            if silent:
                silent -= 1
                raise RuntimeFailure("no answer")
            return await inspect(container_id)

        made.runtime.start_container = made._start  # type: ignore[method-assign]
        made.runtime.inspect_container = unsure  # type: ignore[method-assign]
        simulation.process("agent", made.agent())
        await create(simulation, pod("web"))
        await simulation.run(seconds=60)

        assert len(await made.running()) == 1
        assert len(await made.runtime.containers()) == 1
        assert await phases(simulation) == {"Running": 1}
        await simulation.end()


@simulated()
async def test_pods_start_from_disk_without_a_control_plane(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = simulation.process("agent", made.agent())
        await simulation.client.create(CONFIG_MAPS, {"metadata": {"name": "cm"}, "data": {"k": "v"}}, "default")
        env = [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]
        await create(simulation, pod("web", containers=[{"name": "main", "image": "app:1", "env": env}]))
        await simulation.run(seconds=5)
        agent.kill(restart=False)
        await agent.ended()
        for sandbox in await made.runtime.sandboxes():  # the machine is started anew: nothing runs any more
            await made.runtime.remove_sandbox(sandbox.id)

        simulation.process("alone", made.agent(), faults=Faults(lost_request=1.0))
        await simulation.run(seconds=30)

        (state,) = await made.running()
        assert state.name == "main"
        await simulation.end()


@simulated()
async def test_a_pod_deleted_meanwhile_is_stopped_when_the_control_plane_is_back(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = simulation.process("agent", made.agent())
        await create(simulation, pod("stays"))
        await create(simulation, pod("goes"))
        await simulation.run(seconds=5)
        agent.kill(restart=False)
        await simulation.client.delete(PODS, "goes", "default", grace_period_seconds=0)
        await simulation.run(seconds=5)
        agent.start()
        await simulation.run(seconds=40)

        assert [state.labels["io.fleetplane.pod.name"] for state in await made.running()] == ["stays"]
        assert set(made.started.values()) == {1}
        await simulation.end()


@simulated()
async def test_what_nobody_knows_is_removed(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = simulation.process("agent", made.agent())
        await create(simulation, pod("lost"))
        await simulation.run(seconds=5)
        agent.kill(restart=False)
        await agent.ended()
        await simulation.client.delete(PODS, "lost", "default", grace_period_seconds=0)
        for file in (made.directory / "pods").iterdir():
            file.unlink()
        agent.start()
        await simulation.run(seconds=10)

        assert not await made.runtime.containers()
        assert not await made.runtime.sandboxes()
        await simulation.end()


@simulated()
async def test_static_pods_run_and_are_shown(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        folder = made.directory / "static"
        folder.mkdir()
        (folder / "web.yaml").write_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: main, image: 'app:1'}]}\n"
        )
        simulation.process("agent", made.agent())
        await simulation.run(seconds=10)

        mirror = await simulation.client.get(PODS, "web-here", "default")
        assert mirror["status"]["phase"] == "Running"
        await simulation.client.delete(PODS, "web-here", "default", grace_period_seconds=0)
        await simulation.run(seconds=10)
        again = await simulation.client.get(PODS, "web-here", "default")
        assert again["metadata"]["uid"] != mirror["metadata"]["uid"]
        assert again["status"]["phase"] == "Running"
        assert sum(made.started.values()) == 1
        (folder / "web.yaml").unlink()
        await simulation.run(seconds=45)
        assert not await made.running()
        assert not (await simulation.client.list(PODS, "default")).items
        await simulation.end()


@simulated()
async def test_a_static_pod_whose_file_goes_while_the_agent_is_away_ends(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        folder = made.directory / "static"
        folder.mkdir()
        file = folder / "web.json"
        file.write_text(
            '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},'
            ' "spec": {"containers": [{"name": "main", "image": "app:1"}]}}'
        )
        agent = simulation.process("agent", made.agent())
        await simulation.run(seconds=10)
        agent.kill(restart=False)
        await agent.ended()
        file.unlink()
        agent.start()
        await simulation.run(seconds=60)

        assert not await made.running()
        assert not (await simulation.client.list(PODS, "default")).items
        await simulation.end()


@simulated(seeds=range(4), faults=Faults(lost_request=0.05, lost_answer=0.05, broken_watch=0.02))
async def test_whatever_happens_no_container_runs_twice(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        agent = simulation.process("agent", made.agent(), restart_after=3)
        agent.crashes(mean_requests=25)
        for number in range(8):
            policy = ("Always", "OnFailure")[number % 2]
            await create(simulation, pod(f"p{number}", restartPolicy=policy))
        await simulation.run(minutes=3)
        await simulation.client.delete(PODS, "p0", "default")
        await simulation.run(minutes=2)
        simulation.calm()
        await simulation.run(minutes=2)

        assert await phases(simulation) == {"Running": 3, "Succeeded": 4}
        assert len(await made.running()) == 3
        assert max(made.started.values()) == 1
        await simulation.end()
