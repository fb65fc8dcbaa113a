"""Making room: which pods of lower priority would have to go, and where that hurts least.

A dry run on copies of nodes: without all pods of lower priority the pod must fit; then as many as possible are spared,
the most important first, those protected by a disruption budget before all. The node is chosen as kube-scheduler does:
fewest broken budgets, least important victims, smallest sum of priorities, fewest victims, youngest victims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fleetplane.workloads.scheduler import filters
from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.filters import Refusal
from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.plugins import Plugins
from fleetplane.workloads.scheduler.shape import PodInfo

_MOST_CANDIDATES: Final = 100
_BY_OTHER_PODS: Final = frozenset({"InterPodAffinity", "PodTopologySpread"})

Budgets = Callable[[Sequence[PodInfo]], int]
"""How many of these pods a disruption budget forbids to evict."""


@dataclass(frozen=True, slots=True)
class Preemption:
    """Evict ``victims``, then the pod fits on ``node``."""

    node: NodeInfo
    victims: tuple[PodInfo, ...]
    violations: int


def _importance(pod: PodInfo) -> tuple[int, str]:
    """Sorts the most important first: higher priority, then running longer."""
    return -pod.shape.priority, pod.started or pod.created


def no_budgets(pods: Sequence[PodInfo]) -> int:
    return 0


def find(
    pod: PodInfo,
    cluster: Cluster,
    refusals: Mapping[int, Refusal],
    plugins: Plugins,
    budgets: Budgets = no_budgets,
) -> Preemption | None:
    """The least harmful preemption, if any helps."""
    if not pod.shape.may_preempt:
        return None
    best: tuple[tuple[object, ...], Preemption] | None = None
    found = 0
    for number, refusal in refusals.items():
        node = cluster.by_number.get(number)
        # Rules between pods would need the whole cluster tried without the victims; removing pods here may not help.
        if node is None or not refusal.resolvable or refusal.rule in _BY_OTHER_PODS:
            continue
        if not any(one.shape.priority < pod.shape.priority for one in node.pods.values()):
            continue
        candidate = _dry_run(pod, node, cluster, plugins, budgets)
        if candidate is None:
            continue
        rank = _harm(candidate)
        if best is None or rank < best[0]:
            best = rank, candidate
        found += 1
        if found >= _MOST_CANDIDATES:
            break
    return best[1] if best is not None else None


def _fits(pod: PodInfo, node: NodeInfo, cluster: Cluster, plugins: Plugins) -> bool:
    if filters.refuse(pod.shape, node, cluster, pod.uid) is not None:
        return False
    return all(plugin.refuse(pod, node, cluster) is None for plugin in plugins.filters)


def _dry_run(pod: PodInfo, node: NodeInfo, cluster: Cluster, plugins: Plugins, budgets: Budgets) -> Preemption | None:
    trial = node.copy()
    lower = [one for one in node.pods.values() if one.shape.priority < pod.shape.priority]
    for one in lower:
        trial.remove(one.uid)
    if not _fits(pod, trial, cluster, plugins):
        return None
    protected, plain = _by_protection(sorted(lower, key=_importance), budgets)
    victims: list[PodInfo] = []
    for one in (*protected, *plain):
        trial.add(one)
        if not _fits(pod, trial, cluster, plugins):
            trial.remove(one.uid)
            victims.append(one)
    if not victims:
        return None
    victims.sort(key=_importance)
    return Preemption(node, tuple(victims), budgets(victims))


def _by_protection(pods: Sequence[PodInfo], budgets: Budgets) -> tuple[list[PodInfo], list[PodInfo]]:
    """Those whose eviction, on top of the ones before, breaks a budget; and the others."""
    protected: list[PodInfo] = []
    plain: list[PodInfo] = []
    for one in pods:
        (protected if budgets([*plain, one]) > 0 else plain).append(one)
    return protected, plain


def _harm(candidate: Preemption) -> tuple[object, ...]:
    victims = candidate.victims
    first = victims[0]
    youngest_first = _Reversed(min(one.started or one.created for one in victims if _same_priority(one, first)))
    return (
        candidate.violations,
        first.shape.priority,
        sum(one.shape.priority for one in victims),
        len(victims),
        youngest_first,
        candidate.node.number,
    )


def _same_priority(one: PodInfo, other: PodInfo) -> bool:
    return one.shape.priority == other.shape.priority


class _Reversed:
    """Text that sorts the other way round."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __lt__(self, other: _Reversed) -> bool:
        return self.text > other.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)
