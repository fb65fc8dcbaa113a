"""Everything a real container is told, from its pod's specification: volumes, environment, limits, rights, names.

One builder serves one node. It reads what pods refer to through ``Sources`` and keeps files through the volume
manager; decisions are in the pure modules it calls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleetplane.node.building import ConfigFailure, container_labels, sandbox_labels
from fleetplane.node.device_plugins import Given
from fleetplane.node.devices import as_devices
from fleetplane.node.environment_variables import container_environment, expand, expand_all
from fleetplane.node.files import write_private
from fleetplane.node.names import ClusterNames, host_hosts_file, host_name, hosts_file, pod_dns, resolv_conf
from fleetplane.node.pod import ContainerView, PodView, Role
from fleetplane.node.pull_secrets import credentials_for
from fleetplane.node.resources import amount, container_resources
from fleetplane.node.runtime import (
    ContainerRuntime,
    ContainerSpec,
    ContainerState,
    Image,
    LogOptions,
    Mount,
    NamespaceMode,
    PortMapping,
    RegistryAuth,
    Resources,
    RuntimeFailure,
    Sandbox,
    SandboxSpec,
)
from fleetplane.node.security import container_security
from fleetplane.node.sources import Sources
from fleetplane.node.tokens import Tokens
from fleetplane.node.values import Facts
from fleetplane.node.volumes import VolumeManager

MESSAGE_BYTES: Final = 4096
MESSAGE_LOG_LINES: Final = 80
MESSAGE_LOG_BYTES: Final = 2048
DEFAULT_MESSAGE_PATH: Final = "/dev/termination-log"


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What a builder must know of its node; ``allocatable`` maps resources to quantities as text."""

    node: str
    addresses: tuple[str, ...] = ()
    allocatable: dict[str, str] = field(default_factory=dict)
    names: ClusterNames = field(default_factory=ClusterNames)
    seccomp_directory: str = "/var/lib/kubelet/seccomp"


DevicesOf = Callable[[PodView, ContainerView], Awaitable[Given]]


async def _no_devices(pod: PodView, container: ContainerView) -> Given:
    return Given()


