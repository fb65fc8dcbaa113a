"""A node as the API shows it: how it is made, and how its status is kept without treading on others.

Capacity that others put on a node (an operator's extended resource) is kept and mirrored to allocatable; labels and
taints that others set are never removed. Pure functions; ``agent`` and ``fleet`` do the writing.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fleetplane.model.environment import micro_timestamp, timestamp
from fleetplane.model.objects import Object

LEASE_NAMESPACE: Final = "kube-node-lease"
LEASE_SECONDS: Final = 40
HOSTNAME: Final = "kubernetes.io/hostname"
FREEZES: Final = "node.fleetplane.io/freezes"
"""Label of nodes that can honour ``node.fleetplane.io/paused``. What must be frozen goes nowhere else."""
OWN_CAPACITY: Final = ("cpu", "memory", "ephemeral-storage", "pods")
VERSION: Final = "v1.37.0+fleetplane"

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_HEALTHY: Final = (
    ("MemoryPressure", False, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", False, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", False, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", True, "KubeletReady", "kubelet is posting ready status"),
)


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """All that a node says of itself. ``capacity`` and ``reserved`` map resources to quantities as text."""

    name: str
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    pod_networks: tuple[str, ...] = ()
    info: Mapping[str, str] = field(default_factory=dict)
    unhealthy: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Condition type to (reason, message), for pressures that hold and for Ready when it does not."""
    images: Sequence[Object] = ()
    daemon_port: int = 0
    freezes: bool = True
    """Whether pods can be frozen there; the label that says so is never given, nor left, where they cannot."""


def architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def node_labels(name: str) -> dict[str, str]:
    """The labels every node has, if it can freeze pods."""
    return {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture(),
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture(),
        FREEZES: "true",
    }


def node_object(node: NodeDescription, now: datetime) -> Object:
    """The Node to create."""
    labels = {**node_labels(node.name), **node.labels}
    if not node.freezes:
        labels.pop(FREEZES)
    metadata: Object = {"name": node.name, "labels": labels}
    if node.annotations:
        metadata["annotations"] = dict(node.annotations)
    spec: Object = {}
    if node.pod_networks:
        spec = {"podCIDR": node.pod_networks[0], "podCIDRs": list(node.pod_networks)}
    if node.taints:
        spec["taints"] = [dict(taint) for taint in node.taints]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": spec,
        "status": node_status(node, {}, now),
    }


def node_status(node: NodeDescription, before: Mapping[str, Any], now: datetime) -> Object:
    """The whole status; ``before`` is the one it replaces, whose foreign resources and transition times are kept."""
    capacity, allocatable = merged_capacity(node, before)
    status: Object = {
        "capacity": capacity,
        "allocatable": allocatable,
        "conditions": _conditions(node, before, now),
        "addresses": [
            *({"type": "InternalIP", "address": address} for address in node.addresses),
            {"type": "Hostname", "address": node.name},
        ],
        "nodeInfo": {
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kernelVersion": platform.release(),
            "osImage": "",
            "containerRuntimeVersion": "",
            "kubeletVersion": VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
            **node.info,
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": node.daemon_port}},
    }
    if node.images:
        status["images"] = list(node.images)
    return status


def merged_capacity(node: NodeDescription, before: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Capacity and allocatable with what others put on the node: their keys stay, allocatable mirrors them."""
    known = before.get("capacity") or {}
    foreign = {key: str(value) for key, value in known.items() if key not in OWN_CAPACITY and key not in node.capacity}
    own = {**node.capacity, **{k: v for k, v in node.allocatable.items() if k in node.capacity}}
    return {**node.capacity, **foreign}, {**own, **foreign}


def _conditions(node: NodeDescription, before: Mapping[str, Any], now: datetime) -> list[Object]:
    known = {c.get("type"): c for c in before.get("conditions") or []}
    own = []
    for name, healthy, reason, message in _HEALTHY:
        holds = healthy
        if name in node.unhealthy:
            holds, (reason, message) = not healthy, node.unhealthy[name]
        status = "True" if holds else "False"
        old = known.pop(name, {})
        same = old.get("status") == status and old.get("lastTransitionTime")
        own.append(
            {
                "type": name,
                "status": status,
                "lastHeartbeatTime": timestamp(now),
                "lastTransitionTime": old["lastTransitionTime"] if same else timestamp(now),
                "reason": reason,
                "message": message,
            }
        )
    return [*known.values(), *own]


def says_the_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two statuses differ in nothing but the time they were written."""
    return _timeless(one) == _timeless(other)


def _timeless(status: Mapping[str, Any]) -> Object:
    conditions = [{k: v for k, v in c.items() if k != "lastHeartbeatTime"} for c in status.get("conditions") or []]
    return {**status, "conditions": conditions}


def lease_object(name: str, owner_uid: str, now: datetime) -> Object:
    """The node's Lease, owned by the Node so that both go together."""
    metadata: Object = {"name": name, "namespace": LEASE_NAMESPACE}
    if owner_uid:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": owner_uid}]
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": micro_timestamp(now),
        },
    }
