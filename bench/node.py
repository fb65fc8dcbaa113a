"""From apply to Running, side by side with ``podman run -d`` of the same container with the same network; and cold boots.

Run as root on a machine with Podman and a static busybox:

    python bench/node.py [--rounds 15] [--together 20] [--boots 5]

Both sides take turns, so that a machine that is busy is busy for both. The container sleeps in the host's network: what
is compared is the way there, not two ways to build a network.

A cold boot begins with nothing running: a new process, Podman's service and the pods' network still to be made, five static
pods waiting. It ends when the first (the last) of their programs runs. The machine's load is printed: compare what was
measured at the same one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.node import image

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import PODS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.local import remove_local_node
from fleetplane.node.podman import HostFacts, look_at_host


def pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": image.NAME, "command": ["sleep", "1000"]}
    return {
        "metadata": {"name": name},
        "spec": {
            "hostNetwork": True,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


async def ours(client: Client, name: str) -> float:
    """Seconds from the request to the watch event that says Running."""
    began = time.perf_counter()
    made = await client.create(PODS, pod(name), "default")
    version = made["metadata"]["resourceVersion"]
    async for event in client.watch(PODS, "default", fields=f"metadata.name={name}", resource_version=version):
        if event.object.get("status", {}).get("phase") == "Running":
            break
    return time.perf_counter() - began


async def by_hand(host: HostFacts, name: str) -> float:
    """Seconds ``podman run -d`` takes."""
    limits = []
    if not host.may_raise_limits:
        limits = [word for key, value in host.rlimits.items() for word in ("--ulimit", f"{key}={value}:{value}")]
    words = [host.podman, *host.flags, "run", "-d", "--name", name, "--network=host", *limits, image.NAME]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*words, "sleep", "1000", stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    return time.perf_counter() - began


def remove_by_hand(host: HostFacts, names: list[str]) -> None:
    subprocess.run([host.podman, *host.flags, "rm", "-f", "-t", "0", *names], stdout=subprocess.DEVNULL, check=True)


async def measure(client: Client, host: HostFacts, rounds: int, together: int) -> None:
    first, second = [], []
    for number in range(rounds):
        first.append(await ours(client, f"one-{number}"))
        second.append(await by_hand(host, f"bench-one-{number}"))
        await client.delete(PODS, f"one-{number}", "default", grace_period_seconds=0)
        remove_by_hand(host, [f"bench-one-{number}"])
    report("one pod", first, second)
    names = [f"many-{number}" for number in range(together)]
    began = time.perf_counter()
    await asyncio.gather(*(ours(client, name) for name in names))
    all_ours = time.perf_counter() - began
    for name in names:
        await client.delete(PODS, name, "default", grace_period_seconds=0)
    await asyncio.sleep(5)
    began = time.perf_counter()
    await asyncio.gather(*(by_hand(host, f"bench-{name}") for name in names))
    all_by_hand = time.perf_counter() - began
    remove_by_hand(host, [f"bench-{name}" for name in names])
    report(f"{together} at once", [all_ours], [all_by_hand])


REST_SECONDS = 20.0

Answer = TypeVar("Answer")

STATIC_POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {image}
    command: [sh, -c, 'touch /out/{name}; exec sleep 1000']
    volumeMounts: [{{name: out, mountPath: /out}}]
  volumes: [{{name: out, hostPath: {{path: {out}}}}}]
"""


def cold_boots(directory: Path, rounds: int) -> None:
    """Seconds from the start of the process to the first and to the fifth static pod's program, and to ``ready``."""
    data, out = directory / "data", directory / "out"
    (data / "static-pods").mkdir(parents=True)
    out.mkdir()
    for number in range(5):
        name = f"static-{number}"
        text = STATIC_POD.format(name=name, image=image.NAME, out=out)
        (data / "static-pods" / f"{name}.yaml").write_text(text)
    taken = [cold_boot(data, out) for _ in range(rounds)]
    for what, place in (("first of five", 0), ("all five", 1), ("ready", 2)):
        seconds = [one[place] for one in taken]
        print(f"cold boot to {what:14} {statistics.median(seconds):5.2f} s (best {min(seconds):.2f})")


