"""Generic ephemeral volumes (KEP-1698): a claim of its own for every such volume of a pod, gone with the pod."""

from __future__ import annotations

from fleetplane.controller.controller import Controller, Request
from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS, PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, is_deleting, metadata, name, namespace, uid
from fleetplane.workloads.shared.actor import Actor, is_namespace_ending
from fleetplane.workloads.shared.ownership import owner_reference
from fleetplane.workloads.shared.podcache import PodCache


class EphemeralVolumes:
    def __init__(self, actor: Actor, pods: PodCache) -> None:
        self._actor = actor
        self._pods = pods

    def controller(self) -> Controller:
        return Controller(
            "ephemeral-volume",
            PODS,
            self.reconcile,
            predicate=lambda change: change.event == "ADDED" and b'"ephemeral"' in change.new.encoded,
            max_concurrent=2,
            resync=None,
        )

    async def reconcile(self, request: Request) -> None:
        pod = self._pods.informer.get_key(request)
        if pod is None or is_deleting(pod):
            return
        for volume in (pod.get("spec") or {}).get("volumes") or ():
            if volume.get("ephemeral"):
                await self._ensure(request.cluster, pod, volume)

    async def _ensure(self, cluster: str, pod: Object, volume: Object) -> None:
        template = volume["ephemeral"].get("volumeClaimTemplate") or {}
        meta = template.get("metadata") or {}
        claim: Object = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": f"{name(pod)}-{volume['name']}",
                "namespace": namespace(pod),
                "labels": dict(meta.get("labels") or {}),
                "annotations": dict(meta.get("annotations") or {}),
                "ownerReferences": [owner_reference(pod, PODS)],
            },
            "spec": dict(template.get("spec") or {}),
        }
        client = self._actor.client(cluster)
        try:
            await client.create(PERSISTENT_VOLUME_CLAIMS, claim, namespace(pod))
        except ApiError as error:
            if is_namespace_ending(error):
                return
            if error.reason != "AlreadyExists":
                text = f"ephemeral volume controller failed to create claim {metadata(claim)['name']}: {error.message}"
                self._actor.tell(cluster, pod, "Warning", "FailedCreate", text)
                raise
            found = await client.get(PERSISTENT_VOLUME_CLAIMS, metadata(claim)["name"], namespace(pod))
            owner = controller_of(found)
            if owner is None or owner.uid != uid(pod):
                text = f"PVC {namespace(pod)}/{name(found)} was not created for the pod"
                self._actor.tell(cluster, pod, "Warning", "FailedCreate", text)
