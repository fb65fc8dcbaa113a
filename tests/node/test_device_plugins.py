"""Device plugins: a small real one, over gRPC, as vendors write them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.node.made import container, pod

from fleetplane.model.protobuf.messages import decode, encode
from fleetplane.node import device_plugin_messages as api
from fleetplane.node import device_plugins
from fleetplane.node.building import ConfigFailure
from fleetplane.node.device_plugins import DevicePlugins
from fleetplane.node.devices import Devices
from fleetplane.node.runtime import Device, Mount

grpc = pytest.importorskip("grpc", reason="the package grpcio is not installed")

KIND = "example.org/laser"


def asking(number: int = 1, uid: str = "u1", name: str = "main") -> tuple[Any, Any]:
    made = pod(container(name, resources={"limits": {KIND: str(number)}}), meta={"uid": uid})
    return made, made.main[0]


class Plugin:
    """Gives lasers: a device node, a variable and a mount each."""

    def __init__(self, folder: Path, **options: bool) -> None:
        self.folder = folder
        self.options = api.DevicePluginOptions(**options)
        self.lists: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.calls: list[str] = []
        self.prefers: list[str] = []
        self.fails = ""
        self.node = ""
        self._server = grpc.aio.server()

    async def start(self, *devices: str) -> None:
        self.lists.put_nowait(dict.fromkeys(devices, api.HEALTHY))
        unary = grpc.unary_unary_rpc_method_handler
        methods = {
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(self._list, response_serializer=encode),
            "Allocate": unary(self._allocate, response_serializer=encode),
            "PreStartContainer": unary(self._before_start, response_serializer=encode),
            "GetPreferredAllocation": unary(self._preferred, response_serializer=encode),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods),))
        self._server.add_insecure_port(f"unix:{self.folder / 'laser.sock'}")
        await self._server.start()
        await register(self.folder, api.RegisterRequest("v1beta1", "laser.sock", KIND, self.options))

    async def stop(self) -> None:
        await self._server.stop(grace=None)

    async def _list(self, request: bytes, context: Any) -> AsyncIterator[api.ListAndWatchResponse]:
        while True:
            found = await self.lists.get()
            yield api.ListAndWatchResponse([api.PluginDevice(name, health) for name, health in found.items()])

    async def _allocate(self, request: bytes, context: Any) -> api.AllocateResponse:
        (wanted,) = decode(api.AllocateRequest, request).container_requests
        self.calls.append(f"allocate {','.join(wanted.devices_ids)}")
        if self.fails:
            await context.abort(grpc.StatusCode.INTERNAL, self.fails)
        if self.node:
            real = [api.DeviceSpec(f"/dev/{one}", self.node, "rw") for one in wanted.devices_ids]
            plain = api.ContainerAllocateResponse(envs={"LASERS": ",".join(wanted.devices_ids)}, devices=real)
            return api.AllocateResponse([plain])
        answer = api.ContainerAllocateResponse(
            envs={"LASERS": ",".join(wanted.devices_ids)},
            mounts=[api.PluginMount("/opt/laser", "/usr/lib/laser", True)],
            devices=[api.DeviceSpec(f"/dev/{one}", f"/dev/laser-{one}", "rw") for one in wanted.devices_ids],
            annotations={"laser": "on"},
            cdi_devices=[api.CdiDevice("example.org/laser=all")],
        )
        return api.AllocateResponse([answer])

    async def _before_start(self, request: bytes, context: Any) -> api.Empty:
        self.calls.append(f"start {','.join(decode(api.DeviceIds, request).devices_ids)}")
        return api.Empty()

    async def _preferred(self, request: bytes, context: Any) -> api.PreferredAllocationResponse:
        return api.PreferredAllocationResponse([api.DeviceIds(self.prefers)])


async def register(folder: Path, request: api.RegisterRequest) -> None:
    async with grpc.aio.insecure_channel(
        f"unix:{folder / 'kubelet.sock'}", options=[("grpc.default_authority", "localhost")]
    ) as channel:
        await channel.unary_unary("/v1beta1.Registration/Register")(encode(request), timeout=10)


class Node:
    """What an agent has of devices; ``directory`` and ``folder`` survive it."""

    def __init__(self, directory: Path, folder: Path) -> None:
        self.folder = folder
        self.here = {"u1", "u2"}
        self.devices = Devices(directory, {}, self.here.__contains__)
        self.changed = asyncio.Event()
        self.plugins = DevicePlugins(folder, directory, self.devices, self.changed.set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        task = asyncio.create_task(self.plugins.run())
        try:
            await self.until((self.folder / "kubelet.sock").exists)
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not wanted():
                await asyncio.sleep(0.005)

    def has(self, capacity: int, allocatable: int) -> bool:
        found = self.devices.capacity().get(KIND), self.devices.allocatable().get(KIND)
        return found == (str(capacity), str(allocatable))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device_plugins, "LOOK_SECONDS", 0.02)
    made = tmp_path / "plugins"
    made.mkdir()
    return made


@asynccontextmanager
async def plugged(folder: Path, tmp_path: Path, **options: bool) -> AsyncIterator[tuple[Node, Plugin]]:
    plugin = Plugin(folder, **options)
    async with Node(tmp_path, folder).running() as node:
        await plugin.start("red", "green")
        await node.until(lambda: node.has(2, 2))
        try:
            yield node, plugin
        finally:
            await plugin.stop()


async def test_its_devices_become_a_resource(folder: Path, tmp_path: Path) -> None:
    async with plugged(folder, tmp_path) as (node, plugin):
        await asyncio.wait_for(node.changed.wait(), 10)
        plugin.lists.put_nowait({"red": "Unhealthy", "green": api.HEALTHY, "blue": api.HEALTHY})

        await node.until(lambda: node.has(3, 2))


async def test_a_container_gets_what_the_plugin_says(folder: Path, tmp_path: Path) -> None:
    async with plugged(folder, tmp_path, pre_start_required=True) as (node, plugin):
        given = await node.plugins.allocate(*asking())

        assert given.env == {"LASERS": "red"}
        assert given.annotations == {"laser": "on"}
        assert given.mounts == (Mount("/usr/lib/laser", "/opt/laser", read_only=True),)
        assert given.devices == (Device("/dev/laser-red", "/dev/red", "rw"), Device("example.org/laser=all"))
        assert plugin.calls == ["allocate red", "start red"]


async def test_a_container_that_is_started_again_gets_the_same_without_asking(folder: Path, tmp_path: Path) -> None:
    async with plugged(folder, tmp_path, pre_start_required=True) as (node, plugin):
        first = await node.plugins.allocate(*asking())

        assert await node.plugins.allocate(*asking()) == first
        assert plugin.calls == ["allocate red", "start red", "start red"]


async def test_a_device_is_given_once_and_never_when_unhealthy(folder: Path, tmp_path: Path) -> None:
    async with plugged(folder, tmp_path) as (node, plugin):
        await node.plugins.allocate(*asking())
        plugin.lists.put_nowait({"red": api.HEALTHY, "green": "Unhealthy"})
        await node.until(lambda: node.has(2, 1))

        with pytest.raises(ConfigFailure, match=r"Requested: 1, Available: 0"):
            await node.plugins.allocate(*asking(uid="u2"))


async def test_the_plugin_may_prefer_some(folder: Path, tmp_path: Path) -> None:
    async with plugged(folder, tmp_path, get_preferred_allocation_available=True) as (node, plugin):
        plugin.prefers = ["green"]

        assert (await node.plugins.allocate(*asking())).env == {"LASERS": "green"}


async def test_what_the_plugin_refuses_is_told_in_its_words(folder: Path, tmp_path: Path) -> None:
    async with plugged(folder, tmp_path) as (node, plugin):
        plugin.fails = "no power"

        with pytest.raises(
            ConfigFailure, match="Allocate failed due to rpc error: code = INTERNAL desc = no power"
        ) as one:
            await node.plugins.allocate(*asking())
        assert one.value.reason == "UnexpectedAdmissionError"


async def test_without_its_plugin_a_resource_is_not_healthy_and_not_forgotten(folder: Path, tmp_path: Path) -> None:
    async with plugged(folder, tmp_path) as (node, plugin):
        first = await node.plugins.allocate(*asking())
        await plugin.stop()
        await node.until(lambda: node.has(2, 0))

        assert await node.plugins.allocate(*asking()) == first
        with pytest.raises(ConfigFailure, match="Requested: 1, Available: 0"):
            await node.plugins.allocate(*asking(uid="u2"))
    again = Node(tmp_path, folder)
    assert again.has(2, 0)
    assert await again.plugins.allocate(*asking()) == first


async def test_a_plugin_that_comes_back_is_followed_again(folder: Path, tmp_path: Path) -> None:
    async with plugged(folder, tmp_path) as (node, plugin):
        await plugin.stop()
        await node.until(lambda: node.has(2, 0))
        second = Plugin(folder)
        await second.start("red", "green")

        await node.until(lambda: node.has(2, 2))
        await second.stop()


async def test_a_new_agent_makes_the_socket_anew_so_that_plugins_notice(folder: Path, tmp_path: Path) -> None:
    async with Node(tmp_path, folder).running():
        before = (folder / "kubelet.sock").stat().st_ino
    async with Node(tmp_path, folder).running() as node:
        await node.until((folder / "kubelet.sock").exists)
        plugin = Plugin(folder)
        await plugin.start("red")
        await node.until(lambda: node.has(1, 1))
        await plugin.stop()
    assert before


async def test_a_socket_that_was_taken_away_is_made_again(folder: Path, tmp_path: Path) -> None:
    async with Node(tmp_path, folder).running() as node:
        (folder / "kubelet.sock").unlink()

        await node.until((folder / "kubelet.sock").exists)


async def test_a_kubelets_socket_is_left_alone(folder: Path, tmp_path: Path) -> None:
    path = folder / "kubelet.sock"
    server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), path)
    before = path.stat().st_ino
    task = asyncio.create_task(Node(tmp_path, folder).plugins.run())
    await asyncio.sleep(0.1)

    assert path.stat().st_ino == before
    task.cancel()
    server.close()


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (api.RegisterRequest("v1alpha", "a.sock", KIND), "is not supported by this node"),
        (api.RegisterRequest("v1beta1", "../a.sock", KIND), "must be the name of a socket"),
        (api.RegisterRequest("v1beta1", "kubelet.sock", KIND), "must be the name of a socket"),
        (api.RegisterRequest("v1beta1", "a.sock", "laser"), "is invalid"),
        (api.RegisterRequest("v1beta1", "a.sock", "kubernetes.io/laser"), "is invalid"),
    ],
)
async def test_who_is_not_taken_in_is_told_why(
    request_: api.RegisterRequest, why: str, folder: Path, tmp_path: Path
) -> None:
    async with Node(tmp_path, folder).running():
        with pytest.raises(grpc.aio.AioRpcError, match=why):
            await register(folder, request_)
