"""Us and a real kube-apiserver on etcd, in turn, by the same load, in one run: ``python bench/kube_side_by_side.py``.

The peer's programs (etcd, kube-apiserver) are found in ``$REAL_KUBE/bin`` and on the path; without them only our side is
measured. Both serve TLS on loopback with a bearer token, RBAC and admission on, every write durable. The load comes from this
process, so both sides share its cost; ratios are what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

MAPS = "/api/v1/namespaces/default/configmaps"
WIDGETS = "/apis/bench.example.com/v1/namespaces/default/widgets"
CONNECTIONS = 32
WATCHERS = 101


@dataclass(slots=True)
class Side:
    """One running server. ``pids`` are its processes, whose memory counts."""

    name: str
    url: str
    token: str
    pids: list[int]
    started: float
    figures: dict[str, float] = field(default_factory=dict)


@contextmanager
def fleetplane(directory: Path, port: int) -> Iterator[Side]:
    data = directory / "fleetplane"
    command = [
        sys.executable,
        "-m",
        "fleetplane.interfaces.cli",
        "server",
        "--data-dir",
        str(data),
        "--port",
        str(port),
    ]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready ")
    took = time.perf_counter() - begun
    config: Any = yaml.safe_load((data / "admin.kubeconfig").read_text())
    try:
        token = config["users"][0]["user"]["token"]
        yield Side("fleetplane", f"https://127.0.0.1:{port}", token, family(process.pid), took)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def peer_programs() -> Path:
    return Path(os.environ.get("REAL_KUBE", str(Path.home() / ".cache" / "real-kube"))) / "bin"


def peer_is_there() -> bool:
    return (peer_programs() / "kube-apiserver").exists() and shutil.which("etcd") is not None


@contextmanager
def kubernetes(directory: Path, port: int) -> Iterator[Side]:
    home = directory / "kubernetes"
    home.mkdir()
    programs = peer_programs()
    subprocess.run(["openssl", "genrsa", "-out", str(home / "sa.key"), "2048"], check=True, capture_output=True)
    (home / "tokens.csv").write_text('admintoken,admin,admin,"system:masters"\n')
    store, peer = f"http://127.0.0.1:{port + 1}", f"http://127.0.0.1:{port + 2}"
    begun = time.perf_counter()
    etcd = quiet(
        "etcd",
        data_dir=home / "etcd",
        listen_client_urls=store,
        advertise_client_urls=store,
        listen_peer_urls=peer,
        initial_advertise_peer_urls=peer,
        initial_cluster=f"default={peer}",
    )
    key = home / "sa.key"
    server = quiet(
        programs / "kube-apiserver",
        etcd_servers=store,
        secure_port=port,
        bind_address="127.0.0.1",
        cert_dir=home / "certs",
        service_account_issuer="https://127.0.0.1",
        service_account_key_file=key,
        service_account_signing_key_file=key,
        token_auth_file=home / "tokens.csv",
        authorization_mode="RBAC",
        service_cluster_ip_range="10.0.0.0/24",
    )
    url = f"https://127.0.0.1:{port}"
    try:
        asyncio.run(until_ready(url, "admintoken"))
        took = time.perf_counter() - begun
        asyncio.run(ensure_namespace(url, "admintoken"))
        yield Side("kube-apiserver 1.20 + etcd", url, "admintoken", [etcd.pid, server.pid], took)
    finally:
        for process in (server, etcd):
            process.terminate()
            process.wait(60)


def quiet(program: str | Path, **flags: object) -> subprocess.Popen[bytes]:
    """Start a program whose output nobody reads; ``data_dir`` becomes ``--data-dir``."""
    command = [str(program), *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def family(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def resident(pids: list[int]) -> float:
    """MiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


def session(token: str, connections: int) -> aiohttp.ClientSession:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connector = aiohttp.TCPConnector(limit=connections, ssl=context)
    return aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {token}"})


async def until_ready(url: str, token: str) -> None:
    async with session(token, 1) as client, asyncio.timeout(90):
        while True:
            try:
                async with client.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)


async def ensure_namespace(url: str, token: str) -> None:
    async with session(token, 1) as client, asyncio.timeout(30):
        while True:
            async with client.get(f"{url}/api/v1/namespaces/default") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)


def body(name: str, number: int) -> bytes:
    labels = {"app": f"x{number % 10}"}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": labels},
            "data": {"k": "v" * 1500},
        },
        separators=(",", ":"),
    ).encode()


def custom(name: str, number: int) -> bytes:
    labels = {"app": f"x{number % 10}"}
    spec = {"size": number, "color": "blue"}
    made = {
        "apiVersion": "bench.example.com/v1",
        "kind": "Widget",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }
    return json.dumps(made, separators=(",", ":")).encode()


async def define(client: aiohttp.ClientSession, url: str) -> None:
    """A custom kind, served."""
    properties = {"size": {"type": "integer"}, "color": {"type": "string"}}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {
        "group": "bench.example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [version],
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.bench.example.com"},
        "spec": spec,
    }
    async with client.post(f"{url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=definition) as answer:
        assert answer.status == 201, await answer.text()
    async with asyncio.timeout(30):
        while True:
            async with client.get(url + WIDGETS) as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.05)


