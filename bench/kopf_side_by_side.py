"""Our controller framework and kopf, side by side: the same operator on the same kind of server.

    python bench/kopf_side_by_side.py [--objects 10000] [--only ours|kopf]

For each framework: a fresh `fleetplane up` (no operators of its own), N Greetings, then the operator is started and has
to make one ConfigMap and write one status for each. Measured: the operator's CPU (user and system, without its start),
its memory, the time until all is done; then, idle, the time from the answer to a create until the ConfigMap is seen.
The server's own write rate is measured before and after, with the same client and as many writes at a time as the
operators use: an object costs two writes, so half that rate is the most an operator can do. The share of it that was
reached is told by the clock, and by what the server's processor had to do, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
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
from fleetplane.model.builtin.types import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from fleetplane.model.kind import crd_manifest
from fleetplane.model.objects import is_condition_true

sys.path.insert(0, str(Path(__file__).parent))
from greetings.ours import Greeting

HERE = Path(__file__).parent / "greetings"
CONCURRENT = 16
TICK = os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def server() -> AsyncIterator[tuple[RestClient, Path, int]]:
    with tempfile.TemporaryDirectory() as directory:
        command = [str(Path(sys.executable).parent / "fleetplane"), "up", "--data-dir", directory, "--port", "0"]
        process = await asyncio.create_subprocess_exec(
            *command, "--runtime", "none", "--operators", "none", stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            line = (await process.stdout.readline()).decode().split()
            kubeconfig = Path(line[2].partition("=")[2])
            client = await connect_to(load([kubeconfig]).access())
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, crd_manifest(Greeting))
            name = f"{Greeting.resource.plural}.{Greeting.resource.group}"
            while not is_condition_true(await client.get(CUSTOM_RESOURCE_DEFINITIONS, name), "Established"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            yield client, kubeconfig, process.pid
            await client.close()
        finally:
            process.terminate()
            await process.wait()


class Operator:
    """An operator process and what it used."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    def cpu(self) -> float:
        return cpu_of(self.pid)

    def memory(self, what: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) / 1024


def cpu_of(pid: int) -> float:
    """Seconds of user and system time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@asynccontextmanager
async def operator(which: str, kubeconfig: Path) -> AsyncIterator[Operator]:
    if which == "ours":
        command = [sys.executable, str(HERE / "ours.py"), str(kubeconfig)]
    else:
        kopf = [sys.executable, "-m", "kopf", "run", str(HERE / "with_kopf.py"), "--namespace", "default", "--quiet"]
        command = [*kopf, "--standalone"]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield Operator(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def greeting(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "bench.example.org/v1",
        "kind": "Greeting",
        "metadata": {"name": name},
        "spec": {"text": f"hello from {name}"},
    }


async def create_all(
    client: RestClient, server: int, names: list[str], namespace: str = "default"
) -> tuple[float, float]:
    """Writes per second, and milliseconds of the server's processor for each."""
    left = iter(names)

    async def worker() -> None:
        for name in left:
            await client.create(Greeting, greeting(name), namespace)

    started, before = time.perf_counter(), cpu_of(server)
    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENT):
            group.create_task(worker())
    return len(names) / (time.perf_counter() - started), (cpu_of(server) - before) / len(names) * 1000


async def count_said(client: RestClient) -> int:
    return sum([bool(one.get("status", {}).get("said")) async for one in client.iterate(Greeting, "default")])


async def until_begun(client: RestClient) -> None:
    while len((await client.list(CONFIG_MAPS, "default", limit=2)).items) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def until_done(client: RestClient, objects: int) -> None:
    """Cheap while far from the end: counts ConfigMaps by the length of the rest of a list, then looks at status.

    It looks the more often the nearer the end is, so that the time is right to a few hundredths of a second.
    """
    while True:
        page = await client.list(CONFIG_MAPS, "default", limit=1)
        left = objects - len(page.items) - (page.remaining or 0)
        if left <= 0 and await count_said(client) >= objects:
            return
        await asyncio.sleep(min(max(left / 4000, 0.01), 0.2))


async def latencies(client: RestClient, count: int) -> list[float]:
    """Milliseconds from the answer to a create until the child is seen by a watch."""
    seen: dict[str, asyncio.Event] = {f"idle-{n}": asyncio.Event() for n in range(count)}
    at: dict[str, float] = {}
    listed = await client.list(CONFIG_MAPS, "default", limit=1)

    async def watch() -> None:
        async for event in client.watch(CONFIG_MAPS, "default", resource_version=listed.resource_version):
            name = event.object["metadata"]["name"]
            if name in seen and name not in at:
                at[name] = time.perf_counter()
                seen[name].set()

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0.5)
    measured = []
    for name, arrived in seen.items():
        await client.create(Greeting, greeting(name), "default")
        answered = time.perf_counter()
        await asyncio.wait_for(arrived.wait(), 30)
        measured.append(max(0.0, (at[name] - answered) * 1000))
        await asyncio.sleep(0.05)
    watching.cancel()
    return measured


async def run(which: str, objects: int) -> dict[str, float]:
    async with server() as (client, kubeconfig, pid):
        async with operator(which, kubeconfig) as idle:
            await client.create(Greeting, greeting("first"), "default")
            while await count_said(client) < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            base_memory, start_cpu = idle.memory(), idle.cpu()
        first, cost = await create_all(client, pid, [f"g{n}" for n in range(objects)])
        async with operator(which, kubeconfig) as working:
            await until_begun(client)
            started, served = time.perf_counter(), cpu_of(pid)
            await until_done(client, objects + 1)
            seconds, served = time.perf_counter() - started, cpu_of(pid) - served
            await asyncio.sleep(1)
            cpu = working.cpu() - start_cpu
            memory, peak = working.memory(), working.memory("VmHWM")
            idle_times = sorted(await latencies(client, 200))
        await client.create(NAMESPACES, {"metadata": {"name": "after"}})
        last, cost_after = await create_all(client, pid, [f"g{n}" for n in range(objects)], "after")
    rate, cost, served = (first + last) / 2, (cost + cost_after) / 2, served / objects * 1000
    return {
        "server writes/s": rate,
        "objects/s": objects / seconds,
        "% of half the writes": objects / seconds / (rate / 2) * 100,
        "% by server CPU": 2 * cost / served * 100,
        "server CPU ms/write": cost,
        "server CPU ms/object": served,
        "operator CPU ms/object": cpu / objects * 1000,
        "memory idle MB": base_memory,
        "memory MB": memory,
        "memory peak MB": peak,
        "memory KB/object": (memory - base_memory) * 1024 / objects,
        "change to child p50 ms": statistics.median(idle_times),
        "change to child p99 ms": idle_times[int(len(idle_times) * 0.99) - 1],
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--only", choices=["ours", "kopf"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = {}
    for which in [arguments.only] if arguments.only else ["ours", "kopf"]:
        results[which] = await run(which, arguments.objects)
    if arguments.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'':26}" + "".join(f"{which:>12}" for which in results))
    for row in next(iter(results.values())):
        print(f"{row:26}" + "".join(f"{one[row]:12.2f}" for one in results.values()))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
