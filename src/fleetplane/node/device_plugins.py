"""Device plugins as kubelets know them (v1beta1): they register at a socket, tell their devices, and prepare them.

A plugin registers at ``kubelet.sock`` in the plugins' directory and names its own socket there. From then on we follow
its list of devices, which become an extended resource, and ask it what a container needs that gets some of them:
variables, mounts, device nodes, CDI names. What it answered is kept, so a container that is started again gets the same
without asking, also when its plugin is gone; and devices that were known stay known (though not healthy) until their
plugin is back. A plugin that is lost has no healthy devices.

The socket is served where the directory exists and nobody else serves it: a kubelet, or another node's agent.

Source: the device plugin API of Kubernetes; KEP-3573.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.messages import decode, encode
from fleetplane.node import device_plugin_messages as api
from fleetplane.node.building import ConfigFailure
from fleetplane.node.devices import Devices
from fleetplane.node.files import held, read_json, write_private
from fleetplane.node.grpc_library import load_grpc
from fleetplane.node.pod import ContainerView, PodView
from fleetplane.node.runtime import Device, Mount

DIRECTORY: Final = Path("/var/lib/kubelet/device-plugins")
SOCKET: Final = "kubelet.sock"
GRANTED: Final = "devices-granted.json"
KNOWN: Final = "device-plugins.json"
LOOK_SECONDS: Final = 2.0
CALL_SECONDS: Final = 10.0
MOST_PLUGINS: Final = 64
MOST_DEVICES: Final = 1024

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Given:
    """What a container gets with its devices."""

    devices: tuple[Device, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


class _Plugin:
    """One registered plugin and the channel to it."""

    def __init__(self, grpc: Any, endpoint: Path, options: api.DevicePluginOptions) -> None:
        self.options = options
        self._grpc = grpc
        self.channel = grpc.aio.insecure_channel(f"unix:{endpoint}", options=[("grpc.default_authority", "localhost")])

    async def call(self, method: str, request: Any, kind: type[Answer]) -> Answer:
        """Raises ConfigFailure."""
        try:
            raw = await self.channel.unary_unary(api.PLUGIN + method)(encode(request), timeout=CALL_SECONDS)
            return decode(kind, raw)
        except self._grpc.aio.AioRpcError as error:
            raise _unprepared(f"rpc error: code = {error.code().name} desc = {error.details()}") from error
        except DecodeError as error:
            raise _unprepared(f"the device plugin's answer to {method} cannot be read: {error}") from error

    async def lists(self) -> AsyncIterator[api.ListAndWatchResponse]:
        """Until the plugin ends them."""
        stream = self.channel.unary_stream(api.PLUGIN + "ListAndWatch")(encode(api.Empty()))
        with contextlib.suppress(self._grpc.aio.AioRpcError):
            async for raw in stream:
                yield decode(api.ListAndWatchResponse, raw)


class DevicePlugins:
    """See the module. ``run`` serves until cancelled; ``on_change`` is told when the node has more or less to give."""

    def __init__(self, folder: Path, directory: Path, devices: Devices, on_change: Callable[[], None]) -> None:
        self._folder = folder
        self._granted_path, self._known_path = directory / GRANTED, directory / KNOWN
        self._devices = devices
        self._on_change = on_change
        self._plugins: dict[str, _Plugin] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._granted: dict[str, str] = dict(read_json(self._granted_path) or {})
        """``uid/container/resource`` to the plugin's answer."""
        self._known: dict[str, list[str]] = {}
        for kind, ids in (read_json(self._known_path) or {}).items():
            self._known[str(kind)] = [str(one) for one in ids]
            devices.offer(str(kind), dict.fromkeys(self._known[str(kind)], False))

    async def run(self) -> None:
        while True:
            if await asyncio.to_thread(self._may_serve):
                with held(self._folder / ".fleetplane.lock") as ours:
                    if ours:
                        await self._serve()
            await asyncio.sleep(LOOK_SECONDS)

    def _may_serve(self) -> bool:
        if not self._folder.is_dir():
            return False
        with socket.socket(socket.AF_UNIX) as trial:
            trial.settimeout(1)
            try:
                trial.connect(str(self._folder / SOCKET))
            except OSError:
                return True
        return False

    # Registration

    async def _serve(self) -> None:
        """Until our socket is taken away."""
        try:
            grpc = await asyncio.to_thread(load_grpc)
        except ImportError:
            _log.warning("device plugins need the package grpcio: install fleetplane[grpc]")
            await asyncio.Event().wait()
            return
        path = self._folder / SOCKET
        async with asyncio.TaskGroup() as group, self._listening(grpc, path, group):
            mark = await asyncio.to_thread(_mark, path)
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                if mark is None or await asyncio.to_thread(_mark, path) != mark:
                    break
            for follower in self._followers.values():
                follower.cancel()

    @asynccontextmanager
    async def _listening(self, grpc: Any, path: Path, group: asyncio.TaskGroup) -> AsyncIterator[None]:
        async def register(request: api.RegisterRequest, context: Any) -> api.Empty:
            if refusal := self._refusal(request):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
            self._take_in(grpc, request, group)
            return api.Empty()

        handler = grpc.unary_unary_rpc_method_handler(
            register,
            request_deserializer=lambda raw: decode(api.RegisterRequest, raw),
            response_serializer=encode,
        )
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(api.REGISTRATION, {"Register": handler}),)
        )
        await asyncio.to_thread(path.unlink, missing_ok=True)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(grace=None)
            for plugin in self._plugins.values():
                await plugin.channel.close()
            self._plugins.clear()

    def _refusal(self, request: api.RegisterRequest) -> str:
        """Why a plugin is not taken in; empty when it is."""
        domain, _, name = request.resource_name.partition("/")
        if request.version != api.VERSION:
            return f"requested API version {request.version!r} is not supported by this node; it speaks {api.VERSION}"
        if not domain or not name or "/" in name or domain.endswith("kubernetes.io"):
            return f"the ResourceName {request.resource_name!r} is invalid"
        if not request.endpoint or "/" in request.endpoint or request.endpoint in {".", "..", SOCKET}:
            return f"the endpoint {request.endpoint!r} must be the name of a socket beside {SOCKET}"
        if request.resource_name not in self._plugins and len(self._plugins) >= MOST_PLUGINS:
            return f"this node has {MOST_PLUGINS} device plugins already"
        return ""

    def _take_in(self, grpc: Any, request: api.RegisterRequest, group: asyncio.TaskGroup) -> None:
        kind = request.resource_name
        _log.info("device plugin for %s registered", kind)
        if earlier := self._followers.pop(kind, None):
            earlier.cancel()
        options = request.options or api.DevicePluginOptions()
        plugin = self._plugins[kind] = _Plugin(grpc, self._folder / request.endpoint, options)
        self._followers[kind] = group.create_task(self._follow(kind, plugin), name=f"devices of {kind}")

    async def _follow(self, kind: str, plugin: _Plugin) -> None:
        try:
            async for told in plugin.lists():
                found = {one.id: one.health == api.HEALTHY for one in told.devices[:MOST_DEVICES] if one.id}
                await self._offer(kind, found)
        except DecodeError as error:
            _log.warning("the device plugin for %s sends what cannot be read: %s", kind, error)
        finally:
            if self._plugins.get(kind) is plugin:
                del self._plugins[kind]
            await plugin.channel.close()
        _log.warning("the device plugin for %s is gone", kind)
        await self._offer(kind, dict.fromkeys(self._known.get(kind, ()), False))

    async def _offer(self, kind: str, found: Mapping[str, bool]) -> None:
        self._devices.offer(kind, found)
        if self._known.get(kind) != list(found):
            self._known[kind] = list(found)
            await asyncio.to_thread(write_private, self._known_path, orjson.dumps(self._known))
        self._on_change()

    # Allocation

    async def allocate(self, pod: PodView, container: ContainerView) -> Given:
        """Everything this container gets with its devices, of plugins and others. Raises ConfigFailure."""
        preferred = {}
        for kind, wanted in self._devices.wanted(container).items():
            plugin = self._plugins.get(kind)
            if plugin is not None and plugin.options.get_preferred_allocation_available and wanted:
                preferred[kind] = await self._preferred(plugin, kind, wanted, pod, container)
        taken = self._devices.take(pod, container, preferred)
        given = Given(tuple(Device(one) for kind, ids in taken.items() if kind not in self._known for one in ids))
        for kind, ids in taken.items():
            if kind in self._known and ids:
                given = _joined(given, await self._prepared(kind, ids, pod, container))
        return given

    async def _preferred(
        self, plugin: _Plugin, kind: str, wanted: int, pod: PodView, container: ContainerView
    ) -> list[str]:
        own, free = self._devices.of(kind, pod, container)
        request = api.PreferredRequest([*own, *free], own, wanted)
        asked = api.PreferredAllocationRequest([request])
        answer = await plugin.call("GetPreferredAllocation", asked, api.PreferredAllocationResponse)
        return answer.container_responses[0].devices_ids if answer.container_responses else []

    async def _prepared(
        self, kind: str, ids: list[str], pod: PodView, container: ContainerView
    ) -> api.ContainerAllocateResponse:
        key = f"{pod.uid}/{container.name}/{kind}"
        plugin = self._plugins.get(kind)
        if key not in self._granted:
            if plugin is None:
                raise _unprepared(f"no device plugin for {kind} is registered")
            asked = api.AllocateRequest([api.DeviceIds(ids)])
            answer = await plugin.call("Allocate", asked, api.AllocateResponse)
            if len(answer.container_responses) != 1:
                raise _unprepared(f"the device plugin for {kind} did not answer for one container")
            self._forget_gone()
            self._granted[key] = base64.b64encode(encode(answer.container_responses[0])).decode()
            await asyncio.to_thread(write_private, self._granted_path, orjson.dumps(self._granted))
        if plugin is not None and plugin.options.pre_start_required:
            await plugin.call("PreStartContainer", api.DeviceIds(ids), api.Empty)
        try:
            return decode(api.ContainerAllocateResponse, base64.b64decode(self._granted[key]))
        except (ValueError, DecodeError):
            del self._granted[key]
            raise _unprepared(f"what the device plugin for {kind} granted is damaged on disk") from None

    def _forget_gone(self) -> None:
        for key in [key for key in self._granted if not self._devices.is_here(key.partition("/")[0])]:
            del self._granted[key]


def _joined(given: Given, answer: api.ContainerAllocateResponse) -> Given:
    nodes = [Device(one.host_path, one.container_path, one.permissions or "rwm") for one in answer.devices]
    return Given(
        (*given.devices, *nodes, *(Device(one.name) for one in answer.cdi_devices)),
        (*given.mounts, *(Mount(one.host_path, one.container_path, one.read_only) for one in answer.mounts)),
        {**given.env, **answer.envs},
        {**given.annotations, **answer.annotations},
    )


def _unprepared(why: str) -> ConfigFailure:
    return ConfigFailure(f"Allocate failed due to {why}, which is unexpected", "UnexpectedAdmissionError")


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
