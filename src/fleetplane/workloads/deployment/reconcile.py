"""Makes it so: claims ReplicaSets, carries out one step of the plan, writes the revision and status."""

from __future__ import annotations

from collections.abc import Iterable

from fleetplane.client.informer import Change, Informer
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.model.builtin.types import DEPLOYMENTS, PODS, REPLICA_SETS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name, namespace, uid
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.deployment import progress, sets
from fleetplane.workloads.deployment.plan import Plan, plan
from fleetplane.workloads.shared import conditions
from fleetplane.workloads.shared.actor import Actor, is_namespace_ending
from fleetplane.workloads.shared.adoption import Adopters, became_orphan
from fleetplane.workloads.shared.indexes import add_ownership, candidates
from fleetplane.workloads.shared.ownership import claim, owner_reference
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.templates import same_template


class Deployments:
    def __init__(self, actor: Actor, deployments: Informer, replica_sets: Informer, pods: PodCache) -> None:
        self._actor = actor
        self._deployments = deployments
        self._sets = replica_sets
        self._pods = pods
        self._adopters = Adopters(deployments)
        add_ownership(replica_sets)

    def controller(self) -> Controller:
        watches = [
            Watch(REPLICA_SETS, self._adopters.of, predicate=became_orphan),
            Watch(PODS, self._waiting_to_be_recreated, predicate=_is_deletion),
        ]
        return Controller(
            "deployment",
            DEPLOYMENTS,
            self.reconcile,
            owns=[REPLICA_SETS],
            watches=watches,
            max_concurrent=8,
            resync=None,
        )

    async def reconcile(self, request: Request) -> Result | None:
        deployment = self._deployments.get_key(request)
        if deployment is None:
            return None
        written = deployment["spec"].get("selector")
        if not written:
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self._actor.tell(request.cluster, deployment, "Warning", "SelectingAll", message)
            return None
        owned = await self._claim(request.cluster, deployment, LabelSelector.from_object(written))
        by_set = {uid(one): self._pods.owned_by(uid(one)) for one in owned}
        made = plan(deployment, owned, by_set, self._actor.environment.now())
        return await self._carry_out(request.cluster, deployment, made)

    async def _claim(self, cluster: str, deployment: Object, selector: LabelSelector) -> list[Object]:
        found = candidates(self._sets, uid(deployment), cluster, namespace(deployment))
        reference = owner_reference(deployment, DEPLOYMENTS)
        claims = claim(deployment, selector, found)
        return await self._actor.settle_claims(cluster, DEPLOYMENTS, deployment, reference, claims, REPLICA_SETS)

    async def _carry_out(self, cluster: str, deployment: Object, made: Plan) -> Result | None:
        client, space = self._actor.client(cluster), namespace(deployment)
        if made.create is not None and not await self._create(cluster, deployment, made.create):
            return Result(requeue_after=0.05)
        for set_name, patch in made.patches.items():
            await client.patch(REPLICA_SETS, set_name, patch, space)
        for one in made.delete:
            await self._actor.delete(cluster, REPLICA_SETS, space, name(one), uid(one))
        for reason, message in made.events:
            self._actor.tell(cluster, deployment, "Normal", reason, message)
        if made.revision is not None:
            patch = {"metadata": {"uid": uid(deployment), "annotations": {sets.REVISION: made.revision}}}
            deployment = await client.patch(DEPLOYMENTS, name(deployment), patch, space)
        if made.status is not None:
            await self._actor.write_status(cluster, DEPLOYMENTS, deployment, made.status)
        return None if made.recheck_after is None else Result(requeue_after=made.recheck_after)

    async def _create(self, cluster: str, deployment: Object, wanted: Object) -> bool:
        """Creates the new set; False when the Deployment must be looked at again first."""
        try:
            await self._actor.create_child(cluster, REPLICA_SETS, wanted)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                await self._settle_collision(cluster, deployment, wanted)
                return False
            await self._report_failure(cluster, deployment, wanted, error)
            raise
        return True

    async def _settle_collision(self, cluster: str, deployment: Object, wanted: Object) -> None:
        """Its name is taken: by the set itself, not yet seen; or by another, and then the hash must change."""
        found = await self._actor.client(cluster).get(REPLICA_SETS, name(wanted), namespace(wanted))
        is_ours = sets.belongs_to(found, deployment)
        if is_ours and same_template(found["spec"]["template"], deployment["spec"]["template"]):
            return
        status = deployment.get("status") or {}
        counted = {**status, "collisionCount": int(status.get("collisionCount") or 0) + 1}
        await self._actor.write_status(cluster, DEPLOYMENTS, deployment, counted)

    async def _report_failure(self, cluster: str, deployment: Object, wanted: Object, error: ApiError) -> None:
        if is_namespace_ending(error):
            return
        message = f'Failed to create new replica set "{name(wanted)}": {error.message}'
        self._actor.tell(cluster, deployment, "Warning", "ReplicaSetCreateError", message)
        if progress.deadline(deployment) is None:
            return
        status = deployment.get("status") or {}
        made = progress.progressing("False", "ReplicaSetCreateError", error.message, self._actor.environment.now())
        found = conditions.with_condition(status.get("conditions"), made)
        await self._actor.write_status(cluster, DEPLOYMENTS, deployment, {**status, "conditions": found})

    # what else wakes a Deployment

    def _waiting_to_be_recreated(self, snapshot: Snapshot) -> Iterable[Request]:
        """A Deployment that recreates waits for its last old pod to go."""
        owner = next((one for one in snapshot.owners if one.controller and one.kind == "ReplicaSet"), None)
        if owner is None:
            return []
        found = self._sets.snapshot(snapshot.key._replace(name=owner.name))
        if found is None:
            return []
        parents = (one for one in found.owners if one.controller and one.kind == "Deployment")
        keys = [found.key._replace(name=parent.name) for parent in parents]
        return [key for key in keys if (one := self._deployments.get_key(key)) and not sets.is_rolling(one)]


def _is_deletion(change: Change) -> bool:
    return change.event == "DELETED"
