"""One node: what it has, and what the pods on it have taken. Kept up to date pod by pod, never re-counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from fleetplane.model.objects import annotations as annotations_of
from fleetplane.model.objects import labels, name
from fleetplane.workloads.scheduler.shape import Amounts, PodInfo, Port, Shape, amounts, normal_image
from fleetplane.workloads.scheduler.terms import Taint, taints

K = TypeVar("K")
ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - compared with, never listened on


class NodeInfo:
    """``generation`` grows with every change, so that a remembered answer knows whether it still holds."""

    __slots__ = (
        "allocatable",
        "annotations",
        "generation",
        "groups",
        "images",
        "is_known",
        "labels",
        "max_pods",
        "name",
        "number",
        "pods",
        "ports",
        "requested",
        "scored_cpu",
        "scored_memory",
        "shapes",
        "taints",
        "terminating",
        "unschedulable",
    )

    def __init__(self, node_name: str, number: int) -> None:
        self.name = node_name
        self.number = number
        self.generation = 0
        self.is_known = False
        self.labels: Mapping[str, str] = {}
        self.taints: tuple[Taint, ...] = ()
        self.unschedulable = False
        self.allocatable: Amounts = {}
        self.max_pods = 0
        self.images: dict[str, int] = {}
        self.annotations: Mapping[str, str] = {}
        self.pods: dict[str, PodInfo] = {}
        self.requested: Amounts = {}
        self.scored_cpu = 0
        self.scored_memory = 0
        self.shapes: dict[Shape, int] = {}
        self.terminating: dict[Shape, int] = {}
        self.groups: dict[str, int] = {}
        self.ports: dict[Port, int] = {}

    def describe(self, obj: Mapping[str, Any]) -> bool:
        """Takes over what the Node object says; whether anything that matters here changed."""
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        allocatable = amounts(status.get("allocatable") or status.get("capacity"))
        images = {
            normal_image(str(one)): int(image.get("sizeBytes") or 0)
            for image in status.get("images") or ()
            for one in image.get("names") or ()
        }
        notes = dict(annotations_of(obj))
        cordoned = bool(spec.get("unschedulable"))
        new = (dict(labels(obj)), notes, taints(spec.get("taints")), cordoned, allocatable, images)
        old = (self.labels, self.annotations, self.taints, self.unschedulable, self.allocatable, self.images)
        if self.is_known and new == old:
            return False
        self.name = name(obj)
        self.labels, self.annotations, self.taints, self.unschedulable, self.allocatable, self.images = new
        self.max_pods = allocatable.get("pods", 0)
        self.is_known = True
        return True

    def forget(self) -> None:
        """The Node object is gone; its pods stay accounted for until they go too."""
        self.is_known = False
        self.labels, self.taints, self.allocatable, self.images, self.annotations = {}, (), {}, {}, {}
        self.max_pods = 0

    def add(self, pod: PodInfo) -> None:
        self.pods[pod.uid] = pod
        self._count(pod, 1)

    def remove(self, pod_uid: str) -> PodInfo:
        pod = self.pods.pop(pod_uid)
        self._count(pod, -1)
        return pod

    def _count(self, pod: PodInfo, sign: int) -> None:
        shape = pod.shape
        requested = self.requested
        for resource, value in shape.requests.items():
            requested[resource] = requested.get(resource, 0) + sign * value
        self.scored_cpu += sign * shape.scored_cpu
        self.scored_memory += sign * shape.scored_memory
        bump(self.shapes, shape, sign)
        if pod.deleting:
            bump(self.terminating, shape, sign)
        if shape.group:
            bump(self.groups, shape.group, sign)
        for port in shape.ports:
            bump(self.ports, port, sign)

    def has_conflicting_port(self, wanted: Port) -> bool:
        """Whether a pod here holds the port on an address that overlaps."""
        return any(
            held.port == wanted.port
            and held.protocol == wanted.protocol
            and (held.address == wanted.address or held.address in ANY_ADDRESS or wanted.address in ANY_ADDRESS)
            for held in self.ports
        )

    def copy(self) -> NodeInfo:
        """For trying what would be if pods were gone."""
        twin = NodeInfo(self.name, self.number)
        for slot in (
            "is_known",
            "labels",
            "taints",
            "unschedulable",
            "allocatable",
            "max_pods",
            "images",
            "annotations",
        ):
            setattr(twin, slot, getattr(self, slot))
        twin.generation = -1
        twin.pods = dict(self.pods)
        twin.requested = dict(self.requested)
        twin.scored_cpu, twin.scored_memory = self.scored_cpu, self.scored_memory
        twin.shapes, twin.terminating, twin.groups = dict(self.shapes), dict(self.terminating), dict(self.groups)
        twin.ports = dict(self.ports)
        return twin


def bump(counts: dict[K, int], key: K, by: int) -> None:
    """Adds; a count of zero is no entry."""
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)
