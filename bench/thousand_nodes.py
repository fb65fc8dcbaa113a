"""Ten Deployments of a thousand pods each on a thousand simulated nodes: how long until all are ready, and at what cost.

    python bench/thousand_nodes.py [--nodes 1000] [--deployments 10] [--replicas 1000]

One `fleetplane up --runtime simulated` is everything: store, server, controllers, scheduler and the nodes. The clock runs from
the first create, with all nodes registered, until every Deployment says that all of its replicas are ready. Memory is that
of the whole plane, helper process included, when it has come to rest. On a busy machine the processor time is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import load
from fleetplane.client.rest import RestClient
from fleetplane.model.builtin.types import DEPLOYMENTS, NODES
from fleetplane.model.errors import ApiError

TICK = os.sysconf("SC_CLK_TCK")
REST_SECONDS = 5.0


@asynccontextmanager
async def plane(nodes: int) -> AsyncIterator[tuple[RestClient, int]]:
    with tempfile.TemporaryDirectory() as directory:
        command = [str(Path(sys.executable).parent / "fleetplane"), "up", "--data-dir", directory, "--port", "0"]
        command += ["--runtime", "simulated", "--nodes", str(nodes), "--operators", "none"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            line = (await process.stdout.readline()).decode().split()
            client = await connect_to(load([Path(line[2].partition("=")[2])]).access())
            yield client, process.pid
            await client.close()
        finally:
            process.terminate()
            await process.wait()


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu(pid: int) -> float:
    """Seconds of user and system time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid: int, what: str) -> float:
    """MB (10^6 bytes) of a process and its helpers; of helpers what nobody else has."""
    status = Path(f"/proc/{pid}/status").read_text()
    total = int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) * 1024
    for child in children(pid):
        smaps = Path(f"/proc/{child}/smaps_rollup").read_text()
        total += sum(int(line.split()[1]) * 1024 for line in smaps.splitlines() if line.startswith("Private_"))
    return total / 1e6


def deployment(name: str, replicas: int) -> dict[str, Any]:
    container = {"name": "main", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


async def registered(client: RestClient) -> int:
    page = await client.list(NODES, limit=1)
    return len(page.items) + (page.remaining or 0)


async def ready(client: RestClient) -> int:
    try:
        found = (await client.list(DEPLOYMENTS, "default")).items
    except ApiError:
        return 0
    return sum(int((one.get("status") or {}).get("readyReplicas") or 0) for one in found)


async def run(nodes: int, deployments: int, replicas: int) -> dict[str, float]:
    async with plane(nodes) as (client, pid):
        while await registered(client) < nodes:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        await asyncio.sleep(REST_SECONDS)
        before, used, started = memory(pid, "VmRSS"), cpu(pid), time.perf_counter()
        for number in range(deployments):
            await client.create(DEPLOYMENTS, deployment(f"web-{number}", replicas))
        while await ready(client) < deployments * replicas:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        seconds, used = time.perf_counter() - started, cpu(pid) - used
        await asyncio.sleep(REST_SECONDS)
        return {
            "s until all are ready": seconds,
            "pods/s": deployments * replicas / seconds,
            "CPU s of the plane": used,
            "MB with the nodes alone": before,
            "MB with the pods": memory(pid, "VmRSS"),
            "MB at the peak": memory(pid, "VmHWM"),
        }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--deployments", type=int, default=10)
    parser.add_argument("--replicas", type=int, default=1000)
    arguments = parser.parse_args()
    found = await run(arguments.nodes, arguments.deployments, arguments.replicas)
    for row, value in found.items():
        print(f"{row:28}{value:12.1f}")
    print(f"{'load of the machine':28}{os.getloadavg()[0]:12.1f}")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
