"""Makes it so: pods first, then status, then finalizers, in this order and no other (see ``plan``)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent
from fleetplane.model.builtin.types import JOBS, PODS
from fleetplane.model.environment import name_suffix
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, finalizers, is_deleting, metadata, name, namespace, uid
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.job.plan import NewPod, Plan, plan
from fleetplane.workloads.job.pods import FAILURES, FINALIZER, IGNORED_FAILURES, INDEX, JobPod, job_pod
from fleetplane.workloads.job.timing import expires_after, is_finished, is_indexed
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.adoption import Adopters, became_orphan
from fleetplane.workloads.shared.ownership import owner_reference
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.podclaims import claim_pods
from fleetplane.workloads.shared.podcontrol import PodControl
from fleetplane.workloads.shared.pods import Pod, from_template, name_prefix

CONTROLLER_NAME: Final = "kubernetes.io/job-controller"
_INDEX_VARIABLE: Final = {
    "name": "JOB_COMPLETION_INDEX",
    "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}},
}


class Jobs:
    def __init__(self, actor: Actor, jobs: Informer, pods: PodCache) -> None:
        self._actor = actor
        self._jobs = jobs
        self._pods = pods
        self._adopters = Adopters(jobs)
        self._control = PodControl(actor, pods)

    def controller(self) -> Controller:
        watch = Watch(PODS, self._adopters.of, predicate=became_orphan)
        return Controller("job", JOBS, self.reconcile, owns=[PODS], watches=[watch], max_concurrent=8, resync=None)

    async def reconcile(self, request: Request) -> Result | None:
        job = self._jobs.get_key(request)
        if job is None or job["spec"].get("managedBy", CONTROLLER_NAME) != CONTROLLER_NAME:
            return None
        if not await self._control.resolve(uid(job)):
            return Result(requeue_after=0.1)
        now = self._actor.environment.now()
        if (left := expires_after(job, now)) is not None and left <= 0:
            await self._expire(request.cluster, job)
            return None
        made = plan(job, await self._owned(request.cluster, job), now)
        await self._carry_out(request.cluster, job, made)
        left = expires_after({**job, "status": made.status}, now)
        waits = [one for one in (made.recheck_after, left) if one is not None]
        return Result(requeue_after=min(waits)) if waits else None

    async def _owned(self, cluster: str, job: Object) -> list[JobPod]:
        try:
            selector = LabelSelector.from_object(job["spec"].get("selector"))
        except ValueError as error:
            raise Permanent(f"the selector cannot be read: {error}", reason="InvalidSelector") from None
        reference = owner_reference(job, JOBS)
        views = await claim_pods(self._actor, self._pods, cluster, JOBS, job, reference, selector)
        found = []
        for view in views:
            obj = self._pods.informer.get_key(ObjectKey(cluster, view.namespace, view.name))
            if obj is not None:
                found.append(job_pod(obj, view))
        return found

    async def _expire(self, cluster: str, job: Object) -> None:
        """Asks again before deleting: the time to live may have been changed."""
        client = self._actor.client(cluster)
        fresh = await client.get(JOBS, name(job), namespace(job))
        left = expires_after(fresh, self._actor.environment.now())
        if uid(fresh) == uid(job) and left is not None and left <= 0:
            version = metadata(fresh).get("resourceVersion")
            await client.delete(
                JOBS, name(job), namespace(job), uid=uid(job), resource_version=version, propagation="Foreground"
            )

    # doing it

    async def _carry_out(self, cluster: str, job: Object, made: Plan) -> None:
        error: ApiError | None = None
        try:
            await self._remove(cluster, job, made)
            await self._create(cluster, job, made.create)
        except ApiError as refused:
            error = refused
            made.status = {**made.status, "active": self._count_active(job)}
        if not is_finished(job):
            await self._actor.write_status(cluster, JOBS, job, made.status)
        for kind, reason, message in made.events:
            self._actor.tell(cluster, job, "Warning" if kind == "Warning" else "Normal", reason, message)
        await asyncio.gather(*(self._release(cluster, pod) for pod in made.release))
        if error is not None:
            raise error

    def _count_active(self, job: Object) -> int:
        return sum(pod.is_active for pod in self._pods.owned_by(uid(job)))

    async def _remove(self, cluster: str, job: Object, made: Plan) -> None:
        for pod in made.discard:
            await self._release(cluster, pod)
        going: list[Pod] = []
        for pod in (*made.discard, *made.delete):
            view = self._pods.get(ObjectKey(cluster, namespace(pod.obj), pod.name))
            if view is not None and view.uid == pod.uid and not view.deleting:
                going.append(view)
        await self._control.delete(cluster, job, going)

    async def _create(self, cluster: str, job: Object, new: Sequence[NewPod]) -> None:
        if not new:
            return
        waiting = iter(new)
        await self._control.create(cluster, job, len(new), lambda made_name: self._pod(job, made_name, next(waiting)))

    def _pod(self, job: Object, made_name: str, new: NewPod) -> Object:
        reference = owner_reference(job, JOBS)
        template = job["spec"]["template"]
        if is_indexed(job) and new.completion is not None:
            suffix = name_suffix(self._actor.environment)
            made_name = f"{name_prefix(name(job))[:-1]}-{new.completion}-{suffix}"
        pod = from_template(template, made_name, namespace(job), reference)
        meta = pod["metadata"]
        meta["finalizers"] = [*meta.get("finalizers", ()), FINALIZER]
        if is_indexed(job) and new.completion is not None:
            _mark_index(job, pod, new)
        return pod

    async def _release(self, cluster: str, pod: JobPod) -> None:
        """Takes the finalizer off, by the latest state the informer has."""
        key = ObjectKey(cluster, namespace(pod.obj), pod.name)
        obj = self._pods.informer.get_key(key)
        if obj is None or uid(obj) != pod.uid or FINALIZER not in finalizers(obj):
            return
        kept = [one for one in finalizers(obj) if one != FINALIZER]
        guard = {"uid": pod.uid, "resourceVersion": metadata(obj).get("resourceVersion")}
        patch = {"metadata": {**guard, "finalizers": kept or None}}
        try:
            await self._actor.client(cluster).patch(PODS, pod.name, patch, key.namespace)
        except ApiError as error:
            if error.code != 404:
                raise


class OrphanPods:
    """Pods that still carry the Job finalizer though no Job counts them: frees them, so that they can go."""

    def __init__(self, actor: Actor, jobs: Informer, pods: Informer) -> None:
        self._actor = actor
        self._jobs = jobs
        self._pods = pods

    def controller(self) -> Controller:
        return Controller(
            "job-orphan-pods",
            PODS,
            self.reconcile,
            predicate=lambda change: FINALIZER in (change.new.meta.finalizers or ()),
            watches=[Watch(JOBS, self._pods_of, predicate=lambda change: change.event == "DELETED")],
            resync=None,
        )

    async def reconcile(self, request: Request) -> Result | None:
        pod = self._pods.get_key(request)
        if pod is None or FINALIZER not in finalizers(pod) or not self._jobs.has_synced:
            return None
        owner = next((one for one in metadata(pod).get("ownerReferences") or () if one.get("controller")), None)
        if owner is not None and owner.get("kind") == "Job" and await self._job_exists(request, owner):
            return None
        kept = [one for one in finalizers(pod) if one != FINALIZER]
        guard = {"uid": uid(pod), "resourceVersion": metadata(pod).get("resourceVersion")}
        patch = {"metadata": {**guard, "finalizers": kept or None}}
        try:
            await self._actor.client(request.cluster).patch(PODS, request.name, patch, request.namespace)
        except ApiError as error:
            if error.code != 404:
                raise
        return None

    async def _job_exists(self, request: Request, owner: Object) -> bool:
        """A Job that is being deleted no longer counts."""
        job = self._jobs.get(str(owner.get("name")), request.namespace, cluster=request.cluster)
        if job is None:
            try:
                job = await self._actor.client(request.cluster).get(JOBS, str(owner.get("name")), request.namespace)
            except ApiError as error:
                if error.code == 404:
                    return False
                raise
        return uid(job) == owner.get("uid") and not is_deleting(job)

    def _pods_of(self, job: Snapshot) -> Iterable[Request]:
        found = self._pods.snapshots(job.key.namespace, cluster=job.key.cluster)
        return [one.key for one in found if any(owner.uid == job.uid for owner in one.owners)]


def _mark_index(job: Object, pod: Object, new: NewPod) -> None:
    """Label, annotation, host name and environment variable that tell a pod its index."""
    index = str(new.completion)
    meta, spec = pod["metadata"], pod["spec"]
    meta["labels"] = {**meta.get("labels", {}), INDEX: index}
    notes: dict[str, str] = {**meta.get("annotations", {}), INDEX: index}
    if job["spec"].get("backoffLimitPerIndex") is not None:
        notes[FAILURES] = str(new.failures)
        if new.ignored_failures:
            notes[IGNORED_FAILURES] = str(new.ignored_failures)
    meta["annotations"] = notes
    spec["hostname"] = f"{name(job)}-{index}"
    for field in ("containers", "initContainers"):
        if spec.get(field):
            spec[field] = [_with_index(one) for one in spec[field]]


def _with_index(container: dict[str, Any]) -> Object:
    env = container.get("env") or []
    if any(one.get("name") == _INDEX_VARIABLE["name"] for one in env):
        return container
    return {**container, "env": [*env, _INDEX_VARIABLE]}
