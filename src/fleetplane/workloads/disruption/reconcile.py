"""Keeps the status of budgets, and tells the scheduler which pods it must rather not evict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.model.builtin.types import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
)
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, OwnerReference, controller_of, namespace
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.disruption.plan import Expected, needs_scale, recheck_after, status
from fleetplane.workloads.scheduler.preemption import Budgets as Count
from fleetplane.workloads.scheduler.shape import PodInfo
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.pods import Pod

_BY_NAMESPACE = "namespace"


class Budgets:
    """``sized`` are the informers of kinds whose ``spec.replicas`` can be read without asking."""

    def __init__(self, actor: Actor, budgets: Informer, pods: PodCache, sized: Sequence[Informer]) -> None:
        self._actor = actor
        self._budgets = budgets
        self._pods = pods
        self._sized = {(one.resource.api_version, one.resource.kind): one for one in sized}
        budgets.add_index(_BY_NAMESPACE, lambda one: [f"{one.key.cluster}/{one.key.namespace}"])

    def controller(self) -> Controller:
        watches = [Watch(PODS, self._of_pod)]
        watches += [
            Watch(one, self._of_namespace)
            for one in (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, REPLICATION_CONTROLLERS)
        ]
        return Controller(
            "disruption", POD_DISRUPTION_BUDGETS, self.reconcile, watches=watches, max_concurrent=2, resync=None
        )

    async def reconcile(self, request: Request) -> Result | None:
        budget = self._budgets.get_key(request)
        if budget is None:
            return None
        selector = _selector(budget)
        space = self._pods.in_namespace(request.cluster, request.namespace)
        pods = [pod for pod in space if selector.matches(pod.labels) and not pod.is_terminal]
        expected = await self._expected(request.cluster, budget, pods)
        now = self._actor.environment.now()
        new = status(budget, pods, expected, now)
        await self._actor.write_status(request.cluster, POD_DISRUPTION_BUDGETS, budget, new)
        after = recheck_after(new, now)
        return None if after is None else Result(requeue_after=after)

    # how many pods there should be

    async def _expected(self, cluster: str, budget: Object, pods: Sequence[Pod]) -> Expected:
        if not needs_scale(budget):
            return Expected(len(pods))
        sizes: dict[str, int] = {}
        for pod in pods:
            owner = self._owner(cluster, pod)
            if owner is None:
                return Expected(problem=f'found no controllers for pod "{pod.name}"')
            if owner.uid not in sizes:
                found = await self._size(cluster, namespace(budget), owner)
                if found is None:
                    return Expected(problem=f"{owner.kind} {owner.name} has no scale subresource")
                sizes.update([found])
                sizes.setdefault(owner.uid, 0)
        return Expected(sum(sizes.values()))

    def _owner(self, cluster: str, pod: Pod) -> OwnerReference | None:
        obj = self._pods.informer.get_key(ObjectKey(cluster, pod.namespace, pod.name)) if pod.owner else None
        return controller_of(obj) if obj is not None else None

    async def _size(self, cluster: str, space: str, owner: OwnerReference) -> tuple[str, int] | None:
        """(uid of what decides the size, its size): a ReplicaSet's Deployment decides for it."""
        informer = self._sized.get((owner.api_version, owner.kind))
        if informer is None:
            return await self._ask_size(cluster, space, owner)
        found = informer.get(owner.name, space, cluster=cluster)
        if found is None or found["metadata"].get("uid") != owner.uid:
            return owner.uid, 0
        parent = controller_of(found)
        if owner.kind == "ReplicaSet" and parent is not None:
            above = await self._size(cluster, space, parent)
            if above is not None:
                return above
        replicas = found["spec"].get("replicas")
        return owner.uid, 1 if replicas is None else int(replicas)

    async def _ask_size(self, cluster: str, space: str, owner: OwnerReference) -> tuple[str, int] | None:
        try:
            kind = await self._actor.discovery(cluster).by_kind(owner.api_version, owner.kind)
            if "scale" not in kind.subresources:
                return None
            scale = await self._actor.client(cluster).get_subresource(kind.type, owner.name, "scale", space)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return owner.uid, int((scale.get("spec") or {}).get("replicas") or 0)

    # for the scheduler

    def count_protected(self, cluster: str) -> Count:
        """How many of some pods, evicted in this order, would break a budget."""

        def count(pods: Sequence[PodInfo]) -> int:
            spare: dict[ObjectKey, int] = {}
            broken = 0
            for pod in pods:
                key = f"{cluster}/{pod.namespace}"
                for one in self._budgets.snapshots_by_index(_BY_NAMESPACE, key):
                    budget = one.object
                    if not _selector(budget).matches(pod.shape.labels):
                        continue
                    allowed = int((budget.get("status") or {}).get("disruptionsAllowed") or 0)
                    left = spare[one.key] = spare.get(one.key, allowed) - 1
                    broken += left < 0
            return broken

        return count

    # what wakes a budget

    def _of_pod(self, pod: Snapshot) -> Iterable[Request]:
        found = self._budgets.snapshots_by_index(_BY_NAMESPACE, f"{pod.key.cluster}/{pod.key.namespace}")
        return [one.key for one in found if _selector(one.object).matches(pod.labels)]

    def _of_namespace(self, owner: Snapshot) -> Iterable[Request]:
        found = self._budgets.snapshots_by_index(_BY_NAMESPACE, f"{owner.key.cluster}/{owner.key.namespace}")
        return [one.key for one in found]


def _selector(budget: Object) -> LabelSelector:
    try:
        return LabelSelector.from_object(budget["spec"].get("selector"))
    except ValueError:
        return LabelSelector.nothing()
