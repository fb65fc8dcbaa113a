"""The container runtime on Podman.

A pod is a Podman pod (with its infra container) only where containers share more than the network; otherwise each
container stands alone and joins the pod's network namespace. The end of a container is noticed by the kernel's own
notice (a pidfd) and not by asking, and logs and usage are read from their files, so an idle node costs nearly nothing.
Starting a container is two requests.

The runtime remembers only what it can find again: process ids, paths and sandboxes are read back from labels.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fleetplane.model.environment import Environment
from fleetplane.node import freezer
from fleetplane.node.cgroups import Usage, read_usage, set_limits
from fleetplane.node.exits import ExitWatch
from fleetplane.node.log_files import read_log
from fleetplane.node.moments import EPOCH, moment
from fleetplane.node.network import PodNetwork
from fleetplane.node.oom import was_killed
from fleetplane.node.podman.api import PodmanApi
from fleetplane.node.podman.host import HostFacts
from fleetplane.node.podman.images import PodmanImages
from fleetplane.node.podman.service import PodmanService, ServiceFailure
from fleetplane.node.podman.session import PodmanSession
from fleetplane.node.podman.spec import container_spec, pod_spec
from fleetplane.node.podman.states import inspected_state, listed_state
from fleetplane.node.process_usage import usage_of_processes
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

KILL_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 5.0
SIGKILL_CODE: Final = 137
EXPORT: Final = "io.fleetplane.export"
"""On a container that stands for its image while that is read: never one of a pod's."""


