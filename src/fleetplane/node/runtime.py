"""What a node needs of a container runtime: the protocol, and the data that crosses it.

The pod lifecycle is written once, above this protocol; Podman, a CRI runtime and the simulation differ only below it.
Everything is found again by our own labels (``Label``), so after a restart of the agent the runtime itself is the
truth about what runs: a runtime must never need memory of its own to answer ``sandboxes`` or ``containers``.

A *sandbox* is what the containers of one pod share (network, IPC, optionally processes). A runtime may make it
virtual when there is nothing to share. Calls are idempotent where the word allows it: stopping what stopped, or
removing what is gone, succeeds.

Nothing here knows of Kubernetes objects; a runtime must never read a Pod.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol


class Label:
    """Labels on sandboxes and containers; the values identify them across restarts."""

    CLUSTER: Final = "io.fleetplane.cluster"
    NODE: Final = "io.fleetplane.node"
    NAMESPACE: Final = "io.fleetplane.pod.namespace"
    NAME: Final = "io.fleetplane.pod.name"
    UID: Final = "io.fleetplane.pod.uid"
    CONTAINER: Final = "io.fleetplane.container"
    ATTEMPT: Final = "io.fleetplane.attempt"
    """How often this container (or sandbox) was started anew: a decimal number from 0."""
    SANDBOX_ATTEMPT: Final = "io.fleetplane.sandbox.attempt"
    NETWORK: Final = "io.fleetplane.network"
    """The sandbox's network mode."""
    INSTANCE: Final = "io.fleetplane.instance"
    """Which agent a container belongs to: several may share one machine, and must not see each other's."""
    HASH: Final = "io.fleetplane.container.hash"
    """Digest of the part of the container's spec that cannot change in place."""


ContainerPhase = Literal["created", "running", "paused", "exited"]
NetworkMode = Literal["pod", "host", "none"]
NamespaceMode = Literal["container", "pod", "host"]
Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host that leads into the sandbox. ``host_ip`` empty means every address."""

    host_port: int
    container_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class DnsConfig:
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What the containers of one pod share. ``shared`` says whether more than one container will ever live in it."""

    namespace: str
    name: str
    uid: str
    attempt: int = 0
    node: str = ""
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    network: NetworkMode = "pod"
    pid: NamespaceMode = "container"
    ipc: NamespaceMode = "pod"
    shared: bool = False
    ports: tuple[PortMapping, ...] = ()
    dns: DnsConfig = DnsConfig()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    handler: str = ""
    """What the pod's RuntimeClass names: for Podman an OCI runtime. Empty for the usual one."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """The pod's, for runtimes that are told by them how large a VM is; empty where there is no handler."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox as the runtime sees it. ``addresses`` are the pod's own; empty with the host's network or none."""

    id: str
    uid: str
    namespace: str
    name: str
    attempt: int
    ready: bool
    created_at: datetime
    addresses: tuple[str, ...] = ()
    network: NetworkMode = "pod"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """``source`` is a host path, or empty for a tmpfs of ``size_bytes`` (0: no limit)."""

    source: str
    target: str
    read_only: bool = False
    propagation: Literal["private", "rslave", "rshared"] = "private"
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """``source`` is a host device node, or a CDI name (``vendor.com/class=name``)."""

    source: str
    target: str = ""
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits as cgroups know them. Zero (or ``None``) means: not limited here."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 100_000
    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    pids: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    oom_score_adj: int | None = None
    huge_pages: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Security:
    """Who a container runs as and what it may do. ``None`` means: as the image or the runtime has it."""

    user: int | None = None
    user_name: str = ""
    group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    read_only_root: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = ""
    """``unconfined``, a profile's path, or empty for the runtime's default."""
    apparmor: str = ""
    selinux: Mapping[str, str] = field(default_factory=dict)
    unmasked_proc: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container. Empty ``command`` and ``args`` mean the image's own entry point and arguments."""

    name: str
    image: str
    attempt: int = 0
    hash: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    resources: Resources = Resources()
    security: Security = Security()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    stop_signal: str = ""
    restarts: Literal["Always", "OnFailure", "Never"] = "Always"
    """The pod's policy. Only the simulation reads it: its containers have no program that would know when to end."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container as the runtime sees it now. Times are absent while the event they name has not happened."""

    id: str
    pod_uid: str
    name: str
    attempt: int
    phase: ContainerPhase
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    """Why the runtime could not start it, in the runtime's own words."""
    image: str = ""
    image_id: str = ""
    hash: str = ""
    pid: int = 0
    sandbox_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """``user`` is the image's own (``uid``, ``uid:gid`` or a name). Sizes are in bytes."""

    id: str
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    user: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials for one pull; never shown by ``repr``."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a container's log. ``tail`` counts lines; ``since`` and ``until`` are inclusive."""

    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line with its line feed, or a piece of a longer one when ``partial``."""

    time: datetime
    stream: Stream
    data: bytes
    partial: bool = False


@dataclass(frozen=True, slots=True)
class ExecResult:
    """A finished command. ``output`` joins both streams and is cut at the limit asked for."""

    exit_code: int
    output: bytes


@dataclass(frozen=True, slots=True)
class Terminal:
    width: int
    height: int


class Session(Protocol):
    """A running exec or attach. Leaving it open leaks a process: always ``close``."""

    def read(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Output as it comes, until the command's output ends. With a terminal everything is ``stdout``."""

    async def write(self, data: bytes) -> None: ...

    async def end_input(self) -> None:
        """Close the command's standard input."""

    async def resize(self, size: Terminal) -> None: ...

    async def exit_code(self) -> int:
        """The command's exit code once ``read`` has ended; for attach, 0 when the container goes on."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Stats:
    """Use of one container (or sandbox), at ``time``. CPU is cumulative nanoseconds, memory is the working set."""

    container_id: str
    time: datetime
    cpu_nanoseconds: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    pids: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something happened to a container of ours. Only a hint to look: events may be lost or repeated."""

    pod_uid: str
    container_id: str
    what: Literal["created", "started", "paused", "resumed", "exited", "oom", "removed"]


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """``name`` is what stands before ``://`` in container ids. ``notes`` say in words what it cannot do here.

    ``unenforced`` is why CPU and memory limits have no effect, ``cannot_freeze`` why containers cannot be paused; empty
    where they have, and can.
    """

    name: str
    version: str
    notes: tuple[str, ...] = ()
    unenforced: str = ""
    cannot_freeze: str = ""


