"""The whole scheduler without I/O: told what is, asked what to do, told how it went.

``next`` takes one pod from the queue and decides. A decision to bind is assumed at once, so that the next pod sees the
place taken; ``bound`` and ``binding_failed`` say how it ended. Nothing here waits, writes or knows the time of day.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.model.objects import name
from fleetplane.workloads.scheduler import filters, preemption, words
from fleetplane.workloads.scheduler.choice import Candidates, choose_among, named, only_nodes, sample_size, with_others
from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.filters import Refusal
from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.parsing import Shapes
from fleetplane.workloads.scheduler.plugins import Plugins
from fleetplane.workloads.scheduler.preemption import Budgets
from fleetplane.workloads.scheduler.queue import Entry, Queue
from fleetplane.workloads.scheduler.shape import DEFAULT_SCHEDULER, PodInfo, Shape

_BEFORE_NODES: Final = "VolumeBinding"
_FIRST_LOOK: Final = 128
"""Nodes that the first pod of a shape chooses among."""
_REMEMBERED_ANSWERS: Final = 200_000
_FEWEST_REMEMBERED: Final = 16
"""Candidates of so many shapes are kept, of more while their answers (one per node) are not too many."""


@dataclass(frozen=True, slots=True)
class Bind:
    entry: Entry
    node: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No node fits. When ``node`` is set, evicting ``victims`` makes room there and it is kept for the pod."""

    entry: Entry
    message: str
    node: str = ""
    victims: tuple[PodInfo, ...] = ()


def _no_volume_refusal(pod: PodInfo) -> str | None:
    return None


