"""A CRI runtime: our words in its words and back, and a whole plane on a real containerd."""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.node import image
from tests.node.containerd import containerd, why_not_containerd
from tests.node.test_real_node import create, in_phase, log, pod, until, waits_for

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import NODES, PODS, RUNTIME_CLASSES, SERVICES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.node import freezer
from fleetplane.node.check import check_cri
from fleetplane.node.cri import CriRuntime
from fleetplane.node.cri import messages as cri
from fleetplane.node.cri.cni import CniNetwork, read_network
from fleetplane.node.cri.images import archive_names, wrap_root
from fleetplane.node.cri.runtime import _before
from fleetplane.node.cri.spec import container_config, sandbox_config, signal_number
from fleetplane.node.cri.states import cgroup_of, container_state, network_namespace
from fleetplane.node.runtime import ContainerSpec, Device, Mount, RuntimeFailure, SandboxSpec, Security
from fleetplane.plane import Plane
from fleetplane.settings import Settings

SHARED = SandboxSpec("default", "web", "u-1", hostname="web")


def config_of(**changes: Any) -> cri.ContainerConfig:
    spec = ContainerSpec("main", "app:1", **changes)
    return container_config(SHARED, spec, host_network=False, instance={})


def security_of(**changes: Any) -> cri.LinuxContainerSecurityContext:
    linux = config_of(security=Security(**changes)).linux
    assert linux is not None
    assert linux.security_context is not None
    return linux.security_context


def test_a_pod_on_the_hosts_network_takes_its_name_and_no_ports() -> None:
    config = sandbox_config(SHARED, host_network=True, log_directory="/l", instance={"i": "1"})

    assert (config.hostname, config.port_mappings, config.labels["i"]) == ("", [], "1")
    assert config.linux is not None
    assert config.linux.security_context is not None
    assert config.linux.security_context.namespace_options == cri.NamespaceOption(network=2, pid=1, ipc=0)


@pytest.mark.parametrize(("name", "number"), [("", 0), ("SIGTERM", 23), ("USR1", 29), ("9", 13), ("nonsense", 0)])
def test_signals_have_numbers_of_their_own(name: str, number: int) -> None:
    assert signal_number(name) == number


def test_a_group_alone_is_roots() -> None:
    security = security_of(group=5)

    assert (security.run_as_user, security.run_as_group) == (cri.Int64Value(0), cri.Int64Value(5))


def test_proc_is_masked_unless_asked_for() -> None:
    assert "/proc/kcore" in security_of().masked_paths
    assert security_of(privileged=True).masked_paths == []
    assert security_of(unmasked_proc=True).readonly_paths == []


def test_profiles() -> None:
    assert security_of().seccomp == cri.SecurityProfile(cri.ProfileType.RUNTIME_DEFAULT)
    assert security_of(seccomp="/a.json").seccomp == cri.SecurityProfile(cri.ProfileType.LOCALHOST, "/a.json")
    assert security_of(seccomp="/a.json", privileged=True).seccomp is None


def test_devices_are_nodes_or_names() -> None:
    config = config_of(devices=(Device("/dev/fuse", "/dev/x", "r"), Device("nvidia.com/gpu=0")))

    assert config.devices == [cri.Device("/dev/x", "/dev/fuse", "r")]
    assert config.cdi_devices == [cri.CdiDevice("nvidia.com/gpu=0")]


def test_memory_cannot_be_mounted() -> None:
    with pytest.raises(RuntimeFailure, match="mount it on the host first"):
        config_of(mounts=(Mount("", "/cache"),))


def test_an_ended_container_tells_how() -> None:
    status = cri.ContainerStatus(id="c", state=2, exit_code=137, reason="OOMKilled", finished_at=1_500_000_000)

    state = container_state(status, 0, "s")

    assert (state.phase, state.exit_code, state.oom_killed) == ("exited", 137, True)
    assert state.finished_at is not None
    assert state.finished_at.timestamp() == 1.5


def test_the_cgroup_is_that_of_the_memory_controller_or_the_only_one() -> None:
    assert cgroup_of("5:cpu:/a\n4:memory:/k8s.io/x\n0::/u") == "/k8s.io/x"
    assert cgroup_of("0::/k8s.io/x") == "/k8s.io/x"


