"""The four examples with real containers: what they show, seen in what the containers say."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from tests.contract.test_container_runtime import why_not_podman

from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client
from fleetplane.interfaces.cli.demo_image import import_demo_image
from fleetplane.model import yaml
from fleetplane.model.builtin.types import CONFIG_MAPS, PODS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.node.local import remove_local_node
from fleetplane.operators.vehicles import kinds
from fleetplane.operators.vehicles.kinds import VehDeployment, VehPod
from fleetplane.plane import Plane
from fleetplane.settings import Settings

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module")]

EXAMPLES = Path(__file__).parents[3] / "examples" / "vehicles"
SYSTEM = "system-application"


async def clean(data: Path) -> None:
    for directory in (data / "nodes").glob("*"):
        await remove_local_node(directory, SystemEnvironment())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plane") / "data"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(data: Path) -> AsyncIterator[Client]:
    if reason := why_not_podman() or import_demo_image():
        pytest.skip(reason)
    try:
        async with Plane(Settings(data_dir=data, port=0, runtime="podman", operators="vehicles")) as made:
            yield made.client()
    finally:
        await clean(data)


async def apply(client: Client, example: str) -> list[tuple[Any, str]]:
    """Create everything in an example; answers its workloads."""
    found = []
    for document in yaml.load_all((EXAMPLES / f"{example}.yaml").read_bytes()):
        obj = document.value
        resource = CONFIG_MAPS if obj["kind"] == "ConfigMap" else getattr(kinds, obj["kind"])
        await client.create(resource, obj, "default")
        if resource in {VehPod, VehDeployment}:
            found.append((resource, obj["metadata"]["name"]))
    return found


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 40.0) -> Any:
    found: Any = None
    try:
        async with asyncio.timeout(seconds):
            while not (found := await what()):
                await asyncio.sleep(0.05)
            return found
    except TimeoutError:
        raise AssertionError(f"it did not come to that: {found!r}") from None


async def said(client: Client, pod: str, words: str) -> str:
    """The pod's log once it holds the words."""
    text = ""

    async def look() -> bool:
        nonlocal text
        try:
            text = (await client.raw("GET", f"/api/v1/namespaces/{SYSTEM}/pods/{pod}/log")).decode()
        except ApiError:
            return False
        return words in text

    await until(look)
    return text


async def remove(client: Client, workloads: list[tuple[Any, str]]) -> None:
    for resource, name in workloads:
        await client.delete(resource, name, "default")

    async def gone() -> bool:
        return not (await client.list(PODS, SYSTEM)).items

    await until(gone)


async def test_the_camera_application_reads_its_device(client: Client) -> None:
    workloads = await apply(client, "camera")
    text = await said(client, "cameratest-app-pod", "bytes read")
    assert re.search(r"^crw.* /dev/video0$", text, re.MULTILINE), "a character device of its own"
    assert "8 bytes read" in text
    await remove(client, workloads)


async def test_ping_and_pong_meet_in_their_domain_and_the_other_finds_nobody(client: Client) -> None:
    workloads = await apply(client, "dds")
    text = await said(client, "ddstest-ping", "10 round trips in domain 100")
    assert len(re.findall(r"^round \d+: eight bytes", text, re.MULTILINE)) == 10
    other = await said(client, "ddstest-other", "nobody in domain 101")
    assert "round " not in other
    await remove(client, workloads)


async def test_the_battery_application_follows_the_gear(client: Client) -> None:
    workloads = await apply(client, "battery")
    await said(client, "battery", "charging plan")

    async def parked() -> bool:
        found = await client.get(VehPod, "battery", "default")
        return (found.get("status") or {}).get("phase") == "Stopped"

    await until(parked)
    await remove(client, workloads)


async def brake(client: Client) -> dict[str, Any]:
    found = await client.get(VehDeployment, "brake-monitor", "default")
    status: dict[str, Any] = found.get("status") or {}
    return status if status.get("phase") == "Running" and status.get("successor") else {}


async def test_the_brake_monitor_goes_on_when_its_active_is_killed(client: Client) -> None:
    workloads = await apply(client, "brake")
    before = await until(lambda: brake(client))
    roles = {one["role"]: one["name"] for one in before["instances"]}
    await said(client, roles["active"], "brake ok")
    pod = await client.get(PODS, roles["active"], SYSTEM)
    container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    process = await asyncio.create_subprocess_exec(
        "podman", "inspect", "--format", "{{.State.Pid}}", container, stdout=asyncio.subprocess.PIPE
    )
    os.kill(int((await process.communicate())[0]), signal.SIGKILL)

    async def switched() -> dict[str, Any]:
        status = await brake(client)
        return status if status.get("switchovers") else {}

    after = await until(switched)
    assert next(one["name"] for one in after["instances"] if one["role"] == "active") == roles["passive"]
    await said(client, roles["passive"], "brake ok")
    assert after["lastSwitchMs"] >= 0
    await remove(client, workloads)


