"""Our specifications in the CRI's words. Pure functions."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Final

from fleetplane.node.cri import messages as cri
from fleetplane.node.labels import container_labels, sandbox_labels
from fleetplane.node.runtime import (
    ContainerSpec,
    Label,
    Mount,
    NamespaceMode,
    Resources,
    RuntimeFailure,
    SandboxSpec,
    Security,
)

_PROTOCOLS: Final = {"TCP": 0, "UDP": 1, "SCTP": 2}
_PROPAGATION: Final = {"private": 0, "rslave": 1, "rshared": 2}
_MODES: Final[dict[NamespaceMode, cri.NamespaceMode]] = {
    "container": cri.NamespaceMode.CONTAINER,
    "pod": cri.NamespaceMode.POD,
    "host": cri.NamespaceMode.NODE,
}
_SIGNALS: Final = (
    *("ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL"),
    *("PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1"),
    *("USR2", "VTALRM", "WINCH", "XCPU", "XFSZ"),
)
"""In the order of the CRI's enumeration, which begins with 1."""


def sandbox_config(
    shared: SandboxSpec, *, host_network: bool, log_directory: str, instance: Mapping[str, str]
) -> cri.PodSandboxConfig:
    """``host_network`` is what the sandbox gets, which may be less than it asked for."""
    labels = sandbox_labels(shared, instance) | {Label.NETWORK: shared.network}
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(shared.name, shared.uid, shared.namespace, shared.attempt),
        hostname="" if host_network else shared.hostname,
        log_directory=log_directory,
        dns_config=_dns(shared),
        port_mappings=[] if host_network else _ports(shared),
        labels=labels,
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=shared.cgroup_parent,
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=namespaces(shared, host_network=host_network), seccomp=cri.SecurityProfile()
            ),
            sysctls=dict(shared.sysctls),
        ),
    )


def namespaces(shared: SandboxSpec, *, host_network: bool) -> cri.NamespaceOption:
    network = cri.NamespaceMode.NODE if host_network else cri.NamespaceMode.POD
    return cri.NamespaceOption(network=network, pid=_MODES[shared.pid], ipc=_MODES[shared.ipc])


def _dns(shared: SandboxSpec) -> cri.DnsConfig | None:
    dns = shared.dns
    if not (dns.servers or dns.searches or dns.options):
        return None
    return cri.DnsConfig(list(dns.servers), list(dns.searches), list(dns.options))


def _ports(shared: SandboxSpec) -> list[cri.PortMapping]:
    return [
        cri.PortMapping(_PROTOCOLS.get(port.protocol, 0), port.container_port, port.host_port, port.host_ip)
        for port in shared.ports
    ]


def log_path(spec: ContainerSpec) -> str:
    """Below the sandbox's log directory, as kubelets lay it out."""
    return f"{spec.name}/{spec.attempt}.log"


def container_config(
    shared: SandboxSpec, spec: ContainerSpec, *, host_network: bool, instance: Mapping[str, str]
) -> cri.ContainerConfig:
    """Raises RuntimeFailure for what the CRI has no word for."""
    labels = container_labels(spec, shared, instance)
    return cri.ContainerConfig(
        metadata=cri.ContainerMetadata(spec.name, spec.attempt),
        image=cri.ImageSpec(spec.image),
        command=list(spec.command),
        args=list(spec.args),
        working_dir=spec.working_dir,
        envs=[cri.KeyValue(name, value) for name, value in spec.env.items()],
        mounts=[_mount(one) for one in spec.mounts],
        devices=[
            cri.Device(one.target or one.source, one.source, one.permissions)
            for one in spec.devices
            if "=" not in one.source
        ],
        labels=labels,
        annotations=dict(spec.annotations),
        log_path=log_path(spec),
        stdin=spec.stdin,
        stdin_once=spec.stdin_once,
        tty=spec.tty,
        linux=cri.LinuxContainerConfig(
            resources=linux_resources(spec.resources),
            security_context=_security(spec.security, namespaces(shared, host_network=host_network)),
        ),
        cdi_devices=[cri.CdiDevice(one.source) for one in spec.devices if "=" in one.source],
        stop_signal=signal_number(spec.stop_signal),
    )


