"""Our specifications in Podman's words (its ``SpecGenerator``). Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.node.labels import container_labels, sandbox_labels
from fleetplane.node.runtime import ContainerSpec, Mount, Resources, SandboxSpec, Security

LOG_BYTES: Final = 10 * 1024 * 1024
NAME_LIMIT: Final = 200

Spec = dict[str, Any]


def container_name(shared: SandboxSpec, spec: ContainerSpec) -> str:
    """Readable in ``podman ps``, unique by uid and attempt."""
    return f"{spec.name[:60]}_{shared.name[:60]}_{shared.namespace[:40]}_{shared.uid[:36]}_{spec.attempt}"[:NAME_LIMIT]


def pod_name(shared: SandboxSpec) -> str:
    return f"pod_{shared.name[:60]}_{shared.namespace[:40]}_{shared.uid[:36]}_{shared.attempt}"[:NAME_LIMIT]


def container_spec(
    shared: SandboxSpec,
    spec: ContainerSpec,
    *,
    pod_id: str,
    network: Mapping[str, Any],
    rlimits: Mapping[str, int],
    instance: Mapping[str, str],
    least_oom_score: int = -1000,
) -> Spec:
    """What to create. ``pod_id`` is empty outside a Podman pod; ``network`` is the namespace then used."""
    made: Spec = {
        "name": container_name(shared, spec),
        "image": spec.image,
        "labels": container_labels(spec, shared, instance),
        "env": dict(spec.env),
        "httpproxy": False,
        "systemd": "false",
        "stdin": spec.stdin,
        "terminal": spec.tty,
        "restart_policy": "no",
        "volatile": True,
        "use_image_hosts": True,
        "use_image_resolve_conf": True,
        "healthconfig": {"Test": ["NONE"]},
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        "r_limits": [{"type": name, "soft": value, "hard": value} for name, value in sorted(rlimits.items())],
        "mounts": [_mount(mount) for mount in spec.mounts],
        "resource_limits": resource_limits(spec.resources),
    }
    if spec.annotations:
        made["annotations"] = dict(spec.annotations)
    if spec.command:
        made["entrypoint"] = list(spec.command)
    if spec.args:
        made["command"] = list(spec.args)
    if spec.working_dir:
        made["work_dir"] = spec.working_dir
    if spec.stop_signal:
        made["stop_signal"] = spec.stop_signal
    if spec.devices:
        made["devices"] = [{"path": _device(d.source, d.target, d.permissions)} for d in spec.devices]
    if spec.resources.oom_score_adj is not None:
        made["oom_score_adj"] = max(spec.resources.oom_score_adj, least_oom_score)
    made.update(_security(spec.security))
    made.update(_namespaces(shared, pod_id, network))
    return made


def pod_spec(shared: SandboxSpec, *, network: Mapping[str, Any], instance: Mapping[str, str]) -> Spec:
    """A Podman pod, where containers share more than the network.

    Podman's pods cannot take a network namespace by path, but their containers can: so then the network is not among
    what the infra container holds, and each container joins it by itself.
    """
    by_path = network.get("nsmode") == "path"
    spaces = ["ipc", "uts"] if by_path else ["net", "ipc", "uts"]
    if shared.pid == "pod":
        spaces.append("pid")
    made: Spec = {
        "name": pod_name(shared),
        "labels": sandbox_labels(shared, instance),
        "shared_namespaces": spaces,
        "exit_policy": "continue",
        "netns": {"nsmode": "none"} if by_path else dict(network),
    }
    if shared.hostname and network.get("nsmode") != "host":
        made["hostname"] = shared.hostname
    if shared.sysctls:
        made["sysctl"] = dict(shared.sysctls)
    return made


def _namespaces(shared: SandboxSpec, pod_id: str, network: Mapping[str, Any]) -> Spec:
    made: Spec = {}
    if pod_id:
        made["pod"] = pod_id
        if network.get("nsmode") == "path":
            made["netns"] = dict(network)
    else:
        made["netns"] = dict(network)
        if shared.hostname and network.get("nsmode") != "host":
            made["hostname"] = shared.hostname
        if network.get("nsmode") == "host":
            made["utsns"] = {"nsmode": "host"}
        if shared.sysctls:
            made["sysctl"] = dict(shared.sysctls)
    if shared.pid == "host":
        made["pidns"] = {"nsmode": "host"}
    if shared.ipc == "host":
        made["ipcns"] = {"nsmode": "host"}
    return made


def _mount(mount: Mount) -> Spec:
    if not mount.source:
        options = ["nosuid", "nodev", "mode=1777"]
        if mount.size_bytes:
            options.append(f"size={mount.size_bytes}")
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    options = [
        "rbind",
        "ro" if mount.read_only else "rw",
        "rprivate" if mount.propagation == "private" else mount.propagation,
    ]
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}


def _device(source: str, target: str, permissions: str) -> str:
    if "=" in source:  # a CDI name stands for itself
        return source
    return f"{source}:{target or source}:{permissions}"


def resource_limits(wanted: Resources) -> Spec:
    """The ``LinuxResources`` of the OCI runtime specification."""
    cpu: Spec = {}
    if wanted.cpu_shares:
        cpu["shares"] = wanted.cpu_shares
    if wanted.cpu_quota:
        cpu["quota"] = wanted.cpu_quota
        cpu["period"] = wanted.cpu_period
    if wanted.cpuset_cpus:
        cpu["cpus"] = wanted.cpuset_cpus
    if wanted.cpuset_mems:
        cpu["mems"] = wanted.cpuset_mems
    made: Spec = {}
    if cpu:
        made["cpu"] = cpu
    if wanted.memory_bytes:
        made["memory"] = {"limit": wanted.memory_bytes, "swap": wanted.memory_swap_bytes or wanted.memory_bytes}
    if wanted.pids:
        made["pids"] = {"limit": wanted.pids}
    if wanted.huge_pages:
        made["hugepageLimits"] = [
            {"pageSize": size.replace("Mi", "MB").replace("Gi", "GB"), "limit": limit}
            for size, limit in sorted(wanted.huge_pages.items())
        ]
    return made


def _security(wanted: Security) -> Spec:
    made: Spec = {}
    if wanted.user is not None or wanted.user_name or wanted.group is not None:
        user = str(wanted.user) if wanted.user is not None else wanted.user_name
        made["user"] = user + (f":{wanted.group}" if wanted.group is not None else "")
    if wanted.supplemental_groups:
        made["groups"] = [str(group) for group in wanted.supplemental_groups]
    if wanted.privileged:
        made["privileged"] = True
    if wanted.read_only_root:
        made["read_only_filesystem"] = True
        made["read_write_tmpfs"] = False
    if wanted.add_capabilities:
        made["cap_add"] = list(wanted.add_capabilities)
    if wanted.drop_capabilities:
        made["cap_drop"] = list(wanted.drop_capabilities)
    if wanted.no_new_privileges:
        made["no_new_privileges"] = True
    if wanted.seccomp and not wanted.privileged:
        made["seccomp_policy"] = "default"
        made["seccomp_profile_path"] = wanted.seccomp
    if wanted.apparmor:
        made["apparmor_profile"] = wanted.apparmor
    if wanted.selinux:
        made["selinux_opts"] = [f"{key}:{value}" for key, value in sorted(wanted.selinux.items())]
    if wanted.unmasked_proc:
        made["unmask"] = ["ALL"]
    return made