class RuntimeFailure(Exception):
    """The runtime refused. ``reason`` is the kubelet's word for where it happened (``CreateContainerError`` …)."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class ImageMissing(RuntimeFailure):
    """The image is neither here nor can it be pulled."""


class NotThere(RuntimeFailure):
    """No such sandbox, container or session."""


class ContainerRuntime(Protocol):
    """Runs containers. Every call may raise ``RuntimeFailure``; ids are the runtime's own."""

    async def info(self) -> RuntimeInfo: ...

    async def start_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """Make the sandbox of this pod and attempt, or return the one that is there."""

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Take its network down; containers still running in it are killed."""

    async def remove_sandbox(self, sandbox_id: str) -> None: ...

    async def sandboxes(self) -> Sequence[Sandbox]: ...

    async def create_container(self, sandbox: Sandbox, spec: ContainerSpec, shared: SandboxSpec) -> str:
        """Create and answer its id. ``shared`` is the spec the sandbox was started with."""

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        """The stop signal, then after the grace SIGKILL; returns when it has ended. Grace 0 kills at once."""

    async def pause_container(self, container_id: str) -> None: ...

    async def resume_container(self, container_id: str) -> None: ...

    async def remove_container(self, container_id: str) -> None:
        """Remove with its log; a running one is killed first."""

    async def containers(self, pod_uid: str = "") -> Sequence[ContainerState]:
        """Ours, of one pod or of all."""

    async def inspect_container(self, container_id: str) -> ContainerState: ...

    async def update_resources(self, container_id: str, resources: Resources) -> None: ...

    async def exec(
        self, container_id: str, command: Sequence[str], timeout_seconds: float, limit_bytes: int = 16_384
    ) -> ExecResult:
        """Run to the end, for probes and hooks. Raises TimeoutError; the command is then killed where possible."""

    async def open_exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, size: Terminal | None = None
    ) -> Session: ...

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> Session: ...

    def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """Oldest first; with ``follow`` until the container ends."""

    async def connect(self, sandbox_id: str, port: int) -> Session:
        """A TCP connection to a port inside the sandbox's network (port-forward); output comes as ``stdout``."""

    async def stats(self, pod_uid: str = "") -> Sequence[Stats]: ...

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Changes from now on, until cancelled. Lost connections are taken up again inside."""

    async def image(self, name: str, *, handler: str = "") -> Image | None:
        """The local image of this name or id.

        ``handler`` is the pod's: where sandboxes of some handlers keep images of their own (a pod VM), those are meant.
        """

    async def images(self) -> Sequence[Image]: ...

    async def pull_image(self, name: str, auth: Sequence[RegistryAuth] = (), *, handler: str = "") -> Image: ...

    async def import_image(self, archive: str, name: str = "") -> Image:
        """Load an OCI or Docker archive from a file, or with ``name`` a plain root file system in a tar."""

    async def remove_image(self, name: str) -> None: ...

    async def close(self) -> None: ...
