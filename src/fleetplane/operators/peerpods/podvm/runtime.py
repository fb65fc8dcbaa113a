"""The node's container runtime for peer pods: a pod is a VM, its containers run inside it, and the agent there is obeyed.

This is the adaptor's part on a node of ours. A sandbox becomes a VM of a provider on this machine; images come out of the
node's own store and are handed in as tars; logs, exec and the rest go through the agent. The VM's token is the sandbox's key,
so whatever crashes in between, the same VM is found again.

When a sandbox is stopped its VM goes at once, and what its containers said is kept on the node until the pod goes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from fleetplane.model.environment import Environment
from fleetplane.node.log_files import parse_line, read_log
from fleetplane.node.network import PodNetwork
from fleetplane.node.runtime import (
    ContainerPhase,
    ContainerSpec,
    ContainerState,
    ExecResult,
    Image,
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
from fleetplane.operators.peerpods.admission import MEMORY, VCPUS
from fleetplane.operators.peerpods.podvm.connection import AgentConnection, AgentLost, AgentRefused, Answer
from fleetplane.operators.peerpods.podvm.files import Copied, copied, packed, write_back
from fleetplane.operators.peerpods.podvm.guest.wire import BLOB_BYTES
from fleetplane.operators.peerpods.podvm.kept import Kept, lost
from fleetplane.operators.peerpods.podvm.network import Place, place_for_vm
from fleetplane.operators.peerpods.podvm.session import PodVmSession
from fleetplane.operators.peerpods.providers.protocol import Instance, Provider, ProviderError, Size, VmSpec

INSTANCE_TAG: Final = "fleetplane.io/node-instance"
BOOT_SECONDS: Final = 120.0
KILL_SECONDS: Final = 10.0
GUEST_MIB: Final = 128
"""What a VM's own kernel and agent take, beside what the pod asks for."""
LOG_PIECES: Final = 64
"""A log that is kept has at most so many pieces."""


T = TypeVar("T")


class VmProvider(Provider, Protocol):
    """A provider whose VMs are on this machine."""

    def channel(self, id: str) -> Path:
        """The socket that leads to a VM's agent."""


class ImageSource(Protocol):
    """The node's images, and what is in them."""

    async def image(self, name: str, *, handler: str = "") -> Image | None: ...

    async def images(self) -> Sequence[Image]: ...

    async def pull_image(self, name: str, auth: Sequence[RegistryAuth] = (), *, handler: str = "") -> Image: ...

    async def import_image(self, archive: str, name: str = "") -> Image: ...

    async def remove_image(self, name: str) -> None: ...

    async def image_config(self, name: str) -> Mapping[str, Any]:
        """Entrypoint, Cmd, Env, WorkingDir, User and StopSignal, as OCI names them. Raises ImageMissing."""

    def export_image(self, name: str) -> AsyncIterator[bytes]:
        """Its root file system as a tar, piece by piece. Raises ImageMissing."""


@dataclass(eq=False, slots=True)
class _Vm:
    """A sandbox's VM that is there."""

    sandbox: Sandbox
    id: str
    agent: AgentConnection
    watching: asyncio.Task[None] | None = None


