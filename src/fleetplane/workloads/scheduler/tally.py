"""How many pods of a kind run in each zone, rack or host: counts per value of a node label, kept incrementally.

Affinity between pods and topology spread both ask this. A tally re-counts only the nodes that changed, and counts
shapes, not pods: whether a shape matches is decided once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.node import NodeInfo, bump
from fleetplane.workloads.scheduler.shape import PodTerm, Shape


class Tally:
    """``totals`` has every value that an eligible node carries, also those with no pods.

    ``with_terminating`` counts pods that are being deleted, too (affinity does, spreading does not).
    """

    def __init__(
        self,
        key: str,
        matches: Callable[[Shape], bool],
        *,
        eligible: Callable[[NodeInfo], bool] | None = None,
        with_terminating: bool = True,
    ) -> None:
        self.key = key
        self.totals: dict[str, int] = {}
        self.sum = 0
        self._matches = matches
        self._eligible = eligible
        self._with_terminating = with_terminating
        self._verdicts: dict[Shape, bool] = {}
        self._seen: dict[int, tuple[str, int]] = {}
        self._nodes: dict[str, int] = {}

    def refresh(self, cluster: Cluster, changed: Iterable[int]) -> None:
        for number in changed:
            self._remove(number)
            node = cluster.by_number.get(number)
            if node is not None and node.is_known:
                self._add(node)

    def rebuild(self, cluster: Cluster) -> None:
        self.totals, self.sum, self._seen, self._nodes, self._verdicts = {}, 0, {}, {}, {}
        self.refresh(cluster, [node.number for node in cluster.known_nodes()])

    def at(self, node: NodeInfo) -> int | None:
        """The count in the node's domain; None when the node has no such label."""
        value = node.labels.get(self.key)
        return None if value is None else self.totals.get(value, 0)

    def minimum(self) -> int:
        return min(self.totals.values(), default=0)

    def _add(self, node: NodeInfo) -> None:
        value = node.labels.get(self.key)
        if value is None or (self._eligible is not None and not self._eligible(node)):
            return
        count = self._count(node)
        self._seen[node.number] = (value, count)
        self._nodes[value] = self._nodes.get(value, 0) + 1
        self.totals[value] = self.totals.get(value, 0) + count
        self.sum += count

    def _remove(self, number: int) -> None:
        seen = self._seen.pop(number, None)
        if seen is None:
            return
        value, count = seen
        self.totals[value] -= count
        self.sum -= count
        bump(self._nodes, value, -1)
        if value not in self._nodes:
            del self.totals[value]

    def _count(self, node: NodeInfo) -> int:
        count = sum(number for shape, number in node.shapes.items() if self._verdict(shape))
        if not self._with_terminating:
            count -= sum(number for shape, number in node.terminating.items() if self._verdict(shape))
        return count

    def _verdict(self, shape: Shape) -> bool:
        verdict = self._verdicts.get(shape)
        if verdict is None:
            verdict = self._verdicts[shape] = self._matches(shape)
            if len(self._verdicts) > 4096:
                self._verdicts.clear()
        return verdict


def term_matches(term: PodTerm, shape: Shape, cluster: Cluster) -> bool:
    """Whether pods of ``shape`` are those that a term of affinity speaks of."""
    if not term.selector.matches(shape.labels):
        return False
    if shape.namespace in term.namespaces:
        return True
    by_labels = term.namespace_selector
    return by_labels is not None and by_labels.matches(cluster.namespaces.get(shape.namespace, {}))
