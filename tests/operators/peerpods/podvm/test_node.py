"""A whole plane with real containers and a real VM: a pod of the class kata-remote, as its user sees it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.contract.test_container_runtime import why_not_podman
from tests.node import image
from tests.operators.peerpods.podvm.machine import why_no_qemu

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import CONFIG_MAPS, EVENTS, PODS, RUNTIME_CLASSES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.node.local import instance_id, remove_local_node, sockets_root
from fleetplane.node.network import HostNetwork
from fleetplane.node.plugins import node_plugins
from fleetplane.node.podman import PodmanRuntime, look_at_host
from fleetplane.operators.peerpods.kinds import RUNTIME_CLASS
from fleetplane.operators.peerpods.providers.qemu import Qemu, QemuHost
from fleetplane.plane import Plane
from fleetplane.settings import Settings

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module")]

Object = dict[str, Any]
BOOT = 120.0


async def _load_image(tmp: Path) -> None:
    directory = Path("/tmp") / f"fp-{SystemEnvironment().uuid()[:8]}"
    runtime = await PodmanRuntime.open(look_at_host(), directory, HostNetwork(), "test", SystemEnvironment())
    if await runtime.image(image.NAME) is None:
        await runtime.import_image(str(image.write_root(tmp / "root.tar")), image.NAME)
    await runtime.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plane]:
    if reason := why_not_podman() or why_no_qemu():
        pytest.skip(reason)
    if RUNTIME_CLASS not in node_plugins():
        pytest.skip("this installation is older than its entry points; pip install -e . again")
    tmp = tmp_path_factory.mktemp("plane")
    await _load_image(tmp)
    settings = Settings(data_dir=tmp / "data", port=0, runtime="podman", operators="none")
    try:
        async with Plane(settings) as made:
            await made.client().create(RUNTIME_CLASSES, {"metadata": {"name": RUNTIME_CLASS}, "handler": RUNTIME_CLASS})
            words = {"metadata": {"name": "words"}, "data": {"word": "from a ConfigMap"}}
            await made.client().create(CONFIG_MAPS, words, "default")
            yield made
    finally:
        for directory in (tmp / "data" / "nodes").glob("*"):
            await remove_local_node(directory, SystemEnvironment())


@pytest.fixture
def client(plane: Plane) -> Client:
    return plane.client()


def vms(plane: Plane) -> Qemu:
    (directory,) = (plane.settings.data_dir / "nodes").glob("*")
    return Qemu(QemuHost(folder=sockets_root() / instance_id(directory, SystemEnvironment()) / "vms"))


def peer_pod(name: str, script: str, **spec: Any) -> Object:
    main = {
        "name": "main",
        "image": image.NAME,
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "words", "mountPath": "/words"}],
    }
    return {
        "metadata": {"name": name},
        "spec": {
            "runtimeClassName": RUNTIME_CLASS,
            "containers": [main],
            "volumes": [{"name": "words", "configMap": {"name": "words"}}],
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            **spec,
        },
    }


async def until(client: Client, name: str, wanted: Any, seconds: float = BOOT) -> Object:
    found: Object = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await client.get(PODS, name, "default")
                if wanted(found):
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError:
        events = [one["message"] for one in (await client.list(EVENTS, "default")).items]
        raise AssertionError(f"still {found.get('status')}; {events}") from None


def in_phase(phase: str) -> Any:
    return lambda found: found["status"].get("phase") == phase


async def log(client: Client, name: str) -> str:
    return (await client.raw("GET", f"/api/v1/namespaces/default/pods/{name}/log", query={})).decode()


async def said(client: Client, name: str, word: str) -> str:
    async with asyncio.timeout(30):
        while word not in (text := await log(client, name)):
            await asyncio.sleep(0.05)
    return text


async def test_a_peer_pod_runs_in_a_vm_with_logs_exec_volumes_network_and_its_vm_goes_with_it(
    plane: Plane, client: Client
) -> None:
    script = "uname -r; cat /words/word; echo; hostname; echo ready; httpd -f -p 8080 -h /words"
    await client.create(PODS, peer_pod("vm", script), "default")
    found = await until(client, "vm", in_phase("Running"))

    text = await said(client, "vm", "ready")
    assert "cloud-amd64" in text
    assert "from a ConfigMap\nvm\n" in text

    words = [
        sys.executable,
        "-m",
        "fleetplane.interfaces.cli",
        "exec",
        "vm",
        "--",
        "sh",
        "-c",
        "echo hi; id -u; exit 7",
    ]
    kubeconfig = str(plane.settings.data_dir / "admin.kubeconfig")
    command = await asyncio.create_subprocess_exec(
        *words, stdout=subprocess.PIPE, env={**os.environ, "KUBECONFIG": kubeconfig}
    )
    output, _ = await command.communicate()
    assert (command.returncode, output) == (7, b"hi\n0\n")

    if address := found["status"].get("podIP"):
        async with asyncio.timeout(20):
            while True:
                try:
                    reader, writer = await asyncio.open_connection(address, 8080)
                    break
                except OSError:
                    await asyncio.sleep(0.1)
            writer.write(b"GET /word HTTP/1.0\r\n\r\n")
            assert b"from a ConfigMap" in await reader.read()
            writer.close()

    (vm,) = await vms(plane).list({})
    await client.delete(PODS, "vm", "default")
    async with asyncio.timeout(30):
        while await vms(plane).list({}):
            await asyncio.sleep(0.05)
    assert await vms(plane).describe(id=vm.id) is None


async def test_a_peer_pod_that_ends_tells_its_code_its_last_word_and_its_log_when_its_vm_is_gone(
    plane: Plane, client: Client
) -> None:
    script = "echo working; echo it broke > /dev/termination-log; exit 3"
    await client.create(PODS, peer_pod("job", script, restartPolicy="Never"), "default")
    found = await until(client, "job", in_phase("Failed"))

    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (3, "it broke\n")
    async with asyncio.timeout(30):
        while await vms(plane).list({}):  # it is of no more use
            await asyncio.sleep(0.05)
    assert await log(client, "job") == "working\n"
    await client.delete(PODS, "job", "default")


async def test_what_a_vm_cannot_have_of_its_node_is_said_plainly(client: Client) -> None:
    volume = {"name": "words", "hostPath": {"path": "/etc"}}
    await client.create(PODS, peer_pod("nosy", "true", volumes=[volume]), "default")

    def refused(found: Object) -> bool:
        return "a VM without any of the node's files" in str(found["status"].get("containerStatuses"))

    await until(client, "nosy", refused)
    await client.delete(PODS, "nosy", "default")
    await client.create(PODS, peer_pod("shared", "true", hostNetwork=True), "default")

    async def event() -> bool:
        return any("no host network" in one["message"] for one in (await client.list(EVENTS, "default")).items)

    async with asyncio.timeout(30):
        while not await event():
            await asyncio.sleep(0.05)
    with pytest.raises(ApiError):
        await log(client, "shared")
    await client.delete(PODS, "shared", "default")