class PodVmRuntime:
    """See the module. ``own`` are the folders in which what pods mount is their own; ``close`` it: VMs go on."""

    def __init__(
        self,
        provider: VmProvider,
        images: ImageSource,
        network: PodNetwork,
        environment: Environment,
        *,
        instance: str,
        folder: Path,
        own: Sequence[Path],
    ) -> None:
        self._provider = provider
        self._images = images
        self._network = network
        self._environment = environment
        self._instance = instance
        self._kept = Kept(folder)
        self._own = tuple(own)
        self._vms: dict[str, _Vm] = {}
        self._copies: dict[str, list[Copied]] = {}
        self._signals: dict[str, str] = {}
        self._listeners: set[asyncio.Queue[RuntimeEvent]] = set()

    async def info(self) -> RuntimeInfo:
        return RuntimeInfo("podvm", "1")

    # Sandboxes

    async def start_sandbox(self, spec: SandboxSpec) -> Sandbox:
        if spec.network == "host" or spec.pid == "host" or spec.ipc == "host":
            raise RuntimeFailure(
                "a peer pod runs in a VM, where there is nothing of the host to share: no host network, PID or IPC"
            )
        key = f"{spec.uid}-{spec.attempt}"
        attachment = await self._network.attach(key, spec.ports) if spec.network == "pod" else None
        place = await place_for_vm(attachment) if attachment is not None else Place()
        tags = {
            INSTANCE_TAG: self._instance,
            Label.UID: spec.uid,
            Label.NAMESPACE: spec.namespace,
            Label.NAME: spec.name,
            Label.SANDBOX_ATTEMPT: str(spec.attempt),
            Label.NETWORK: spec.network,
        }
        addresses = attachment.addresses if attachment is not None else ()
        wish = VmSpec(
            key,
            f"podvm-{spec.name}"[:54],
            tags,
            vm_size(spec.annotations),
            network_namespace=place.namespace,
            addresses=addresses,
            mac=place.mac,
        )
        made = await _provided(self._provider.create(wish))
        vm = self._known(made)
        try:
            await vm.agent.ready(BOOT_SECONDS)
            said = {"hostname": spec.hostname, "addresses": place.addresses, "routes": place.routes, "mtu": place.mtu}
            await _answered(vm.agent.call("network", **said))
        except (AgentLost, RuntimeFailure) as error:
            await self._lose(vm)
            raise RuntimeFailure(f"the pod VM did not come up: {error}") from None
        self._watch(vm)
        return vm.sandbox

    async def stop_sandbox(self, sandbox_id: str) -> None:
        vm = self._vms.get(sandbox_id) or await self._find(sandbox_id)
        if vm is not None:
            for state in await self._of(vm):
                with contextlib.suppress(NotThere):
                    ended = state
                    if state.phase in {"running", "paused"}:
                        await self.stop_container(state.id, 0)
                        ended = await self.inspect_container(state.id)
                    self._kept.put(ended)
                    data = await self._whole_log(vm, state.id)
                    await asyncio.to_thread(self._kept.put_log, sandbox_id, state.id, data)
            await self._lose(vm)
        await self._network.detach(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        vm = self._vms.get(sandbox_id) or await self._find(sandbox_id)
        if vm is not None:
            await self._lose(vm)
        await self._network.detach(sandbox_id)
        for container_id in self._kept.of(sandbox_id):
            self._copies.pop(container_id, None)
            self._signals.pop(container_id, None)
        await asyncio.to_thread(self._kept.forget_sandbox, sandbox_id)

    async def sandboxes(self) -> Sequence[Sandbox]:
        """Those with a VM, and those that are only remembered."""
        found = {}
        for made in await _provided(self._provider.list({INSTANCE_TAG: self._instance})):
            vm = self._known(made)
            self._watch(vm)
            found[vm.sandbox.id] = vm.sandbox
        for key in self._kept.sandboxes():
            if key not in found:
                found[key] = self._remembered(key)
        return list(found.values())

    def _remembered(self, key: str) -> Sandbox:
        uid, _, attempt = key.rpartition("-")
        labels = next((one.labels for one in self._kept.of(key).values()), {})
        names = labels.get(Label.NAMESPACE, ""), labels.get(Label.NAME, "")
        created = datetime.fromtimestamp(0, UTC)
        return Sandbox(key, uid, *names, int(attempt) if attempt.isdecimal() else 0, False, created, labels=labels)

    def _known(self, made: Instance) -> _Vm:
        """The VM of this instance, with a connection to come."""
        tags = made.tags
        key = made.token
        if (known := self._vms.get(key)) is not None:
            return known
        path = str(self._provider.channel(made.id))
        sandbox = Sandbox(
            id=key,
            uid=tags.get(Label.UID, ""),
            namespace=tags.get(Label.NAMESPACE, ""),
            name=tags.get(Label.NAME, ""),
            attempt=int(tags.get(Label.SANDBOX_ATTEMPT) or 0),
            ready=made.state == "running",
            created_at=self._environment.now(),
            addresses=made.addresses,
            network="pod" if made.addresses else "none" if tags.get(Label.NETWORK) == "none" else "host",
            labels=tags,
        )
        agent = AgentConnection(lambda: asyncio.open_unix_connection(path, limit=1 << 20), self._environment)
        self._vms[key] = vm = _Vm(sandbox, made.id, agent)
        return vm

    async def _find(self, sandbox_id: str) -> _Vm | None:
        made = await _provided(self._provider.describe(token=sandbox_id))
        return self._known(made) if made is not None else None

    async def _lose(self, vm: _Vm) -> None:
        """Delete the VM and everything that waits for it."""
        if vm.watching is not None:
            vm.watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await vm.watching
        await vm.agent.close()
        await _provided(self._provider.delete(vm.id))
        self._vms.pop(vm.sandbox.id, None)

    # Containers

    async def create_container(self, sandbox: Sandbox, spec: ContainerSpec, shared: SandboxSpec) -> str:
        vm = self._vms.get(sandbox.id) or await self._find(sandbox.id)
        if vm is None:
            raise NotThere(f"the pod VM of {shared.name} is gone")
        if spec.devices:
            raise RuntimeFailure(
                "a peer pod runs in a VM, which has none of the node's devices", "CreateContainerConfigError"
            )
        config = await self._images.image_config(spec.image)
        copies = [copied(mount, self._own) for mount in spec.mounts if mount.source]
        image = await self._images.image(spec.image)
        container_id = hashlib.sha256(f"{sandbox.id}/{spec.name}/{spec.attempt}".encode()).hexdigest()
        labels = {**spec.labels, Label.NAMESPACE: shared.namespace, Label.NAME: shared.name, Label.CONTAINER: spec.name}
        state = ContainerState(
            id=container_id,
            pod_uid=sandbox.uid,
            name=spec.name,
            attempt=spec.attempt,
            phase="created",
            created_at=self._environment.now(),
            image=spec.image,
            image_id=image.id if image is not None else "",
            hash=spec.hash,
            sandbox_id=sandbox.id,
            labels=labels,
        )
        await asyncio.to_thread(self._kept.put, state)
        self._copies[container_id], self._signals[container_id] = (
            copies,
            spec.stop_signal or str(config.get("StopSignal") or ""),
        )
        try:
            await vm.agent.call("remove", container=container_id)  # of an attempt whose answer never came
            await vm.agent.call("create", container=container_id, spec=guest_spec(spec, shared, config, copies))
            await self._hand_in(vm, f"root:{container_id}", self._images.export_image(spec.image))
            for copy in copies:
                data = await asyncio.to_thread(packed, copy.source)
                await self._hand_in(vm, f"volume:{copy.volume}", _pieces(data))
        except AgentRefused as error:
            raise RuntimeFailure(error.message, "CreateContainerError") from None
        except AgentLost as error:
            raise RuntimeFailure(str(error)) from None
        return container_id

    async def _hand_in(self, vm: _Vm, place: str, tar: AsyncIterator[bytes]) -> None:
        """A tar, piece by piece; a volume that is there already stays as it is."""
        first = True
        held = b""
        async for data in tar:
            held += data
            while len(held) >= BLOB_BYTES:
                head, _ = await vm.agent.call("put", held[:BLOB_BYTES], place=place, first=first)
                if head.get("known"):
                    return
                held, first = held[BLOB_BYTES:], False
        await vm.agent.call("put", held, place=place, first=first, last=True)

    async def start_container(self, container_id: str) -> None:
        vm = await self._holder(container_id)
        try:
            await vm.agent.call("start", container=container_id)
        except AgentRefused as error:
            if error.kind == "not-there":
                raise NotThere(error.message) from None
            raise RuntimeFailure(error.message, "RunContainerError") from None
        except AgentLost as error:
            raise RuntimeFailure(str(error)) from None

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        vm = await self._holder(container_id, gone_is_fine=True)
        if vm is None:
            return
        if grace_seconds > 0:
            await _answered(vm.agent.call("signal", container=container_id, signal=self._signal(container_id)))
            if await self._ends_within(vm, container_id, grace_seconds):
                return
        await _answered(vm.agent.call("signal", container=container_id, signal="KILL"))
        if not await self._ends_within(vm, container_id, KILL_SECONDS):
            raise RuntimeFailure("the container did not end after SIGKILL")

    def _signal(self, container_id: str) -> int | str:
        said = self._signals.get(container_id) or "TERM"
        return int(said) if said.isdecimal() else said

    async def _ends_within(self, vm: _Vm, container_id: str, seconds: float) -> bool:
        """A container that was never started has nothing to end."""
        try:
            async with asyncio.timeout(seconds):
                state = (await self.inspect_container(container_id)).phase
                if state != "created":
                    await _answered(vm.agent.call("wait", container=container_id))
        except TimeoutError:
            return False
        return True

    async def pause_container(self, container_id: str) -> None:
        await _answered((await self._holder(container_id)).agent.call("freeze", container=container_id, on=True))

    async def resume_container(self, container_id: str) -> None:
        await _answered((await self._holder(container_id)).agent.call("freeze", container=container_id, on=False))

    async def remove_container(self, container_id: str) -> None:
        with contextlib.suppress(NotThere):
            vm = await self._holder(container_id, gone_is_fine=True)
            if vm is not None:
                await _answered(vm.agent.call("remove", container=container_id))
            self._kept.forget(self._kept.holder(container_id), container_id)
        self._copies.pop(container_id, None)
        self._signals.pop(container_id, None)

    async def containers(self, pod_uid: str = "") -> Sequence[ContainerState]:
        found: dict[str, ContainerState] = {}
        for key in self._kept.sandboxes():
            if not pod_uid or key.rpartition("-")[0] == pod_uid:
                vm = self._vms.get(key) or await self._find(key)
                states = await self._of(vm) if vm is not None else self._gone(key)
                found.update((one.id, one) for one in states)
        return list(found.values())

    async def inspect_container(self, container_id: str) -> ContainerState:
        key = self._kept.holder(container_id)
        found = await self.containers(key.rpartition("-")[0]) if key else ()
        for state in found:
            if state.id == container_id:
                return state
        raise NotThere(f"no such container: {container_id}")

    async def _of(self, vm: _Vm) -> Sequence[ContainerState]:
        """How the containers of a VM are: what the agent says of those we know."""
        known = self._kept.of(vm.sandbox.id)
        if not known:
            return []
        try:
            head, _ = await vm.agent.call("watch", since=0)
        except (AgentLost, AgentRefused) as error:
            if await _provided(self._provider.describe(id=vm.id)) is None:
                await self._lose(vm)
                return self._gone(vm.sandbox.id)
            raise RuntimeFailure(f"the pod VM does not answer: {error}") from None
        said = {str(one["id"]): one for one in head.get("containers") or ()}
        found = []
        for id, state in known.items():
            if id in said:
                found.append(await self._settled(vm, _state(state, said[id])))
            elif state.phase == "created":
                found.append(state)
        return found

    async def _settled(self, vm: _Vm, state: ContainerState) -> ContainerState:
        """Of a container that has ended, what it wrote for the node to read comes back before its end is told."""
        if state.phase == "exited":
            for copy in self._copies.pop(state.id, ()):
                if copy.comes_back:
                    with contextlib.suppress(AgentLost, AgentRefused):
                        _, data = await vm.agent.call("file", volume=copy.volume, path=copy.file)
                        await asyncio.to_thread(write_back, copy, data)
            await asyncio.to_thread(self._kept.put, state)
        return state

    def _gone(self, key: str) -> Sequence[ContainerState]:
        found = [lost(one, self._environment.now()) for one in self._kept.of(key).values()]
        for one in found:
            self._kept.put(one)
        return found

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        amounts = {key: getattr(resources, key) for key in ("memory_bytes", "cpu_quota", "cpu_period")}
        await _answered((await self._holder(container_id)).agent.call("limits", container=container_id, **amounts))

    async def _holder(self, container_id: str, *, gone_is_fine: bool = False) -> Any:
        """The VM a container is in. Raises NotThere; or gives ``None`` for one whose VM is gone, where that is fine."""
        key = self._kept.holder(container_id)
        vm = (self._vms.get(key) or await self._find(key)) if key else None
        if vm is None and not (key and gone_is_fine):
            raise NotThere(f"no such container: {container_id}")
        return vm

    # Processes and output

    async def exec(
        self, container_id: str, command: Sequence[str], timeout_seconds: float, limit_bytes: int = 16_384
    ) -> ExecResult:
        session = await self.open_exec(container_id, command, stdin=False, tty=False)
        output = bytearray()
        try:
            async with asyncio.timeout(timeout_seconds):
                async for _, data in session.read():
                    output += data[: max(0, limit_bytes - len(output))]
                return ExecResult(await session.exit_code(), bytes(output))
        finally:
            await session.close()

    async def open_exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, size: Terminal | None = None
    ) -> Session:
        vm = await self._holder(container_id)
        shape = {"width": size.width, "height": size.height} if size is not None else {}
        arguments = {"container": container_id, "argv": list(command), "stdin": stdin, "tty": tty, **shape}
        head, _ = await _answered(vm.agent.call("exec", **arguments))
        return PodVmSession(vm.agent, int(head["session"]))

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> Session:
        vm = await self._holder(container_id)
        head, _ = await _answered(vm.agent.call("attach", container=container_id))
        return PodVmSession(vm.agent, int(head["session"]))

    async def connect(self, sandbox_id: str, port: int) -> Session:
        vm = self._vms.get(sandbox_id) or await self._find(sandbox_id)
        if vm is None:
            raise NotThere(f"no such sandbox: {sandbox_id}")
        head, _ = await _answered(vm.agent.call("connect", port=port))
        return PodVmSession(vm.agent, int(head["session"]))

    async def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[LogLine]:
        key = self._kept.holder(container_id)
        if not key:
            raise NotThere(f"no such container: {container_id}")
        vm = self._vms.get(key) or await self._find(key)
        if vm is None:
            async for line in read_log(self._kept.log_file(key, container_id), options, lambda: False):
                yield line
            return
        lines, offset, over = await self._log_so_far(vm, container_id)
        for line in tail_of(lines, options.tail):
            if options.since is None or line.time >= options.since:
                if options.until is not None and line.time > options.until:
                    return
                yield line
        rest = b""
        while options.follow and not over:
            try:
                head, data = await vm.agent.call("log", container=container_id, offset=offset, wait=True)
            except (AgentLost, AgentRefused):
                return  # it went with its VM
            offset, over = int(head["offset"]) + len(data), bool(head["over"])
            *whole, rest = (rest + data).split(b"\n")
            for raw in whole:
                found = parse_line(raw)
                if found is not None and (options.since is None or found.time >= options.since):
                    yield found

    async def _log_so_far(self, vm: _Vm, container_id: str) -> tuple[list[LogLine], int, bool]:
        data, over = b"", False
        offset = 0
        for _ in range(LOG_PIECES):
            head, piece = await _answered(vm.agent.call("log", container=container_id, offset=offset))
            offset, over = int(head["offset"]) + len(piece), bool(head["over"])
            data += piece
            if not piece or over:
                break
        whole = data.rfind(b"\n") + 1
        parsed = [parse_line(raw) for raw in data[:whole].splitlines()]
        return [one for one in parsed if one is not None], offset - (len(data) - whole), over and whole == len(data)

    async def _whole_log(self, vm: _Vm, container_id: str) -> bytes:
        data, offset = b"", 0
        for _ in range(LOG_PIECES):
            try:
                head, piece = await vm.agent.call("log", container=container_id, offset=offset)
            except (AgentLost, AgentRefused):
                break
            data, offset = data + piece, int(head["offset"]) + len(piece)
            if not piece or head["over"]:
                break
        return data

    async def stats(self, pod_uid: str = "") -> Sequence[Stats]:
        found = []
        for vm in list(self._vms.values()):
            if pod_uid and vm.sandbox.uid != pod_uid:
                continue
            with contextlib.suppress(AgentLost, AgentRefused):
                head, _ = await vm.agent.call("usage")
                for id, used in head["usage"].items():
                    amounts = int(used["cpu"]), int(used["memory"]), int(used["limit"]), int(used["pids"])
                    found.append(Stats(str(id), self._environment.now(), *amounts))
        return found

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    def _watch(self, vm: _Vm) -> None:
        if vm.watching is None:
            vm.watching = asyncio.ensure_future(self._follow(vm))

    async def _follow(self, vm: _Vm) -> None:
        """Tell of every change in a VM, until it is gone; then of the end of all that ran in it."""
        since, before = 0, dict[str, str]()
        while True:
            try:
                head, _ = await vm.agent.call("watch", since=since)
            except AgentRefused:
                return
            except AgentLost:
                since = 0
                if await _provided(self._provider.describe(id=vm.id)) is None:
                    break
                await asyncio.sleep(0.5)
                continue
            since = int(head["version"])
            now = {str(one["id"]): str(one["phase"]) for one in head.get("containers") or ()}
            for id, phase in now.items():
                if before.get(id) != phase:
                    self._tell(vm, id, phase)
            before = now
        for id, phase in before.items():
            if phase != "exited":
                self._tell(vm, id, "exited")

    def _tell(self, vm: _Vm, container_id: str, phase: str) -> None:
        what: Any = {"running": "started"}.get(phase, phase)
        for queue in self._listeners:
            queue.put_nowait(RuntimeEvent(vm.sandbox.uid, container_id, what))

    # Images: the node's own

    async def image(self, name: str, *, handler: str = "") -> Image | None:
        return await self._images.image(name)

    async def images(self) -> Sequence[Image]:
        return await self._images.images()

    async def pull_image(self, name: str, auth: Sequence[RegistryAuth] = (), *, handler: str = "") -> Image:
        return await self._images.pull_image(name, auth)

    async def import_image(self, archive: str, name: str = "") -> Image:
        return await self._images.import_image(archive, name)

    async def remove_image(self, name: str) -> None:
        await self._images.remove_image(name)

    async def remove_instance(self) -> None:
        """Delete every VM of this node."""
        for sandbox in await self.sandboxes():
            await self.remove_sandbox(sandbox.id)

    async def close(self) -> None:
        for vm in list(self._vms.values()):
            if vm.watching is not None:
                vm.watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await vm.watching
            await vm.agent.close()
        self._vms.clear()


