"""May this pod run on this node? The rules, in the order in which they are asked.

Each rule says None (it may) or why not, in kube-scheduler's words: people and tools read them in
``FailedScheduling`` events. A rule here looks at the node alone; rules about other nodes' pods are in ``between``.
``Refusal.resolvable`` tells whether removing pods from the node could help, which is what preemption asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.shape import PodInfo, Shape
from fleetplane.workloads.scheduler.terms import (
    NO_EXECUTE,
    NO_SCHEDULE,
    Taint,
    first_untolerated,
    matches_any,
    tolerated,
)


class Refusal(NamedTuple):
    """``rule`` is the plug-in's name as kube-scheduler has it; several ``reasons`` count one by one."""

    rule: str
    reasons: tuple[str, ...]
    resolvable: bool = True


Rule = Callable[[Shape, NodeInfo], Refusal | None]

_UNSCHEDULABLE: Final = Taint("node.kubernetes.io/unschedulable", "", NO_SCHEDULE)
_HARD: Final = frozenset({NO_SCHEDULE, NO_EXECUTE})
_REFUSED_UNSCHEDULABLE: Final = Refusal("NodeUnschedulable", ("node(s) were unschedulable",), resolvable=False)
_REFUSED_AFFINITY: Final = Refusal(
    "NodeAffinity", ("node(s) didn't match Pod's node affinity/selector",), resolvable=False
)
_REFUSED_PORTS: Final = Refusal("NodePorts", ("node(s) didn't have free ports for the requested pod ports",))


def unschedulable(shape: Shape, node: NodeInfo) -> Refusal | None:
    if node.unschedulable and not tolerated(_UNSCHEDULABLE, shape.tolerations):
        return _REFUSED_UNSCHEDULABLE
    return None


def taints(shape: Shape, node: NodeInfo) -> Refusal | None:
    if not node.taints:
        return None
    found = first_untolerated(node.taints, shape.tolerations, _HARD)
    if found is None:
        return None
    text = f"node(s) had untolerated taint {{{found.key}: {found.value}}}"
    return Refusal("TaintToleration", (text,), resolvable=False)


def node_affinity(shape: Shape, node: NodeInfo) -> Refusal | None:
    labels = node.labels
    for key, value in shape.node_selector:
        if labels.get(key) != value:
            return _REFUSED_AFFINITY
    if shape.node_terms is not None and not matches_any(shape.node_terms, node.name, labels):
        return _REFUSED_AFFINITY
    return None


def ports(shape: Shape, node: NodeInfo) -> Refusal | None:
    if shape.ports and node.ports and any(map(node.has_conflicting_port, shape.ports)):
        return _REFUSED_PORTS
    return None


def resources(shape: Shape, node: NodeInfo, reserved: Iterable[PodInfo] = ()) -> Refusal | None:
    """``reserved`` are pods for which room is kept on the node."""
    reserved = list(reserved)
    short = ["Too many pods"] if len(node.pods) + len(reserved) + 1 > node.max_pods else []
    allocatable, requested = node.allocatable, node.requested
    for resource, wanted in shape.requests.items():
        taken = requested.get(resource, 0)
        for pod in reserved:
            taken += pod.shape.requests.get(resource, 0)
        if taken + wanted > allocatable.get(resource, 0):
            short.append(f"Insufficient {resource}")
    if not short:
        return None
    fits_empty = all(wanted <= allocatable.get(resource, 0) for resource, wanted in shape.requests.items())
    return Refusal("NodeResourcesFit", tuple(short), resolvable=fits_empty and node.max_pods > 0)


STATIC_RULES: Final[Sequence[Rule]] = (unschedulable, taints, node_affinity)
"""Rules that only the Node object can change, never its pods."""


def refuse_ever(shape: Shape, node: NodeInfo) -> Refusal | None:
    """The first rule that refuses, room that is reserved for other pods not counted."""
    return _refuse_before_room(shape, node) or resources(shape, node)


def _refuse_before_room(shape: Shape, node: NodeInfo) -> Refusal | None:
    for rule in STATIC_RULES:
        if (found := rule(shape, node)) is not None:
            return found
    return ports(shape, node)


def refuse(shape: Shape, node: NodeInfo, cluster: Cluster, pod_uid: str = "") -> Refusal | None:
    """The first rule that refuses; also keeps the room that is reserved for pods of the same or higher priority."""
    if (found := _refuse_before_room(shape, node)) is not None:
        return found
    there = cluster.nominated.get(node.name)
    if not there:
        return resources(shape, node)
    kept = (pod for pod in there.values() if pod.shape.priority >= shape.priority and pod.uid != pod_uid)
    return resources(shape, node, (pod for pod in kept if pod.uid not in node.pods))
