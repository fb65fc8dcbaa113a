"""The claims of a StatefulSet's pods: made before the pod, and given owners where the retention policy says so.

``whenDeleted: Delete`` makes the set an owner, ``whenScaled: Delete`` the pod that is being scaled away; the garbage
collector does the rest (KEP-1847).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.client.informer import Informer
from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata, name, namespace, uid
from fleetplane.model.resources import ResourceType
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.pods import Pod
from fleetplane.workloads.statefulset.identity import claim_name, new_claims

_DELETE: Final = "Delete"


class Claims:
    def __init__(self, actor: Actor, informer: Informer) -> None:
        self._actor = actor
        self._informer = informer

    async def ensure(self, cluster: str, owner: Object, ordinal: int) -> None:
        """Makes what is missing. Raises ApiError."""
        for claim in new_claims(owner, ordinal):
            if self._informer.get(name(claim), namespace(claim), cluster=cluster) is not None:
                continue
            pod = f"{name(owner)}-{ordinal}"
            told = f"create Claim {name(claim)} Pod {pod} in StatefulSet {name(owner)}"
            try:
                await self._actor.client(cluster).create(PERSISTENT_VOLUME_CLAIMS, claim, namespace(claim))
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    continue
                self._actor.tell(cluster, owner, "Warning", "FailedCreate", f"{told} failed error: {error.message}")
                raise
            self._actor.tell(cluster, owner, "Normal", "SuccessfulCreate", f"{told} success")

    async def own(self, cluster: str, owner: Object, ordinal: int, condemned: Pod | None) -> None:
        """Brings owner references of one pod's claims in line with the policy. ``condemned``: it is scaled away."""
        policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy")
        if policy is None:
            return
        for template in owner["spec"].get("volumeClaimTemplates") or []:
            found = self._informer.get(claim_name(template, owner, ordinal), namespace(owner), cluster=cluster)
            if found is not None:
                await self._set_owners(cluster, found, _wanted_owners(owner, ordinal, condemned, policy, found))

    async def _set_owners(self, cluster: str, claim: Object, wanted: list[Object]) -> None:
        meta = metadata(claim)
        if wanted == (meta.get("ownerReferences") or []):
            return
        guard = {"uid": uid(claim), "resourceVersion": meta.get("resourceVersion")}
        patch = {"metadata": {**guard, "ownerReferences": wanted or None}}
        client = self._actor.client(cluster)
        await client.patch(PERSISTENT_VOLUME_CLAIMS, name(claim), patch, namespace(claim))


def _wanted_owners(
    owner: Object, ordinal: int, condemned: Pod | None, policy: Mapping[str, Any], claim: Object
) -> list[Object]:
    """What others put there stays."""
    pod_name = f"{name(owner)}-{ordinal}"
    ours = {(STATEFUL_SETS.kind, name(owner)), (PODS.kind, pod_name)}
    references = metadata(claim).get("ownerReferences") or []
    kept = [one for one in references if (one.get("kind"), one.get("name")) not in ours]
    if condemned is not None and policy.get("whenScaled") == _DELETE:
        return [*kept, _reference(PODS, condemned.name, condemned.uid)]
    if policy.get("whenDeleted") == _DELETE:
        return [*kept, _reference(STATEFUL_SETS, name(owner), uid(owner))]
    return kept


def _reference(resource: ResourceType, owner_name: str, owner_uid: str) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "name": owner_name, "uid": owner_uid}
