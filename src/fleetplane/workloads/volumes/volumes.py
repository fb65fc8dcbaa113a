"""The other side: what becomes of a volume. Free, bound, released, and deleted where its policy says so."""

from __future__ import annotations

from collections.abc import Iterable

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller.controller import Controller, Request, Watch
from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, finalizers, is_deleting, metadata, name, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.model.resources import ResourceType
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.volumes import hostpath, matching

VOLUME_FINALIZER = "kubernetes.io/pv-protection"
CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
_BY_CLAIM = "claim"


class VolumeKeeper:
    """Phases, reclaiming, and letting go of volumes that are being deleted and that no claim holds."""

    def __init__(self, actor: Actor, volumes: Informer, claims: Informer) -> None:
        self._actor = actor
        self._volumes = volumes
        self._claims = claims

    def controller(self) -> Controller:
        return Controller(
            "persistent-volumes",
            PERSISTENT_VOLUMES,
            self.reconcile,
            predicate=lambda _: True,
            watches=[Watch(PERSISTENT_VOLUME_CLAIMS, self._of_claim)],
            max_concurrent=2,
            resync=None,
        )

    async def reconcile(self, request: Request) -> None:
        volume = self._volumes.get_key(request)
        if volume is None:
            return
        reference = volume["spec"].get("claimRef")
        if not reference:
            await self._say(request.cluster, volume, "Available")
        elif reference.get("uid") and not await self._claim_exists(request.cluster, reference):
            await self._release(request.cluster, volume)
            return
        held = bool(reference and reference.get("uid"))
        if is_deleting(volume) and not held:
            await remove_finalizer(self._actor, request.cluster, PERSISTENT_VOLUMES, volume, VOLUME_FINALIZER)

    async def _claim_exists(self, cluster: str, reference: Object) -> bool:
        """Asks the server before believing that a claim is gone: data may hang on it."""
        space, claim_name = str(reference.get("namespace")), str(reference.get("name"))
        found = self._claims.get(claim_name, space, cluster=cluster)
        if found is None or uid(found) != reference.get("uid"):
            try:
                found = await self._actor.client(cluster).get(PERSISTENT_VOLUME_CLAIMS, claim_name, space)
            except ApiError as error:
                if error.code == 404:
                    return False
                raise
        return uid(found) == reference.get("uid")

    async def _release(self, cluster: str, volume: Object) -> None:
        await self._say(cluster, volume, "Released")
        ours = annotations_of(volume).get(matching.PROVISIONED_BY) == hostpath.PROVISIONER
        if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete" and ours and not is_deleting(volume):
            await self._actor.delete(cluster, PERSISTENT_VOLUMES, "", name(volume), uid(volume))
        if is_deleting(volume):
            await remove_finalizer(self._actor, cluster, PERSISTENT_VOLUMES, volume, VOLUME_FINALIZER)

    async def _say(self, cluster: str, volume: Object, phase: str) -> None:
        old = volume.get("status") or {}
        if old.get("phase") != phase:
            await self._actor.write_status(cluster, PERSISTENT_VOLUMES, volume, {**old, "phase": phase})

    def _of_claim(self, claim: Snapshot) -> Iterable[Request]:
        wanted = (claim.object.get("spec") or {}).get("volumeName")
        return [Request(claim.key.cluster, "", str(wanted))] if wanted else []


class ClaimProtection:
    """A claim that is being deleted stays until no pod uses it."""

    def __init__(self, actor: Actor, claims: Informer, pods: PodCache) -> None:
        self._actor = actor
        self._claims = claims
        self._pods = pods
        pods.informer.add_index(_BY_CLAIM, claims_of)

    def controller(self) -> Controller:
        return Controller(
            "pvc-protection",
            PERSISTENT_VOLUME_CLAIMS,
            self.reconcile,
            predicate=lambda change: change.new.is_deleting,
            watches=[
                Watch(PODS, _claims_of_pod, predicate=lambda change: change.event == "DELETED" or _ended(change.new))
            ],
            max_concurrent=2,
            resync=None,
        )

    async def reconcile(self, request: Request) -> None:
        claim = self._claims.get_key(request)
        if claim is None or not is_deleting(claim) or self._is_used(request):
            return
        await remove_finalizer(self._actor, request.cluster, PERSISTENT_VOLUME_CLAIMS, claim, CLAIM_FINALIZER)

    def _is_used(self, claim: Request) -> bool:
        key = f"{claim.cluster}/{claim.namespace}/{claim.name}"
        for snapshot in self._pods.informer.snapshots_by_index(_BY_CLAIM, key):
            pod = self._pods.get(snapshot.key)
            if pod is not None and not pod.is_terminal and (pod.node or not pod.deleting):
                return True
        return False


def _ended(pod: Snapshot) -> bool:
    return b'"phase":"Succeeded"' in pod.encoded or b'"phase":"Failed"' in pod.encoded


def claims_of(pod: Snapshot) -> Iterable[str]:
    """``cluster/namespace/claim`` for every claim the pod mounts; cheap for the many pods that mount none."""
    if b'"persistentVolumeClaim"' not in pod.encoded and b'"ephemeral"' not in pod.encoded:
        return ()
    key = pod.key
    found = []
    for volume in (pod.object.get("spec") or {}).get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            found.append(str((volume["persistentVolumeClaim"] or {}).get("claimName")))
        elif "ephemeral" in volume:
            found.append(f"{key.name}-{volume.get('name')}")
    return [f"{key.cluster}/{key.namespace}/{one}" for one in found]


def _claims_of_pod(pod: Snapshot) -> Iterable[Request]:
    return [Request(*one.split("/", 2)) for one in claims_of(pod)]


async def remove_finalizer(actor: Actor, cluster: str, resource: ResourceType, obj: Object, finalizer: str) -> None:
    if finalizer not in finalizers(obj):
        return
    kept = [one for one in finalizers(obj) if one != finalizer]
    guard = {"uid": uid(obj), "resourceVersion": metadata(obj).get("resourceVersion")}
    patch = {"metadata": {**guard, "finalizers": kept or None}}
    try:
        await actor.client(cluster).patch(resource, name(obj), patch, str(metadata(obj).get("namespace") or "") or None)
    except ApiError as error:
        if error.code != 404:
            raise
