"""Claims and the places they tie a pod to.

Before any node is looked at: do the pod's claims exist, and may they still be unbound? Per node: can the volumes that
are bound be reached from there, and could the others be bound there? After the choice: the claims are told which node
it is, and the pod is bound only when they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from fleetplane.client.informer import Informer
from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS
from fleetplane.model.objects import Object, is_deleting, name, resource_version, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.filters import Refusal
from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.shape import PodInfo, Shape
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.volumes import matching

RULE: Final = "VolumeBinding"
BIND_SECONDS: Final = 600.0
_UNREACHABLE: Final = Refusal(RULE, ("node(s) didn't match PersistentVolume's node affinity",), resolvable=False)
_NOTHING_TO_BIND: Final = Refusal(RULE, ("node(s) didn't find available persistent volumes to bind",), resolvable=False)
_LOOK_SECONDS: Final = 0.1


class Volumes:
    """A scheduler ``Filter``, and what comes before and after it."""

    is_local = False

    def __init__(self, actor: Actor, claims: Informer, volumes: Informer, classes: Informer) -> None:
        self._actor = actor
        self._claims = claims
        self._volumes = volumes
        self._classes = classes
        self._free_for: tuple[str, str, str, str] = ("", "", "", "")
        self._free: list[Object] = []

    def concerns(self, shape: Shape) -> bool:
        return bool(shape.claims)

    # before

    def objection(self, pod: PodInfo) -> str | None:
        """Why no node can help now."""
        for claim_name in pod.shape.claims:
            claim = self._claim(pod, claim_name)
            if claim is None:
                return f'persistentvolumeclaim "{claim_name}" not found'
            if is_deleting(claim):
                return f'persistentvolumeclaim "{claim_name}" is being deleted'
            if (claim.get("status") or {}).get("phase") == "Lost":
                return f'persistentvolumeclaim "{claim_name}" bound to non-existent persistentvolume'
            if not matching.is_bound(claim) and not matching.is_delayed(self._class(pod.cluster, claim)):
                return "pod has unbound immediate PersistentVolumeClaims"
        return None

    # per node

    def refuse(self, pod: PodInfo, node: NodeInfo, cluster: Cluster) -> Refusal | None:
        for claim_name in pod.shape.claims:
            claim = self._claim(pod, claim_name)
            if claim is None:
                return _NOTHING_TO_BIND
            if matching.is_bound(claim):
                volume = self._volumes.get(str(claim["spec"]["volumeName"]), cluster=cluster.name)
                if volume is not None and not matching.reachable_from(volume, node.name, node.labels):
                    return _UNREACHABLE
            elif not self._could_bind(cluster.name, claim, node):
                return _NOTHING_TO_BIND
        return None

    def _could_bind(self, cluster: str, claim: Object, node: NodeInfo) -> bool:
        selected = annotations_of(claim).get(matching.SELECTED_NODE)
        if selected is not None and selected != node.name:
            return False
        if self._free_volume(cluster, claim, node) is not None:
            return True
        storage_class = self._class(cluster, claim)
        if storage_class is None or storage_class.get("provisioner") == matching.NO_PROVISIONER:
            return False
        return matching.allowed_on(storage_class, node.labels)

    def _free_volume(self, cluster: str, claim: Mapping[str, Any], node: NodeInfo) -> Object | None:
        free = self._free_volumes(cluster, claim)
        return matching.best((one for one in free if matching.reachable_from(one, node.name, node.labels)), claim)

    def _free_volumes(self, cluster: str, claim: Mapping[str, Any]) -> list[Object]:
        """Volumes the claim could have; the answer serves all nodes of one pass."""
        key = (cluster, uid(claim), resource_version(claim), self._volumes.resource_version)
        if self._free_for != key:
            fitting = (one for one in self._volumes.list(cluster=cluster) if matching.fits(one, claim))
            self._free = [one for one in fitting if not one["spec"].get("claimRef") or matching.claimed_by(one, claim)]
            self._free_for = key
        return self._free

    # after

    async def prepare(self, pod: PodInfo, node: NodeInfo) -> bool:
        """Has the pod's claims bound for this node; False when that did not happen in time. Raises ApiError."""
        client = self._actor.client(pod.cluster)
        for claim_name in pod.shape.claims:
            claim = self._claim(pod, claim_name)
            if claim is None:
                return False
            if matching.is_bound(claim) or annotations_of(claim).get(matching.SELECTED_NODE) == node.name:
                continue
            notes = {matching.SELECTED_NODE: node.name}
            guard = {"resourceVersion": claim["metadata"].get("resourceVersion"), "annotations": notes}
            await client.patch(PERSISTENT_VOLUME_CLAIMS, name(claim), {"metadata": guard}, pod.namespace)
        return await self._until_bound(pod)

    async def _until_bound(self, pod: PodInfo) -> bool:
        deadline = self._actor.environment.monotonic() + BIND_SECONDS
        while self._actor.environment.monotonic() < deadline:
            claims = [self._claim(pod, claim_name) for claim_name in pod.shape.claims]
            if any(one is None for one in claims):
                return False
            if all(one is not None and matching.is_bound(one) for one in claims):
                return True
            await asyncio.sleep(_LOOK_SECONDS)
        return False

    def _claim(self, pod: PodInfo, claim_name: str) -> Object | None:
        return self._claims.get(claim_name, pod.namespace, cluster=pod.cluster)

    def _class(self, cluster: str, claim: Mapping[str, Any]) -> Object | None:
        wanted = matching.class_of(claim)
        return self._classes.get(wanted, cluster=cluster) if wanted else None