def watch(data: Path, access: Path, token: str) -> subprocess.Popen[bytes]:
    """The example's watcher, on this machine and with nothing but what its pod would have."""
    found = find_access(data / "admin.kubeconfig")
    access.mkdir()
    (access / "token").write_text(token)
    (access / "ca.crt").write_bytes(found.ca or b"")
    host, _, port = found.server.removeprefix("https://").rpartition(":")
    known = {
        "WATCHER_ACCESS": str(access),
        "KUBERNETES_SERVICE_HOST": host.strip("[]"),
        "KUBERNETES_SERVICE_PORT": port,
        "VEHICLE_MONITOR": "brake-watch-watcher",
        "VEHICLE_NAMESPACE": SYSTEM,
    }
    words = [sys.executable, str(EXAMPLES / "watcher.py"), "--every", "0.2"]
    return subprocess.Popen(words, env={**os.environ, **known}, stderr=subprocess.PIPE)


async def test_the_watcher_sees_a_fault_and_has_its_primary_started_anew(
    client: Client, data: Path, tmp_path: Path
) -> None:
    workloads = await apply(client, "watch")
    await said(client, "brake-watch-watcher", "watching brake-watch-p0,brake-watch-p1 through brake-watch-watcher")
    await said(client, "brake-watch-p0", "front ok")
    before = [(await client.get(PODS, f"brake-watch-p{number}", SYSTEM))["metadata"]["uid"] for number in (0, 1)]
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/brake-watch-watcher/token"
    made = orjson.loads(
        await client.raw("POST", path, body=b'{"spec": {}}', headers={"content-type": "application/json"})
    )
    pod = await client.get(PODS, "brake-watch-p0", SYSTEM)
    container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]

    async def seen() -> dict[str, str]:
        found = await client.get(VehDeployment, "brake-watch", "default")
        return {one["name"]: one.get("verdict", "") for one in (found.get("status") or {}).get("instances") or ()}

    watcher = watch(data, tmp_path / "access", made["status"]["token"])
    try:

        async def well() -> bool:
            return (await seen()).get("brake-watch-p0") == "ok"

        await until(well)
        fault = await asyncio.create_subprocess_exec("podman", "exec", container, "sh", "-c", ": > /fault")
        await fault.wait()

        async def anew() -> bool:
            try:
                found = await client.get(PODS, "brake-watch-p0", SYSTEM)
            except ApiError:
                return False
            return found["metadata"]["uid"] != before[0] and await well()

        await until(anew)
    finally:
        watcher.kill()
        watcher.communicate()
    assert (await client.get(PODS, "brake-watch-p1", SYSTEM))["metadata"]["uid"] == before[1]
    outcome = (await client.get(kinds.VehMonitor, "brake-watch-watcher", SYSTEM))["status"]["outcome"]
    assert (outcome["action"], outcome["primary"], outcome["state"]) == ("restart", "brake-watch-p0", "Done")

    async def pair() -> dict[str, str]:
        status = (await client.get(VehPod, "brake-pair", "default")).get("status") or {}
        return {one["name"]: one["state"] for one in status["instances"]} if status.get("phase") == "Running" else {}

    assert await until(pair) == {"first": "Running", "second": "Standby"}
    await remove(client, workloads)


async def test_booting_reports_when_all_asil_workloads_run(tmp_path: Path) -> None:
    if reason := why_not_podman() or import_demo_image():
        pytest.skip(reason)
    data = tmp_path / "data"
    try:
        async with Plane(Settings(data_dir=data, port=0, runtime="podman", operators="vehicles")) as made:
            await apply(made.client(), "brake")
            await until(lambda: brake(made.client()))
        await clean(data)  # what a power cycle does to containers
        words = [sys.executable, str(EXAMPLES / "boot.py"), "--data-dir", str(data), "--runtime", "podman", "--once"]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"VehDeployment/brake-monitor runs \(ASIL D\)", done.stdout)
        assert re.search(r"all 1 ASIL workloads run", done.stdout)
    finally:
        await clean(data)