def signal_number(name: str) -> int:
    """The CRI's number of a signal, which is not the kernel's; 0 for the runtime's default."""
    plain = name.upper().removeprefix("SIG")
    if plain in _SIGNALS:
        return 1 + _SIGNALS.index(plain)
    if plain.isdecimal() and int(plain) in {one.value for one in signal.Signals}:
        return signal_number(signal.Signals(int(plain)).name)
    return 0


def _mount(mount: Mount) -> cri.Mount:
    if not mount.source:
        raise RuntimeFailure(f"a CRI runtime cannot mount memory at {mount.target}; mount it on the host first")
    return cri.Mount(mount.target, mount.source, mount.read_only, _PROPAGATION[mount.propagation])


def linux_resources(wanted: Resources) -> cri.LinuxContainerResources:
    return cri.LinuxContainerResources(
        cpu_period=wanted.cpu_period if wanted.cpu_quota else 0,
        cpu_quota=wanted.cpu_quota,
        cpu_shares=wanted.cpu_shares,
        memory_limit_in_bytes=wanted.memory_bytes,
        memory_swap_limit_in_bytes=wanted.memory_swap_bytes or wanted.memory_bytes,
        oom_score_adj=wanted.oom_score_adj or 0,
        cpuset_cpus=wanted.cpuset_cpus,
        cpuset_mems=wanted.cpuset_mems,
        hugepage_limits=[
            cri.HugepageLimit(size.replace("Mi", "MB").replace("Gi", "GB"), limit)
            for size, limit in sorted(wanted.huge_pages.items())
        ],
    )


def _security(wanted: Security, spaces: cri.NamespaceOption) -> cri.LinuxContainerSecurityContext:
    made = cri.LinuxContainerSecurityContext(
        privileged=wanted.privileged,
        namespace_options=spaces,
        run_as_user=None if wanted.user is None else cri.Int64Value(wanted.user),
        run_as_username="" if wanted.user is not None else wanted.user_name,
        readonly_rootfs=wanted.read_only_root,
        supplemental_groups=list(wanted.supplemental_groups),
        no_new_privs=wanted.no_new_privileges,
        seccomp=_seccomp(wanted),
        apparmor=_apparmor(wanted),
    )
    if wanted.group is not None:
        # A group without a user is not allowed here: then the user is root, as the kernel would have it.
        made.run_as_group = cri.Int64Value(wanted.group)
        if made.run_as_user is None and not made.run_as_username:
            made.run_as_user = cri.Int64Value(0)
    if wanted.add_capabilities or wanted.drop_capabilities:
        made.capabilities = cri.Capability(list(wanted.add_capabilities), list(wanted.drop_capabilities))
    if wanted.selinux:
        found = wanted.selinux
        made.selinux_options = cri.SelinuxOption(
            found.get("user", ""), found.get("role", ""), found.get("type", ""), found.get("level", "")
        )
    if not wanted.privileged and not wanted.unmasked_proc:
        made.masked_paths = [*MASKED_PATHS]
        made.readonly_paths = [*READ_ONLY_PATHS]
    return made


MASKED_PATHS: Final = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def _seccomp(wanted: Security) -> cri.SecurityProfile | None:
    if wanted.privileged:
        return None
    if wanted.seccomp == "unconfined":
        return cri.SecurityProfile(cri.ProfileType.UNCONFINED)
    if wanted.seccomp:
        return cri.SecurityProfile(cri.ProfileType.LOCALHOST, wanted.seccomp)
    return cri.SecurityProfile(cri.ProfileType.RUNTIME_DEFAULT)


def _apparmor(wanted: Security) -> cri.SecurityProfile | None:
    if wanted.privileged or not wanted.apparmor:
        return None
    if wanted.apparmor == "unconfined":
        return cri.SecurityProfile(cri.ProfileType.UNCONFINED)
    return cri.SecurityProfile(cri.ProfileType.LOCALHOST, wanted.apparmor)
