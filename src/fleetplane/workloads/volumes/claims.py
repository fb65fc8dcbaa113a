"""Binds claims: finds a volume, has one made, or says why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller.controller import Controller, Request, Watch
from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, metadata, name, namespace, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.nodecache import NodeCache
from fleetplane.workloads.volumes import hostpath, matching


class ClaimBinder:
    def __init__(self, actor: Actor, claims: Informer, volumes: Informer, classes: Informer, nodes: NodeCache) -> None:
        self._actor = actor
        self._claims = claims
        self._volumes = volumes
        self._classes = classes
        self._nodes = nodes

    def controller(self) -> Controller:
        return Controller(
            "persistent-volume-binder",
            PERSISTENT_VOLUME_CLAIMS,
            self.reconcile,
            predicate=lambda _: True,
            watches=[Watch(PERSISTENT_VOLUMES, self._of_volume), Watch(STORAGE_CLASSES, self._of_class)],
            max_concurrent=2,
            resync=None,
        )

    async def reconcile(self, request: Request) -> None:
        claim = self._claims.get_key(request)
        if claim is None or is_deleting(claim):
            return
        cluster = request.cluster
        wanted = claim["spec"].get("volumeName")
        if wanted:
            await self._keep_bound(cluster, claim, self._volumes.get(wanted, cluster=cluster))
            return
        storage_class = (
            self._classes.get(matching.class_of(claim), cluster=cluster) if matching.class_of(claim) else None
        )
        waits = matching.is_delayed(storage_class) and matching.SELECTED_NODE not in annotations_of(claim)
        volumes = self._volumes.list(cluster=cluster)
        volume = matching.best(volumes, claim, only_reserved=waits)
        if volume is not None:
            await self._bind(cluster, claim, volume)
        elif waits:
            text = "waiting for first consumer to be created before binding"
            self._actor.tell(cluster, claim, "Normal", "WaitForFirstConsumer", text)
            await self._say(cluster, claim, {"phase": "Pending"})
        else:
            await self._provision(cluster, claim, storage_class)

    # binding

    async def _keep_bound(self, cluster: str, claim: Object, volume: Object | None) -> None:
        if volume is None:
            if matching.is_bound(claim):
                text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
                if (claim.get("status") or {}).get("phase") != "Lost":
                    self._actor.tell(cluster, claim, "Warning", "ClaimLost", text)
                await self._say(cluster, claim, {"phase": "Lost"})
            else:
                await self._say(cluster, claim, {"phase": "Pending"})
            return
        if volume["spec"].get("claimRef") and not matching.claimed_by(volume, claim):
            if matching.is_bound(claim):
                text = f"two claims are bound to the same volume, this one is bound incorrectly: {name(volume)}"
                self._actor.tell(cluster, claim, "Warning", "ClaimMisbound", text)
                await self._say(cluster, claim, {"phase": "Lost"})
            else:
                text = f'volume "{name(volume)}" already bound to a different claim.'
                self._actor.tell(cluster, claim, "Warning", "FailedBinding", text)
            return
        await self._bind(cluster, claim, volume)

    async def _bind(self, cluster: str, claim: Object, volume: Object) -> None:
        """Volume first, then claim: a crash in between leaves a volume that is reserved for the claim."""
        client = self._actor.client(cluster)
        reference = volume["spec"].get("claimRef") or {}
        if reference.get("uid") != uid(claim):
            notes = {} if reference else {matching.BOUND_BY_US: "yes"}
            guard = {"resourceVersion": metadata(volume).get("resourceVersion"), "annotations": notes}
            patch = {"metadata": guard, "spec": {"claimRef": matching.claim_reference(claim)}}
            volume = await client.patch(PERSISTENT_VOLUMES, name(volume), patch)
        if (volume.get("status") or {}).get("phase") != "Bound":
            await client.patch(PERSISTENT_VOLUMES, name(volume), {"status": {"phase": "Bound"}}, subresource="status")
        if not matching.is_bound(claim) or claim["spec"].get("volumeName") != name(volume):
            notes = {matching.BIND_COMPLETED: "yes"}
            if not claim["spec"].get("volumeName"):
                notes[matching.BOUND_BY_US] = "yes"
            guard = {"resourceVersion": metadata(claim).get("resourceVersion"), "annotations": notes}
            patch = {"metadata": guard, "spec": {"volumeName": name(volume)}}
            claim = await client.patch(PERSISTENT_VOLUME_CLAIMS, name(claim), patch, namespace(claim))
        found: Object = {
            "phase": "Bound",
            "accessModes": list(volume["spec"].get("accessModes") or ()),
            "capacity": dict(volume["spec"].get("capacity") or {}),
        }
        await self._say(cluster, claim, found)

    async def _say(self, cluster: str, claim: Object, changes: dict[str, Any]) -> None:
        status = {**(claim.get("status") or {}), **changes}
        await self._actor.write_status(cluster, PERSISTENT_VOLUME_CLAIMS, claim, status)

    # making

    async def _provision(self, cluster: str, claim: Object, storage_class: Object | None) -> None:
        await self._say(cluster, claim, {"phase": "Pending"})
        if storage_class is None:
            self._tell_no_class(cluster, claim)
            return
        provisioner = str(storage_class.get("provisioner") or "")
        if provisioner == matching.NO_PROVISIONER:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._actor.tell(cluster, claim, "Normal", "FailedBinding", text)
            return
        if annotations_of(claim).get(matching.STORAGE_PROVISIONER) != provisioner:
            patch = {"metadata": {"annotations": {matching.STORAGE_PROVISIONER: provisioner}}}
            client = self._actor.client(cluster)
            claim = await client.patch(PERSISTENT_VOLUME_CLAIMS, name(claim), patch, namespace(claim))
        if provisioner != hostpath.PROVISIONER:
            text = (
                f"Waiting for a volume to be created either by the external provisioner '{provisioner}' "
                "or manually by the system administrator. If volume creation is delayed, please verify that the "
                "provisioner is running and correctly registered."
            )
            self._actor.tell(cluster, claim, "Normal", "ExternalProvisioning", text)
            return
        await self._make(cluster, claim, storage_class)

    def _tell_no_class(self, cluster: str, claim: Object) -> None:
        if wanted := matching.class_of(claim):
            text = f'storageclass.storage.k8s.io "{wanted}" not found'
            self._actor.tell(cluster, claim, "Warning", "ProvisioningFailed", text)
        else:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._actor.tell(cluster, claim, "Normal", "FailedBinding", text)

    async def _make(self, cluster: str, claim: Object, storage_class: Object) -> None:
        node = self._nodes.of(cluster).get(annotations_of(claim).get(matching.SELECTED_NODE, ""))
        volume = hostpath.make(claim, storage_class, node)
        try:
            await self._actor.create_child(cluster, PERSISTENT_VOLUMES, volume)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return
            text = f'failed to provision volume with StorageClass "{name(storage_class)}": {error.message}'
            self._actor.tell(cluster, claim, "Warning", "ProvisioningFailed", text)
            raise
        text = f"Successfully provisioned volume {name(volume)}"
        self._actor.tell(cluster, claim, "Normal", "ProvisioningSucceeded", text)

    # what else wakes a claim

    def _of_volume(self, volume: Snapshot) -> Iterable[Request]:
        """The claim it is reserved for; a free volume may suit any claim that waits for one."""
        cluster = volume.key.cluster
        reference = (volume.object.get("spec") or {}).get("claimRef")
        if reference:
            return [Request(cluster, str(reference.get("namespace")), str(reference.get("name")))]
        return self._waiting(cluster)

    def _of_class(self, storage_class: Snapshot) -> Iterable[Request]:
        return self._waiting(storage_class.key.cluster)

    def _waiting(self, cluster: str) -> list[Request]:
        found = self._claims.snapshots(cluster=cluster)
        return [one.key for one in found if not (one.object.get("spec") or {}).get("volumeName")]
