"""Makes it so: claims pods, makes or removes as many as the plan says, writes status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent
from fleetplane.model.builtin.types import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.replicaset.plan import Failure, Plan, plan, recheck_after, status
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.indexes import CONTROLLER, add_ownership
from fleetplane.workloads.shared.ownership import owner_reference
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.podclaims import claim_pods
from fleetplane.workloads.shared.podcontrol import PodControl
from fleetplane.workloads.shared.pods import Pod, from_template


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between ReplicaSets and ReplicationControllers."""

    resource: ResourceType
    selects_by_map: bool = False

    def selector(self, owner: Object) -> LabelSelector:
        """Raises Permanent for one that cannot be read."""
        written = owner["spec"].get("selector")
        try:
            if self.selects_by_map:
                return LabelSelector.from_labels(written)
            return LabelSelector.from_object(written)
        except ValueError as error:
            raise Permanent(f"the selector cannot be read: {error}", reason="InvalidSelector") from None


REPLICA_SET = Kind(REPLICA_SETS)
REPLICATION_CONTROLLER = Kind(REPLICATION_CONTROLLERS, selects_by_map=True)


class Replicas:
    """The reconciler of one kind."""

    def __init__(self, kind: Kind, actor: Actor, owners: Informer, pods: PodCache) -> None:
        self._kind = kind
        self._actor = actor
        self._owners = owners
        self._pods = pods
        self._control = PodControl(actor, pods)
        add_ownership(owners)

    def controller(self, name: str) -> Controller:
        watch = Watch(PODS, self._orphan_owners)
        return Controller(
            name, self._kind.resource, self.reconcile, owns=[PODS], watches=[watch], max_concurrent=8, resync=None
        )

    async def reconcile(self, request: Request) -> Result | None:
        owner = self._owners.get_key(request)
        if owner is None:
            return None
        if not await self._control.resolve(uid(owner)):
            return Result(requeue_after=0.1)
        reference = owner_reference(owner, self._kind.resource)
        selector = self._kind.selector(owner)
        owned = await claim_pods(
            self._actor, self._pods, request.cluster, self._kind.resource, owner, reference, selector
        )
        now = self._actor.environment.now()
        decided = plan(owner, owned, self._related(owner, owned), now)
        failure, error = await self._carry_out(request.cluster, owner, reference, decided)
        owned = self._pods.owned_by(uid(owner))
        new = status(owner, owned, failure, now)
        await self._actor.write_status(request.cluster, self._kind.resource, owner, new)
        if error is not None:
            raise error
        after = recheck_after(owner, owned, now)
        return None if after is None else Result(requeue_after=after)

    async def _carry_out(
        self, cluster: str, owner: Object, reference: Object, decided: Plan
    ) -> tuple[Failure | None, ApiError | None]:
        template, namespace = owner["spec"].get("template") or {}, owner["metadata"]["namespace"]
        try:
            if decided.create:
                await self._control.create(
                    cluster, owner, decided.create, lambda name: from_template(template, name, namespace, reference)
                )
            elif decided.delete:
                await self._control.delete(cluster, owner, decided.delete)
        except ApiError as error:
            reason = "FailedCreate" if decided.create else "FailedDelete"
            return Failure(reason, error.message), error
        return None, None

    def _related(self, owner: Object, owned: list[Pod]) -> Iterable[Pod]:
        """Pods of all sets with the same owner: when scaling down, nodes that run several of them lose some first."""
        parent = controller_of(owner)
        if parent is None:
            return owned
        siblings = self._owners.snapshots_by_index(CONTROLLER, parent.uid)
        return [pod for one in siblings for pod in self._pods.owned_by(one.uid)]

    def _orphan_owners(self, snapshot: Snapshot) -> Iterable[Request]:
        """Who might adopt a pod without an owner."""
        if snapshot.is_deleting or any(one.controller for one in snapshot.owners):
            return []
        key = snapshot.key
        return [
            one.key
            for one in self._owners.snapshots(key.namespace, cluster=key.cluster)
            if self._would_match(one, snapshot)
        ]

    def _would_match(self, owner: Snapshot, pod: Snapshot) -> bool:
        try:
            return self._kind.selector(owner.object).matches(pod.labels)
        except Permanent:
            return False