async def load(side: Side, objects: int, events: int) -> None:
    figures = side.figures
    per_connection = objects // CONNECTIONS
    async with session(side.token, CONNECTIONS) as client:
        latencies: list[float] = []

        async def create(worker: int) -> None:
            for number in range(per_connection):
                begun = time.perf_counter()
                data = body(f"c-{worker}-{number}", number)
                async with client.post(
                    side.url + MAPS, data=data, headers={"Content-Type": "application/json"}
                ) as answer:
                    await answer.read()
                    assert answer.status == 201, await answer.text()
                latencies.append(time.perf_counter() - begun)

        async def get(worker: int) -> None:
            for number in range(per_connection):
                async with client.get(f"{side.url}{MAPS}/c-{worker}-{number}") as answer:
                    await answer.read()
                    assert answer.status == 200

        for name, work in (("creates/s", create), ("gets/s", get)):
            begun = time.perf_counter()
            await asyncio.gather(*(work(worker) for worker in range(CONNECTIONS)))
            figures[name] = per_connection * CONNECTIONS / (time.perf_counter() - begun)
        latencies.sort()
        figures["create p99 ms"] = latencies[int(len(latencies) * 0.99)] * 1000
        await define(client, side.url)

        async def create_custom(worker: int) -> None:
            for number in range(per_connection):
                data = custom(f"w-{worker}-{number}", number)
                async with client.post(
                    side.url + WIDGETS, data=data, headers={"Content-Type": "application/json"}
                ) as answer:
                    await answer.read()
                    assert answer.status == 201, await answer.text()

        await asyncio.gather(*(create_custom(worker) for worker in range(CONNECTIONS)))
        for name, query in (
            ("list all ms", ""),
            ("page of 500 ms", "?limit=500"),
            ("by label 1 in 10 ms", "?labelSelector=app%3Dx1"),
        ):
            figures[name] = await listed(client, side.url + WIDGETS + query)
    figures["deliveries/s"] = await deliveries(side, events)
    figures["memory loaded MiB"] = resident(side.pids)


async def listed(client: aiohttp.ClientSession, url: str) -> float:
    """The best of five, in milliseconds: what the server needs when nothing else is going on."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        async with client.get(url) as answer:
            await answer.read()
            assert answer.status == 200
        best = min(best, (time.perf_counter() - begun) * 1000)
    return best


async def deliveries(side: Side, events: int) -> float:
    """Events that reach watchers per second, while writes go on as fast as they are answered."""
    namespace = "default"
    counted = 0
    wanted = WATCHERS * events
    done = asyncio.Event()
    ready = asyncio.Semaphore(0)
    async with session(side.token, WATCHERS + 8) as client:
        async with client.get(f"{side.url}/api/v1/namespaces/{namespace}/secrets?limit=1") as answer:
            revision = (await answer.json())["metadata"]["resourceVersion"]
        url = f"{side.url}/api/v1/namespaces/{namespace}/secrets?watch=1&resourceVersion={revision}&timeoutSeconds=120"

        async def watch() -> None:
            nonlocal counted
            async with client.get(url) as answer:
                ready.release()
                async for chunk in answer.content.iter_any():
                    counted += chunk.count(b'{"type":"ADDED"')
                    if counted >= wanted:
                        done.set()

        watchers = [asyncio.create_task(watch()) for _ in range(WATCHERS)]
        for _ in range(WATCHERS):
            await ready.acquire()

        async def write(worker: int) -> None:
            for number in range(worker, events, 8):
                data = json.dumps({"metadata": {"name": f"s-{number}"}, "stringData": {"k": "v" * 700}}).encode()
                address = f"{side.url}/api/v1/namespaces/{namespace}/secrets"
                async with client.post(address, data=data, headers={"Content-Type": "application/json"}) as made:
                    await made.read()
                    assert made.status == 201

        begun = time.perf_counter()
        await asyncio.gather(*(write(worker) for worker in range(8)))
        async with asyncio.timeout(60):
            await done.wait()
        took = time.perf_counter() - begun
        for one in watchers:
            one.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    return wanted / took


LESS_IS_BETTER = ("ms", "MiB", "s to ready")


def report(sides: list[Side]) -> str:
    names = list(sides[0].figures)
    lines = ["| | " + " | ".join(side.name for side in sides) + (" | better by |" if len(sides) > 1 else " |")]
    lines.append("|---" * (len(sides) + 1 + (len(sides) > 1)) + "|")
    for name in names:
        values = [side.figures[name] for side in sides]
        row = (
            f"| {name} | " + " | ".join(f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in values) + " |"
        )
        if len(values) > 1:
            less = name.endswith(LESS_IS_BETTER)
            ratio = values[1] / values[0] if less else values[0] / values[1]
            row += f" {ratio:.1f}x |"
        lines.append(row)
    return "\n".join(lines)


def measure(side: Side, objects: int, events: int) -> None:
    side.figures["s to ready"] = side.started
    time.sleep(2)
    side.figures["memory idle MiB"] = resident(side.pids)
    asyncio.run(load(side, objects, events))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=6400)
    parser.add_argument("--events", type=int, default=400)
    parser.add_argument("--port", type=int, default=19443)
    given = parser.parse_args()
    has_peer = peer_is_there()
    sides: list[Side] = []
    with tempfile.TemporaryDirectory(prefix="fleetplane-bench-") as directory:
        for start in (fleetplane, kubernetes) if has_peer else (fleetplane,):
            with start(Path(directory), given.port) as side:
                measure(side, given.objects, given.events)
                sides.append(side)
    print(
        f"{given.objects} ConfigMaps of 1.6 KB, {CONNECTIONS} connections, {WATCHERS} watchers, {os.cpu_count()} cores\n"
    )
    print(report(sides))
    if not has_peer:
        print("\nthe peer was not measured: there is no kube-apiserver in $REAL_KUBE/bin, or no etcd")


if __name__ == "__main__":
    main()
