"""How good is this node for this pod? Each score is between 0 and 100, higher is better; ``total`` weighs them.

The weights are kube-scheduler's. Where it normalises over all candidate nodes we use a fixed scale instead: the order
of nodes is what counts, and an answer that depends on one node can be kept until that node changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.shape import Shape
from fleetplane.workloads.scheduler.terms import PREFER_NO_SCHEDULE, tolerated

Score = Callable[[Shape, NodeInfo], float]

_MEBI: Final = 1024 * 1024
_SMALL_IMAGE: Final = 23 * _MEBI
_LARGE_IMAGE: Final = 1000 * _MEBI


def _used(shape: Shape, node: NodeInfo) -> tuple[float, float]:
    """The shares of cpu and memory in use if the pod ran here; 1.0 where the node has none."""
    cpu, memory = node.allocatable.get("cpu", 0), node.allocatable.get("memory", 0)
    return (
        min(1.0, (node.scored_cpu + shape.scored_cpu) / cpu) if cpu else 1.0,
        min(1.0, (node.scored_memory + shape.scored_memory) / memory) if memory else 1.0,
    )


def least_allocated(shape: Shape, node: NodeInfo) -> float:
    cpu, memory = _used(shape, node)
    return 50.0 * (2.0 - cpu - memory)


def balanced(shape: Shape, node: NodeInfo) -> float:
    cpu, memory = _used(shape, node)
    return 100.0 - 50.0 * abs(cpu - memory)


def apart_from_siblings(shape: Shape, node: NodeInfo) -> float:
    """Pods of one owner spread over hosts, as kube-scheduler's default spreading does."""
    return 100.0 / (1 + node.groups.get(shape.group, 0)) if shape.group else 100.0


def preferred_node(shape: Shape, node: NodeInfo) -> float:
    if not shape.preferred_nodes:
        return 0.0
    possible = sum(weight for weight, _ in shape.preferred_nodes)
    got = sum(weight for weight, term in shape.preferred_nodes if term.matches(node.name, node.labels))
    return 100.0 * got / possible if possible else 0.0


def few_soft_taints(shape: Shape, node: NodeInfo) -> float:
    if not node.taints:
        return 100.0
    soft = sum(t.effect == PREFER_NO_SCHEDULE and not tolerated(t, shape.tolerations) for t in node.taints)
    return 100.0 / (1 + soft)


def has_images(shape: Shape, node: NodeInfo) -> float:
    if not node.images:
        return 0.0
    there = sum(node.images.get(image, 0) for image in shape.images)
    return 100.0 * min(max(there - _SMALL_IMAGE, 0), _LARGE_IMAGE) / _LARGE_IMAGE


WEIGHTED: Final[Sequence[tuple[float, Score]]] = (
    (1.0, least_allocated),
    (1.0, balanced),
    (2.0, apart_from_siblings),
    (2.0, preferred_node),
    (3.0, few_soft_taints),
    (1.0, has_images),
)


def total(shape: Shape, node: NodeInfo) -> float:
    return sum(weight * score(shape, node) for weight, score in WEIGHTED)
