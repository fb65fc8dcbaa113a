"""Peer pods, measured: capacity spread over many nodes again, and VMs made and deleted with a cloud that fails.

    python bench/peerpods.py [--nodes 1000] [--pods 1000]

The real server, in memory and in this process, with the operator on real time. Re-spread: seconds from the change of the
limit (or of a node's labels) until every node has its share, and how many nodes were written. Pods: records made and
deleted against the simulated cloud with 5 % faults; overhead is what the operator adds, the time of a reconcile without
that of the provider's calls.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from typing import Any

from fleetplane.client.protocol import Client
from fleetplane.controller import Manager
from fleetplane.model.builtin.types import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NODES, SECRETS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.objects import condition, is_condition_true
from fleetplane.operators.peerpods import peer_pods
from fleetplane.operators.peerpods.kinds import VM_RESOURCE, PeerPod, PeerPodConfig
from fleetplane.operators.peerpods.providers.simulated import CloudFaults, SimulatedCloud
from fleetplane.testing import running_server


async def capacity(client: Client) -> dict[str, tuple[int | None, str]]:
    """Of each node: its share, and the version it was written at."""
    found = {}
    async for node in client.iterate(NODES):
        share = (node["status"].get("capacity") or {}).get(VM_RESOURCE)
        found[node["metadata"]["name"]] = (None if share is None else int(share), node["metadata"]["resourceVersion"])
    return found


async def settled(client: Client, total: int, nodes: int) -> None:
    """Wait for what the operator says once the last node is written. Cheap to ask: it must not disturb."""
    wanted = f"{total} pod VMs on {nodes} nodes"
    while wanted not in str(condition(await client.get(PeerPodConfig, "one", "default"), "CapacityAdvertised")):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def respread(client: Client, what: str, change: Any, total: int, nodes: int) -> None:
    before = await capacity(client)
    started = time.perf_counter()
    await change
    await settled(client, total, nodes)
    took = time.perf_counter() - started
    after = await capacity(client)
    shares = [share for share, _ in after.values() if share is not None]
    assert (sum(shares), len(shares)) == (total, nodes)
    written = sum(after[name][1] != version for name, (_, version) in before.items())
    differ = sum(after[name][0] != share for name, (share, _) in before.items())
    print(f"{what:42} {took:6.2f} s   nodes written {written:5}   shares that differ {differ:5}")


async def spreads(client: Client, count: int) -> None:
    for index in range(count):
        await client.create(NODES, {"metadata": {"name": f"n{index:05}", "labels": {"vm": "yes"}}})

    def limit(total: int) -> Any:
        return client.patch(PeerPodConfig, "one", {"spec": {"limit": str(total)}}, "default")

    spec = {"limit": str(3 * count + 7), "nodeSelector": {"vm": "yes"}}
    made = client.create(PeerPodConfig, {"metadata": {"name": "one"}, "spec": spec}, "default")
    await respread(client, "first spread, every node", made, 3 * count + 7, count)
    await respread(client, "five more in all, five nodes", limit(3 * count + 12), 3 * count + 12, count)
    await respread(client, "twice as many, every node", limit(6 * count + 12), 6 * count + 12, count)
    label = client.patch(NODES, "n00000", {"metadata": {"labels": {"vm": None}}})
    await respread(client, "a node leaves, few nodes", label, 6 * count + 12, count - 1)


async def vms(client: Client, cloud: MeasuredCloud, count: int) -> None:
    started = time.perf_counter()
    for index in range(count):
        spec = {"cloudProvider": "simulated", "vm": {"vcpus": 1}}
        await client.create(PeerPod, {"metadata": {"name": f"p{index}"}, "spec": spec}, "default")
    # Looked at in the cloud, not asked of the server: a list of a thousand would hold up everybody on this loop.
    while sum(vm.state == "running" for vm in cloud.vms.values()) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    print(
        f"{count} VMs running after {time.perf_counter() - started:.1f} s; made {cloud.made}, there are {len(cloud.vms)}"
    )
    started = time.perf_counter()
    for index in range(count):
        await client.delete(PeerPod, f"p{index}", "default")
    while (await client.list(PeerPod, limit=1)).items:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    print(f"all deleted after {time.perf_counter() - started:.1f} s; VMs left: {len(cloud.vms)}")
    overhead = sorted(cloud.overheads)
    p50, p99 = statistics.median(overhead), overhead[int(len(overhead) * 0.99)]
    print(
        f"operator overhead per reconcile: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms ({len(overhead)} reconciles)"
    )


class MeasuredCloud(SimulatedCloud):
    """Adds up the time that tasks spend in its calls."""

    def __init__(self, environment: SystemEnvironment) -> None:
        super().__init__(environment, CloudFaults.share(0.05))
        self.overheads: list[float] = []
        self.spent: dict[Any, float] = {}

    async def _call(self, carry_out: Any) -> Any:
        began, task = time.perf_counter(), asyncio.current_task()
        try:
            return await super()._call(carry_out)
        finally:
            self.spent[task] = self.spent.get(task, 0.0) + time.perf_counter() - began


def measuring(manager: Manager, cloud: MeasuredCloud) -> None:
    """Replace the reconcile of records by one that takes the time."""
    from dataclasses import replace  # noqa: PLC0415

    found = manager._controllers["peerpods"]

    async def timed(request: Any) -> Any:
        task, began = asyncio.current_task(), time.perf_counter()
        cloud.spent.pop(task, None)
        try:
            return await found.reconcile(request)
        finally:
            cloud.overheads.append(time.perf_counter() - began - cloud.spent.pop(task, 0.0))

    manager._controllers["peerpods"] = replace(found, reconcile=timed)


async def main(nodes: int, pods: int) -> None:
    environment = SystemEnvironment()
    cloud = MeasuredCloud(environment)
    operator = peer_pods({"simulated": cloud.factory})
    async with running_server(environment=environment, plugins=operator.admission) as server:
        client = server.client()
        for manifest in operator.manifests():
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, manifest)
            name = manifest["metadata"]["name"]
            while not is_condition_true(await client.get(CUSTOM_RESOURCE_DEFINITIONS, name), "Established"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        data = {"CLOUD_PROVIDER": "simulated"}
        await client.create(CONFIG_MAPS, {"metadata": {"name": "peer-pods-cm"}, "data": data}, "default")
        await client.create(SECRETS, {"metadata": {"name": "peer-pods-secret"}}, "default")
        manager = Manager(server.client(), environment=environment, name="peerpods")
        operator.install(manager)
        measuring(manager, cloud)
        running = asyncio.ensure_future(manager.run())
        await spreads(client, nodes)
        await vms(client, cloud, pods)
        manager.stop()
        await running


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=1000)
    options = parser.parse_args()
    gc.freeze()  # as our own processes have it: looking for cycles in a thousand nodes takes longer than a reconcile
    gc.set_threshold(100_000, 50, 1000)
    asyncio.run(main(options.nodes, options.pods))
