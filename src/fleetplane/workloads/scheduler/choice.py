"""The best node for pods of one shape, kept incrementally.

``Candidates`` remembers for every node either why it refuses or how good it is, with the good ones in heaps (one per
zone). A node that changes is asked again; entries with an old generation are skipped when they surface. As long as no
pod elsewhere matters, choosing is popping a heap. Otherwise the rules between pods are asked node by node, until
enough nodes were found that may (as kube-scheduler samples: about half of a thousand, a twentieth of many thousands).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Final

from fleetplane.workloads.scheduler import filters, scores
from fleetplane.workloads.scheduler.between import Between
from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.filters import Refusal
from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.plugins import Plugins
from fleetplane.workloads.scheduler.shape import PodInfo, Shape
from fleetplane.workloads.scheduler.tally import Tally

ZONE: Final = "topology.kubernetes.io/zone"
_ZONE_LIMIT: Final = 32
_ZONE_WEIGHT: Final = 200.0
_ENOUGH: Final = 100

_Entry = tuple[float, int, int]
"""(negated score, node number, generation at which it held)."""


def sample_size(nodes: int) -> int:
    """How many possible nodes are enough to choose among."""
    if nodes <= _ENOUGH:
        return nodes
    return max(_ENOUGH, nodes * max(5, 50 - nodes // 125) // 100)


class Candidates:
    """See the module. One per shape and cluster; ``refresh`` before asking."""

    def __init__(self, shape: Shape, cluster: Cluster, plugins: Plugins) -> None:
        self.shape = shape
        self.refusals: dict[int, Refusal] = {}
        self._cluster = cluster
        self._plugins = plugins.concerning(shape)
        self._scores: dict[int, float] = {}
        self._heaps: dict[str, list[_Entry]] = {}
        self._position = -1
        self._start = 0
        self._between = Between(shape, cluster)
        self._zones = Tally(ZONE, lambda other: other.group == shape.group)

    def choose(self, pod: PodInfo) -> tuple[NodeInfo | None, dict[int, Refusal]]:
        """The best node, or None and why not, by node number."""
        self._refresh(pod)
        if self._between.is_empty and self._plugins.are_local:
            return self._best(pod), self.refusals
        return self._best_of_sample(pod)

    # keeping current

    def _refresh(self, pod: PodInfo) -> None:
        log = self._cluster.log
        if self._position == log.position and self._between.is_empty:
            return
        changed = log.since(self._position) if self._position >= 0 else None
        self._position = log.position
        self._between.refresh(changed)
        if changed is None:
            self._heaps, self._scores, self.refusals = {}, {}, {}
            self._zones.rebuild(self._cluster)
            for node in self._cluster.known_nodes():
                self._ask(pod, node)
            return
        self._zones.refresh(self._cluster, changed)
        for number in changed:
            self._scores.pop(number, None)
            self.refusals.pop(number, None)
            found = self._cluster.by_number.get(number)
            if found is not None and found.is_known:
                self._ask(pod, found)

    def _ask(self, pod: PodInfo, node: NodeInfo) -> None:
        refusal = filters.refuse(self.shape, node, self._cluster)
        for plugin in self._plugins.filters:
            if refusal is None and plugin.is_local:
                refusal = plugin.refuse(pod, node, self._cluster)
        if refusal is not None:
            self.refusals[node.number] = refusal
            return
        score = scores.total(self.shape, node)
        for scorer in self._plugins.scorers:
            if scorer.is_local:
                score += scorer.weight * scorer.score(pod, node, self._cluster)
        self._scores[node.number] = score
        heap = self._heaps.setdefault(node.labels.get(ZONE, ""), [])
        heapq.heappush(heap, (-score, node.number, node.generation))

    # choosing

    def _best(self, pod: PodInfo) -> NodeInfo | None:
        tops = [(zone, top) for zone, heap in self._heaps.items() if (top := self._top(heap)) is not None]
        if not tops:
            return None
        if len(tops) == 1:
            return tops[0][1][1]
        bonus = self._zone_bonus()
        return max(tops, key=lambda one: (one[1][0] + bonus.get(one[0], 0.0), -one[1][1].number))[1][1]

    def _top(self, heap: list[_Entry]) -> tuple[float, NodeInfo] | None:
        while heap:
            negated, number, generation = heap[0]
            node = self._cluster.by_number.get(number)
            if node is not None and node.generation == generation and number in self._scores:
                return -negated, node
            heapq.heappop(heap)
        return None

    def _zone_bonus(self) -> dict[str, float]:
        """Zones with fewer siblings are better; none when there are too many zones to be worth it."""
        totals = self._zones.totals
        if not self.shape.group or len(totals) > _ZONE_LIMIT:
            return {}
        most = max(totals.values(), default=0)
        if most == 0:
            return {}
        return {zone: _ZONE_WEIGHT * (most - count) / most for zone, count in totals.items()}

    def _best_of_sample(self, pod: PodInfo) -> tuple[NodeInfo | None, dict[int, Refusal]]:
        enough = sample_size(len(self._scores) + len(self.refusals))
        refused = dict(self.refusals)
        bonus = self._zone_bonus()
        best: NodeInfo | None = None
        best_score, found, asked = float("-inf"), 0, 0
        for node in self._rotated():
            asked += 1
            refusal = self._between.refuse(node) or self._ask_distant(pod, node)
            if refusal is not None:
                refused[node.number] = refusal
                continue
            score = self._scores[node.number] + bonus.get(node.labels.get(ZONE, ""), 0.0)
            score += self._between.score(node) if self._between.has_scores else 0.0
            for scorer in self._plugins.scorers:
                if not scorer.is_local:
                    score += scorer.weight * scorer.score(pod, node, self._cluster)
            if score > best_score:
                best, best_score = node, score
            found += 1
            if found >= enough:
                break
        self._start += asked
        return best, refused

    def _rotated(self) -> Iterator[NodeInfo]:
        """All nodes that may, beginning after where the last search ended, so that all get their turn."""
        numbers = list(self._scores)
        if not numbers:
            return
        start = self._start % len(numbers)
        for number in (*numbers[start:], *numbers[:start]):
            yield self._cluster.by_number[number]

    def _ask_distant(self, pod: PodInfo, node: NodeInfo) -> Refusal | None:
        for plugin in self._plugins.filters:
            if not plugin.is_local and (refusal := plugin.refuse(pod, node, self._cluster)) is not None:
                return refusal
        return None


def only_nodes(shape: Shape) -> frozenset[str] | None:
    """The nodes the pod is limited to by name (as DaemonSet pods are), or None."""
    if not shape.node_terms:
        return None
    names: set[str] = set()
    for term in shape.node_terms:
        limited = term.only_names()
        if limited is None:
            return None
        names |= limited
    return frozenset(names)


def choose_among(
    nodes: Iterable[NodeInfo], pod: PodInfo, cluster: Cluster, plugins: Plugins, *, enough: int | None = None
) -> tuple[NodeInfo | None, dict[int, Refusal]]:
    """As ``Candidates.choose``, remembering nothing: for pods limited to few nodes, or of a shape not seen before.

    Stops when ``enough`` nodes were found that may.
    """
    between = Between(pod.shape, cluster) if not pod.shape.is_local or cluster.anti_shapes else None
    refused: dict[int, Refusal] = {}
    best: tuple[float, NodeInfo] | None = None
    found = 0
    for node in nodes:
        refusal = filters.refuse(pod.shape, node, cluster, pod.uid)
        if refusal is None and between is not None:
            refusal = between.refuse(node)
        for plugin in plugins.filters:
            if refusal is None:
                refusal = plugin.refuse(pod, node, cluster)
        if refusal is not None:
            refused[node.number] = refusal
            continue
        score = scores.total(pod.shape, node)
        for scorer in plugins.scorers:
            score += scorer.weight * scorer.score(pod, node, cluster)
        if best is None or score > best[0]:
            best = score, node
        found += 1
        if found == enough:
            break
    return (best[1] if best is not None else None), refused


def named(names: Iterable[str], cluster: Cluster) -> list[NodeInfo]:
    """The known nodes of these names, in order."""
    found = (cluster.nodes.get(one) for one in sorted(names))
    return [one for one in found if one is not None and one.is_known]


def with_others(refused: dict[int, Refusal], cluster: Cluster) -> dict[int, Refusal]:
    """Refusals of a pod limited to few nodes: all other nodes do not match its affinity."""
    return {node.number: _NOT_NAMED for node in cluster.known_nodes()} | refused


_NOT_NAMED: Final = Refusal("NodeAffinity", ("node(s) didn't match Pod's node affinity/selector",), resolvable=False)
