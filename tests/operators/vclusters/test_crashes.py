"""The operator dies between any two of its requests; kubeadm init is run once all the same, and everything is cleaned up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.operators.staging import define, running
from tests.operators.vclusters.kubeadm import FakeNodes

from fleetplane.client.protocol import Client
from fleetplane.controller import Manager
from fleetplane.model.builtin.types import PODS, SECRETS, SERVICES, STATEFUL_SETS
from fleetplane.model.errors import ApiError
from fleetplane.node.fleet import SimulatedFleet
from fleetplane.operators.vclusters import OPERATOR
from fleetplane.operators.vclusters import controllers as controllers_of
from fleetplane.operators.vclusters.kinds import NETWORK, Vk8s
from fleetplane.testing import Faults, Simulation, simulate
from fleetplane.workloads.assembly import controllers

LIMITS = {"limits": {"cpu": "1", "memory": "1Gi"}}
NODES = [
    {"name": name, "image": "r/kink:v1.21", "role": role, "resources": LIMITS}
    for name, role in (("m", "master"), ("w", "worker"))
]


def starts_of_an_operator(seed: int) -> int:
    """Tell the story of one cluster and an operator that crashes; how often the operator was started."""
    starts: list[int] = []

    async def told(simulation: Simulation) -> None:
        starts.append(await story(simulation))

    simulate(told, seed, faults=Faults.some())
    return starts[0]


async def story(simulation: Simulation) -> int:
    environment, client = simulation.environment, simulation.client
    nodes = FakeNodes(seconds=0.2)
    operator = replace(OPERATOR, controllers=lambda manager: controllers_of(manager, nodes))
    await define(client, OPERATOR)
    builtin = Manager(client, environment=environment, cluster=None)
    builtin.add(*controllers(builtin))
    fleet = SimulatedFleet(client, 2, environment)

    async def run_operator(faulty: Client) -> None:
        manager = Manager(faulty, environment=environment, name="vclusters")
        operator.install(manager)
        await manager.run()

    async def is_running() -> bool:
        return ((await client.get(Vk8s, "one", "default")).get("status") or {}).get("phase") == "Running"

    async def is_gone() -> bool:
        try:
            await client.get(Vk8s, "one", "default")
        except ApiError as error:
            return error.code == 404
        return False

    async with running(builtin.run(), fleet.run()):
        await fleet.ready.wait()
        process = simulation.process("operator", run_operator)
        process.crashes(mean_requests=12)
        meta = {"name": "one", "annotations": {NETWORK: "true"}}
        await client.create(Vk8s, {"metadata": meta, "spec": {"nodes": NODES}}, "default")
        await simulation.run(minutes=4)
        simulation.calm()
        await simulation.until(is_running)

        assert nodes.inits == {"m-0": 1}
        assert nodes.joined == {"w-0"}
        await client.delete(Vk8s, "one", "default")
        await simulation.until(is_gone)
        await simulation.run(minutes=1)
        for resource in (STATEFUL_SETS, PODS, SERVICES, SECRETS):
            left = [one["metadata"]["name"] for one in (await client.list(resource, "default")).items]
            assert left in ([], ["kubernetes"])
        return process.starts


@pytest.mark.parametrize("seed", range(4))
def test_an_operator_that_crashes_anywhere_runs_kubeadm_init_once(seed: int) -> None:
    assert starts_of_an_operator(seed) > 1, "it never crashed"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 300))
def test_an_operator_that_crashes_anywhere_for_long(seed: int) -> None:
    starts_of_an_operator(seed)