class PodmanRuntime:
    """See the module. Make one with ``open``, and ``close`` it: containers go on."""

    def __init__(
        self,
        host: HostFacts,
        service: PodmanService,
        api: PodmanApi,
        network: PodNetwork,
        instance: str,
        environment: Environment,
        version: str,
        notes: Sequence[str],
    ) -> None:
        self._host = host
        self._service = service
        self._api = api
        self.network = network
        self.instance = instance
        self.directory = service.directory
        self._instance = {Label.INSTANCE: instance}
        self._environment = environment
        self._version = version
        self._notes = tuple(notes)
        self._exits = ExitWatch()
        self._images = PodmanImages(api)
        self._pods: dict[str, str] = {}
        self._cgroups: dict[str, str] = {}
        self._logs: dict[str, str] = {}
        self._starved: dict[str, bool] = {}
        self._stopped: set[str] = set()
        self._paused: set[str] = set()
        """Paused by Podman itself, which has to be told when they go on."""

    @classmethod
    async def open(
        cls,
        host: HostFacts,
        directory: Path,
        network: PodNetwork,
        instance: str,
        environment: Environment,
        notes: Sequence[str] = (),
    ) -> PodmanRuntime:
        """Start the service where needed. ``directory`` is for its socket: a short path. Raises RuntimeFailure."""
        service = PodmanService(host, directory)
        try:
            await service.start()
        except (ServiceFailure, OSError) as error:
            raise RuntimeFailure(str(error)) from error

        async def revive() -> None:
            try:
                await service.start()
            except (ServiceFailure, OSError) as error:
                raise RuntimeFailure(str(error)) from error

        api = PodmanApi(service.socket, revive)
        try:
            version = await api.version()
            await network.start()
        except BaseException:
            await api.close()
            await service.stop()
            raise
        return cls(host, service, api, network, instance, environment, version, notes)

    async def info(self) -> RuntimeInfo:
        unfreezing = freezer.why_not(root_user=self._host.root)
        return RuntimeInfo("podman", self._version, self._notes, self._host.why_no_limits, unfreezing)

    # Sandboxes

    async def start_sandbox(self, spec: SandboxSpec) -> Sandbox:
        key = sandbox_key(spec.uid, spec.attempt)
        addresses: tuple[str, ...] = ()
        attachment = None
        if spec.network == "pod":
            attachment = await self.network.attach(key, spec.ports)
            addresses = attachment.addresses
        if needs_pod(spec) and key not in self._pods:
            body = pod_spec(spec, network=_network_mode(spec, attachment), instance=self._instance)
            try:
                made = await self._api.call("POST", "/pods/create", body)
            except RuntimeFailure as error:
                if "already exists" not in error.message and "already in use" not in error.message:
                    raise
                made = {"Id": str((await self._api.call("GET", f"/pods/{body['name']}/json"))["Id"])}
            self._pods[key] = str(made["Id"])
        return Sandbox(
            id=key,
            uid=spec.uid,
            namespace=spec.namespace,
            name=spec.name,
            attempt=spec.attempt,
            ready=True,
            created_at=self._environment.now(),
            addresses=addresses,
            network="pod" if addresses else "host" if spec.network == "pod" else spec.network,
        )

    async def stop_sandbox(self, sandbox_id: str) -> None:
        for state in await self.containers(sandbox_id.rpartition("-")[0]):
            if state.sandbox_id == sandbox_id and state.phase in {"running", "paused"}:
                await self.stop_container(state.id, 0)
        if pod_id := self._pods.get(sandbox_id):
            with contextlib.suppress(NotThere):
                await self._api.call("POST", f"/pods/{pod_id}/stop", query={"t": "0"})
        await self.network.detach(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        for state in await self.containers(sandbox_id.rpartition("-")[0]):
            if state.sandbox_id == sandbox_id:
                await self.remove_container(state.id)
        if pod_id := self._pods.pop(sandbox_id, ""):
            with contextlib.suppress(NotThere):
                await self._api.call("DELETE", f"/pods/{pod_id}", query={"force": "true"})

    async def sandboxes(self) -> Sequence[Sandbox]:
        """From Podman's pods, from network namespaces, and from the labels of containers that stand alone."""
        found: dict[str, Sandbox] = {}
        attached = self.network.attached()
        for pod in await self._api.call("GET", "/pods/json", query={"filters": self._filters()}) or []:
            labels = pod.get("Labels") or {}
            key = sandbox_key(labels.get(Label.UID, ""), labels.get(Label.SANDBOX_ATTEMPT, "0"))
            self._pods[key] = str(pod["Id"])
            found[key] = self._sandbox(key, labels, attached, moment(pod.get("Created")) or EPOCH)
        for entry in await self._list():
            labels = entry.get("Labels") or {}
            key = sandbox_key(labels.get(Label.UID, ""), labels.get(Label.SANDBOX_ATTEMPT, "0"))
            found.setdefault(key, self._sandbox(key, labels, attached, moment(entry.get("Created")) or EPOCH))
        for key in attached:
            found.setdefault(key, self._sandbox(key, {}, attached, EPOCH))
        return list(found.values())

    def _sandbox(self, key: str, labels: Mapping[str, str], attached: Mapping[str, Any], created: Any) -> Sandbox:
        uid, _, attempt = key.rpartition("-")
        mode = labels.get(Label.NETWORK, "pod")
        own_network = mode == "pod" and bool(self.network.networks)
        attachment = attached.get(key)
        return Sandbox(
            id=key,
            uid=uid,
            namespace=labels.get(Label.NAMESPACE, ""),
            name=labels.get(Label.NAME, ""),
            attempt=int(attempt) if attempt.isdecimal() else 0,
            ready=not own_network or attachment is not None,
            created_at=created,
            addresses=attachment.addresses if attachment else (),
            network="pod" if own_network else "none" if mode == "none" else "host",
            labels=labels,
        )

    # Containers

    async def create_container(self, sandbox: Sandbox, spec: ContainerSpec, shared: SandboxSpec) -> str:
        attachment = self.network.attached().get(sandbox.id) if shared.network == "pod" else None
        body = container_spec(
            shared,
            spec,
            pod_id=self._pods.get(sandbox.id, ""),
            network=_network_mode(shared, attachment),
            rlimits={} if self._host.may_raise_limits else self._host.rlimits,
            instance={**self._instance, Label.NETWORK: shared.network},
            least_oom_score=self._host.least_oom_score,
        )
        if handler := shared.handler or self._host.oci_runtime:
            body["oci_runtime"] = handler
        if self._host.why_no_limits:
            del body["resource_limits"]  # Podman would refuse the container
        try:
            made = await self._api.call("POST", "/containers/create", body)
        except NotThere as error:
            raise ImageMissing(error.message, "ErrImagePull") from error
        except RuntimeFailure as error:
            if "already in use" not in error.message:
                raise
            # Of an attempt whose answer never came: it was made, and never started.
            await self.remove_container(str(body["name"]))
            made = await self._api.call("POST", "/containers/create", body)
        container_id = str(made["Id"])
        if shared.handler:
            await self._check_handler(container_id, shared.handler)
        return container_id

    async def _check_handler(self, container_id: str, handler: str) -> None:
        """Some versions of Podman silently take another OCI runtime than the one asked for."""
        taken = str((await self._inspect(container_id)).get("OCIRuntime") or "")
        if Path(taken).name != Path(handler).name:
            await self.remove_container(container_id)
            raise RuntimeFailure(
                f'Podman {self._version} would run this with {taken} instead of the OCI runtime "{handler}" that its '
                "RuntimeClass names; configure that runtime in containers.conf, or use a newer Podman"
            )

    async def start_container(self, container_id: str) -> None:
        try:
            await self._api.call("POST", f"/containers/{container_id}/start")
        except NotThere:
            raise
        except RuntimeFailure as error:
            raise RuntimeFailure(error.message, "RunContainerError") from error

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        entry = await self._inspect(container_id)
        state = await self._with_freezer(inspected_state(entry, ""))
        if state.phase not in {"running", "paused"}:
            return
        if state.phase == "paused":
            await self.resume_container(container_id)
        if grace_seconds > 0:
            first = (entry.get("Config") or {}).get("StopSignal") or 15
            await self._kill(container_id, str(first))
            if await self._ends_within(state, grace_seconds):
                return
        self._stopped.add(container_id)
        await self._kill(container_id, "KILL")
        if not await self._ends_within(state, KILL_SECONDS):
            raise RuntimeFailure(f"container {state.name} did not end after SIGKILL")

    async def _kill(self, container_id: str, which: str) -> None:
        try:
            await self._api.call("POST", f"/containers/{container_id}/kill", query={"signal": which})
        except NotThere:
            return
        except RuntimeFailure as error:
            if "not running" not in error.message and "state improper" not in error.message:
                raise

    async def _ends_within(self, state: ContainerState, seconds: float) -> bool:
        if not await self._exits.wait(state.id, state.pid, seconds):
            return False
        with contextlib.suppress(NotThere):
            await self._settled(state.id)
        return True

    async def _settled(self, container_id: str) -> dict[str, Any]:
        """The description once Podman has taken note of the end (its monitor is a moment behind the kernel)."""
        until = self._environment.monotonic() + SETTLE_SECONDS
        while True:
            entry = await self._inspect(container_id)
            if inspected_state(entry, "").phase == "exited" or self._environment.monotonic() > until:
                return entry
            await asyncio.sleep(0.02)

    async def pause_container(self, container_id: str) -> None:
        """By the kernel's freezer, which takes no process of its own; by Podman where that cannot be used."""
        if path := await self._cgroup_of(container_id):
            with contextlib.suppress(RuntimeFailure):
                await asyncio.to_thread(freezer.freeze, path)
                return
        await self._api.call("POST", f"/containers/{container_id}/pause")

    async def resume_container(self, container_id: str) -> None:
        path = await self._cgroup_of(container_id)
        if path and container_id not in self._paused and freezer.is_frozen(path):
            await asyncio.to_thread(freezer.thaw, path)
        else:
            await self._api.call("POST", f"/containers/{container_id}/unpause")
            self._paused.discard(container_id)

    async def _cgroup_of(self, container_id: str) -> str:
        if container_id not in self._cgroups:
            await self._inspect(container_id)
        return self._cgroups.get(container_id, "")

    async def _with_freezer(self, state: ContainerState) -> ContainerState:
        """Podman does not know what the kernel's freezer holds."""
        if state.phase == "paused":
            self._paused.add(state.id)
        elif state.phase == "running" and (path := await self._cgroup_of(state.id)) and freezer.is_frozen(path):
            return replace(state, phase="paused")
        return state

    async def remove_container(self, container_id: str) -> None:
        query = {"force": "true", "v": "true", "timeout": "0", "depend": "false"}
        with contextlib.suppress(NotThere):
            await self._api.call("DELETE", f"/containers/{container_id}", query=query)
        self._cgroups.pop(container_id, None)
        self._logs.pop(container_id, None)
        self._starved.pop(container_id, None)
        self._stopped.discard(container_id)
        self._paused.discard(container_id)
        self._exits.forget(container_id)

    async def containers(self, pod_uid: str = "") -> Sequence[ContainerState]:
        found = []
        for entry in await self._list(pod_uid):
            labels = entry.get("Labels") or {}
            sandbox_id = sandbox_key(labels.get(Label.UID, ""), labels.get(Label.SANDBOX_ATTEMPT, "0"))
            state = listed_state(entry, sandbox_id)
            if state.phase == "exited":
                try:
                    state = await self._ended_state(await self._inspect(state.id), sandbox_id)
                except NotThere:
                    continue
            elif state.phase in {"running", "paused"}:
                try:
                    if self._exits.ended(state.id, state.pid):
                        state = await self._ended_state(await self._settled(state.id), sandbox_id)
                    else:
                        self._exits.watch(state.id, state.pid, state.pod_uid)
                        state = await self._with_freezer(state)
                except NotThere:
                    continue
            found.append(state)
        return found

    async def _ended_state(self, entry: Mapping[str, Any], sandbox_id: str) -> ContainerState:
        """With the kernel's word on whether memory was the reason, asked once for each container."""
        state = inspected_state(entry, sandbox_id)
        if state.exit_code != SIGKILL_CODE or state.oom_killed or state.id in self._stopped:
            return state
        if state.id not in self._starved:
            self._starved[state.id] = await asyncio.to_thread(was_killed, state.id)
        return replace(state, oom_killed=self._starved[state.id])

    async def inspect_container(self, container_id: str) -> ContainerState:
        entry = await self._inspect(container_id)
        labels = (entry.get("Config") or {}).get("Labels") or {}
        sandbox_id = sandbox_key(labels.get(Label.UID, ""), labels.get(Label.SANDBOX_ATTEMPT, "0"))
        state = inspected_state(entry, sandbox_id)
        if state.phase == "exited":
            return await self._ended_state(entry, sandbox_id)
        if state.phase in {"running", "paused"}:
            if self._exits.ended(state.id, state.pid):
                return await self._ended_state(await self._settled(container_id), sandbox_id)
            self._exits.watch(state.id, state.pid, state.pod_uid)
            state = await self._with_freezer(state)
        return state

    async def _inspect(self, container_id: str) -> dict[str, Any]:
        entry: dict[str, Any] = await self._api.call("GET", f"/containers/{container_id}/json")
        if path := ((entry.get("HostConfig") or {}).get("LogConfig") or {}).get("Path"):
            self._logs[container_id] = str(path)
        if group := (entry.get("State") or {}).get("CgroupPath"):
            self._cgroups[container_id] = str(group)
        return entry

    async def _list(self, pod_uid: str = "") -> list[dict[str, Any]]:
        query = {"all": "true", "filters": self._filters(pod_uid)}
        entries = await self._api.call("GET", "/containers/json", query=query) or []
        return [entry for entry in entries if not entry.get("IsInfra")]

    def _filters(self, pod_uid: str = "") -> str:
        labels = [f"{key}={value}" for key, value in self._instance.items()]
        if pod_uid:
            labels.append(f"{Label.UID}={pod_uid}")
        return json.dumps({"label": labels})

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        if container_id not in self._cgroups:
            await self._inspect(container_id)
        path = self._cgroups.get(container_id, "")
        if not path:
            raise RuntimeFailure("the container's cgroup is not known, so its limits cannot be changed")
        try:
            set_limits(
                path,
                memory_bytes=resources.memory_bytes,
                cpu_quota=resources.cpu_quota,
                cpu_period=resources.cpu_period,
                cpu_shares=resources.cpu_shares,
            )
        except OSError as error:
            raise RuntimeFailure(f"the kernel refused new limits: {error}") from error

    # Processes and output

    async def exec(
        self, container_id: str, command: Sequence[str], timeout_seconds: float, limit_bytes: int = 16_384
    ) -> ExecResult:
        exec_id, session = await self._open_exec(container_id, command, stdin=False, tty=False, size=None)
        output = bytearray()
        try:
            async with asyncio.timeout(timeout_seconds):
                async for _, data in session.read():
                    output += data[: max(0, limit_bytes - len(output))]
                return ExecResult(await session.exit_code(), bytes(output))
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(RuntimeFailure):
                await asyncio.shield(self._kill_exec(exec_id))
            raise
        finally:
            await session.close()

    async def _kill_exec(self, exec_id: str) -> None:
        """Podman cannot end a command it has started: its process can be, by id."""
        entry = await self._api.call("GET", f"/exec/{exec_id}/json")
        pid = int(entry.get("Pid") or 0)
        if entry.get("Running") and pid > 1:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    async def open_exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, size: Terminal | None = None
    ) -> Session:
        return (await self._open_exec(container_id, command, stdin=stdin, tty=tty, size=size))[1]

    async def _open_exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, size: Terminal | None
    ) -> tuple[str, Session]:
        body: dict[str, Any] = {
            "Cmd": list(command),
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": not tty,
            "Tty": tty,
        }
        if tty:
            body["Env"] = ["TERM=xterm"]
        made = await self._api.call("POST", f"/containers/{container_id}/exec", body)
        exec_id = str(made["Id"])
        start: dict[str, Any] = {"Detach": False, "Tty": tty}
        if size is not None:
            start |= {"w": size.width, "h": size.height}
        reader, writer = await self._api.hijack(f"/exec/{exec_id}/start", {}, start)

        async def resize(to: Terminal) -> None:
            query = {"h": str(to.height), "w": str(to.width)}
            await self._api.call("POST", f"/exec/{exec_id}/resize", query=query)

        async def code() -> int:
            for _ in range(50):
                entry = await self._api.call("GET", f"/exec/{exec_id}/json")
                if not entry.get("Running"):
                    return int(entry.get("ExitCode") or 0)
                await asyncio.sleep(0.02)
            return 0

        return exec_id, PodmanSession(reader, writer, tty=tty, resize_to=resize, code=code)

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> Session:
        query = {"stream": "true", "stdout": "true", "stderr": "true", "stdin": "true" if stdin else "false"}
        reader, writer = await self._api.hijack(f"/containers/{container_id}/attach", query)

        async def resize(to: Terminal) -> None:
            size = {"h": str(to.height), "w": str(to.width)}
            await self._api.call("POST", f"/containers/{container_id}/resize", query=size)

        async def code() -> int:
            return (await self.inspect_container(container_id)).exit_code

        return PodmanSession(reader, writer, tty=tty, resize_to=resize, code=code)

    async def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[LogLine]:
        if container_id not in self._logs:
            await self._inspect(container_id)
        path = self._logs.get(container_id)
        if path is None:
            raise RuntimeFailure("the container has no log: its log driver is not k8s-file")
        running = True
        if options.follow:
            running = (await self.inspect_container(container_id)).phase in {"running", "paused"}
        async for line in read_log(
            Path(path), options, lambda: running and not self._exits.is_known_ended(container_id)
        ):
            yield line

    async def connect(self, sandbox_id: str, port: int) -> Session:
        """By the sandbox's network namespace, so that what listens on its loopback is reached too."""
        attachment = self.network.attached().get(sandbox_id)
        namespace = attachment.namespace if attachment is not None else ""
        reader, writer = await connect_inside(namespace, port)
        return SocketSession(reader, writer)

    async def stats(self, pod_uid: str = "") -> Sequence[Stats]:
        found = []
        now = self._environment.now()
        for entry in await self._list(pod_uid):
            if str(entry.get("State")).lower() not in {"running", "paused"}:
                continue
            container_id = str(entry["Id"])
            if container_id not in self._cgroups:
                with contextlib.suppress(NotThere):
                    await self._inspect(container_id)
            usage = self._usage(container_id, int(entry.get("Pid") or 0))
            found.append(
                Stats(
                    container_id,
                    now,
                    usage.cpu_nanoseconds,
                    usage.memory_bytes,
                    usage.memory_limit_bytes,
                    usage.pids,
                )
            )
        return found

    def _usage(self, container_id: str, pid: int) -> Usage:
        if self._host.why_no_limits:
            return usage_of_processes(pid)  # there is no cgroup, or it is that of everybody
        return read_usage(self._cgroups.get(container_id, f"/libpod_parent/libpod-{container_id}"))

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        async for container_id, uid in self._exits.ends():
            yield RuntimeEvent(uid, container_id, "exited")

    # Images

    async def image(self, name: str, *, handler: str = "") -> Image | None:
        return await self._images.find(name)

    async def images(self) -> Sequence[Image]:
        return await self._images.all()

    async def pull_image(self, name: str, auth: Sequence[RegistryAuth] = (), *, handler: str = "") -> Image:
        return await self._images.pull(name, auth)

    async def import_image(self, archive: str, name: str = "") -> Image:
        return await self._images.load(archive, name)

    async def remove_image(self, name: str) -> None:
        await self._images.remove(name)

    async def image_config(self, name: str) -> Mapping[str, Any]:
        """How the image says it is to be run, in OCI's words. Raises ImageMissing."""
        return await self._images.config(name)

    async def export_image(self, name: str) -> AsyncIterator[bytes]:
        """The image's root file system as a tar. Raises ImageMissing."""
        async for data in self._images.export(name, {EXPORT: self.instance}):
            yield data

    async def remove_instance(self, instance: str) -> None:
        """Remove every container and pod of an agent, this one or another that is gone for good."""
        exports = {"filters": json.dumps({"label": [f"{EXPORT}={instance}"]}), "all": "true"}
        for entry in await self._api.call("GET", "/containers/json", query=exports) or []:
            await self.remove_container(str(entry["Id"]))
        query = {"filters": json.dumps({"label": [f"{Label.INSTANCE}={instance}"]})}
        for pod in await self._api.call("GET", "/pods/json", query=query) or []:
            with contextlib.suppress(NotThere):
                await self._api.call("DELETE", f"/pods/{pod['Id']}", query={"force": "true"})
        for entry in await self._api.call("GET", "/containers/json", query={"all": "true", **query}) or []:
            await self.remove_container(str(entry["Id"]))

    async def close(self) -> None:
        """A network no pod uses any more is taken down; what runs goes on with the rest."""
        self._exits.close()
        await self.network.stop(remove=not self.network.attached())
        await self._api.close()
        await self._service.stop()


def sandbox_key(uid: str, attempt: int | str) -> str:
    return f"{uid}-{attempt}"


def needs_pod(spec: SandboxSpec) -> bool:
    """Whether containers share more than a network namespace does for them."""
    return spec.shared or spec.pid == "pod"


def _network_mode(spec: SandboxSpec, attachment: Any) -> dict[str, str]:
    if attachment is not None and attachment.namespace:
        return {"nsmode": "path", "value": attachment.namespace}
    return {"nsmode": "none" if spec.network == "none" else "host"}