def vm_size(annotations: Mapping[str, str]) -> Size:
    """What the pod's annotations say, with room for what the VM itself needs; nonsense counts as nothing said."""

    def number(key: str) -> int:
        text = annotations.get(key, "")
        return min(int(text), 1 << 24) if text.isascii() and text.isdigit() and len(text) < 10 else 0

    memory = number(MEMORY)
    return Size(number(VCPUS), memory + GUEST_MIB if memory else 0)


def guest_spec(
    spec: ContainerSpec, shared: SandboxSpec, config: Mapping[str, Any], copies: Sequence[Copied]
) -> Mapping[str, Any]:
    """A container in the agent's words: what the pod says, and the image where the pod says nothing."""
    entry, arguments = list(spec.command), list(spec.args)
    if not entry:
        entry = list(config.get("Entrypoint") or ())
        arguments = arguments or list(config.get("Cmd") or ())
    given = dict(one.partition("=")[::2] for one in config.get("Env") or ())
    security, resources = spec.security, spec.resources
    user = str(security.user) if security.user is not None else security.user_name or str(config.get("User") or "")
    if security.group is not None:
        user = f"{user.partition(':')[0] or '0'}:{security.group}"
    memory = [("", mount.target, False) for mount in spec.mounts if not mount.source]
    return {
        "argv": [*entry, *arguments],
        "env": {**given, **spec.env, **({"TERM": "xterm"} if spec.tty else {}), "HOSTNAME": shared.hostname},
        "working_dir": spec.working_dir or str(config.get("WorkingDir") or ""),
        "user": user,
        "groups": list(security.supplemental_groups),
        "mounts": [*memory, *((one.guest_source, one.target, one.read_only) for one in copies)],
        "read_only_root": security.read_only_root,
        "privileged": security.privileged,
        "add": list(security.add_capabilities),
        "drop": list(security.drop_capabilities),
        "no_new_privileges": security.no_new_privileges,
        "tty": spec.tty,
        "stdin": spec.stdin,
        "own_processes": shared.pid == "container",
        "memory_bytes": resources.memory_bytes,
        "cpu_quota": resources.cpu_quota,
        "cpu_period": resources.cpu_period,
        "pids": resources.pids,
    }


