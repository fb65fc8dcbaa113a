"""Rules that depend on pods of other nodes: affinity between pods, and spreading over zones, racks or hosts.

They are prepared once per shape (``Between``), kept current by tallies, and asked per node. Semantics are those of
kube-scheduler's InterPodAffinity and PodTopologySpread (KEP-895, KEP-3022, KEP-3094).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.filters import Refusal, node_affinity, taints
from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.shape import PodTerm, Shape, Spread
from fleetplane.workloads.scheduler.tally import Tally, term_matches

_AFFINITY: Final = Refusal("InterPodAffinity", ("node(s) didn't match pod affinity rules",), resolvable=False)
_ANTI: Final = Refusal("InterPodAffinity", ("node(s) didn't match pod anti-affinity rules",))
_EXISTING: Final = Refusal("InterPodAffinity", ("node(s) didn't satisfy existing pods anti-affinity rules",))
_SPREAD: Final = Refusal("PodTopologySpread", ("node(s) didn't match pod topology spread constraints",))
_SPREAD_LABEL: Final = Refusal(
    "PodTopologySpread",
    ("node(s) didn't match pod topology spread constraints (missing required label)",),
    resolvable=False,
)


@dataclass(slots=True)
class _Spreading:
    rule: Spread
    tally: Tally
    counts_itself: bool


class Between:
    """All that pods elsewhere mean to pods of ``shape``."""

    def __init__(self, shape: Shape, cluster: Cluster) -> None:
        self.shape = shape
        self._cluster = cluster
        self._with_me = [self._tally_of(shape.affinity, term.topology_key) for term in shape.affinity]
        self._not_with_me = [self._tally_of((term,), term.topology_key) for term in shape.anti_affinity]
        self._liked = [(term.weight, self._tally_of((term,), term.topology_key)) for term in shape.preferred_affinity]
        self._spread = [self._spreading(rule) for rule in shape.spreads]
        self._hard = [one for one in self._spread if one.rule.hard]
        self._soft = [one for one in self._spread if not one.rule.hard]
        self._matches_itself = all(term_matches(term, shape, cluster) for term in shape.affinity)
        self._existing: list[Tally] = []
        self._anti_version = -1
        self._minimum: list[int] = []
        for tally in self._own_tallies():
            tally.rebuild(cluster)
        self._follow_anti_shapes()
        self._prepare()

    @property
    def is_empty(self) -> bool:
        """Whether no pod elsewhere can matter now, so that nodes answer alone."""
        return self.shape.is_local and not self._existing

    @property
    def has_scores(self) -> bool:
        return bool(self._liked or self._soft)

    def refresh(self, changed: Iterable[int] | None) -> None:
        """``changed`` are node numbers; None means anything may have changed."""
        tallies = [*self._own_tallies(), *self._existing]
        for tally in tallies:
            if changed is None:
                tally.rebuild(self._cluster)
            else:
                tally.refresh(self._cluster, changed)
        if self._anti_version != self._cluster.anti_version:
            self._follow_anti_shapes()
        self._prepare()

    def refuse(self, node: NodeInfo) -> Refusal | None:
        for one, minimum in zip(self._hard, self._minimum, strict=True):
            count = one.tally.at(node)
            if count is None:
                return _SPREAD_LABEL
            if count + one.counts_itself - minimum > one.rule.max_skew:
                return _SPREAD
        if self._with_me and not self._is_with_friends(node):
            return _AFFINITY
        if any(tally.at(node) for tally in self._not_with_me):
            return _ANTI
        if any(tally.at(node) for tally in self._existing):
            return _EXISTING
        return None

    def score(self, node: NodeInfo) -> float:
        """Higher is better; soft spreading and preferred affinity, each about as strong as one other score."""
        total = 0.0
        for weight, tally in self._liked:
            total += weight * min(tally.at(node) or 0, 10) / 10.0
        for one in self._soft:
            count = one.tally.at(node)
            total += 200.0 / (1 + count) if count is not None else 0.0
        return total

    def _is_with_friends(self, node: NodeInfo) -> bool:
        if any(tally.key not in node.labels for tally in self._with_me):
            return False
        if all(tally.at(node) for tally in self._with_me):
            return True
        nobody_yet = not any(tally.sum for tally in self._with_me)
        return nobody_yet and self._matches_itself

    def _prepare(self) -> None:
        self._minimum = [
            0 if len(one.tally.totals) < one.rule.min_domains else one.tally.minimum() for one in self._hard
        ]

    def _own_tallies(self) -> list[Tally]:
        return [
            *self._with_me,
            *self._not_with_me,
            *(tally for _, tally in self._liked),
            *(one.tally for one in self._spread),
        ]

    def _tally_of(self, terms: tuple[PodTerm, ...], key: str) -> Tally:
        cluster = self._cluster
        return Tally(key, lambda other: all(term_matches(term, other, cluster) for term in terms))

    def _spreading(self, rule: Spread) -> _Spreading:
        shape = self.shape

        def counts(other: Shape) -> bool:
            return other.namespace == shape.namespace and rule.selector.matches(other.labels)

        def eligible(node: NodeInfo) -> bool:
            if rule.honor_affinity and node_affinity(shape, node) is not None:
                return False
            return not (rule.honor_taints and taints(shape, node) is not None)

        tally = Tally(rule.topology_key, counts, eligible=eligible, with_terminating=False)
        return _Spreading(rule, tally, counts(shape))

    def _follow_anti_shapes(self) -> None:
        """Pods already placed that want nobody like us near."""
        self._anti_version = self._cluster.anti_version
        self._existing = []
        for other in self._cluster.anti_shapes:
            for term in other.anti_affinity:
                if term_matches(term, self.shape, self._cluster):
                    tally = Tally(term.topology_key, lambda shape, other=other: shape is other)  # type: ignore[misc]
                    tally.rebuild(self._cluster)
                    self._existing.append(tally)