def test_a_sandbox_without_a_network_of_its_own_has_no_path() -> None:
    spaces = [{"type": "pid"}, {"type": "network", "path": "/run/netns/a"}]

    assert network_namespace({"runtimeSpec": {"linux": {"namespaces": spaces}}}) == "/run/netns/a"
    assert network_namespace({}) == ""


@pytest.mark.parametrize(
    ("version", "old"), [("1.6.20~ds1", True), ("1.7.0", False), ("v2.0.1", False), ("rolling", False)]
)
def test_versions_are_compared(version: str, old: bool) -> None:
    assert _before(version, (1, 7)) is old


def cni(*plugins: dict[str, Any]) -> dict[str, str]:
    config = {"Plugins": [{"Source": json.dumps(one)} for one in plugins]}
    return {"cniconfig": json.dumps({"Networks": [{"Config": config}]})}


def test_the_bridge_of_pods_is_found() -> None:
    ranges = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64", "gateway": "fd00::9"}]]
    plugin = {"type": "bridge", "bridge": "br7", "isGateway": True, "ipam": {"ranges": ranges}}

    assert read_network(cni({"type": "loopback"}, plugin)) == CniNetwork(
        "br7", ("10.1.0.0/24", "fd00::/64"), ("10.1.0.1", "fd00::9")
    )


@pytest.mark.parametrize(
    "info",
    [{}, {"cniconfig": "no json"}, {"cniconfig": "[1]"}, cni({"type": "flannel"}), cni({"type": "bridge", "ipam": 5})],
)
def test_other_networks_have_no_bridge(info: dict[str, str]) -> None:
    assert read_network(info) == CniNetwork()


def test_a_root_file_system_becomes_an_archive_with_a_name(tmp_path: Path) -> None:
    root = tmp_path / "root.tar"
    with tarfile.open(root, "w") as tar:
        tar.addfile(tarfile.TarInfo("etc"))
    wrap_root(root, tmp_path / "made.tar", "localhost/a:1")

    assert archive_names(tmp_path / "made.tar") == ["localhost/a:1"]
    assert archive_names(root) == []


def test_the_freezer_of_both_kinds_of_cgroups(tmp_path: Path) -> None:
    old, new = tmp_path / "v1", tmp_path / "v2"
    (old / "freezer/a").mkdir(parents=True)
    (new / "a").mkdir(parents=True)
    (new / "cgroup.controllers").touch()

    for root in (old, new):
        freezer.freeze("/a", root)
        assert freezer.is_frozen("/a", root)
        freezer.thaw("/a", root)
        assert not freezer.is_frozen("/a", root)
    with pytest.raises(RuntimeFailure, match="freezer cannot be used"):
        freezer.freeze("/gone", old)


