"""Clusters of pods on Podman, measured from outside: from apply to Running, and what pausing and deleting take.

    python bench/vclusters_pods.py [--nodes 3] [--samples 3]

The node image of Fleetplane itself is made first (that is not counted), then a plane of its own process is started, with
the operator and this machine as its node. A sample makes a cluster, waits until its phase is Running, asks its API for its
nodes with the kubeconfig from its Secret, pauses it, lets it go on, and deletes it. The target is three nodes in 30 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from planes import plane

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import NODES, SECRETS, STORAGE_CLASSES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.operators.vclusters.kinds import NETWORK, STOPPED, Vk8s

BUILD = Path(__file__).parents[1] / "deploy" / "images" / "fleetplane" / "build.py"
IMAGE = "localhost/fleetplane-vnode:bench"
LIMITS = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "50m", "memory": "100Mi"}}


async def until(client: Client, name: str, is_so: Callable[[Object], bool], seconds: float = 300) -> float:
    """Seconds until it is so; an empty object means that it is gone."""
    started = time.perf_counter()
    async with asyncio.timeout(seconds):
        while True:
            try:
                found = await client.get(Vk8s, name, "default")
            except ApiError as error:
                if error.code != 404:
                    raise
                found = {}
            if is_so(found):
                return time.perf_counter() - started
            await asyncio.sleep(0.1)


def in_phase(phase: str) -> Callable[[Object], bool]:
    return lambda found: (found.get("status") or {}).get("phase") == phase


async def sample(client: Client, name: str, nodes: int, directory: Path) -> dict[str, float]:
    roles = [("m", "master"), *((f"w{number}", "worker") for number in range(nodes - 1))]
    spec = {
        "nodes": [{"name": f"{name}-{one}", "image": IMAGE, "role": role, "resources": LIMITS} for one, role in roles]
    }
    took: dict[str, float] = {}
    started = time.perf_counter()
    await client.create(Vk8s, {"metadata": {"name": name, "annotations": {NETWORK: "true"}}, "spec": spec}, "default")
    await until(client, name, in_phase("Running"))
    took["apply to Running"] = time.perf_counter() - started
    secret = await client.get(SECRETS, f"{name}-kubeconfig", "default")
    file = directory / f"{name}.kubeconfig"
    file.write_bytes(base64.b64decode(secret["data"]["value"]))
    tenant = await connect_to(find_access(file))
    assert len((await tenant.list(NODES)).items) == nodes
    await tenant.close()
    await client.patch(Vk8s, name, {"metadata": {"annotations": {STOPPED: "true"}}}, "default")
    await until(client, name, in_phase("Paused"))
    await asyncio.sleep(5)
    await client.patch(Vk8s, name, {"metadata": {"annotations": {STOPPED: None}}}, "default")
    await until(client, name, in_phase("Restarting"))
    took["resume to Running"] = await until(client, name, in_phase("Running"))
    await client.delete(Vk8s, name, "default")
    took["delete to gone"] = await until(client, name, lambda found: not found)
    return took


async def measure(options: argparse.Namespace, client: Client, directory: Path) -> None:
    volumes = {"provisioner": "fleetplane.io/host-path", "parameters": {"path": str(directory / "volumes")}}
    volumes["volumeBindingMode"] = "WaitForFirstConsumer"
    await client.create(STORAGE_CLASSES, {"metadata": {"name": "local-path"}, **volumes})
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(options.samples):
        for what, seconds in (await sample(client, f"bench-{number}", options.nodes, directory)).items():
            found[what].append(seconds)
    print(f"{options.nodes} nodes, {options.samples} samples, seconds")
    for what, values in found.items():
        print(f"{what:<20} median {statistics.median(values):6.1f}   max {max(values):6.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--samples", type=int, default=3)
    options = parser.parse_args()
    subprocess.run([sys.executable, str(BUILD), "--name", IMAGE], check=True)
    asyncio.run(bench(options))


async def bench(options: argparse.Namespace) -> None:
    async with plane("--runtime", "podman", "--operators", "vclusters") as made:
        await measure(options, made.client, made.directory)


if __name__ == "__main__":
    main()
