"""The part of the Container Runtime Interface we use: messages and their field numbers.

Source: the published definition of ``runtime.v1`` (kubernetes/cri-api). Names are its own, so that whoever knows it
finds their way; fields we neither send nor read are not declared.
"""

# ruff: noqa: RUF009 - a field is declared by a call, as with dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from fleetplane.model.protobuf.messages import flag, many, one, pairs, raw, text, whole


class NamespaceMode(IntEnum):
    POD = 0
    CONTAINER = 1
    NODE = 2


class ProfileType(IntEnum):
    RUNTIME_DEFAULT = 0
    UNCONFINED = 1
    LOCALHOST = 2


class SandboxState(IntEnum):
    READY = 0
    NOT_READY = 1


class ContainerPhase(IntEnum):
    CREATED = 0
    RUNNING = 1
    EXITED = 2
    UNKNOWN = 3


@dataclass
class Empty:
    """A request or an answer without content, or one whose content does not matter to us."""


@dataclass
class VersionResponse:
    version: str = text(1)
    runtime_name: str = text(2)
    runtime_version: str = text(3)
    runtime_api_version: str = text(4)


@dataclass
class StatusRequest:
    verbose: bool = flag(1)


@dataclass
class RuntimeCondition:
    type: str = text(1)
    status: bool = flag(2)
    reason: str = text(3)
    message: str = text(4)


@dataclass
class RuntimeStatus:
    conditions: list[RuntimeCondition] = many(1)


@dataclass
class StatusResponse:
    status: RuntimeStatus | None = one(1)
    info: dict[str, str] = pairs(2)


# Sandboxes


@dataclass
class DnsConfig:
    servers: list[str] = many(1)
    searches: list[str] = many(2)
    options: list[str] = many(3)


@dataclass
class PortMapping:
    protocol: int = whole(1)
    container_port: int = whole(2)
    host_port: int = whole(3)
    host_ip: str = text(4)


@dataclass
class NamespaceOption:
    network: int = whole(1)
    pid: int = whole(2)
    ipc: int = whole(3)


@dataclass
class Int64Value:
    value: int = whole(1)


@dataclass
class SecurityProfile:
    profile_type: int = whole(1)
    localhost_ref: str = text(2)


@dataclass
class SelinuxOption:
    user: str = text(1)
    role: str = text(2)
    type: str = text(3)
    level: str = text(4)


@dataclass
class LinuxSandboxSecurityContext:
    namespace_options: NamespaceOption | None = one(1)
    privileged: bool = flag(6)
    seccomp: SecurityProfile | None = one(9)


@dataclass
class LinuxPodSandboxConfig:
    cgroup_parent: str = text(1)
    security_context: LinuxSandboxSecurityContext | None = one(2)
    sysctls: dict[str, str] = pairs(3)


@dataclass
class PodSandboxMetadata:
    name: str = text(1)
    uid: str = text(2)
    namespace: str = text(3)
    attempt: int = whole(4)


@dataclass
class PodSandboxConfig:
    metadata: PodSandboxMetadata | None = one(1)
    hostname: str = text(2)
    log_directory: str = text(3)
    dns_config: DnsConfig | None = one(4)
    port_mappings: list[PortMapping] = many(5)
    labels: dict[str, str] = pairs(6)
    annotations: dict[str, str] = pairs(7)
    linux: LinuxPodSandboxConfig | None = one(8)


@dataclass
class RunPodSandboxRequest:
    config: PodSandboxConfig | None = one(1)
    runtime_handler: str = text(2)


@dataclass
class SandboxId:
    """Names one sandbox: the requests to stop and to remove it, and the answer to running it."""

    pod_sandbox_id: str = text(1)


@dataclass
class PodSandboxStatusRequest:
    pod_sandbox_id: str = text(1)
    verbose: bool = flag(2)


@dataclass
class PodIp:
    ip: str = text(1)


@dataclass
class PodSandboxNetworkStatus:
    ip: str = text(1)
    additional_ips: list[PodIp] = many(2)


@dataclass
class PodSandboxStatus:
    id: str = text(1)
    metadata: PodSandboxMetadata | None = one(2)
    state: int = whole(3)
    created_at: int = whole(4)
    network: PodSandboxNetworkStatus | None = one(5)
    labels: dict[str, str] = pairs(7)
    annotations: dict[str, str] = pairs(8)
    runtime_handler: str = text(9)


