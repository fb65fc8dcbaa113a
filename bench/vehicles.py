"""Vehicles in numbers: switchover on real containers, switchover across nodes, rules, boot to all workloads running.

    python bench/vehicles.py switchover [--kills 60]   # as root, with Podman and a static busybox
    python bench/vehicles.py within [--kills 20]       # the same between two containers of one pod
    python bench/vehicles.py across [--rounds 20]      # simulated nodes on a virtual clock: the protocol's own time
    python bench/vehicles.py rules
    python bench/vehicles.py boot                      # as root, with Podman

Switchover is measured from outside: from the SIGKILL of the active's first process to the first sign of life of the
standby, which writes into a pipe whenever there is room and cannot while it is frozen.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.node import image
from tests.operators.vehicles.test_fencing import GRACE, LOOKS, PROMISE, cut_off

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client
from fleetplane.interfaces.cli.demo_image import import_demo_image
from fleetplane.model import yaml
from fleetplane.model.builtin.types import PODS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.node.local import remove_local_node
from fleetplane.node.podman import look_at_host
from fleetplane.operators.vehicles import kinds
from fleetplane.operators.vehicles.kinds import VehDeployment, VehPod
from fleetplane.operators.vehicles.redundancy import switch_milliseconds
from fleetplane.operators.vehicles.rules import Engine, rule_of
from fleetplane.testing import run_virtually

BEAT = "exec 3>/beat/$POD_NAME; while true; do echo x >&3; done"
"""Writes until the pipe is full, and waits there: it costs nothing, and what was emptied is filled as soon as it runs."""


@contextmanager
def plane(directory: Path) -> Iterator[tuple[Path, float]]:
    """A plane with this machine as its node; yields its data directory and how long it took to be ready."""
    data = directory / "data"
    words = [sys.executable, "-m", "fleetplane.interfaces.cli", "up", "--data-dir", str(data), "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen([*words, "--runtime", "podman"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")
        yield data, time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        for node in (data / "nodes").glob("*"):
            asyncio.run(remove_local_node(node, SystemEnvironment()))


def load_image(directory: Path) -> None:
    archive = image.write_root(directory / "root.tar")
    words = [look_at_host().podman, "import", "-q", str(archive), image.NAME]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of all values do not exceed."""
    return sorted(values)[min(len(values) - 1, max(0, int(share * len(values) + 0.999999) - 1))]


def report(what: str, milliseconds: list[float]) -> None:
    shown = {"p50": statistics.median(milliseconds), "p90": percentile(milliseconds, 0.9)}
    shown |= {"p99": percentile(milliseconds, 0.99), "max": max(milliseconds), "min": min(milliseconds)}
    print(f"{what}: {len(milliseconds)} rounds, " + ", ".join(f"{k} {v:.0f} ms" for k, v in shown.items()))


# -- switchover on one node


def brake(beat: Path) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image.NAME,
        "command": ["sh", "-c", BEAT],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "volumeMounts": [{"name": "beat", "mountPath": "/beat"}],
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "beat", "hostPath": {"path": str(beat)}}],
    }
    return {
        "metadata": {"name": "brake"},
        "spec": {"appType": "system", "deploymentPolicy": "PassiveRedundant", "criticality": "D", "podSpec": spec},
    }


async def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await what()):  # noqa: ASYNC110 - what is asked is elsewhere
            await asyncio.sleep(0.05)
        return found


async def settled(client: Client) -> tuple[dict[str, Any], str] | None:
    """The active pod and the standby's name, once the node knows the standby as the active's successor."""
    found = await client.get(VehDeployment, "brake", "default")
    status = found.get("status") or {}
    if status.get("phase") != "Running" or not status.get("successor"):
        return None
    by_uid = {}
    for suffix in "ab":
        try:
            pod = await client.get(PODS, f"brake-{suffix}", "system-application")
        except ApiError:
            return None
        by_uid[pod["metadata"]["uid"]] = pod
    active, standby = by_uid.get(status["active"]), by_uid.get(status["successor"])
    if active is None or standby is None:
        return None
    notes = active["metadata"]["annotations"]
    if notes.get("node.fleetplane.io/successor") != status["successor"] or "node.fleetplane.io/paused" in notes:
        return None
    return active, standby["metadata"]["name"]


