"""Carries out what NoExecute taints ask for: deletes the pods that do not tolerate them, when their time is up."""

from __future__ import annotations

from collections.abc import Iterable

from fleetplane.client.informer import Change, Informer
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, resource_version, uid
from fleetplane.workloads.nodes.eviction import leaves_at
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.conditions import make, without
from fleetplane.workloads.shared.nodecache import taints_of
from fleetplane.workloads.shared.nodepods import NodePods
from fleetplane.workloads.shared.podcache import PodCache


class TaintEviction:
    """Keyed by node: a node without NoExecute taints costs one look, however many pods it has."""

    def __init__(self, actor: Actor, nodes: Informer, pods: NodePods, views: PodCache) -> None:
        self._views = views
        self._actor = actor
        self._nodes = nodes
        self._pods = pods

    def controller(self) -> Controller:
        return Controller(
            "taint-eviction",
            NODES,
            self.reconcile,
            predicate=_taints_changed,
            watches=[Watch(PODS, self._node_of, predicate=_node_or_tolerations_changed)],
            max_concurrent=4,
            resync=None,
        )

    async def reconcile(self, request: Request) -> Result | None:
        node = self._nodes.get_key(request)
        if node is None or not _evicting(node):
            return None
        now = self._actor.environment.now()
        soonest: float | None = None
        for key in self._pods.on(request.cluster, request.name):
            pod = self._pods.informer.get_key(key)
            if pod is None or is_deleting(pod):
                continue
            at = leaves_at(pod, node, now)
            if at is None:
                continue
            left = (at - now).total_seconds()
            if left <= 0:
                await self._evict(request.cluster, pod)
            else:
                soonest = left if soonest is None else min(soonest, left)
        return None if soonest is None else Result(requeue_after=soonest)

    async def _evict(self, cluster: str, pod: Object) -> None:
        meta = pod["metadata"]
        text = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
        self._actor.tell(cluster, pod, "Normal", "TaintManagerEviction", text)
        now = timestamp(self._actor.environment.now())
        why = "Taint manager: deleting due to NoExecute taint"
        made = make("DisruptionTarget", "True", "DeletionByTaintManager", why, now)
        others = without((pod.get("status") or {}).get("conditions"), "DisruptionTarget")
        patch = {"metadata": {"resourceVersion": resource_version(pod)}, "status": {"conditions": [*others, made]}}
        client = self._actor.client(cluster)
        try:
            await client.patch(PODS, meta["name"], patch, meta["namespace"], subresource="status")
        except ApiError as error:
            if error.code == 404:
                return
            raise
        await self._actor.delete(cluster, PODS, meta["namespace"], meta["name"], uid(pod))

    def _node_of(self, pod: Snapshot) -> Iterable[Request]:
        view = self._views.get(pod.key)
        return [Request(pod.key.cluster, "", view.node)] if view is not None and view.node else []


def _evicting(node: Object) -> list[Object]:
    return [one for one in (node.get("spec") or {}).get("taints") or () if one.get("effect") == "NoExecute"]


def _taints_changed(change: Change) -> bool:
    if change.old is None or change.event != "MODIFIED":
        return True
    return taints_of(change.old.encoded) != taints_of(change.new.encoded)


def _node_or_tolerations_changed(change: Change) -> bool:
    """Bound just now, or told to tolerate more: both change the spec, and with it the generation."""
    if change.event == "DELETED":
        return False
    return change.old is None or change.old.generation != change.new.generation or not change.new.generation