@dataclass
class PodSandboxStatusResponse:
    status: PodSandboxStatus | None = one(1)
    info: dict[str, str] = pairs(2)


@dataclass
class PodSandboxFilter:
    id: str = text(1)
    label_selector: dict[str, str] = pairs(3)


@dataclass
class ListPodSandboxRequest:
    filter: PodSandboxFilter | None = one(1)


@dataclass
class PodSandbox:
    id: str = text(1)
    metadata: PodSandboxMetadata | None = one(2)
    state: int = whole(3)
    created_at: int = whole(4)
    labels: dict[str, str] = pairs(5)
    annotations: dict[str, str] = pairs(6)


@dataclass
class ListPodSandboxResponse:
    items: list[PodSandbox] = many(1)


# Containers


@dataclass
class ImageSpec:
    image: str = text(1)
    runtime_handler: str = text(19)


@dataclass
class KeyValue:
    key: str = text(1)
    value: str = text(2)


@dataclass
class HugepageLimit:
    page_size: str = text(1)
    limit: int = whole(2)


@dataclass
class LinuxContainerResources:
    cpu_period: int = whole(1)
    cpu_quota: int = whole(2)
    cpu_shares: int = whole(3)
    memory_limit_in_bytes: int = whole(4)
    oom_score_adj: int = whole(5)
    cpuset_cpus: str = text(6)
    cpuset_mems: str = text(7)
    hugepage_limits: list[HugepageLimit] = many(8)
    unified: dict[str, str] = pairs(9)
    memory_swap_limit_in_bytes: int = whole(10)


@dataclass
class Capability:
    add_capabilities: list[str] = many(1)
    drop_capabilities: list[str] = many(2)


@dataclass
class LinuxContainerSecurityContext:
    capabilities: Capability | None = one(1)
    privileged: bool = flag(2)
    namespace_options: NamespaceOption | None = one(3)
    selinux_options: SelinuxOption | None = one(4)
    run_as_user: Int64Value | None = one(5)
    run_as_username: str = text(6)
    readonly_rootfs: bool = flag(7)
    supplemental_groups: list[int] = many(8)
    no_new_privs: bool = flag(11)
    run_as_group: Int64Value | None = one(12)
    masked_paths: list[str] = many(13)
    readonly_paths: list[str] = many(14)
    seccomp: SecurityProfile | None = one(15)
    apparmor: SecurityProfile | None = one(16)


@dataclass
class LinuxContainerConfig:
    resources: LinuxContainerResources | None = one(1)
    security_context: LinuxContainerSecurityContext | None = one(2)


@dataclass
class ContainerMetadata:
    name: str = text(1)
    attempt: int = whole(2)


@dataclass
class Mount:
    container_path: str = text(1)
    host_path: str = text(2)
    readonly: bool = flag(3)
    propagation: int = whole(5)


@dataclass
class Device:
    container_path: str = text(1)
    host_path: str = text(2)
    permissions: str = text(3)


@dataclass
class CdiDevice:
    name: str = text(1)


@dataclass
class ContainerConfig:
    metadata: ContainerMetadata | None = one(1)
    image: ImageSpec | None = one(2)
    command: list[str] = many(3)
    args: list[str] = many(4)
    working_dir: str = text(5)
    envs: list[KeyValue] = many(6)
    mounts: list[Mount] = many(7)
    devices: list[Device] = many(8)
    labels: dict[str, str] = pairs(9)
    annotations: dict[str, str] = pairs(10)
    log_path: str = text(11)
    stdin: bool = flag(12)
    stdin_once: bool = flag(13)
    tty: bool = flag(14)
    linux: LinuxContainerConfig | None = one(15)
    cdi_devices: list[CdiDevice] = many(17)
    stop_signal: int = whole(18)


@dataclass
class CreateContainerRequest:
    pod_sandbox_id: str = text(1)
    config: ContainerConfig | None = one(2)
    sandbox_config: PodSandboxConfig | None = one(3)


@dataclass
class ContainerId:
    """Names one container: requests to start, remove and re-open the log of it, and the answer to creating it."""

    container_id: str = text(1)


@dataclass
class StopContainerRequest:
    container_id: str = text(1)
    timeout: int = whole(2)