async def switchovers(data: Path, beat: Path, kills: int) -> None:
    client = await connect_to(find_access(data / "admin.kubeconfig"))
    pipes = {}
    for suffix in "ab":
        os.mkfifo(beat / f"brake-{suffix}")
        pipes[f"brake-{suffix}"] = os.open(beat / f"brake-{suffix}", os.O_RDWR | os.O_NONBLOCK)
    outside, inside = [], []
    try:
        await client.create(VehDeployment, brake(beat), "default")
        for number in range(kills):
            active, standby = await until(lambda: settled(client))
            await asyncio.sleep(random.random() * 0.5)
            container = active["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
            process = await process_of(container)
            for pipe in pipes.values():
                drain(pipe)
            outside.append(await killed(process, pipes[standby]))
            await until(partial(switched, client, number + 1))
            took = await until(partial(measured, client, standby))
            if took >= 0:
                inside.append(took)
            drain(pipes[active["metadata"]["name"]])
        report("switchover, killed active to standby's first sign of life (same node, real containers)", outside)
        report("decided on the node, as it measured them (end seen to standby seen thawed)", inside)
    finally:
        await client.delete(VehDeployment, "brake", "default")
        await until(lambda: no_pods(client))
        for pipe in pipes.values():
            os.close(pipe)
        await client.close()


async def killed(process: int, heir: int) -> float:
    """Milliseconds from the end of an active to the first sign of life in its standby's pipe."""
    began = time.perf_counter()
    os.kill(process, signal.SIGKILL)
    while not readable(heir):
        if time.perf_counter() - began > 30:
            raise TimeoutError(f"nobody took over from process {process}")
        await asyncio.sleep(0.001)
    return (time.perf_counter() - began) * 1000


async def process_of(container: str) -> int:
    words = [look_at_host().podman, "inspect", "--format", "{{.State.Pid}}", container]
    asked = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    return int((await asked.communicate())[0])


async def measured(client: Client, standby: str) -> float | None:
    """Milliseconds as its node measured them; -1 where the control plane decided."""
    pod = await client.get(PODS, standby, "system-application")
    told = [one for one in pod["status"]["conditions"] if one["type"] == "node.fleetplane.io/Promoted"]
    if not told:
        return -1.0
    found = switch_milliseconds(pod)
    return None if found is None else float(found)


async def switched(client: Client, times: int) -> dict[str, Any] | None:
    status: dict[str, Any] = (await client.get(VehDeployment, "brake", "default")).get("status") or {}
    return status if int(status.get("switchovers") or 0) >= times else None


async def no_pods(client: Client) -> bool:
    return not (await client.list(PODS, "system-application")).items


def drain(pipe: int) -> int:
    total = 0
    while True:
        try:
            total += len(os.read(pipe, 65536))
        except BlockingIOError:
            return total


def readable(pipe: int) -> bool:
    return drain(pipe) > 0


def measure_kills(switchovers: Callable[[Path, Path, int], Coroutine[Any, Any, None]], kills: int) -> None:
    """With a plane's data, a folder for the pipes the workloads write to, and the number of kills."""
    with tempfile.TemporaryDirectory() as directory:
        load_image(Path(directory))
        beat = Path(directory) / "beat"
        beat.mkdir()
        with plane(Path(directory)) as (data, _):
            asyncio.run(switchovers(data, beat, kills))


def measure_switchover(options: argparse.Namespace) -> None:
    measure_kills(switchovers, options.kills)


# -- switchover within a pod


def pair(beat: Path, number: int) -> dict[str, Any]:
    """A fresh pod for every kill: a container that ends often is started again ever later."""
    app = brake(beat)
    spec = app["spec"]["podSpec"]
    (main,) = spec["containers"]
    spec["containers"] = [
        {**main, "name": name, "env": [{"name": "POD_NAME", "value": f"pair-{number}-{name}"}]} for name in "ab"
    ]
    return {"metadata": {"name": f"pair-{number}"}, "spec": app["spec"]}


async def switchovers_within(data: Path, beat: Path, kills: int) -> None:
    client = await connect_to(find_access(data / "admin.kubeconfig"))
    outside, inside = [], []
    try:
        for number in range(kills):
            name, pipes = f"pair-{number}", {}
            for one in "ab":
                os.mkfifo(beat / f"{name}-{one}")
                pipes[one] = os.open(beat / f"{name}-{one}", os.O_RDWR | os.O_NONBLOCK)
            await client.create(VehPod, pair(beat, number), "default")
            await until(partial(runs, client, name, 0))
            await asyncio.sleep(0.2 + random.random() * 0.5)
            pod = await client.get(PODS, name, "system-application")
            (active,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == "a"]
            process = await process_of(active["containerID"].partition("://")[2])
            drain(pipes["b"])
            outside.append(await killed(process, pipes["b"]))
            inside.append(float((await until(partial(runs, client, name, 1)))["lastSwitchMs"]))
            await client.delete(VehPod, name, "default")
            await until(lambda: no_pods(client))
            for pipe in pipes.values():
                os.close(pipe)
        report("switchover within a pod, killed active to standby's first sign of life (real containers)", outside)
        report("as the node measured them (the runtime's time of the end to standby seen thawed)", inside)
    finally:
        await client.close()


async def runs(client: Client, name: str, times: int) -> dict[str, Any] | None:
    status: dict[str, Any] = (await client.get(VehPod, name, "default")).get("status") or {}
    seen = int(status.get("switchovers") or 0) >= times and (not times or "lastSwitchMs" in status)
    return status if status.get("phase") == "Running" and seen else None


def measure_within(options: argparse.Namespace) -> None:
    measure_kills(switchovers_within, options.kills)


# -- across nodes


def measure_across(options: argparse.Namespace) -> None:
    """A node is cut off; times are of the virtual clock, so they are those of the protocol and not of this machine."""
    logging.disable(logging.CRITICAL)
    found = [run_virtually(cut_off(seed)) for seed in range(options.rounds)]
    report("across nodes (simulated), cut to the active's own end", [1000 * stopped for stopped, _ in found])
    report("across nodes (simulated), cut to the successor's begin", [1000 * began for _, began in found])
    safe = min(began - stopped for stopped, began in found)
    print(
        f"bound: lease {GRACE:g} s + promise {PROMISE} s + looks {LOOKS:g} s; never both: at least {safe:.1f} s between"
    )


# -- boot


def measure_boot(_options: argparse.Namespace) -> None:
    """The camera and the brake monitor are applied; then everything is taken down as a power cycle does, and booted."""
    examples = Path(__file__).parents[1] / "examples" / "vehicles"
    assert import_demo_image() is None
    with tempfile.TemporaryDirectory() as directory:
        with plane(Path(directory)) as (data, _):
            asyncio.run(prepare(data, examples))
        words = [sys.executable, str(examples / "boot.py"), "--data-dir", str(data), "--runtime", "podman", "--once"]
        try:
            subprocess.run(words, check=True)
        finally:
            for node in (data / "nodes").glob("*"):
                asyncio.run(remove_local_node(node, SystemEnvironment()))


async def prepare(data: Path, examples: Path) -> None:
    client = await connect_to(find_access(data / "admin.kubeconfig"))
    try:
        for name in ("camera", "brake"):
            for document in yaml.load_all((examples / f"{name}.yaml").read_bytes()):
                await client.create(getattr(kinds, document.value["kind"]), document.value, "default")

        async def run() -> bool:
            found = (await client.list(VehPod)).items + (await client.list(VehDeployment)).items
            return all((one.get("status") or {}).get("phase") == "Running" for one in found)

        await until(run)
    finally:
        await client.close()


# -- rules


def measure_rules(_options: argparse.Namespace) -> None:
    """Fifty rules of two conditions each, one sample at a time, on one core."""
    engine, chance = Engine(), random.Random(1)

    def condition(name: str, comparison: str, **more: float) -> dict[str, Any]:
        topic = name.upper()
        return {"conditionName": name, "conditionTopic": topic, "conditionComparison": comparison} | {
            "conditionValue": 50,
            **more,
        }

    for n in range(50):
        first, second = f"s{n}", f"s{n + 1}"
        units = [
            {"conditionsValue": first, "conditionsPostOperator": "And"},
            {"conditionsValue": second, "conditionsPreOperator": "Not"},
        ]
        defined = [condition(first, "GreaterThan", hysteresis=5), condition(second, "SmallerThan")]
        spec = {"lifeTime": "sticky", "conditionDefinitions": defined, "conditions": {"conditionUnits": units}}
        engine.set(n, rule_of(spec))
    samples = [(f"S{chance.randrange(51)}", chance.random() * 100) for _ in range(400_000)]
    fired, began = 0, time.process_time()
    for number, (topic, value) in enumerate(samples):
        fired += len(engine.feed(topic, value, number / 50_000))
    rate = len(samples) / (time.process_time() - began)
    print(f"rules: {rate:,.0f} samples/s on one core ({len(samples):,} samples, 50 rules, {fired:,} firings)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("switchover")
    command.add_argument("--kills", type=int, default=60)
    command.set_defaults(run=measure_switchover)
    command = commands.add_parser("within")
    command.add_argument("--kills", type=int, default=20)
    command.set_defaults(run=measure_within)
    command = commands.add_parser("across")
    command.add_argument("--rounds", type=int, default=20)
    command.set_defaults(run=measure_across)
    commands.add_parser("rules").set_defaults(run=measure_rules)
    commands.add_parser("boot").set_defaults(run=measure_boot)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
