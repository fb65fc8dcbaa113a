"""Watches over nodes: notes who falls silent, keeps their taints, and tells their pods.

Signs of life are renewals of the node's Lease and heartbeats in its status. What counts is when *we* saw the sign
change, by our own clock: clocks of nodes may be wrong. A thousand renewals a second must cost next to nothing, so a
renewal only moves a number; the node is looked at when its time would be up.
"""

from __future__ import annotations

from typing import Final

import orjson

from fleetplane.client.informer import Change, Informer
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller.controller import Controller, Request, Result
from fleetplane.controller.predicates import any_change
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, condition, labels, name, resource_version
from fleetplane.workloads.nodes import health
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.conditions import without
from fleetplane.workloads.shared.nodecache import NodeCache
from fleetplane.workloads.shared.nodepods import NodePods
from fleetplane.workloads.shared.templates import same_meaning

LEASE_NAMESPACE: Final = "kube-node-lease"
VIRTUAL: Final = "fleetplane.io/virtual-node"
"""Label of a Node that stands for a node of the host cluster; nobody here renews its lease."""


class NodeLifecycle:
    def __init__(self, actor: Actor, nodes: NodeCache, leases: Informer, pods: NodePods) -> None:
        self._actor = actor
        self._cache = nodes
        self._nodes = nodes.informer
        self._pods = pods
        self._alive: dict[tuple[str, str], float] = {}
        self._heartbeats: dict[tuple[str, str], str] = {}
        self._known: dict[tuple[str, str], str] = {}
        leases.add_handler(self._see_lease)
        self._nodes.add_handler(self._see_node)

    def controller(self) -> Controller:
        # Conditions are status, and here they are what matters.
        return Controller("node-lifecycle", NODES, self.reconcile, predicate=any_change, max_concurrent=8, resync=None)

    # signs of life

    def _see_lease(self, change: Change) -> None:
        key = change.new.key
        if change.event != "DELETED":
            self._alive[key.cluster, key.name] = self._actor.environment.monotonic()

    def _see_node(self, change: Change) -> None:
        key = (change.new.key.cluster, change.new.key.name)
        if change.event == "DELETED":
            for table in (self._alive, self._heartbeats, self._known):
                table.pop(key, None)
            return
        ready = condition(orjson.loads(change.new.encoded), "Ready") or {}
        beat = str(ready.get("lastHeartbeatTime") or "") if ready.get("status") != "Unknown" else ""
        if beat and self._heartbeats.get(key) != beat:
            self._heartbeats[key] = beat
            self._alive[key] = self._actor.environment.monotonic()
        self._alive.setdefault(key, self._actor.environment.monotonic())

    def _time_left(self, node: Object, key: tuple[str, str]) -> float:
        """Seconds until the node counts as silent. Images of another cluster's nodes have their health from there."""
        if VIRTUAL in labels(node):
            return health.GRACE_SECONDS
        grace = health.GRACE_SECONDS if condition(node, "Ready") is not None else health.STARTUP_GRACE_SECONDS
        now = self._actor.environment.monotonic()
        return self._alive.get(key, now) + grace - now

    # looking after one node

    async def reconcile(self, request: Request) -> Result | None:
        found = self._nodes.snapshot(request)
        if found is None:
            return None
        node: Object = {"apiVersion": "v1", "kind": "Node", **orjson.loads(found.encoded)}
        key = (request.cluster, request.name)
        left = self._time_left(node, key)
        if left <= 0:
            node = await self._mark_silent(request.cluster, node)
        node = await self._keep_taints(request.cluster, node)
        await self._tell_pods(request.cluster, node, key)
        return Result(requeue_after=left if left > 0 else health.GRACE_SECONDS)

    async def _mark_silent(self, cluster: str, node: Object) -> Object:
        found = health.silence(node, self._actor.environment.now())
        if same_meaning((node.get("status") or {}).get("conditions"), found.conditions):
            return node
        patch = {"metadata": {"resourceVersion": resource_version(node)}, "status": {"conditions": found.conditions}}
        return await self._actor.client(cluster).patch(NODES, name(node), patch, subresource="status")

    async def _keep_taints(self, cluster: str, node: Object) -> Object:
        somebody_is_ready = any(one["ready"] for one in self._cache.of(cluster).values())
        wanted = health.taints(node, self._actor.environment.now(), evict=somebody_is_ready)
        if wanted == ((node.get("spec") or {}).get("taints") or []):
            return node
        patch = {"metadata": {"resourceVersion": resource_version(node)}, "spec": {"taints": wanted or None}}
        return await self._actor.client(cluster).patch(NODES, name(node), patch)

    async def _tell_pods(self, cluster: str, node: Object, key: tuple[str, str]) -> None:
        """When a node stops being ready, so do its pods: Services must not send anyone there."""
        ready = health.readiness(node)
        if self._known.get(key) == ready:
            return
        if ready != "True" and condition(node, "Ready") is not None:
            if self._known.get(key) == "True":
                reason = f"Node {name(node)} status is now: NodeNotReady"
                self._actor.tell(cluster, node, "Normal", "NodeNotReady", reason)
            for pod_key in self._pods.on(cluster, name(node)):
                await self._mark_not_ready(pod_key)
        self._known[key] = ready

    async def _mark_not_ready(self, key: ObjectKey) -> None:
        pod = self._pods.informer.get_key(key)
        ready = condition(pod, "Ready") if pod is not None else None
        if pod is None or ready is None or ready.get("status") != "True":
            return
        now = timestamp(self._actor.environment.now())
        changed = {**ready, "status": "False", "lastTransitionTime": now}
        others = without((pod.get("status") or {}).get("conditions"), "Ready")
        patch = {"metadata": {"resourceVersion": resource_version(pod)}, "status": {"conditions": [*others, changed]}}
        try:
            await self._actor.client(key.cluster).patch(PODS, key.name, patch, key.namespace, subresource="status")
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
            return
        self._actor.tell(key.cluster, pod, "Warning", "NodeNotReady", "Node is not ready")
