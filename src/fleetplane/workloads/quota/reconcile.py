"""Counts what a namespace uses, and writes it into its quotas.

Pods, claims and Services come from caches; anything else that a quota counts is asked of the server, which can tell how
many there are without listing them. What wakes a quota is a change of something in its namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from fleetplane.client.discovery import Discovery
from fleetplane.client.informer import Change, Informer
from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS, PODS, RESOURCE_QUOTAS, SERVICES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting
from fleetplane.model.resources import ResourceType
from fleetplane.workloads.quota import usage
from fleetplane.workloads.scheduler.shape import Amounts, add
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.podcache import PodCache

NAME: Final = "resourcequota"
_CACHED: Final = frozenset({"pods", "services", "persistentvolumeclaims"})
_PLAIN_COUNTS: Final = frozenset({"configmaps", "secrets", "replicationcontrollers", "resourcequotas"})
_LATEST: Final = 30.0
"""Seconds after which counts that nothing tells us about are taken again."""


class Quotas:
    def __init__(self, actor: Actor, quotas: Informer, pods: PodCache, services: Informer, claims: Informer) -> None:
        self._actor = actor
        self._quotas = quotas
        self._pods = pods
        self._services = services
        self._claims = claims
        self._spaces: dict[tuple[str, str], set[ObjectKey]] = {}
        self._uses: dict[str, tuple[int, Amounts]] = {}
        self._discoveries: dict[str, Discovery] = {}
        quotas.add_handler(self._see_quota)
        pods.informer.add_handler(self._see_pod)

    def controller(self) -> Controller:
        watches = [Watch(PODS, self.of_namespace, predicate=_use_changed)]
        watches += [Watch(one, self.of_namespace) for one in (SERVICES, PERSISTENT_VOLUME_CLAIMS)]
        return Controller(NAME, RESOURCE_QUOTAS, self.reconcile, watches=watches, max_concurrent=2, resync=None)

    def in_namespace(self, cluster: str, namespace: str) -> Iterable[Request]:
        """The quotas to look at when something in the namespace changed."""
        return tuple(self._spaces.get((cluster, namespace), ()))

    def of_namespace(self, changed: Snapshot) -> Iterable[Request]:
        return self.in_namespace(changed.key.cluster, changed.key.namespace)

    def _see_quota(self, change: Change) -> None:
        key = change.new.key
        found = self._spaces.setdefault((key.cluster, key.namespace), set())
        if change.event != "DELETED":
            found.add(key)
            return
        found.discard(key)
        if not found:
            del self._spaces[key.cluster, key.namespace]

    def _see_pod(self, change: Change) -> None:
        if change.event == "DELETED":
            self._uses.pop(change.new.uid, None)

    async def reconcile(self, request: Request) -> Result | None:
        quota = self._quotas.get_key(request)
        if quota is None or is_deleting(quota):
            return None
        hard = (quota.get("spec") or {}).get("hard") or {}
        used = usage.total(self._pod_uses(request, quota))
        others: list[tuple[str, ResourceType]] = []
        if not usage.has_scopes(quota):
            space = request.namespace
            for claim in self._claims.snapshots(space, cluster=request.cluster):
                add(used, usage.claim_use(orjson.loads(claim.encoded)))
            for service in self._services.snapshots(space, cluster=request.cluster):
                add(used, usage.service_use(orjson.loads(service.encoded)))
            others = await self._counted(request.cluster, hard)
            for name, resource in others:
                used[name] = await _count(self._actor.client(request.cluster), resource, space)
        await self._actor.write_status(request.cluster, RESOURCE_QUOTAS, quota, usage.status(quota, used))
        return Result(requeue_after=_LATEST) if others else None

    def _pod_uses(self, request: Request, quota: Object) -> Iterable[Amounts]:
        scoped = usage.has_scopes(quota)
        for pod in self._pods.in_namespace(request.cluster, request.namespace):
            snapshot = self._pods.informer.snapshot(ObjectKey(request.cluster, pod.namespace, pod.name))
            if snapshot is None or pod.is_terminal:
                continue
            if scoped and not usage.counts_for(quota, orjson.loads(snapshot.encoded)):
                continue
            known = self._uses.get(pod.uid)
            # What a pod asks for stands in its spec; the generation tells whether that changed.
            if known is None or known[0] != snapshot.generation or not snapshot.generation:
                known = (snapshot.generation, usage.pod_use(orjson.loads(snapshot.encoded)))
                self._uses[pod.uid] = known
            yield known[1]

    async def _counted(self, cluster: str, hard: Object) -> list[tuple[str, ResourceType]]:
        """Resources of which the quota counts objects that no cache here holds."""
        found = []
        for name in hard:
            plain = name.removeprefix("count/")
            if (name == plain and name not in _PLAIN_COUNTS) or plain in _CACHED:
                continue
            discovery = self._discoveries.setdefault(
                cluster, Discovery(self._actor.client(cluster), self._actor.environment)
            )
            try:
                found.append((name, (await discovery.find(plain)).type))
            except ApiError as error:
                if error.code != 404:
                    raise
        return found


async def _count(client: Client, resource: ResourceType, namespace: str) -> int:
    page = await client.list(resource, namespace, limit=1)
    if not page.continue_:
        return len(page.items)
    if page.remaining is not None:
        return len(page.items) + page.remaining
    return sum([1 async for _ in client.iterate(resource, namespace)])


def _use_changed(change: Change) -> bool:
    """Its coming, its going, its end, or a change of its spec; not the rest of its life."""
    if change.old is None or change.event != "MODIFIED":
        return True
    if change.old.generation != change.new.generation or not change.new.generation:
        return True
    return _phase_is_final(change.old) != _phase_is_final(change.new)


def _phase_is_final(pod: Snapshot) -> bool:
    return b'"phase":"Succeeded"' in pod.encoded or b'"phase":"Failed"' in pod.encoded