def tail_of(lines: Sequence[LogLine], count: int | None) -> Sequence[LogLine]:
    """The last whole lines; the pieces of one line count as one."""
    if count is None:
        return lines
    start = len(lines)
    while start > 0 and count > 0:
        start -= 1
        if start == 0 or not lines[start - 1].partial:
            count -= 1
    return lines[start:]


_PHASES: Final[Mapping[str, ContainerPhase]] = {
    "created": "created",
    "running": "running",
    "paused": "paused",
    "exited": "exited",
}


def _state(known: ContainerState, said: Mapping[str, Any]) -> ContainerState:
    """What the agent says of a container, in the node's words."""

    def time(key: str) -> datetime | None:
        return datetime.fromtimestamp(float(said[key]), UTC) if said.get(key) else None

    return replace(
        known,
        phase=_PHASES.get(str(said.get("phase")), "exited"),
        started_at=time("started"),
        finished_at=time("finished"),
        exit_code=int(said.get("code") or 0),
        oom_killed=bool(said.get("oom")),
        pid=0,
    )


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _answered(call: Awaitable[Answer]) -> Answer:
    try:
        return await call
    except AgentRefused as error:
        raise (NotThere if error.kind == "not-there" else RuntimeFailure)(error.message) from None
    except AgentLost as error:
        raise RuntimeFailure(str(error)) from None


async def _provided(call: Awaitable[T]) -> T:
    try:
        return await call
    except ProviderError as error:
        raise RuntimeFailure(error.message) from None
