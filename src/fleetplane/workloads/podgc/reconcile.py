"""Looks over all pods now and then and removes what no node and no controller will.

* pods bound to a node that has not existed for forty seconds (it may only be registering anew);
* pods that are being deleted and were never bound;
* pods that ended, the oldest first, when there are more than twelve thousand of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.model.builtin.types import NAMESPACES, NODES, PODS
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import resource_version
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.conditions import make, without
from fleetplane.workloads.shared.nodecache import NodeCache
from fleetplane.workloads.shared.nodepods import NodePods
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.pods import Pod

KEY: Final = Request("", "", "all pods")
PERIOD: Final = 20.0
QUARANTINE: Final = 40.0
MOST_ENDED: Final = 12_500


class PodCollection:
    def __init__(self, actor: Actor, pods: PodCache, node_pods: NodePods, nodes: NodeCache) -> None:
        self._actor = actor
        self._pods = pods
        self._node_pods = node_pods
        self._nodes = nodes
        self._missing: dict[tuple[str, str], float] = {}

    def controller(self) -> Controller:
        return Controller(
            "pod-garbage-collector",
            NODES,
            self.reconcile,
            predicate=lambda change: change.event == "DELETED",
            watches=[Watch(NAMESPACES, _wake), Watch(NODES, _wake, predicate=lambda change: change.event == "DELETED")],
            max_concurrent=1,
            resync=None,
        )

    async def reconcile(self, request: Request) -> Result | None:
        if request != KEY:
            return None
        await self._of_missing_nodes()
        await self._never_bound()
        await self._ended()
        return Result(requeue_after=PERIOD)

    async def _of_missing_nodes(self) -> None:
        now = self._actor.environment.monotonic()
        gone = {key for key in self._node_pods.nodes() if key[1] not in self._nodes.of(key[0])}
        self._missing = {key: self._missing.get(key, now) for key in gone}
        for (cluster, node), since in list(self._missing.items()):
            if now - since < QUARANTINE or await self._node_exists(cluster, node):
                continue
            for key in self._node_pods.on(cluster, node):
                await self._remove_orphan(key)

    async def _node_exists(self, cluster: str, node: str) -> bool:
        try:
            await self._actor.client(cluster).get(NODES, node)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return True

    async def _remove_orphan(self, key: ObjectKey) -> None:
        """Says on the pod why it goes, so that a Job's failure policy can tell it from the pod's own failing."""
        pod = self._pods.informer.get_key(key)
        if pod is None:
            return
        if (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}:
            why = "PodGC: node no longer exists"
            made = make("DisruptionTarget", "True", "DeletionByPodGC", why, timestamp(self._actor.environment.now()))
            others = without((pod.get("status") or {}).get("conditions"), "DisruptionTarget")
            status = {"phase": "Failed", "conditions": [*others, made]}
            patch = {"metadata": {"resourceVersion": resource_version(pod)}, "status": status}
            client = self._actor.client(key.cluster)
            try:
                await client.patch(PODS, key.name, patch, key.namespace, subresource="status")
            except ApiError as error:
                if error.code in {404, 409}:
                    return
                raise
        await self._delete(key, pod["metadata"]["uid"])

    async def _never_bound(self) -> None:
        for key, pod in self._pods.items():
            if pod.deleting and not pod.node:
                await self._delete(key, pod.uid)

    async def _ended(self) -> None:
        ended: list[tuple[ObjectKey, Pod]] = [
            (key, pod) for key, pod in self._pods.items() if pod.is_terminal and not pod.deleting
        ]
        if len(ended) <= MOST_ENDED:
            return
        ended.sort(key=lambda one: one[1].created)
        for key, pod in ended[: len(ended) - MOST_ENDED]:
            await self._delete(key, pod.uid)

    async def _delete(self, key: ObjectKey, uid: str) -> None:
        try:
            await self._actor.client(key.cluster).delete(PODS, key.name, key.namespace, uid=uid, grace_period_seconds=0)
        except ApiError as error:
            if error.code not in {404, 409}:
                raise


def _wake(_: Snapshot) -> Iterable[Request]:
    return (KEY,)
