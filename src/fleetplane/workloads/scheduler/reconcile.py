"""The scheduler at work: informers feed the core, one reconcile drains its queue, bindings run side by side.

It is an ordinary controller with a single key ("there is something to schedule"), so that leadership, metrics and a
graceful end come from the framework. One pass decides until nothing is left that can be tried; every decision is
assumed at once and written in the background, a bounded number at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

import orjson

from fleetplane.client.informer import Change, Informer
from fleetplane.client.protocol import Unreachable
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.model.builtin.types import (
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, condition, uid
from fleetplane.workloads.scheduler.core import Bind, Core, Refused
from fleetplane.workloads.scheduler.plugins import Plugins
from fleetplane.workloads.scheduler.preemption import Budgets
from fleetplane.workloads.scheduler.queue import Entry
from fleetplane.workloads.scheduler.shape import DEFAULT_SCHEDULER, PodInfo
from fleetplane.workloads.scheduler.volumes import RULE, Volumes
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.conditions import make, without
from fleetplane.workloads.shared.podcache import PodCache

KEY: Final = Request("", "", "scheduling")
CONCURRENT_WRITES: Final = 32
_STORAGE: Final = (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES)
_TURN: Final = 16
"""Decisions between two looks at the event loop."""


class Scheduler:
    """``budgets`` tells per cluster how many of some pods must rather not be evicted (see ``preemption``)."""

    def __init__(
        self,
        actor: Actor,
        pods: PodCache,
        nodes: Informer,
        namespaces: Informer,
        *,
        plugins: Plugins | None = None,
        names: Collection[str] = (DEFAULT_SCHEDULER,),
        budgets: Callable[[str], Budgets] | None = None,
        volumes: Volumes | None = None,
    ) -> None:
        self._actor = actor
        self._views = pods
        self._pods = pods.informer
        self._volumes = volumes
        plugins = plugins or Plugins()
        if volumes is None:
            self.core = Core(plugins, names, budgets=budgets)
        else:
            with_volumes = plugins.with_filter(volumes)
            self.core = Core(with_volumes, names, budgets=budgets, before_nodes=volumes.objection)
        self._writes: set[asyncio.Task[None]] = set()
        self._seen: dict[str, tuple[str, bool]] = {}
        self._pods.add_handler(self._see_pod)
        nodes.add_handler(self._see_node)
        namespaces.add_handler(self._see_namespace)

    def controller(self) -> Controller:
        return Controller(
            "scheduler",
            PODS,
            self.reconcile,
            predicate=lambda _: False,
            watches=[
                *(Watch(one, _wake) for one in (PODS, NODES, NAMESPACES)),
                *(Watch(one, self._storage_changed) for one in _STORAGE),
            ],
            max_concurrent=1,
            resync=None,
            timeout=3600.0,
        )

    # informers in

    def _now(self) -> float:
        return self._actor.environment.monotonic()

    def _see_pod(self, change: Change) -> None:
        """Most changes of a pod that has its place are about its status, and nothing to the scheduler."""
        key = change.new.key
        if change.event == "DELETED":
            self._seen.pop(change.new.uid, None)
            self.core.lose_pod(key.cluster, change.new.uid)
            return
        view = self._views.get(key)
        if view is not None and view.node and not view.is_terminal:
            state = (view.node, view.deleting)
            known = self._seen.get(view.uid) == state and change.old is not None
            if known and change.old is not None and change.old.labels == change.new.labels:
                return
            self._seen[view.uid] = state
        self.core.see_pod(key.cluster, change.new.encoded, self._now())

    def _see_node(self, change: Change) -> None:
        key = change.new.key
        if change.event == "DELETED":
            self.core.lose_node(key.cluster, key.name)
        else:
            self.core.see_node(key.cluster, orjson.loads(change.new.encoded))

    def _see_namespace(self, change: Change) -> None:
        key = change.new.key
        self.core.see_namespace(key.cluster, key.name, None if change.event == "DELETED" else change.new.labels)

    def _storage_changed(self, changed: Snapshot) -> Iterable[Request]:
        self.core.something_changed(changed.key.cluster, (RULE,), self._now())
        return (KEY,)

    # bindings out

    async def reconcile(self, _: Request) -> Result | None:
        async with asyncio.TaskGroup() as group:
            since_pause = 0
            while (decision := self.core.next(self._now())) is not None:
                while len(self._writes) >= CONCURRENT_WRITES:
                    await asyncio.wait(self._writes, return_when=asyncio.FIRST_COMPLETED)
                work = self._bind(decision) if isinstance(decision, Bind) else self._refuse(decision)
                task = group.create_task(work)
                self._writes.add(task)
                task.add_done_callback(self._writes.discard)
                since_pause += 1
                if since_pause % _TURN == 0:
                    await asyncio.sleep(0)
        due = self.core.next_due(self._now())
        return None if due is None else Result(requeue_after=due)

    async def _bind(self, decision: Bind) -> None:
        entry, pod = decision.entry, decision.entry.pod
        try:
            if not await self._have_volumes(pod, decision.node):
                self.core.binding_failed(entry, self._now())
                return
            await self._post_binding(pod, decision.node)
        except ApiError as error:
            self._binding_failed(entry, error)
            return
        except BaseException:  # cancelled, or worse: the place must not stay taken
            self.core.binding_failed(entry, self._now())
            raise
        self.core.bound(entry)
        message = f"Successfully assigned {pod.namespace}/{pod.name} to {decision.node}"
        self._actor.tell(pod.cluster, _reference(pod), "Normal", "Scheduled", message)

    async def _have_volumes(self, pod: PodInfo, node: str) -> bool:
        if self._volumes is None or not pod.shape.claims:
            return True
        found = self.core.clusters[pod.cluster].nodes.get(node)
        return found is not None and await self._volumes.prepare(pod, found)

    async def _post_binding(self, pod: PodInfo, node: str) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        client = self._actor.client(pod.cluster)
        try:
            await client.create(PODS, binding, pod.namespace, subresource="binding", name=pod.name)
        except Unreachable:
            # It may have been bound. Asking is cheaper than binding it twice, which the server refuses anyway.
            found = await client.get(PODS, pod.name, pod.namespace)
            if uid(found) != pod.uid or found["spec"].get("nodeName") != node:
                raise

    def _binding_failed(self, entry: Entry, error: ApiError) -> None:
        pod = entry.pod
        self.core.binding_failed(entry, self._now())
        if error.code == 404:
            self.core.queue.remove(pod.uid)
        elif error.code != 409:
            self._actor.tell(
                pod.cluster, _reference(pod), "Warning", "FailedScheduling", f"binding rejected: {error.message}"
            )

    async def _refuse(self, decision: Refused) -> None:
        pod = decision.entry.pod
        self._actor.tell(pod.cluster, _reference(pod), "Warning", "FailedScheduling", decision.message)
        try:
            await self._say_unschedulable(decision)
            for victim in decision.victims:
                await self._evict(pod, victim, decision.node)
        except ApiError as error:
            if error.code not in {404, 409}:
                self.core.queue.retry(decision.entry, self._now())

    async def _say_unschedulable(self, decision: Refused) -> None:
        pod = decision.entry.pod
        obj = self._pods.get_key(ObjectKey(*pod.key))
        if obj is None or uid(obj) != pod.uid or obj["spec"].get("nodeName"):
            return
        patch: Object = {}
        if decision.node and (obj.get("status") or {}).get("nominatedNodeName") != decision.node:
            patch["nominatedNodeName"] = decision.node
        current = condition(obj, "PodScheduled") or {}
        if (current.get("status"), current.get("message")) != ("False", decision.message):
            patch["conditions"] = self._conditions(obj, "PodScheduled", "False", "Unschedulable", decision.message)
        if patch:
            await self._patch_status(obj, pod, patch)

    def _conditions(self, obj: Object, type: str, status: str, reason: str, message: str) -> list[Object]:
        found = (obj.get("status") or {}).get("conditions")
        made = make(type, status, reason, message, timestamp(self._actor.environment.now()))
        current = condition(obj, type)
        if current is not None and current.get("status") == status and current.get("lastTransitionTime"):
            made["lastTransitionTime"] = current["lastTransitionTime"]
        return [*without(found, type), made]

    async def _patch_status(self, obj: Object, pod: PodInfo, status: Object) -> None:
        patch = {"metadata": {"resourceVersion": obj["metadata"].get("resourceVersion")}, "status": status}
        client = self._actor.client(pod.cluster)
        await client.patch(PODS, pod.name, patch, pod.namespace, subresource="status")

    async def _evict(self, pod: PodInfo, victim: PodInfo, node: str) -> None:
        """Says why on the victim, then deletes it with its own grace period."""
        obj = self._pods.get_key(ObjectKey(*victim.key))
        if obj is None or uid(obj) != victim.uid or victim.deleting:
            return
        message = f"{DEFAULT_SCHEDULER}: preempting to accommodate a higher priority pod"
        found = self._conditions(obj, "DisruptionTarget", "True", "PreemptionByScheduler", message)
        await self._patch_status(obj, victim, {"conditions": found})
        if await self._actor.delete(victim.cluster, PODS, victim.namespace, victim.name, victim.uid):
            told = f"Preempted by pod {pod.uid} on node {node}"
            self._actor.tell(victim.cluster, _reference(victim), "Normal", "Preempted", told)


def _wake(_: Snapshot) -> Iterable[Request]:
    return (KEY,)


def _reference(pod: PodInfo) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
    }
