"""Whatever happens: every record has one VM and every VM a record, shares sum to the limit, and deleting leaves nothing.

An operator that crashes between any two requests, a network that loses things, and a cloud that fails one call in ten.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fleetplane.client.protocol import Client
from fleetplane.controller import Manager
from fleetplane.model.builtin.types import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NODES, SECRETS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import is_condition_true
from fleetplane.operators.peerpods import peer_pods
from fleetplane.operators.peerpods.kinds import VM_RESOURCE, PeerPod, PeerPodConfig
from fleetplane.operators.peerpods.orphans import Sweeping
from fleetplane.operators.peerpods.providers.simulated import CloudFaults, SimulatedCloud
from fleetplane.testing import Faults, Simulation, simulate

LIMIT = 10


async def install(client: Client) -> None:
    for manifest in peer_pods({}).manifests():
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, manifest)
        name = manifest["metadata"]["name"]
        while not is_condition_true(await client.get(CUSTOM_RESOURCE_DEFINITIONS, name), "Established"):
            await asyncio.sleep(0.01)


async def node(client: Client, name: str) -> None:
    await client.create(NODES, {"metadata": {"name": name, "labels": {"vm": "yes"}}})


async def capacity(client: Client) -> list[int]:
    """Of the nodes that have any."""
    found = [one["status"].get("capacity") or {} for one in (await client.list(NODES)).items]
    return [int(one[VM_RESOURCE]) for one in found if VM_RESOURCE in one]


async def users(simulation: Simulation) -> None:
    """People at work: nodes come and go, records too, some within a moment."""
    client, random = simulation.client, simulation.environment.random
    for step in range(8):
        name = f"p{step}"
        spec = {"cloudProvider": "simulated", "vm": {"vcpus": 1}}
        await client.create(PeerPod, {"metadata": {"name": name}, "spec": spec}, "default")
        await simulation.run(seconds=random.choice([0, 0.03, 0.5, 4]))
        if random.random() < 0.5:
            victim = f"p{random.randrange(step + 1)}"
            await ignoring_absence(client.delete(PeerPod, victim, "default"))
        change = random.random()
        if change < 0.3:
            await node(client, f"late-{step}")
        elif change < 0.5:
            labels = {"vm": random.choice([None, "yes"])}
            await client.patch(NODES, f"n{random.randrange(3)}", {"metadata": {"labels": labels}})
        await simulation.run(seconds=random.choice([0, 0.2, 3]))


async def ignoring_absence(call: Any) -> None:
    try:
        await call
    except ApiError as error:
        assert error.code == 404


async def story(simulation: Simulation) -> None:
    environment, client = simulation.environment, simulation.client
    cloud = SimulatedCloud(environment, CloudFaults.share(0.1))
    await install(client)
    for index in range(3):
        await node(client, f"n{index}")
    data = {"CLOUD_PROVIDER": "simulated"}
    await client.create(CONFIG_MAPS, {"metadata": {"name": "peer-pods-cm"}, "data": data}, "default")
    await client.create(SECRETS, {"metadata": {"name": "peer-pods-secret"}}, "default")
    config = {"metadata": {"name": "one"}, "spec": {"limit": str(LIMIT), "nodeSelector": {"vm": "yes"}}}
    await client.create(PeerPodConfig, config, "default")

    async def run_operator(faulty: Client) -> None:
        manager = Manager(faulty, environment=environment, name="peerpods")
        peer_pods({"simulated": cloud.factory}, sweeping=Sweeping(interval=60, grace=90)).install(manager)
        await manager.run()

    operator = simulation.process("operator", run_operator)
    operator.crashes(mean_requests=25)
    await users(simulation)

    simulation.calm()
    cloud.faults = CloudFaults()
    await simulation.run(minutes=8)

    records = (await client.list(PeerPod)).items
    assert {one["spec"]["instanceID"] for one in records} == set(cloud.vms)
    nodes = [
        one for one in (await client.list(NODES)).items if (one["metadata"].get("labels") or {}).get("vm") == "yes"
    ]
    assert len(await capacity(client)) == len(nodes)
    assert sum(await capacity(client)) == (LIMIT if nodes else 0)

    for one in records:
        await client.delete(PeerPod, one["metadata"]["name"], "default")
    await client.delete(PeerPodConfig, "one", "default")
    await simulation.run(minutes=4)
    assert not cloud.vms
    assert not (await client.list(PeerPod)).items
    assert not (await client.list(PeerPodConfig)).items
    assert await capacity(client) == []


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_nothing_leaks(seed: int) -> None:
    simulate(story, seed, faults=Faults.some())


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", range(100))
def test_ten_thousand_runs_leak_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # every fault is logged: most of the time
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        simulate(story, seed, faults=Faults.some())
