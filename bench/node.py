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
from pathlib import Path
from typing import Any

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