async def test_where_nothing_listens_it_says_so(tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    with pytest.raises(RuntimeFailure, match="does not answer"):
        await CriRuntime.open(str(tmp_path / "no.sock"), tmp_path, "i", SystemEnvironment())
    with pytest.raises(RuntimeFailure, match="no CRI runtime listens on this machine"):
        await CriRuntime.open("", tmp_path, "i", SystemEnvironment())


# A whole plane

real = [pytest.mark.podman, pytest.mark.asyncio(loop_scope="module")]


class Stage:
    def __init__(self, plane: Plane, socket: str) -> None:
        self.plane, self.socket = plane, socket
        self.client: Client = plane.client()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    if reason := why_not_containerd():
        pytest.skip(reason)
    tmp = tmp_path_factory.mktemp("cri-plane")
    with containerd() as socket:
        images = tmp / "data/nodes/here/images"
        images.mkdir(parents=True)
        wrap_root(image.write_root(tmp / "root.tar"), images / "test.tar", image.NAME)
        settings = Settings(
            data_dir=tmp / "data", port=0, runtime="cri", cri_socket=socket, operators="none", node_name="here"
        )
        plane = Plane(settings)
        try:
            async with plane:
                yield Stage(plane, socket)
        finally:
            await plane.remove_local_nodes()
            left = await CriRuntime.open(socket, tmp, "other", SystemEnvironment())
            request = cri.ListPodSandboxRequest()
            found = await left._call("ListPodSandbox", request, cri.ListPodSandboxResponse)
            await left.close()
            assert found.items == [], "sandboxes are left over"


class TestPlane:
    pytestmark = real

    async def test_the_node_names_its_runtime(self, stage: Stage) -> None:
        node = await stage.client.get(NODES, "here")

        assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://1.")

    async def test_a_pod_runs_speaks_and_goes(self, stage: Stage) -> None:
        await create(stage.client, pod("speaks", "sh", "-c", "echo hello; exec sleep 1000"))

        found = await until(stage.client, "speaks", in_phase("Running"))
        assert found["status"]["containerStatuses"][0]["containerID"].startswith("containerd://")
        async with asyncio.timeout(10):
            while await log(stage.client, "speaks") != "hello\n":
                await asyncio.sleep(0.02)
        await stage.client.delete(PODS, "speaks", "default")

    async def test_a_bad_command_waits_with_the_reason(self, stage: Stage) -> None:
        await create(stage.client, pod("bad", "/nonsense"))

        found = await until(stage.client, "bad", lambda one: one["status"].get("containerStatuses"))
        found = await until(stage.client, "bad", waits_for("RunContainerError"))
        (status,) = found["status"]["containerStatuses"]
        assert "no such file" in status["lastState"]["terminated"]["message"]
        await stage.client.delete(PODS, "bad", "default")

    async def test_what_crashes_is_started_again(self, stage: Stage) -> None:
        await create(stage.client, pod("crashes", "sh", "-c", "sleep 0.2; exit 3"))

        found = await until(
            stage.client, "crashes", lambda one: (one["status"].get("containerStatuses") or [{}])[0].get("restartCount")
        )
        assert found["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
        await stage.client.delete(PODS, "crashes", "default")

    async def test_an_unknown_handler_is_refused_by_the_runtime(self, stage: Stage) -> None:
        await stage.client.create(RUNTIME_CLASSES, {"metadata": {"name": "odd"}, "handler": "odd"})
        await create(stage.client, pod("odd", runtimeClassName="odd"))

        async with asyncio.timeout(20):
            while not any("odd" in one for one in await _messages(stage.client, "FailedCreatePodSandBox")):
                await asyncio.sleep(0.05)
        await stage.client.delete(PODS, "odd", "default")

    @pytest.mark.soak  # names were not found in one run of many, after others had left rules behind; not explained yet
    async def test_services_and_names_work_behind_the_cni_bridge(self, stage: Stage) -> None:
        (node,) = (await stage.client.list(NODES)).items
        if not node["spec"].get("podCIDRs"):
            pytest.skip("the CNI plug-ins are not installed")
        web = pod("cri-web", "sh", "-c", "cd /tmp; echo found > index.html; exec httpd -f -p 8080")
        web["metadata"]["labels"] = {"app": "cri-web"}
        await create(stage.client, web)
        spec = {"selector": {"app": "cri-web"}, "ports": [{"port": 80, "targetPort": 8080}]}
        made = await stage.client.create(SERVICES, {"metadata": {"name": "cri-web"}, "spec": spec}, "default")
        address = made["spec"]["clusterIP"]
        script = (
            "until nslookup -type=a cri-web.default.svc.cluster.local | grep -q " + address + "; do sleep 0.1; done; "
            "until printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 2 " + address + " 80 | grep found; "
            "do sleep 0.1; done"
        )
        await create(stage.client, pod("cri-asking", "sh", "-c", script, restartPolicy="Never"))

        await until(stage.client, "cri-asking", in_phase("Succeeded"), seconds=40)
        for name in ("cri-web", "cri-asking"):
            await stage.client.delete(PODS, name, "default")

    async def test_check_tells_about_it(self, stage: Stage) -> None:
        finding = await check_cri(stage.socket)

        assert finding.verdict in {"works", "limited"}
        assert f"listens at {stage.socket}" in finding.words


async def _messages(client: Client, reason: str) -> list[str]:
    from fleetplane.model.builtin.types import EVENTS

    return [str(one.get("message")) for one in (await client.list(EVENTS)).items if one.get("reason") == reason]
