"""Makes it so: sorts pods by node, carries the plan out, keeps history and status."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent
from fleetplane.model.builtin.types import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from fleetplane.model.environment import name_suffix
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, name, namespace, uid
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.daemonset.placement import for_node, judge, target_node, with_tolerations
from fleetplane.workloads.daemonset.plan import Plan, View, plan, recheck_after, status
from fleetplane.workloads.shared import revisions
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.adoption import Adopters, became_orphan
from fleetplane.workloads.shared.history import Collision, History
from fleetplane.workloads.shared.nodecache import NodeCache, place_changed
from fleetplane.workloads.shared.ownership import owner_reference
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.podclaims import claim_pods
from fleetplane.workloads.shared.podcontrol import PodControl
from fleetplane.workloads.shared.pods import Pod, from_template, name_prefix


class DaemonSets:
    def __init__(self, actor: Actor, sets: Informer, pods: PodCache, nodes: NodeCache, history: Informer) -> None:
        self._actor = actor
        self._sets = sets
        self._pods = pods
        self._nodes = nodes
        self._control = PodControl(actor, pods)
        self._adopters = Adopters(sets)
        self._history = History(actor, DAEMON_SETS, history)

    def controller(self) -> Controller:
        watches = [
            Watch(NODES, self._all_of_cluster, predicate=place_changed),
            Watch(PODS, self._adopters.of, predicate=became_orphan),
        ]
        return Controller(
            "daemonset",
            DAEMON_SETS,
            self.reconcile,
            owns=[PODS, CONTROLLER_REVISIONS],
            watches=watches,
            max_concurrent=4,
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
        present = await self._history.present(request.cluster, owner, known)
        if isinstance(present, Collision):
            return await self._count_collision(request.cluster, owner)
        return await self._bring_about(request.cluster, owner, selector, known, present)

    async def _bring_about(
        self, cluster: str, owner: Object, selector: LabelSelector, known: Sequence[Object], present: Object
    ) -> Result | None:
        reference = owner_reference(owner, DAEMON_SETS)
        owned = await claim_pods(self._actor, self._pods, cluster, DAEMON_SETS, owner, reference, selector)
        now = self._actor.environment.now()
        digest = present["metadata"]["labels"][revisions.HASH_LABEL]
        view = self._view(cluster, owner, owned, digest)
        made = plan(owner, view, now)
        error = await self._carry_out(cluster, owner, reference, digest, made)
        owned = self._pods.owned_by(uid(owner))
        view = self._view(cluster, owner, owned, digest)
        await self._actor.write_status(cluster, DAEMON_SETS, owner, status(owner, view, now))
        await self._forget_old(cluster, owner, known, present, owned)
        if error is not None:
            raise error
        waits = [one for one in (made.recheck_after, recheck_after(owner, view, now)) if one is not None]
        return Result(requeue_after=min(waits)) if waits else None

    def _view(self, cluster: str, owner: Object, owned: Sequence[Pod], digest: str) -> View:
        spec = with_tolerations(owner["spec"]["template"].get("spec") or {})
        verdicts = {node: judge(spec, brief) for node, brief in self._nodes.of(cluster).items()}
        by_node: dict[str, list[Pod]] = {}
        for pod in owned:
            by_node.setdefault(pod.node or self._meant_for(cluster, pod), []).append(pod)
        return View(verdicts, by_node, digest)

    def _meant_for(self, cluster: str, pod: Pod) -> str:
        obj = self._pods.informer.get_key(ObjectKey(cluster, pod.namespace, pod.name))
        return target_node(obj) if obj is not None else ""

    async def _carry_out(
        self, cluster: str, owner: Object, reference: Object, digest: str, made: Plan
    ) -> ApiError | None:
        for pod in made.failed:
            ended = "failed" if pod.phase == "Failed" else "succeeded"
            text = f"Found {ended} daemon pod {pod.namespace}/{pod.name} on node {pod.node}, will try to kill it"
            reason = "FailedDaemonPod" if pod.phase == "Failed" else "SucceededDaemonPod"
            self._actor.tell(cluster, owner, "Warning" if pod.phase == "Failed" else "Normal", reason, text)
        try:
            await self._control.delete(cluster, owner, made.delete)
            waiting = iter(made.create)
            await self._control.create(
                cluster, owner, len(made.create), lambda made_name: self._pod(owner, reference, digest, next(waiting))
            )
        except ApiError as error:
            return error
        return None

    def _pod(self, owner: Object, reference: Object, digest: str, node: str) -> Object:
        made_name = name_prefix(name(owner)) + name_suffix(self._actor.environment)
        pod = from_template(owner["spec"]["template"], made_name, namespace(owner), reference)
        generation = str(owner["metadata"].get("generation") or 1)
        labels = {revisions.POD_REVISION: digest, "pod-template-generation": generation}
        pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **labels}
        pod["spec"] = for_node(with_tolerations(pod["spec"]), node)
        return pod

    async def _forget_old(
        self, cluster: str, owner: Object, known: Sequence[Object], present: Object, owned: Sequence[Pod]
    ) -> None:
        worn = {pod.labels.get(revisions.POD_REVISION) for pod in owned}
        live = [name(one) for one in known if one["metadata"]["labels"].get(revisions.HASH_LABEL) in worn]
        limit = owner["spec"].get("revisionHistoryLimit")
        limit = 10 if limit is None else int(limit)
        await self._history.forget(cluster, revisions.beyond_history(known, [*live, name(present)], limit))

    async def _count_collision(self, cluster: str, owner: Object) -> Result:
        old = owner.get("status") or {}
        counted = {**old, "collisionCount": int(old.get("collisionCount") or 0) + 1}
        await self._actor.write_status(cluster, DAEMON_SETS, owner, counted)
        return Result(requeue_after=0.05)

    # what else wakes a DaemonSet

    def _all_of_cluster(self, node: Snapshot) -> Iterable[Request]:
        return [one.key for one in self._sets.snapshots(cluster=node.key.cluster)]
