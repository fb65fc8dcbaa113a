"""The container runtime on the Container Runtime Interface (v1): containerd, or another that speaks it.

Networks of pods are the runtime's own business (its CNI configuration); where it has none, pods share the host's. What
the CRI lacks is done beside it, as for Podman: the end of a container is the kernel's notice of its process, a pause is
the cgroup's freezer, logs are read from their files and rotated by us, a port is reached through the sandbox's network
namespace.

The runtime remembers only what it can find again from labels and from verbose answers. It never touches sandboxes and
containers of others: each of ours carries the label of this instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fleetplane.model.environment import Environment
from fleetplane.node import freezer
from fleetplane.node.cgroups import read_usage
from fleetplane.node.cri import messages as cri
from fleetplane.node.cri.api import CALL_SECONDS, RUNTIME, Answer, CriApi, Late
from fleetplane.node.cri.cni import CniNetwork, read_network
from fleetplane.node.cri.images import CriImages
from fleetplane.node.cri.session import CriSession
from fleetplane.node.cri.spec import container_config, linux_resources, log_path, sandbox_config
from fleetplane.node.cri.states import addresses_of, cgroup_of, container_state, details, network_namespace, sandbox
from fleetplane.node.exits import ExitWatch
from fleetplane.node.files import remove_tree
from fleetplane.node.log_files import read_log
from fleetplane.node.oom import was_killed
from fleetplane.node.runtime import (
    ContainerSpec,
    ContainerState,
    ExecResult,
    Image,
    ImageMissing,
    Label,
    LogLine,
    LogOptions,
    NotThere,
    RegistryAuth,
    Resources,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeInfo,
    Sandbox,
    SandboxSpec,
    Session,
    Stats,
    Terminal,
)
from fleetplane.node.sockets import SocketSession, connect_inside

SOCKETS: Final = (
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/crio/crio.sock",
)
SETTLE_SECONDS: Final = 5.0
STOP_SECONDS: Final = 15.0
SIGKILL_CODE: Final = 137
LOG_BYTES: Final = 10 * 1024 * 1024
ROTATE_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


def find_socket(root: str = "") -> str:
    """Where a CRI runtime of this machine listens; empty when there is none we may use."""
    return next((path for path in SOCKETS if os.access(root + path, os.W_OK) and Path(root + path).is_socket()), "")


@dataclass(frozen=True, slots=True)
class _Running:
    """What stays the same while a container runs. ``known`` is its state without what may change."""

    known: ContainerState
    cgroup: str


_PASSING: Final = ("still running", "ttrpc: closed")
"""What containerd says of a container whose end it has not taken note of."""


class CriRuntime:
    """See the module. Make one with ``open``, and ``close`` it: containers go on."""

    def __init__(
        self,
        api: CriApi,
        directory: Path,
        instance: str,
        environment: Environment,
        version: cri.VersionResponse,
        notes: Sequence[str],
        network: CniNetwork,
        *,
        own_network: bool,
    ) -> None:
        self.network = network
        self.instance = instance
        self.directory = directory
        self.socket = api.socket
        self._api = api
        self._labels = {Label.INSTANCE: instance}
        self._environment = environment
        self._version = version
        self._notes = tuple(notes)
        self._own_network = own_network
        self._exits = ExitWatch()
        self._images = CriImages(api)
        self._running: dict[str, _Running] = {}
        self._starved: dict[str, bool] = {}
        self._stopped: set[str] = set()
        self._rotating = asyncio.create_task(self._rotate(), name="rotation of container logs")

    @classmethod
    async def open(cls, socket: str, directory: Path, instance: str, environment: Environment) -> CriRuntime:
        """Connect to the runtime at this socket. ``directory`` is for logs. Raises RuntimeFailure."""
        if not socket:
            raise RuntimeFailure(
                f"no CRI runtime listens on this machine ({', '.join(SOCKETS)}); start containerd, "
                "or say where it listens with --runtime cri:/path/to/containerd.sock"
            )
        api = CriApi(socket)
        try:
            version = await api.call(RUNTIME + "Version", cri.Empty(), cri.VersionResponse, timeout=10)
            asked = cri.StatusRequest(verbose=True)
            status = await api.call(RUNTIME + "Status", asked, cri.StatusResponse, timeout=10)
        except BaseException:
            await api.close()
            raise
        conditions = {one.type: one for one in (status.status or cri.RuntimeStatus()).conditions}
        network = conditions.get("NetworkReady")
        own_network = network is not None and network.status
        notes = []
        if not own_network:
            notes.append(
                "pods share the host's network: the container runtime has no CNI configuration"
                + (f" ({network.message})" if network is not None and network.message else "")
            )
        found = read_network(status.info) if own_network else CniNetwork()
        return cls(api, directory, instance, environment, version, notes, found, own_network=own_network)

    async def info(self) -> RuntimeInfo:
        unfreezing = freezer.why_not(root_user=os.geteuid() == 0)
        name = self._version.runtime_name or "cri"
        return RuntimeInfo(name, self._version.runtime_version, self._notes, cannot_freeze=unfreezing)

    async def missing_sandbox_image(self) -> str:
        """The image every sandbox begins with, where it is known and not here; the runtime would pull it."""
        status = await self._call("Status", cri.StatusRequest(verbose=True), cri.StatusResponse)
        try:
            name = str(json.loads(status.info.get("config") or "{}").get("sandboxImage") or "")
        except (ValueError, AttributeError):
            return ""
        return name if name and await self.image(name) is None else ""

    async def _call(self, method: str, request: Any, kind: type[Answer], *, timeout: float = CALL_SECONDS) -> Answer:
        return await self._api.call(RUNTIME + method, request, kind, timeout=timeout)

    # Sandboxes

    async def start_sandbox(self, spec: SandboxSpec) -> Sandbox:
        for known in await self._list_sandboxes(spec.uid):
            if known.metadata is None or known.metadata.attempt != spec.attempt:
                continue
            if known.state == cri.SandboxState.READY:
                return await self._with_addresses(known)
            await self.remove_sandbox(known.id)  # of an attempt that ended before it was known
        config = self._sandbox_config(spec)
        await asyncio.to_thread(Path(config.log_directory).mkdir, mode=0o700, parents=True, exist_ok=True)
        request = cri.RunPodSandboxRequest(config, spec.handler)
        made = await self._call("RunPodSandbox", request, cri.SandboxId)
        return await self._sandbox(made.pod_sandbox_id)

    def _host_network(self, spec: SandboxSpec) -> bool:
        return spec.network == "host" or (spec.network == "pod" and not self._own_network)

    def _sandbox_config(self, spec: SandboxSpec) -> cri.PodSandboxConfig:
        return sandbox_config(
            spec,
            host_network=self._host_network(spec),
            log_directory=str(self._log_directory(spec.namespace, spec.name, spec.uid)),
            instance=self._labels,
        )

    def _log_directory(self, namespace: str, name: str, uid: str) -> Path:
        return self.directory / "logs" / f"{namespace}_{name}_{uid}"

    async def _list_sandboxes(self, pod_uid: str = "") -> list[cri.PodSandbox]:
        request = cri.ListPodSandboxRequest(cri.PodSandboxFilter(label_selector=self._selector(pod_uid)))
        return (await self._call("ListPodSandbox", request, cri.ListPodSandboxResponse)).items

    def _selector(self, pod_uid: str = "") -> dict[str, str]:
        return {**self._labels, Label.UID: pod_uid} if pod_uid else self._labels

    async def _sandbox(self, sandbox_id: str) -> Sandbox:
        status = (await self._sandbox_status(sandbox_id)).status
        if status is None:
            raise NotThere(f"no such sandbox: {sandbox_id}")
        return sandbox(status, addresses_of(status))

    async def _sandbox_status(self, sandbox_id: str, *, verbose: bool = False) -> cri.PodSandboxStatusResponse:
        request = cri.PodSandboxStatusRequest(sandbox_id, verbose)
        return await self._call("PodSandboxStatus", request, cri.PodSandboxStatusResponse)

    async def _with_addresses(self, found: cri.PodSandbox) -> Sandbox:
        if found.state == cri.SandboxState.READY:
            with contextlib.suppress(NotThere):
                return await self._sandbox(found.id)
        return sandbox(found, ())

    async def stop_sandbox(self, sandbox_id: str) -> None:
        for state in await self._containers_of(sandbox_id):
            self._stopped.add(state.id)
        with contextlib.suppress(NotThere):
            await self._call("StopPodSandbox", cri.SandboxId(sandbox_id), cri.Empty)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        with contextlib.suppress(NotThere):
            status = (await self._sandbox_status(sandbox_id)).status
            for state in await self._containers_of(sandbox_id):
                await self.remove_container(state.id)
            await self.stop_sandbox(sandbox_id)
            await self._call("RemovePodSandbox", cri.SandboxId(sandbox_id), cri.Empty)
            if status is not None:
                labels = status.labels
                logs = self._log_directory(labels[Label.NAMESPACE], labels[Label.NAME], labels[Label.UID])
                await asyncio.to_thread(remove_tree, logs)

    async def sandboxes(self) -> Sequence[Sandbox]:
        return [await self._with_addresses(one) for one in await self._list_sandboxes()]

    # Containers

    async def create_container(self, sandbox: Sandbox, spec: ContainerSpec, shared: SandboxSpec) -> str:
        config = container_config(shared, spec, host_network=self._host_network(shared), instance=self._labels)
        self._check_devices(config)
        shared_config = self._sandbox_config(shared)
        log = Path(shared_config.log_directory) / log_path(spec)
        await asyncio.to_thread(log.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(log.unlink, missing_ok=True)
        request = cri.CreateContainerRequest(sandbox.id, config, shared_config)
        try:
            made = await self._call("CreateContainer", request, cri.ContainerId)
        except RuntimeFailure as error:
            if isinstance(error, NotThere) and await self.image(spec.image) is None:
                raise ImageMissing(error.message, "ErrImagePull") from error
            if "reserve" not in error.message:
                raise
            # Of an attempt whose answer never came: it was made, and never started.
            for one in await self._list(shared.uid):
                if one.metadata == config.metadata and one.pod_sandbox_id == sandbox.id:
                    await self.remove_container(one.id)
            made = await self._call("CreateContainer", request, cri.ContainerId)
        return made.container_id

    def _check_devices(self, config: cri.ContainerConfig) -> None:
        """A runtime that does not know CDI would start the container without its devices."""
        version = self._version
        if config.cdi_devices and version.runtime_name == "containerd" and _before(version.runtime_version, (1, 7)):
            raise RuntimeFailure(
                f"containerd {version.runtime_version} knows no CDI devices such as {config.cdi_devices[0].name}; "
                "use containerd 1.7 or newer"
            )

    async def start_container(self, container_id: str) -> None:
        try:
            await self._call("StartContainer", cri.ContainerId(container_id), cri.Empty)
        except NotThere as error:
            # Also how a program that is not in the image is told.
            if not await self._exists(container_id):
                raise
            raise RuntimeFailure(error.message, "RunContainerError") from error
        except RuntimeFailure as error:
            raise RuntimeFailure(error.message, "RunContainerError") from error

    async def _exists(self, container_id: str) -> bool:
        try:
            await self._status(container_id)
        except NotThere:
            return False
        return True

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        state = await self.inspect_container(container_id)
        if state.phase not in {"running", "paused"}:
            return
        if state.phase == "paused":
            await self.resume_container(container_id)
        if grace_seconds <= 0:
            self._stopped.add(container_id)
        seconds = math.ceil(max(0.0, grace_seconds))
        request = cri.StopContainerRequest(container_id, seconds)
        with contextlib.suppress(NotThere):
            await self._call("StopContainer", request, cri.Empty, timeout=seconds + STOP_SECONDS)
            await self._settled(container_id)

    async def _settled(self, container_id: str) -> cri.ContainerStatusResponse:
        """The status once the runtime has taken note of the end; it is a moment behind the kernel."""
        until = self._environment.monotonic() + SETTLE_SECONDS
        while True:
            answer = await self._status(container_id)
            ended = answer.status is not None and answer.status.state == cri.ContainerPhase.EXITED
            if ended or self._environment.monotonic() > until:
                return answer
            await asyncio.sleep(0.02)

    async def pause_container(self, container_id: str) -> None:
        await asyncio.to_thread(freezer.freeze, await self._cgroup(container_id))

    async def resume_container(self, container_id: str) -> None:
        await asyncio.to_thread(freezer.thaw, await self._cgroup(container_id))

    async def _cgroup(self, container_id: str) -> str:
        await self.inspect_container(container_id)
        found = self._running.get(container_id)
        if found is None or not found.cgroup:
            raise RuntimeFailure("the container does not run, or its cgroup is not known")
        return found.cgroup

    async def remove_container(self, container_id: str) -> None:
        found = self._running.get(container_id)
        if found is not None and found.cgroup and freezer.is_frozen(found.cgroup):
            with contextlib.suppress(RuntimeFailure):
                await asyncio.to_thread(freezer.thaw, found.cgroup)
        path = ""
        with contextlib.suppress(NotThere):
            status = (await self._status(container_id)).status
            path = status.log_path if status is not None else ""
            await self._remove_ended(container_id)
        if path:
            for file in (Path(path), _rotated(Path(path))):
                await asyncio.to_thread(file.unlink, missing_ok=True)
        self._running.pop(container_id, None)
        self._starved.pop(container_id, None)
        self._stopped.discard(container_id)
        self._exits.forget(container_id)

    async def _remove_ended(self, container_id: str) -> None:
        """containerd refuses for a moment to remove what it has just ended itself, or what ends at this very moment."""
        until = self._environment.monotonic() + SETTLE_SECONDS
        while True:
            try:
                await self._call("RemoveContainer", cri.ContainerId(container_id), cri.Empty)
            except RuntimeFailure as error:
                if not any(one in str(error) for one in _PASSING) or self._environment.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
            else:
                return

    async def containers(self, pod_uid: str = "") -> Sequence[ContainerState]:
        found = []
        for one in await self._list(pod_uid):
            with contextlib.suppress(NotThere):
                found.append(await self._state(one.id, one.state, one.pod_sandbox_id))
        return found

    async def _containers_of(self, sandbox_id: str) -> list[cri.Container]:
        return [one for one in await self._list() if one.pod_sandbox_id == sandbox_id]

    async def _list(self, pod_uid: str = "") -> list[cri.Container]:
        request = cri.ListContainersRequest(cri.ContainerFilter(label_selector=self._selector(pod_uid)))
        return (await self._call("ListContainers", request, cri.ListContainersResponse)).containers

    async def inspect_container(self, container_id: str) -> ContainerState:
        running = self._running.get(container_id)
        if running is not None and not self._exits.is_known_ended(container_id):
            return await self._state(container_id, cri.ContainerPhase.RUNNING, running.known.sandbox_id)
        return await self._state(container_id, -1, "")

    async def _state(self, container_id: str, listed: int, sandbox_id: str) -> ContainerState:
        """``listed`` is the phase a list told a moment ago, where one did. What runs is asked about only once."""
        running = self._running.get(container_id)
        if running is not None and listed == cri.ContainerPhase.RUNNING:
            if not self._exits.ended(container_id, running.known.pid):
                return _perhaps_paused(running)
            answer = await self._settled(container_id)
        else:
            answer = await self._status(container_id)
        if answer.status is None:
            raise NotThere(f"no such container: {container_id}")
        info = details(answer.info)
        pid = int(info.get("pid") or 0)
        state = container_state(answer.status, pid, str(info.get("sandboxID") or sandbox_id))
        if state.phase == "running" and pid > 0:
            self._exits.watch(state.id, pid, state.pod_uid)
            if self._exits.ended(state.id, pid):
                answer = await self._settled(container_id)
                state = container_state(answer.status or cri.ContainerStatus(), 0, state.sandbox_id)
            else:
                self._running[state.id] = _Running(state, _cgroup(pid))
                return _perhaps_paused(self._running[state.id])
        self._running.pop(container_id, None)
        return await self._explained(state) if state.phase == "exited" else state

    async def _explained(self, state: ContainerState) -> ContainerState:
        """With the kernel's word on whether memory was the reason, asked once for each container."""
        if state.exit_code != SIGKILL_CODE or state.oom_killed or state.id in self._stopped:
            return state
        if state.id not in self._starved:
            self._starved[state.id] = await asyncio.to_thread(was_killed, state.id)
        return replace(state, oom_killed=self._starved[state.id])

    async def _status(self, container_id: str) -> cri.ContainerStatusResponse:
        request = cri.ContainerStatusRequest(container_id, verbose=True)
        return await self._call("ContainerStatus", request, cri.ContainerStatusResponse)

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        request = cri.UpdateContainerResourcesRequest(container_id, linux_resources(resources))
        await self._call("UpdateContainerResources", request, cri.Empty)

    # Processes and output

    async def exec(
        self, container_id: str, command: Sequence[str], timeout_seconds: float, limit_bytes: int = 16_384
    ) -> ExecResult:
        request = cri.ExecSyncRequest(container_id, list(command), max(1, math.ceil(timeout_seconds)))
        try:
            # A call that is given up takes its command along.
            answer = await self._call("ExecSync", request, cri.ExecSyncResponse, timeout=timeout_seconds)
        except Late as error:
            raise TimeoutError(error.message) from error
        return ExecResult(answer.exit_code, (answer.stdout + answer.stderr)[:limit_bytes])

    async def open_exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, size: Terminal | None = None
    ) -> Session:
        request = cri.ExecRequest(container_id, list(command), tty=tty, stdin=stdin, stdout=True, stderr=not tty)
        answer = await self._call("Exec", request, cri.StreamUrl)
        return await self._session(answer.url, stdin=stdin, tty=tty, size=size)

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> Session:
        request = cri.AttachRequest(container_id, stdin=stdin, tty=tty, stdout=True, stderr=not tty)
        answer = await self._call("Attach", request, cri.StreamUrl)
        return await self._session(answer.url, stdin=stdin, tty=tty, size=None)

    async def _session(self, url: str, *, stdin: bool, tty: bool, size: Terminal | None) -> Session:
        session = await CriSession.open(url, stdin=stdin, tty=tty)
        if tty and size is not None:
            await session.resize(size)
        return session

    async def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[LogLine]:
        status = (await self._status(container_id)).status
        if status is None or not status.log_path:
            return
        running = False
        if options.follow:
            running = (await self.inspect_container(container_id)).phase in {"running", "paused"}
        async for line in read_log(
            Path(status.log_path), options, lambda: running and not self._exits.is_known_ended(container_id)
        ):
            yield line

    async def _rotate(self) -> None:
        """Keep one earlier file of each log that has grown large; the CRI leaves this to us."""
        while True:
            await asyncio.sleep(ROTATE_SECONDS)
            for container_id in list(self._running):
                try:
                    await self._rotate_one(container_id)
                except (RuntimeFailure, OSError) as error:
                    _log.warning("the log of container %s was not rotated: %s", container_id[:12], error)

    async def _rotate_one(self, container_id: str) -> None:
        known = self._running[container_id].known
        name = f"{known.name}/{known.attempt}.log"
        labels = known.labels
        path = self._log_directory(labels[Label.NAMESPACE], labels[Label.NAME], known.pod_uid) / name
        with contextlib.suppress(FileNotFoundError):
            if (await asyncio.to_thread(path.stat)).st_size > LOG_BYTES:
                await asyncio.to_thread(path.rename, _rotated(path))
                await self._call("ReopenContainerLog", cri.ContainerId(container_id), cri.Empty)

    async def connect(self, sandbox_id: str, port: int) -> Session:
        """By the sandbox's network namespace, so that what listens on its loopback is reached too."""
        namespace = network_namespace(details((await self._sandbox_status(sandbox_id, verbose=True)).info))
        return SocketSession(*await connect_inside(namespace, port))

    async def stats(self, pod_uid: str = "") -> Sequence[Stats]:
        request = cri.ListContainerStatsRequest(cri.ContainerStatsFilter(label_selector=self._selector(pod_uid)))
        answer = await self._call("ListContainerStats", request, cri.ListContainerStatsResponse)
        found = []
        for one in answer.stats:
            container_id = one.attributes.id if one.attributes is not None else ""
            with contextlib.suppress(NotThere):
                if (await self.inspect_container(container_id)).phase in {"running", "paused"}:
                    found.append(self._stats(container_id, one))
        return found

    def _stats(self, container_id: str, told: cri.ContainerStats) -> Stats:
        """From the cgroup, which also knows the limit; from the runtime for what has none here (a pod VM)."""
        running = self._running.get(container_id)
        usage = read_usage(running.cgroup) if running is not None and running.cgroup else None
        if usage is not None and usage.memory_bytes:
            return Stats(
                container_id,
                self._environment.now(),
                usage.cpu_nanoseconds,
                usage.memory_bytes,
                usage.memory_limit_bytes,
                usage.pids,
            )
        cpu = told.cpu.usage_core_nano_seconds if told.cpu is not None else None
        memory = told.memory.working_set_bytes if told.memory is not None else None
        return Stats(
            container_id,
            self._environment.now(),
            cpu.value if cpu is not None else 0,
            memory.value if memory is not None else 0,
        )

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        async for container_id, uid in self._exits.ends():
            yield RuntimeEvent(uid, container_id, "exited")

    # Images

    async def image(self, name: str, *, handler: str = "") -> Image | None:
        return await self._images.find(name, handler)

    async def images(self) -> Sequence[Image]:
        return await self._images.all()

    async def pull_image(self, name: str, auth: Sequence[RegistryAuth] = (), *, handler: str = "") -> Image:
        return await self._images.pull(name, auth, handler)

    async def import_image(self, archive: str, name: str = "") -> Image:
        return await self._images.load(archive, name)

    async def remove_image(self, name: str) -> None:
        with contextlib.suppress(NotThere):
            await self._images.remove(name)

    async def remove_instance(self, instance: str) -> None:
        """Remove every sandbox of an agent, this one or another that is gone for good."""
        request = cri.ListPodSandboxRequest(cri.PodSandboxFilter(label_selector={Label.INSTANCE: instance}))
        answer = await self._call("ListPodSandbox", request, cri.ListPodSandboxResponse)
        for one in answer.items:
            await self.remove_sandbox(one.id)

    async def close(self) -> None:
        self._rotating.cancel()
        await asyncio.gather(self._rotating, return_exceptions=True)
        self._exits.close()
        await self._api.close()


def _perhaps_paused(running: _Running) -> ContainerState:
    if running.cgroup and freezer.is_frozen(running.cgroup):
        return replace(running.known, phase="paused")
    return running.known


def _cgroup(pid: int) -> str:
    try:
        return cgroup_of(Path(f"/proc/{pid}/cgroup").read_text())
    except OSError:
        return ""


def _rotated(log: Path) -> Path:
    return log.with_name(log.name + ".1")


def _before(version: str, wanted: tuple[int, int]) -> bool:
    """Whether a version such as ``1.6.20~ds1`` or ``v2.0.1`` is older than this one; no for what is no version."""
    parts = version.removeprefix("v").split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return False
    return (int(parts[0]), int(parts[1])) < wanted
