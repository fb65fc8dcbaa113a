"""A plane with real containers: what the simulation cannot promise."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.contract.test_container_runtime import why_not_podman
from tests.node import image

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import CONFIG_MAPS, EVENTS, NODES, PODS, RUNTIME_CLASSES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import is_condition_true
from fleetplane.node.local import remove_local_node
from fleetplane.node.network import why_no_bridge
from fleetplane.node.podman import PodmanRuntime, look_at_host
from fleetplane.plane import Plane
from fleetplane.settings import Settings

pytestmark = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module")]

Object = dict[str, Any]


async def _load_image(tmp: Path) -> None:
    from fleetplane.node.network import HostNetwork

    environment = SystemEnvironment()
    directory = Path("/tmp") / f"fp-{environment.uuid()[:8]}"
    runtime = await PodmanRuntime.open(look_at_host(), directory, HostNetwork(), "test", environment)
    if await runtime.image(image.NAME) is None:
        await runtime.import_image(str(image.write_root(tmp / "root.tar")), image.NAME)
    await runtime.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plane]:
    if reason := why_not_podman():
        pytest.skip(reason)
    tmp = tmp_path_factory.mktemp("plane")
    await _load_image(tmp)
    static = tmp / "data" / "static-pods"
    static.mkdir(parents=True)
    static.joinpath("keeper.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: keeper}\nspec:\n  containers:\n"
        f"  - {{name: main, image: '{image.NAME}', command: [sleep, '1000']}}\n"
    )
    settings = Settings(data_dir=tmp / "data", port=0, runtime="podman", operators="none")
    try:
        async with Plane(settings) as made:
            yield made
    finally:
        for directory in (tmp / "data" / "nodes").glob("*"):
            await remove_local_node(directory, SystemEnvironment())


@pytest.fixture
def client(plane: Plane) -> Client:
    return plane.client()


def pod(name: str, *command: str, **spec: Any) -> Object:
    main = {"name": "main", "image": image.NAME, "command": list(command) or ["sleep", "1000"]}
    return {
        "metadata": {"name": name},
        "spec": {
            "containers": [main],
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            **spec,
        },
    }


async def create(client: Client, made: Object) -> None:
    await client.create(PODS, made, "default")


async def until(client: Client, name: str, wanted: Any, seconds: float = 60) -> Object:
    """The pod once ``wanted`` holds of it."""
    found: Object = {}
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await client.get(PODS, name, "default")
                if wanted(found):
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"still {found.get('status')}") from None


def in_phase(phase: str) -> Any:
    return lambda found: found["status"].get("phase") == phase


def waits_for(reason: str) -> Any:
    def is_so(found: Object) -> bool:
        statuses = found["status"].get("containerStatuses") or [{}]
        return (statuses[0].get("state") or {}).get("waiting", {}).get("reason") == reason

    return is_so


async def log(client: Client, name: str, **query: str) -> str:
    return (await client.raw("GET", f"/api/v1/namespaces/default/pods/{name}/log", query=query)).decode()


async def test_a_pod_runs_and_speaks(client: Client) -> None:
    await create(client, pod("speaks", "sh", "-c", "echo hello; echo again; sleep 1000"))
    found = await until(client, "speaks", lambda pod: is_condition_true(pod, "Ready"))

    assert found["status"]["phase"] == "Running"
    assert found["status"]["containerStatuses"][0]["containerID"].startswith("podman://")
    await asyncio.sleep(0.2)
    assert await log(client, "speaks") == "hello\nagain\n"
    assert await log(client, "speaks", tailLines="1") == "again\n"
    assert (await log(client, "speaks", timestamps="true"))[:4] == "2026"[:2] + (
        await log(client, "speaks", timestamps="true")
    )[2:4]
    await client.delete(PODS, "speaks", "default")


async def test_a_static_pod_is_run_and_shown(client: Client) -> None:
    (node,) = (await client.list(NODES)).items

    async with asyncio.timeout(10):
        while not [
            one for one in (await client.list(PODS, "default")).items if one["metadata"]["name"].startswith("keeper-")
        ]:
            await asyncio.sleep(0.05)
    found = await until(client, f"keeper-{node['metadata']['name']}", in_phase("Running"))
    assert found["metadata"]["annotations"]["kubernetes.io/config.mirror"]


async def test_a_job_with_init_containers_and_volumes(client: Client) -> None:
    await client.create(CONFIG_MAPS, {"metadata": {"name": "words"}, "data": {"word": "mapped"}}, "default")
    mounts = [
        {"name": "work", "mountPath": "/work"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "map", "mountPath": "/map"},
        {"name": "work", "mountPath": "/part", "subPath": "deep/er"},
    ]
    made = pod("job", restartPolicy="Never")
    made["spec"]["initContainers"] = [
        {
            "name": "init",
            "image": image.NAME,
            "command": ["sh", "-c", "echo made > /work/file; mkdir -p /work/deep/er; echo part > /work/deep/er/x"],
            "volumeMounts": mounts[:1],
        }
    ]
    made["spec"]["containers"][0] |= {
        "command": [
            "sh",
            "-c",
            "cat /work/file /map/word /part/x; df -m /memory | tail -n 1; echo bye > /dev/termination-log; exit 4",
        ],
        "volumeMounts": mounts,
    }
    made["spec"]["volumes"] = [
        {"name": "work", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        {"name": "map", "configMap": {"name": "words"}},
    ]
    await create(client, made)
    found = await until(client, "job", in_phase("Failed"))

    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (4, "Error", "bye\n")
    said = await log(client, "job")
    assert said.startswith("made\nmappedpart\n")
    assert "tmpfs" in said
    await client.delete(PODS, "job", "default")


async def test_what_cannot_run_says_why_and_others_go_on(client: Client, tmp_path: Path) -> None:
    await create(client, pod("bad-command", "/nonsense"))
    missing = pod("no-image")
    missing["spec"]["containers"][0] |= {"image": "localhost/nothing:1", "imagePullPolicy": "Never"}
    await create(client, missing)
    volume = pod("bad-volume", volumes=[{"name": "v", "hostPath": {"path": "/etc/hostname", "type": "Directory"}}])
    await create(client, volume)
    config = pod("no-config")
    config["spec"]["containers"][0]["envFrom"] = [{"configMapRef": {"name": "nothing"}}]
    await create(client, config)
    await create(client, pod("good"))

    await until(client, "good", in_phase("Running"))
    await until(client, "bad-command", waits_for("RunContainerError"))
    await until(client, "no-image", waits_for("ErrImageNeverPull"))
    found = await until(client, "no-config", waits_for("CreateContainerConfigError"))
    message = found["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    assert message == 'configmap "nothing" not found'
    events = (await client.list(EVENTS, "default")).items
    mounts = [event["message"] for event in events if event["reason"] == "FailedMount"]
    assert (
        'MountVolume.SetUp failed for volume "v" : hostPath type check failed: /etc/hostname is not a directory'
        in mounts
    )
    for name in ("bad-command", "no-image", "bad-volume", "no-config", "good"):
        await client.delete(PODS, name, "default", grace_period_seconds=0)


async def _told(client: Client, name: str, reason: str) -> str:
    """The message of the first event of this reason about this pod."""
    async with asyncio.timeout(30):
        while True:
            for event in (await client.list(EVENTS, "default")).items:
                if event["reason"] == reason and event["involvedObject"]["name"] == name:
                    return str(event["message"])
            await asyncio.sleep(0.05)


async def test_a_volume_that_cannot_be_written_is_said_so(client: Client) -> None:
    """Where nothing can be made, and where the container may only read."""
    host_path = {"path": "/proc/nothing/here", "type": "DirectoryOrCreate"}
    await create(client, pod("no-place", volumes=[{"name": "v", "hostPath": host_path}]))
    reading = pod("reading", "sh", "-c", "echo x > /v/file", restartPolicy="Never")
    reading["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    mount = {"name": "v", "mountPath": "/v", "readOnly": True}
    reading["spec"]["containers"][0] |= {"volumeMounts": [mount], "terminationMessagePolicy": "FallbackToLogsOnError"}
    await create(client, reading)

    assert (await _told(client, "no-place", "FailedMount")).startswith('MountVolume.SetUp failed for volume "v" : ')
    found = await until(client, "reading", in_phase("Failed"))
    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], "Read-only file system" in ended["message"]) == (1, True)
    for name in ("no-place", "reading"):
        await client.delete(PODS, name, "default", grace_period_seconds=0)


async def test_a_port_in_use_is_waited_for(client: Client) -> None:
    """Both pods were bound to the node past the scheduler, which would not have done that."""
    if reason := why_no_bridge():
        pytest.skip(reason)
    (node,) = (await client.list(NODES)).items
    for name in ("port-first", "port-second"):
        made = pod(name, nodeName=node["metadata"]["name"])
        made["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 47_201}]
        await create(client, made)
        if name == "port-first":
            await until(client, name, in_phase("Running"))

    message = await _told(client, "port-second", "FailedCreatePodSandBox")
    assert "host port 47201/TCP is already in use by another pod" in message
    await client.delete(PODS, "port-first", "default", grace_period_seconds=0)
    await until(client, "port-second", in_phase("Running"), seconds=60)
    await client.delete(PODS, "port-second", "default", grace_period_seconds=0)


async def test_probes_of_real_containers(client: Client) -> None:
    made = pod("probed", "sh", "-c", "sleep 0.5; touch /tmp/ready; httpd -f -p 8080 -h /tmp")
    made["spec"]["containers"][0] |= {
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/ready"}, "periodSeconds": 1},
        "startupProbe": {"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 30},
        "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    await create(client, made)

    found = await until(client, "probed", lambda p: is_condition_true(p, "Ready"))
    assert found["status"]["containerStatuses"][0]["restartCount"] == 0
    await client.delete(PODS, "probed", "default")


async def test_out_of_memory_is_the_reason(client: Client) -> None:
    made = pod("hungry", "sh", "-c", "sleep 0.3; dd if=/dev/zero of=/dev/null bs=100M count=5", restartPolicy="Never")
    made["spec"]["containers"][0]["resources"] = {"limits": {"memory": "16Mi"}}
    await create(client, made)
    found = await until(client, "hungry", in_phase("Failed"))

    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    await client.delete(PODS, "hungry", "default")


async def test_the_grace_period_is_given_and_taken(client: Client) -> None:
    polite = pod("polite", "sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done")
    polite["spec"]["terminationGracePeriodSeconds"] = 30
    await create(client, polite)
    await until(client, "polite", in_phase("Running"))
    await client.delete(PODS, "polite", "default")
    async with asyncio.timeout(10):
        while True:
            try:
                await client.get(PODS, "polite", "default")
            except ApiError as error:
                assert error.code == 404
                break
            await asyncio.sleep(0.05)


class Upped:
    """``fleetplane up`` in a process of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        words = [sys.executable, "-m", "fleetplane.interfaces.cli", "up", "--data-dir", str(data), "--port", "0"]
        words += ["--runtime", "podman", "--operators", "none"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), line

    def end(self, how: int) -> int:
        self.process.send_signal(how)
        return self.process.wait(20)


