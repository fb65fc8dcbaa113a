"""The CRI's descriptions in our words. Pure functions, tolerant of what a runtime leaves out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fleetplane.node.cri import messages as cri
from fleetplane.node.moments import EPOCH
from fleetplane.node.runtime import ContainerPhase, ContainerState, Image, Label, Sandbox

_PHASES: Final[dict[int, ContainerPhase]] = {
    cri.ContainerPhase.CREATED: "created",
    cri.ContainerPhase.RUNNING: "running",
    cri.ContainerPhase.EXITED: "exited",
    cri.ContainerPhase.UNKNOWN: "exited",
}


def moment(nanoseconds: int) -> datetime | None:
    """Zero and less are no time."""
    if nanoseconds <= 0:
        return None
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=nanoseconds // 1000)


def container_state(status: cri.ContainerStatus, pid: int, sandbox_id: str) -> ContainerState:
    phase = _PHASES.get(status.state, "exited")
    ended = phase == "exited"
    labels = status.labels
    return ContainerState(
        id=status.id,
        pod_uid=labels.get(Label.UID, ""),
        name=labels.get(Label.CONTAINER, ""),
        attempt=_number(labels.get(Label.ATTEMPT)),
        phase=phase,
        created_at=moment(status.created_at) or EPOCH,
        started_at=moment(status.started_at),
        finished_at=moment(status.finished_at) if ended else None,
        exit_code=status.exit_code if ended else 0,
        oom_killed=ended and status.reason == "OOMKilled",
        error=status.message if ended else "",
        image=status.image.image if status.image else "",
        image_id=status.image_ref,
        hash=labels.get(Label.HASH, ""),
        pid=pid,
        sandbox_id=sandbox_id,
        labels=labels,
    )


def sandbox(found: cri.PodSandbox | cri.PodSandboxStatus, addresses: tuple[str, ...]) -> Sandbox:
    labels = found.labels
    metadata = found.metadata or cri.PodSandboxMetadata()
    wanted = labels.get(Label.NETWORK, "pod")
    return Sandbox(
        id=found.id,
        uid=labels.get(Label.UID, metadata.uid),
        namespace=labels.get(Label.NAMESPACE, metadata.namespace),
        name=labels.get(Label.NAME, metadata.name),
        attempt=metadata.attempt,
        ready=found.state == cri.SandboxState.READY,
        created_at=moment(found.created_at) or EPOCH,
        addresses=addresses,
        network="pod" if addresses else "none" if wanted == "none" else "host",
        labels=labels,
    )


def addresses_of(status: cri.PodSandboxStatus) -> tuple[str, ...]:
    network = status.network
    if network is None or not network.ip:
        return ()
    return (network.ip, *(one.ip for one in network.additional_ips if one.ip))


def image_of(found: cri.Image) -> Image:
    user = str(found.uid.value) if found.uid is not None else found.username
    return Image(
        id=found.id, names=tuple(found.repo_tags), digests=tuple(found.repo_digests), size=found.size, user=user
    )


def details(info: Mapping[str, str]) -> dict[str, Any]:
    """What a verbose answer adds, as containerd and CRI-O write it: JSON under ``info``."""
    try:
        found = json.loads(info.get("info") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def network_namespace(found: Mapping[str, Any]) -> str:
    """The path of the sandbox's network namespace, from its details; empty when it is the host's."""
    spec = found.get("runtimeSpec") or {}
    for one in (spec.get("linux") or {}).get("namespaces") or []:
        if one.get("type") == "network":
            return str(one.get("path") or "")
    return ""


def cgroup_of(text: str) -> str:
    """The cgroup of a process from ``/proc/<pid>/cgroup``: that of the memory controller, or the only one."""
    unified = ""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path
        if not controllers:
            unified = path
    return unified


def _number(text: Any) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() else 0