class FullBuilder:
    """See the module. ``settings`` is asked each time, because addresses and capacity may change."""

    def __init__(
        self,
        settings: Callable[[], BuildSettings],
        runtime: ContainerRuntime,
        sources: Sources,
        tokens: Tokens,
        volumes: VolumeManager,
        devices_of: DevicesOf = _no_devices,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._sources = sources
        self._tokens = tokens
        self.volumes = volumes
        self._devices_of = devices_of

    def facts(self, pod_addresses: tuple[str, ...]) -> Facts:
        settings = self._settings()
        return Facts(settings.node, settings.addresses, pod_addresses, settings.allocatable)

    async def prepare(self, pod: PodView) -> None:
        await self.volumes.prepare(pod, self.facts(()))

    async def _handler(self, pod: PodView) -> str:
        name = str(pod.spec.get("runtimeClassName") or "")
        if not name:
            return ""
        found = await self._sources.runtime_class(name)
        if found is None:
            raise ConfigFailure(f'RuntimeClass "{name}" not found', "FailedCreatePodSandBox")
        return str(found.get("handler") or "")

    async def sandbox(self, pod: PodView, attempt: int) -> SandboxSpec:
        spec, settings = pod.spec, self._settings()
        share_processes = bool(spec.get("shareProcessNamespace"))
        pid: NamespaceMode = "host" if spec.get("hostPID") else "pod" if share_processes else "container"
        lasting = len(pod.with_role(Role.MAIN, Role.SIDECAR))
        handler = await self._handler(pod)
        return SandboxSpec(
            namespace=pod.namespace,
            name=pod.name,
            uid=pod.uid,
            attempt=attempt,
            node=settings.node,
            hostname=host_name(pod),
            labels=sandbox_labels(pod, settings.node),
            network="host" if pod.host_network else "pod",
            pid=pid,
            ipc="host" if spec.get("hostIPC") else "pod",
            shared=lasting > 1,
            ports=_ports(pod),
            dns=pod_dns(pod, settings.names),
            handler=handler,
            annotations=pod.annotations if handler else {},
            sysctls={str(s["name"]): str(s["value"]) for s in (spec.get("securityContext") or {}).get("sysctls") or []},
        )

    async def container(
        self, pod: PodView, container: ContainerView, attempt: int, sandbox: Sandbox, image: Image
    ) -> ContainerSpec:
        settings = self._settings()
        environment = await container_environment(pod, container, self.facts(self._addresses(sandbox)), self._sources)
        mounts = await self.volumes.mounts(pod, container, environment)
        devices, rest = as_devices(pod, container, mounts)
        given = await self._devices_of(pod, container)
        mounts = [*rest, *await asyncio.to_thread(self._own_mounts, pod, container, attempt, sandbox, mounts)]
        spec = container.spec
        return ContainerSpec(
            name=container.name,
            image=container.image,
            attempt=attempt,
            hash=container.hash,
            command=expand_all(spec.get("command") or [], environment),
            args=expand_all(spec.get("args") or [], environment),
            env={**given.env, **environment},
            working_dir=expand(str(spec.get("workingDir") or ""), environment),
            mounts=(*mounts, *given.mounts),
            devices=(*given.devices, *devices),
            annotations=given.annotations,
            resources=self.resources(pod, container),
            security=container_security(pod, container, image, settings.seccomp_directory),
            labels=container_labels(pod, container, attempt, settings.node),
            stdin=bool(spec.get("stdin")),
            stdin_once=bool(spec.get("stdinOnce")),
            tty=bool(spec.get("tty")),
            stop_signal=str((spec.get("lifecycle") or {}).get("stopSignal") or ""),
            restarts="Always" if container.policy == "Always" else "Never",
        )

    def _addresses(self, sandbox: Sandbox) -> tuple[str, ...]:
        return sandbox.addresses or self._settings().addresses

    def _own_mounts(
        self, pod: PodView, container: ContainerView, attempt: int, sandbox: Sandbox, known: Sequence[Mount]
    ) -> list[Mount]:
        """Files every container gets: where to leave a last word, and how names work."""
        settings, directory = self._settings(), self.volumes.directory(pod)
        taken = {mount.target for mount in known}
        message = self._message_file(pod, container.name, attempt)
        message.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        message.touch()
        message.chmod(0o666)
        made = [Mount(str(message), str(container.spec.get("terminationMessagePath") or DEFAULT_MESSAGE_PATH))]
        if not sandbox.addresses:
            hosts = host_hosts_file(pod, _read("/etc/hosts"))
        else:
            hosts = hosts_file(pod, sandbox.addresses, settings.names.domain)
        for target, text in (
            ("/etc/hosts", hosts),
            ("/etc/resolv.conf", resolv_conf(pod_dns(pod, settings.names))),
            ("/etc/hostname", (host_name(pod) if sandbox.addresses else os.uname().nodename) + "\n"),
        ):
            path = directory / target.rpartition("/")[2]
            _write_shared(path, text)
            if target not in taken:
                made.append(Mount(str(path), target))
        return [mount for mount in made if mount.target not in taken]

    def _message_file(self, pod: PodView, container: str, attempt: int) -> Path:
        return self.volumes.directory(pod) / "containers" / container / str(attempt)

    async def credentials(self, pod: PodView, image: str) -> Sequence[RegistryAuth]:
        secrets = []
        for ref in pod.spec.get("imagePullSecrets") or []:
            found = await self._sources.secret(pod.namespace, str(ref.get("name") or ""))
            if found is not None:
                secrets.append(found)
        return credentials_for(image, secrets)

    def resources(self, pod: PodView, container: ContainerView) -> Resources:
        memory = amount(self._settings().allocatable, "memory")
        return container_resources(container.spec, pod.spec, memory.value() if memory else 0)

    async def termination_message(self, pod: PodView, container: ContainerView, state: ContainerState) -> str:
        path = self._message_file(pod, container.name, state.attempt)
        text = await asyncio.to_thread(_last_word, path)
        policy = container.spec.get("terminationMessagePolicy")
        if text or policy != "FallbackToLogsOnError" or state.exit_code == 0:
            return text
        said = bytearray()
        try:
            async for line in self._runtime.logs(state.id, LogOptions(tail=MESSAGE_LOG_LINES)):
                said += line.data
        except RuntimeFailure:
            return ""
        return said[-MESSAGE_LOG_BYTES:].decode(errors="replace")

    async def release(self, pod: PodView) -> None:
        self._tokens.forget(pod.uid)
        await self.volumes.release(pod)


def _ports(pod: PodView) -> tuple[PortMapping, ...]:
    """The ports of the host a pod takes."""
    if pod.host_network:
        return ()
    return tuple(
        PortMapping(
            int(port["hostPort"]),
            int(port.get("containerPort") or port["hostPort"]),
            str(port.get("protocol") or "TCP"),
            str(port.get("hostIP") or ""),
        )
        for container in pod.containers
        for port in container.spec.get("ports") or []
        if port.get("hostPort")
    )


def _last_word(path: Path) -> str:
    """The end of what a container wrote into its termination message file; it may have written without end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MESSAGE_BYTES))
            return file.read(MESSAGE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _write_shared(path: Path, text: str) -> None:
    """A file containers read. Written in place: a container that runs has this very file mounted."""
    if _read(str(path)) == text:
        return
    if path.exists():
        path.write_text(text)
    else:
        write_private(path, text.encode(), 0o644)
        path.chmod(0o644)