MANY = 20


async def test_a_killed_agent_disturbs_nobody(tmp_path: Path) -> None:
    if reason := why_not_podman():
        pytest.skip(reason)
    await _load_image(tmp_path)
    upped = await asyncio.to_thread(Upped, tmp_path / "data")
    try:
        client = await connect_to(find_access(upped.data / "admin.kubeconfig"))
        for number in range(MANY):
            await create(client, pod(f"p{number}"))
        before = {}
        for number in range(MANY):
            found = await until(client, f"p{number}", lambda p: is_condition_true(p, "Ready"), seconds=60)
            before[number] = found["status"]["containerStatuses"][0]["containerID"]
        await client.close()
        await asyncio.to_thread(upped.end, signal.SIGKILL)
        upped = await asyncio.to_thread(Upped, tmp_path / "data")
        client = await connect_to(find_access(upped.data / "admin.kubeconfig"))
        for number in range(MANY):
            found = await until(client, f"p{number}", lambda p: is_condition_true(p, "Ready"))
            status = found["status"]["containerStatuses"][0]
            assert (status["containerID"], status["restartCount"]) == (before[number], 0)
        await client.close()
        assert await asyncio.to_thread(upped.end, signal.SIGTERM) == 0
    finally:
        if upped.process.poll() is None:
            upped.process.kill()
        for directory in (upped.data / "nodes").glob("*"):
            await remove_local_node(directory, SystemEnvironment())


