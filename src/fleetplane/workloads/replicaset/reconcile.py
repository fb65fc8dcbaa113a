"""Makes it so: claims pods, makes or removes as many as the plan says, writes status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleetplane.client.informer import Informer
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent
from fleetplane.model.builtin.types import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.replicaset.plan import Failure, Plan, plan, recheck_after, status
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.adoption import Adopters, became_orphan
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
        """Raises ValueError for one that cannot be read."""
        written = owner["spec"].get("selector")
        return LabelSelector.from_labels(written) if self.selects_by_map else LabelSelector.from_object(written)


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
        self._adopters = Adopters(owners, kind.selector)
        add_ownership(owners)

    def controller(self, name: str) -> Controller:
        watch = Watch(PODS, self._adopters.of, predicate=became_orphan)
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
        try:
            selector = self._kind.selector(owner)
        except ValueError as wrong:
            raise Permanent(f"the selector cannot be read: {wrong}", reason="InvalidSelector") from None
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