@dataclass
class ContainerFilter:
    id: str = text(1)
    label_selector: dict[str, str] = pairs(4)


@dataclass
class ListContainersRequest:
    filter: ContainerFilter | None = one(1)


@dataclass
class Container:
    id: str = text(1)
    pod_sandbox_id: str = text(2)
    metadata: ContainerMetadata | None = one(3)
    image: ImageSpec | None = one(4)
    image_ref: str = text(5)
    state: int = whole(6)
    created_at: int = whole(7)
    labels: dict[str, str] = pairs(8)
    annotations: dict[str, str] = pairs(9)


@dataclass
class ListContainersResponse:
    containers: list[Container] = many(1)


@dataclass
class ContainerStatusRequest:
    container_id: str = text(1)
    verbose: bool = flag(2)


@dataclass
class ContainerStatus:
    id: str = text(1)
    metadata: ContainerMetadata | None = one(2)
    state: int = whole(3)
    created_at: int = whole(4)
    started_at: int = whole(5)
    finished_at: int = whole(6)
    exit_code: int = whole(7)
    image: ImageSpec | None = one(8)
    image_ref: str = text(9)
    reason: str = text(10)
    message: str = text(11)
    labels: dict[str, str] = pairs(12)
    annotations: dict[str, str] = pairs(13)
    log_path: str = text(15)


@dataclass
class ContainerStatusResponse:
    status: ContainerStatus | None = one(1)
    info: dict[str, str] = pairs(2)


@dataclass
class UpdateContainerResourcesRequest:
    container_id: str = text(1)
    linux: LinuxContainerResources | None = one(2)


# Processes


@dataclass
class ExecSyncRequest:
    container_id: str = text(1)
    cmd: list[str] = many(2)
    timeout: int = whole(3)


@dataclass
class ExecSyncResponse:
    stdout: bytes = raw(1)
    stderr: bytes = raw(2)
    exit_code: int = whole(3)


@dataclass
class ExecRequest:
    container_id: str = text(1)
    cmd: list[str] = many(2)
    tty: bool = flag(3)
    stdin: bool = flag(4)
    stdout: bool = flag(5)
    stderr: bool = flag(6)


@dataclass
class AttachRequest:
    container_id: str = text(1)
    stdin: bool = flag(2)
    tty: bool = flag(3)
    stdout: bool = flag(4)
    stderr: bool = flag(5)


@dataclass
class StreamUrl:
    """Where an exec or attach is to be opened."""

    url: str = text(1)


# Usage


@dataclass
class UInt64Value:
    value: int = whole(1)


@dataclass
class CpuUsage:
    timestamp: int = whole(1)
    usage_core_nano_seconds: UInt64Value | None = one(2)


@dataclass
class MemoryUsage:
    timestamp: int = whole(1)
    working_set_bytes: UInt64Value | None = one(2)


@dataclass
class ContainerAttributes:
    id: str = text(1)
    labels: dict[str, str] = pairs(3)


@dataclass
class ContainerStats:
    attributes: ContainerAttributes | None = one(1)
    cpu: CpuUsage | None = one(2)
    memory: MemoryUsage | None = one(3)


@dataclass
class ContainerStatsFilter:
    id: str = text(1)
    label_selector: dict[str, str] = pairs(3)


@dataclass
class ListContainerStatsRequest:
    filter: ContainerStatsFilter | None = one(1)


@dataclass
class ListContainerStatsResponse:
    stats: list[ContainerStats] = many(1)


# Images


@dataclass
class Image:
    id: str = text(1)
    repo_tags: list[str] = many(2)
    repo_digests: list[str] = many(3)
    size: int = whole(4)
    uid: Int64Value | None = one(5)
    username: str = text(6)


@dataclass
class ImageRequest:
    """One image: asked for, or to be removed."""

    image: ImageSpec | None = one(1)


@dataclass
class ImageStatusResponse:
    image: Image | None = one(1)


@dataclass
class ListImagesResponse:
    images: list[Image] = many(1)


@dataclass
class AuthConfig:
    username: str = text(1)
    password: str = text(2)
    identity_token: str = text(5)

    def __repr__(self) -> str:
        return "AuthConfig(…)"


@dataclass
class PullImageRequest:
    image: ImageSpec | None = one(1)
    auth: AuthConfig | None = one(2)


@dataclass
class PullImageResponse:
    image_ref: str = text(1)