async def test_a_runtime_class_names_the_oci_runtime(client: Client) -> None:
    await client.create(RUNTIME_CLASSES, {"metadata": {"name": "usual"}, "handler": "runc"})
    await create(client, pod("classy", runtimeClassName="usual"))
    await until(client, "classy", in_phase("Running"))
    await client.create(RUNTIME_CLASSES, {"metadata": {"name": "unknown"}, "handler": "nothing"})
    await create(client, pod("odd", runtimeClassName="unknown"))

    await until(client, "odd", waits_for("CreateContainerError"))
    for name in ("classy", "odd"):
        await client.delete(PODS, name, "default", grace_period_seconds=0)


async def test_the_devices_of_a_plugin_reach_the_container(plane: Plane, client: Client) -> None:
    """It registers at the node's own socket, which is there once its folder is."""
    pytest.importorskip("grpc", reason="the package grpcio is not installed")
    from tests.node.test_device_plugins import KIND, Plugin

    (node,) = (await client.list(NODES)).items
    name = node["metadata"]["name"]
    folder = plane.settings.data_dir / "nodes" / name / "device-plugins"
    folder.mkdir()
    plugin = Plugin(folder)
    plugin.node = "/dev/null"
    async with asyncio.timeout(30):
        while not (folder / "kubelet.sock").exists():
            await asyncio.sleep(0.05)
    await plugin.start("red")
    try:
        async with asyncio.timeout(30):
            while (await client.get(NODES, name))["status"]["allocatable"].get(KIND) != "1":
                await asyncio.sleep(0.02)
        made = pod("lights", "sh", "-c", 'echo "$LASERS"; test -c /dev/red && echo there; exec sleep 1000')
        made["spec"]["containers"][0]["resources"] = {"limits": {KIND: "1"}}
        await create(client, made)
        await until(client, "lights", in_phase("Running"))
        async with asyncio.timeout(10):
            while await log(client, "lights") != "red\nthere\n":
                await asyncio.sleep(0.02)
    finally:
        await plugin.stop()
        await client.delete(PODS, "lights", "default")