class Core:
    """``names`` are the values of ``spec.schedulerName`` it answers to.

    ``before_nodes`` refuses a pod before any node is looked at (volumes that are not there), with the reason.
    """

    def __init__(
        self,
        plugins: Plugins | None = None,
        names: Collection[str] = (DEFAULT_SCHEDULER,),
        *,
        budgets: Callable[[str], Budgets] | None = None,
        before_nodes: Callable[[PodInfo], str | None] = _no_volume_refusal,
    ) -> None:
        self.queue = Queue()
        self.clusters: dict[str, Cluster] = {}
        self._plugins = plugins or Plugins()
        self._names = frozenset(names)
        self._shapes = Shapes()
        self._candidates: OrderedDict[tuple[str, Shape], Candidates] = OrderedDict()
        self._budgets = budgets or (lambda _: preemption.no_budgets)
        self._before_nodes = before_nodes
        self._freed: dict[str, set[str]] = {}
        self._placed: set[str] = set()

    # told what is

    def see_node(self, cluster: str, obj: Mapping[str, Any]) -> None:
        node = self._cluster(cluster).set_node(obj, name(obj))
        if node is not None:
            self._freed.setdefault(cluster, set()).add(node.name)

    def lose_node(self, cluster: str, node_name: str) -> None:
        self._cluster(cluster).remove_node(node_name)

    def see_namespace(self, cluster: str, namespace: str, labels: Mapping[str, str] | None) -> None:
        self._cluster(cluster).set_namespace(namespace, labels)

    def see_pod(self, cluster: str, encoded: bytes, now: float) -> None:
        """A pod as it is now (JSON): it holds a place, waits for one, or is none of our business."""
        parsed = self._shapes.parse(encoded, cluster)
        pod = parsed.pod
        if parsed.is_terminal:
            self.lose_pod(cluster, pod.uid)
        elif pod.node:
            self.queue.remove(pod.uid)
            there = self._cluster(cluster)
            there.unnominate(pod.uid, pod.nominated)
            if there.set_pod(pod):
                self._placed.add(cluster)
        elif pod.deleting or parsed.is_gated:
            self._drop(cluster, pod.uid)
        elif pod.shape.scheduler in self._names and not self._cluster(cluster).is_placed(pod.uid):
            self.queue.put(pod, now)

    def lose_pod(self, cluster: str, pod_uid: str) -> None:
        self._drop(cluster, pod_uid)
        gone = self._cluster(cluster).remove_pod(pod_uid)
        if gone is not None:
            self._freed.setdefault(cluster, set()).add(gone.node)

    def something_changed(self, cluster: str, rules: Collection[str], now: float) -> None:
        """Whatever these rules look at changed (volumes, claims): pods they refused are tried again."""
        wanted = frozenset(rules)
        self.queue.wake(cluster, lambda _, refused_by: bool(refused_by & wanted), now)

    # asked what to do

    def next(self, now: float) -> Bind | Refused | None:
        """One decision, or None when no pod can be tried now."""
        self._wake(now)
        entry = self.queue.pop(now)
        if entry is None:
            return None
        pod = entry.pod
        cluster = self._cluster(pod.cluster)
        if (reason := self._before_nodes(pod)) is not None:
            self.queue.park(entry, {_BEFORE_NODES}, now)
            return Refused(entry, f"0/{cluster.node_count()} nodes are available: {reason}.")
        node, refusals = self._choose(pod, cluster)
        if node is not None:
            cluster.unnominate(pod.uid, pod.nominated)
            cluster.assume(pod, node.name)
            return Bind(entry, node.name)
        return self._refuse(entry, cluster, refusals, now)

    def next_due(self, now: float) -> float | None:
        return 0.0 if self._freed or self._placed else self.queue.next_due(now)

    # told how it went

    def bound(self, entry: Entry) -> None:
        self.queue.remove(entry.pod.uid)

    def binding_failed(self, entry: Entry, now: float) -> None:
        cluster = self._cluster(entry.pod.cluster)
        node = entry.pod.node
        if cluster.unassume(entry.pod.uid):
            self._freed.setdefault(cluster.name, set()).add(node)
            self.queue.retry(entry, now)

    # inside

    def _cluster(self, cluster: str) -> Cluster:
        found = self.clusters.get(cluster)
        if found is None:
            found = self.clusters[cluster] = Cluster(cluster)
        return found

    def _drop(self, cluster: str, pod_uid: str) -> None:
        self.queue.remove(pod_uid)
        for node in [where for where, pods in self._cluster(cluster).nominated.items() if pod_uid in pods]:
            self._cluster(cluster).unnominate(pod_uid, node)
            self._freed.setdefault(cluster, set()).add(node)

    def _choose(self, pod: PodInfo, cluster: Cluster) -> tuple[NodeInfo | None, Mapping[int, Refusal]]:
        plugins = self._plugins.concerning(pod.shape)
        if pod.nominated:
            node, _ = choose_among(named([pod.nominated], cluster), pod, cluster, plugins)
            if node is not None:
                return node, {}
        names = only_nodes(pod.shape)
        if names is not None:
            node, refused = choose_among(named(names, cluster), pod, cluster, plugins)
            return node, with_others(refused, cluster)
        key = (cluster.name, pod.shape)
        found = self._candidates.get(key)
        if found is None:
            # Most shapes come in numbers, but some come once: the first pod of one does not ask every node.
            node = self._first_of_shape(pod, cluster)
            found = self._candidates[key] = Candidates(pod.shape, cluster, self._plugins)
            while len(self._candidates) > max(_FEWEST_REMEMBERED, _REMEMBERED_ANSWERS // max(1, len(cluster.nodes))):
                self._candidates.popitem(last=False)
            if node is not None:
                return node, {}
        else:
            self._candidates.move_to_end(key)
        return found.choose(pod)

    def _first_of_shape(self, pod: PodInfo, cluster: Cluster) -> NodeInfo | None:
        """The best of a sample, beginning where the last one ended; None where all must be looked at."""
        enough = sample_size(len(cluster.nodes))
        if not pod.shape.is_local or cluster.anti_shapes or enough >= len(cluster.nodes):
            return None
        nodes = cluster.sample(_FIRST_LOOK)
        return choose_among(nodes, pod, cluster, self._plugins.concerning(pod.shape), enough=_FIRST_LOOK)[0]

    def _refuse(self, entry: Entry, cluster: Cluster, refusals: Mapping[int, Refusal], now: float) -> Refused:
        pod, nodes = entry.pod, cluster.node_count()
        self.queue.park(entry, {refusal.rule for refusal in refusals.values()}, now)
        if nodes == 0:
            return Refused(entry, words.no_nodes())
        waiting = self._waits_for_victims(pod, cluster)
        made = (
            None
            if waiting
            else preemption.find(
                pod, cluster, refusals, self._plugins.concerning(pod.shape), self._budgets(cluster.name)
            )
        )
        if made is not None:
            cluster.nominate(pod, made.node.name)
            return Refused(entry, words.unavailable(nodes, refusals), made.node.name, made.victims)
        if not pod.shape.may_preempt:
            why = f"preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
        elif waiting:
            why = "preemption: not eligible due to terminating pod on the nominated node."
        else:
            why = words.preemption_failed(nodes, refusals)
        return Refused(entry, words.unavailable(nodes, refusals, why))

    @staticmethod
    def _waits_for_victims(pod: PodInfo, cluster: Cluster) -> bool:
        """Its victims are still terminating: evicting more elsewhere would be harm without need."""
        node = cluster.nodes.get(pod.nominated) if pod.nominated else None
        if node is None:
            return False
        return any(one.deleting and one.shape.priority < pod.shape.priority for one in node.pods.values())

    def _wake(self, now: float) -> None:
        self.queue.wake_overdue(now)
        if self._freed:
            freed, self._freed = self._freed, {}
            for cluster, names in freed.items():
                self._wake_for_nodes(cluster, names, now)
        if self._placed:
            placed, self._placed = self._placed, set()
            for cluster in placed:
                self.something_changed(cluster, ("InterPodAffinity", "PodTopologySpread"), now)

    def _wake_for_nodes(self, cluster_name: str, names: set[str], now: float) -> None:
        cluster = self._cluster(cluster_name)
        nodes = [node for one in names if (node := cluster.nodes.get(one)) is not None and node.is_known]

        def helps(shape: Shape, _: frozenset[str]) -> bool:
            return any(filters.refuse_ever(shape, node) is None for node in nodes)

        self.queue.wake(cluster_name, helps, now)
