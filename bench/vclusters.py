"""Logical virtual clusters, measured from outside: how fast one is there, and what it costs.

    python bench/vclusters.py [--existing 0,1000,10000] [--samples 30] [--pods 200]

A plane of its own process is started, with the virtual-clusters operator and no nodes. For each number of clusters that
exist already, new ones are made one after another. A sample is the time from sending the create to the answer of the
first GET over a new TLS connection with what the Secret ``<name>-kubeconfig`` holds, which is waited for by a watch.
Bytes are what the process (resident) and the database grew by, for each cluster.

Pods: in another plane, with simulated nodes, pods are made one after another in a virtual cluster. Down is from the answer
to the create until the host's pod is seen; up is from the host's pod being seen Running until the guest's is. The two
together are what the synchronisation adds: scheduling and starting a pod cost the host the same anyway.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fleetplane.client.http import HttpTransport, connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client
from fleetplane.client.rest import RestClient
from fleetplane.model.builtin.types import NAMESPACES, PODS, SECRETS, SERVICE_ACCOUNTS
from fleetplane.operators.vclusters.kinds import Vk8s

FILL_AT_ONCE = 16
ANCHORS = 12


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def on_disk(directory: Path) -> int:
    return sum(one.stat().st_size for one in directory.glob("fleetplane.db*"))


async def create(client: Client, name: str) -> None:
    await client.create(Vk8s, {"metadata": {"name": name}, "spec": {"mode": "logical"}}, "default")


async def first_get(client: Client, name: str, directory: Path) -> float:
    """Seconds from create to the first authenticated answer."""
    file = directory / f"{name}.kubeconfig"
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    version = (await client.list(SECRETS, "default", fields=f"metadata.name={name}-kubeconfig")).resource_version

    async def watch() -> None:
        fields = f"metadata.name={name}-kubeconfig"
        async for event in client.watch(SECRETS, "default", fields=fields, resource_version=version):
            if event.type == "ADDED":
                seen.set_result(base64.b64decode(event.object["data"]["value"]))
                return

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0.05)
    started = time.perf_counter()
    await create(client, name)
    file.write_bytes(await asyncio.wait_for(seen, 60))
    tenant = RestClient(HttpTransport(find_access(file)))
    await tenant.get(NAMESPACES, "default")
    took = time.perf_counter() - started
    await tenant.close()
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    return took


async def running(client: Client, wanted: int) -> None:
    """Wait until so many clusters run."""
    count = 0
    while count < wanted:
        listed = await client.list(SECRETS, "default", labels="vk8s.sktelecom.com/credentials=true", limit=1)
        count = len(listed.items) + (listed.remaining or 0)
        if count < wanted:
            await asyncio.sleep(0.5)


async def fill(client: Client, first: int, count: int) -> float:
    started = time.perf_counter()
    limit = asyncio.Semaphore(FILL_AT_ONCE)

    async def one(number: int) -> None:
        async with limit:
            await create(client, f"existing-{number}")

    await asyncio.gather(*(one(number) for number in range(first, first + count)))
    return started


async def measure(existing: list[int], samples: int, directory: Path, pid: int) -> None:
    client = await connect_to(find_access(directory / "admin.kubeconfig"))
    made = 0
    sampled = 0
    await first_get(client, "warm-up", directory)
    base, disk = resident(pid), on_disk(directory)
    print(
        f"{'existing':>9} {'p50 ms':>8} {'p90 ms':>8} {'max ms':>8} {'clusters/s':>11} {'KiB mem':>8} {'KiB disk':>9}"
    )
    for wanted in existing:
        rate = ""
        if wanted > made:
            started = await fill(client, made, wanted - made)
            await running(client, wanted + sampled + 1)
            rate = f"{(wanted - made) / (time.perf_counter() - started):.0f}"
            made = wanted
        await asyncio.sleep(3)
        took = []
        for number in range(samples):
            took.append(await first_get(client, f"sample-{wanted}-{number}", directory) * 1000)
            await asyncio.sleep(0.05)
        sampled += samples
        total = made + sampled
        memory, stored = (resident(pid) - base) / total / 1024, (on_disk(directory) - disk) / total / 1024
        p90 = statistics.quantiles(took, n=10)[-1] if len(took) > 1 else took[0]
        print(
            f"{wanted:>9} {statistics.median(took):>8.1f} {p90:>8.1f} {max(took):>8.1f} {rate:>11}"
            f" {memory:>8.1f} {stored:>9.1f}",
            flush=True,
        )
    await client.close()


async def pod_sync(count: int, directory: Path) -> None:
    """Measure what lies between a guest's pod and the host's."""
    client = await connect_to(find_access(directory / "admin.kubeconfig"))
    await first_get(client, "tenant", directory)
    tenant = await connect_to(find_access(directory / "tenant.kubeconfig"))
    while not (await tenant.list(SERVICE_ACCOUNTS, "default")).items:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    seen: dict[tuple[str, str], asyncio.Future[float]] = {}

    def moment(where: str, name: str) -> asyncio.Future[float]:
        return seen.setdefault((where, name), asyncio.get_running_loop().create_future())

    async def watch(where: str, one: Client) -> None:
        async for event in one.watch(PODS, "default"):
            name = str(event.object["metadata"].get("name", "")).partition("-x-")[0]
            states = ["added", (event.object.get("status") or {}).get("phase") or ""]
            for state in states:
                if not (future := moment(f"{where} {state}", name)).done():
                    future.set_result(time.perf_counter())

    watching = [asyncio.ensure_future(watch("host", client)), asyncio.ensure_future(watch("guest", tenant))]
    await asyncio.sleep(0.5)
    spec = {"containers": [{"name": "main", "image": "web:1"}], "terminationGracePeriodSeconds": 0}
    for number in range(ANCHORS):  # a cluster in use: it has pods on every node already
        await tenant.create(PODS, {"metadata": {"name": f"anchor-{number}"}, "spec": spec}, "default")
        await moment("guest Running", f"anchor-{number}")
    rows: list[tuple[float, float]] = []
    for number in range(count):
        name = f"pod-{number}"
        await tenant.create(PODS, {"metadata": {"name": name}, "spec": spec}, "default")
        created = time.perf_counter()
        async with asyncio.timeout(60):
            down = await moment("host added", name) - created
            up = await moment("guest Running", name) - await moment("host Running", name)
        rows.append((max(0.0, down) * 1000, max(0.0, up) * 1000))
        await tenant.delete(PODS, name, "default", grace_period_seconds=0)
    for one in watching:
        one.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    print(f"\n{f'{count} pods':12} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    both = [down + up for down, up in rows]
    for title, found in (("down", [one for one, _ in rows]), ("up", [one for _, one in rows]), ("together", both)):
        cuts = statistics.quantiles(found, n=100)
        print(f"{title:12} {statistics.median(found):>8.1f} {cuts[89]:>8.1f} {cuts[98]:>8.1f} {max(found):>8.1f}")
    await tenant.close()
    await client.close()


@asynccontextmanager
async def plane(*options: str) -> AsyncIterator[tuple[Path, int]]:
    """A plane in a process of its own: (its directory, its process id)."""
    with tempfile.TemporaryDirectory() as name:
        command = ["-m", "fleetplane.interfaces.cli", "up", "--data-dir", name, "--port", "0", *options]
        command += ["--operators", "vclusters"]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line.startswith(b"ready"), line
            yield Path(name), process.pid
        finally:
            process.terminate()
            await process.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--existing", default="0,1000")
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--pods", type=int, default=200)
    options = parser.parse_args()
    if existing := [int(one) for one in options.existing.split(",") if one]:
        async with plane("--runtime", "none", "--nodes", "0") as (directory, pid):
            await measure(existing, options.samples, directory, pid)
    if options.pods:
        async with plane("--runtime", "simulated", "--nodes", "4") as (directory, _):
            await pod_sync(options.pods, directory)


if __name__ == "__main__":
    asyncio.run(main())
