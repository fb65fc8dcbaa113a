"""The nodes and pods of one logical cluster, as the scheduler believes they are.

Two sources feed it: what the informers saw, and what the scheduler itself decided and has not yet seen confirmed
(assumed pods). Every change of a node is appended to a log by its number; whoever keeps answers per node reads the log
from where it last stopped and re-computes only those nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fleetplane.workloads.scheduler.node import NodeInfo, bump
from fleetplane.workloads.scheduler.shape import PodInfo, Shape

_LOG_SLACK: Final = 4096


class ChangeLog:
    """Numbers of changed nodes, in order. Positions only grow; what everyone may have read is forgotten."""

    def __init__(self) -> None:
        self._entries: list[int] = []
        self._base = 0

    @property
    def position(self) -> int:
        return self._base + len(self._entries)

    def append(self, number: int) -> None:
        self._entries.append(number)

    def since(self, position: int) -> set[int] | None:
        """Nodes changed after ``position``; None when that is no longer known and everything must be looked at."""
        if position < self._base:
            return None
        return set(self._entries[position - self._base :])

    def trim(self, keep: int) -> None:
        if len(self._entries) > 2 * keep:
            self._base += len(self._entries) - keep
            del self._entries[:-keep]


class Cluster:
    """See the module. Numbers of nodes are never used twice."""

    def __init__(self, name: str = "root") -> None:
        self.name = name
        self.nodes: dict[str, NodeInfo] = {}
        self.by_number: dict[int, NodeInfo] = {}
        self.log = ChangeLog()
        self.namespaces: dict[str, Mapping[str, str]] = {}
        self.anti_shapes: dict[Shape, int] = {}
        self.anti_version = 0
        self.nominated: dict[str, dict[str, PodInfo]] = {}
        self.membership = 0
        """Grows when a node comes, goes, or changes what its Node object says."""
        self._next_number = 0
        self._turn = 0
        self._placed: dict[str, str] = {}
        self._assumed: set[str] = set()

    def known_nodes(self) -> Iterator[NodeInfo]:
        return (node for node in self.nodes.values() if node.is_known)

    def node_count(self) -> int:
        return sum(node.is_known for node in self.nodes.values())

    def sample(self, count: int) -> list[NodeInfo]:
        """So many known nodes, other ones each time until all had their turn."""
        known = list(self.known_nodes())
        start = self._turn % max(1, len(known))
        self._turn += count
        return [*known[start : start + count], *known[: max(0, start + count - len(known))]][:count]

    # what informers tell

    def set_node(self, obj: Mapping[str, Any], name: str) -> NodeInfo | None:
        """The node, if anything that matters changed."""
        node = self._node(name)
        if not node.describe(obj):
            return None
        self.membership += 1
        self._changed(node)
        return node

    def remove_node(self, name: str) -> None:
        node = self.nodes.get(name)
        if node is None:
            return
        node.forget()
        self.membership += 1
        self._changed(node)
        self._drop_if_empty(node)

    def set_pod(self, pod: PodInfo) -> bool:
        """A pod that is on a node, as the server has it now; whether anything changed."""
        assumed = pod.uid in self._assumed
        self._assumed.discard(pod.uid)
        at = self._placed.get(pod.uid)
        if at is not None:
            current = self.nodes[at].pods[pod.uid]
            if at == pod.node and current.shape is pod.shape and current.deleting == pod.deleting:
                current.started = pod.started
                return assumed
            self._take(pod.uid)
        self._put(pod)
        return True

    def remove_pod(self, uid: str) -> PodInfo | None:
        """A pod is gone, or has run to its end; its place is free. The pod, if it had a place."""
        self._assumed.discard(uid)
        return self._take(uid) if uid in self._placed else None

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        if labels is None:
            self.namespaces.pop(name, None)
        elif self.namespaces.get(name) != labels:
            self.namespaces[name] = dict(labels)
            self.anti_version += 1

    # what the scheduler decides

    def assume(self, pod: PodInfo, node: str) -> None:
        """Takes the place before the server knows."""
        pod.node = node
        self._assumed.add(pod.uid)
        if pod.uid in self._placed:
            self._take(pod.uid)
        self._put(pod)

    def unassume(self, uid: str) -> bool:
        """The binding failed: gives the place back, unless the server has confirmed it meanwhile."""
        if uid not in self._assumed:
            return False
        self._assumed.discard(uid)
        pod = self._take(uid)
        pod.node = ""
        return True

    def is_placed(self, uid: str) -> bool:
        return uid in self._placed

    def nominate(self, pod: PodInfo, node: str) -> None:
        """Room on the node is kept for the pod against all of lower priority."""
        self.unnominate(pod.uid, pod.nominated)
        pod.nominated = node
        self.nominated.setdefault(node, {})[pod.uid] = pod
        if node in self.nodes:
            self._changed(self.nodes[node])

    def unnominate(self, uid: str, node: str) -> None:
        there = self.nominated.get(node)
        if there is None or there.pop(uid, None) is None:
            return
        if not there:
            del self.nominated[node]
        if node in self.nodes:
            self._changed(self.nodes[node])

    # inside

    def _node(self, name: str) -> NodeInfo:
        node = self.nodes.get(name)
        if node is None:
            node = NodeInfo(name, self._next_number)
            self._next_number += 1
            self.nodes[name] = node
            self.by_number[node.number] = node
        return node

    def _drop_if_empty(self, node: NodeInfo) -> None:
        if not node.is_known and not node.pods:
            del self.nodes[node.name], self.by_number[node.number]

    def _put(self, pod: PodInfo) -> None:
        node = self._node(pod.node)
        node.add(pod)
        self._placed[pod.uid] = pod.node
        self._count_anti(pod.shape, 1)
        self._changed(node)

    def _take(self, uid: str) -> PodInfo:
        node = self.nodes[self._placed.pop(uid)]
        pod = node.remove(uid)
        self._count_anti(pod.shape, -1)
        self._changed(node)
        self._drop_if_empty(node)
        return pod

    def _count_anti(self, shape: Shape, sign: int) -> None:
        if shape.anti_affinity:
            before = len(self.anti_shapes)
            bump(self.anti_shapes, shape, sign)
            if len(self.anti_shapes) != before:
                self.anti_version += 1

    def _changed(self, node: NodeInfo) -> None:
        node.generation += 1
        self.log.append(node.number)
        self.log.trim(max(_LOG_SLACK, 4 * len(self.nodes)))
