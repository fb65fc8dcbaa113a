"""Makes it so: revisions, claims, pods, status, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent
from fleetplane.model.builtin.types import CONTROLLER_REVISIONS, PODS, STATEFUL_SETS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata, name, namespace, uid
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.shared import revisions
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.adoption import Adopters, became_orphan
from fleetplane.workloads.shared.history import Collision, History
from fleetplane.workloads.shared.ownership import owner_reference
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.podclaims import claim_pods
from fleetplane.workloads.shared.podcontrol import PodControl, Words
from fleetplane.workloads.shared.pods import Pod
from fleetplane.workloads.statefulset.claims import Claims
from fleetplane.workloads.statefulset.identity import POD_INDEX, POD_NAME, has_identity, new_pod, ordinal_of
from fleetplane.workloads.statefulset.plan import NewPod, Plan, Revisions, plan

_WORDS: Final = Words(
    created="create Pod {pod} in StatefulSet {owner} successful",
    not_created="create Pod {pod} in StatefulSet {owner} failed error: {error}",
    deleted="delete Pod {pod} in StatefulSet {owner} successful",
    not_deleted="delete Pod {pod} in StatefulSet {owner} failed error: {error}",
)


class StatefulSets:
    def __init__(self, actor: Actor, sets: Informer, pods: PodCache, claims: Informer, history: Informer) -> None:
        self._actor = actor
        self._sets = sets
        self._pods = pods
        self._claims = Claims(actor, claims)
        self._control = PodControl(actor, pods, _WORDS)
        self._adopters = Adopters(sets)
        self._history = History(actor, STATEFUL_SETS, history)

    def controller(self) -> Controller:
        return Controller(
            "statefulset",
            STATEFUL_SETS,
            self.reconcile,
            owns=[PODS, CONTROLLER_REVISIONS],
            watches=[Watch(PODS, self._adopters.of, predicate=became_orphan)],
            max_concurrent=8,
            resync=None,
        )

    async def reconcile(self, request: Request) -> Result | None:
        owner = self._sets.get_key(request)
        if owner is None or is_deleting(owner):
            return None
        if not await self._control.resolve(uid(owner)):
            return Result(requeue_after=0.1)
        try:
            selector = LabelSelector.from_object(owner["spec"].get("selector"))
        except ValueError as error:
            raise Permanent(f"the selector cannot be read: {error}", reason="InvalidSelector") from None
        known = await self._history.of(request.cluster, owner, selector)
        update = await self._history.present(request.cluster, owner, known)
        if isinstance(update, Collision):
            old = owner.get("status") or {}
            counted = {**old, "collisionCount": int(old.get("collisionCount") or 0) + 1}
            await self._actor.write_status(request.cluster, STATEFUL_SETS, owner, counted)
            return Result(requeue_after=0.05)
        current = _current(owner, known, update)
        owned = await self._owned(request.cluster, owner, selector)
        made = plan(owner, owned, Revisions(name(current), name(update)), self._actor.environment.now())
        await self._carry_out(request.cluster, owner, made, current, update, owned)
        await self._forget_old(request.cluster, owner, known, current, update)
        return None if made.recheck_after is None else Result(requeue_after=made.recheck_after)

    async def _owned(self, cluster: str, owner: Object, selector: LabelSelector) -> list[Pod]:
        reference = owner_reference(owner, STATEFUL_SETS)
        found = await claim_pods(self._actor, self._pods, cluster, STATEFUL_SETS, owner, reference, selector)
        return [pod for pod in found if ordinal_of(owner, pod.name) is not None]

    async def _carry_out(
        self, cluster: str, owner: Object, made: Plan, current: Object, update: Object, owned: Sequence[Pod]
    ) -> None:
        failure: ApiError | None = None
        try:
            await self._keep_identities(cluster, owner, owned)
            for pod in made.restart:
                self._tell_restart(cluster, owner, pod)
            await self._own_claims(cluster, owner, made, owned)
            await self._control.delete(cluster, owner, made.delete)
            for new in made.create:
                await self._claims.ensure(cluster, owner, new.ordinal)
                await self._control.create_one(cluster, owner, self._pod(owner, new, current, update))
        except ApiError as error:
            failure = error
        if failure is None:
            await self._actor.write_status(cluster, STATEFUL_SETS, owner, made.status)
            return
        raise failure

    def _pod(self, owner: Object, new: NewPod, current: Object, update: Object) -> Object:
        template = owner["spec"]["template"] if new.revision == name(update) else revisions.template_of(current)
        return new_pod(owner, template, new.ordinal, new.revision)

    def _tell_restart(self, cluster: str, owner: Object, pod: Pod) -> None:
        ended = "Failed" if pod.phase == "Failed" else "Terminated"
        text = f"StatefulSet {namespace(owner)}/{name(owner)} is recreating {ended.lower()} Pod {pod.name}"
        self._actor.tell(cluster, owner, "Warning", f"Recreating{ended}Pod", text)

    async def _keep_identities(self, cluster: str, owner: Object, owned: Sequence[Pod]) -> None:
        """Labels that tell a pod's identity are put back when somebody took them off."""
        for pod in owned:
            ordinal = ordinal_of(owner, pod.name)
            if ordinal is None or pod.deleting or pod.labels.get(POD_NAME) == pod.name:
                continue
            obj = self._pods.informer.get_key(ObjectKey(cluster, pod.namespace, pod.name))
            if obj is None or has_identity(owner, obj, ordinal):
                continue
            wanted = {POD_NAME: pod.name, POD_INDEX: str(ordinal)}
            guard = {"uid": pod.uid, "resourceVersion": metadata(obj).get("resourceVersion")}
            patch = {"metadata": {**guard, "labels": {**labels(obj), **wanted}}}
            await self._actor.client(cluster).patch(PODS, pod.name, patch, pod.namespace)

    async def _own_claims(self, cluster: str, owner: Object, made: Plan, owned: Sequence[Pod]) -> None:
        if owner["spec"].get("persistentVolumeClaimRetentionPolicy") is None:
            return
        limit = int(owner["spec"].get("replicas") or 0)
        start = int((owner["spec"].get("ordinals") or {}).get("start") or 0)
        for pod in owned:
            ordinal = ordinal_of(owner, pod.name)
            if ordinal is not None:
                is_condemned = not start <= ordinal < start + limit
                await self._claims.own(cluster, owner, ordinal, pod if is_condemned else None)

    async def _forget_old(
        self, cluster: str, owner: Object, known: Sequence[Object], current: Object, update: Object
    ) -> None:
        worn = [pod.labels.get(revisions.POD_REVISION, "") for pod in self._pods.owned_by(uid(owner))]
        limit = owner["spec"].get("revisionHistoryLimit")
        limit = 10 if limit is None else int(limit)
        live = [*worn, name(current), name(update)]
        await self._history.forget(cluster, revisions.beyond_history(known, live, limit))


def _current(owner: Object, known: Sequence[Object], update: Object) -> Object:
    """The revision that is being left; the present one when nothing is."""
    wanted = (owner.get("status") or {}).get("currentRevision")
    return next((one for one in known if name(one) == wanted), update)