def cold_boot(data: Path, out: Path) -> tuple[float, float, float]:
    for file in out.iterdir():
        file.unlink()
    process = start(data, "--operators", "none")
    began, first, last, ready = time.perf_counter(), 0.0, 0.0, 0.0
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    try:
        while not (last and ready):
            running, now = len(list(out.iterdir())), time.perf_counter() - began
            assert now < 60, "the pods do not start"
            first = first or (now if running else 0.0)
            last = last or (now if running == 5 else 0.0)
            ready = ready or (now if process.stdout.readline() else 0.0)
            time.sleep(0.005)
    finally:
        stop(process, data)
    return first, last, ready


def start(data: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "fleetplane.interfaces.cli", "up", "--data-dir", str(data), "--port", "0"]
    return subprocess.Popen([*words, "--runtime", "podman", *more], stdout=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str], data: Path) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait()
    for node in (data / "nodes").glob("*"):
        asyncio.run(remove_local_node(node, SystemEnvironment()))


async def steady(client: Client, names: list[str]) -> dict[str, tuple[str, int]]:
    """Container and restarts of each, once all are ready."""
    while True:
        found = {pod["metadata"]["name"]: pod for pod in (await client.list(PODS, "default")).items}
        statuses = {name: (found.get(name, {}).get("status", {}).get("containerStatuses") or [{}])[0] for name in names}
        if all(one.get("ready") for one in statuses.values()):
            return {name: (one["containerID"], one["restartCount"]) for name, one in statuses.items()}
        await asyncio.sleep(0.02)


def killed_agent(directory: Path, count: int) -> None:
    """``kill -9`` of everything of ours with pods running, and how long a new start takes to know and show them all."""
    data, names = directory / "killed", [f"kept-{number}" for number in range(count)]
    process = start(data, "--operators", "none")
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        before = asyncio.run(with_client(data, lambda client: run_all(client, names)))
        process.kill()
        process.wait()
        process = start(data, "--operators", "none")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        began = time.perf_counter()
        after = asyncio.run(with_client(data, lambda client: steady(client, names)))
        taken = time.perf_counter() - began
        assert after == before, "a container was made anew"
        asyncio.run(with_client(data, lambda client: at_rest(client, names, process.pid)))
    finally:
        stop(process, data)
    print(f"killed with {count} pods: all shown as they are {taken:.2f} s after ready, no container touched")


async def run_all(client: Client, names: list[str]) -> dict[str, tuple[str, int]]:
    await asyncio.gather(*(client.create(PODS, pod(name), "default") for name in names))
    return await steady(client, names)


async def at_rest(client: Client, names: list[str], pid: int) -> None:
    """What the whole plane with its node uses while nothing happens; the agent is a part of it."""
    await asyncio.sleep(5)
    before, began = used_cpu(pid), time.perf_counter()
    await asyncio.sleep(REST_SECONDS)
    share = (used_cpu(pid) - before) / (time.perf_counter() - began)
    pages = resident_pages(pid)
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    print(f"plane and node at rest with {len(names)} pods: {share:.1%} of a core, {megabytes:.0f} MB resident")


def resident_pages(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


def used_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def with_client(data: Path, work: Callable[[Client], Awaitable[Answer]]) -> Answer:
    client = await connect_to(find_access(data / "admin.kubeconfig"))
    try:
        return await work(client)
    finally:
        await client.close()


def report(what: str, ours: list[float], theirs: list[float]) -> None:
    mine, other = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
    print(
        f"{what:12} fleetplane {mine:6.0f} ms (best {min(ours) * 1000:.0f})   podman run {other:6.0f} ms "
        f"(best {min(theirs) * 1000:.0f})   ratio {mine / other:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--together", type=int, default=20)
    parser.add_argument("--boots", type=int, default=5)
    options = parser.parse_args()
    host = look_at_host()
    with tempfile.TemporaryDirectory() as directory:
        archive = image.write_root(Path(directory) / "root.tar")
        subprocess.run([host.podman, "import", "-q", str(archive), image.NAME], stdout=subprocess.DEVNULL, check=True)
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        cold_boots(Path(directory) / "cold", options.boots)
        killed_agent(Path(directory), options.together)
        data = Path(directory) / "data"
        process = start(data, "--operators", "none")
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready ")
            asyncio.run(run(data, host, options))
        finally:
            stop(process, data)
        print(f"load of the machine: {os.getloadavg()[0]:.1f}")


async def run(data: Path, host: HostFacts, options: argparse.Namespace) -> None:
    client = await connect_to(find_access(data / "admin.kubeconfig"))
    try:
        await measure(client, host, options.rounds, options.together)
    finally:
        await client.close()


if __name__ == "__main__":
    main()
