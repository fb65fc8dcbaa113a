"""Which pods are an owner's: those it owns and selects, and orphans that it selects and adopts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetplane.client.snapshot import ObjectKey
from fleetplane.model.builtin.types import PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, metadata, namespace, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.ownership import adoption_patch, release_patch
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.pods import Pod


async def claim_pods(
    actor: Actor,
    cache: PodCache,
    cluster: str,
    resource: ResourceType,
    owner: Object,
    reference: Object,
    selector: LabelSelector,
) -> list[Pod]:
    """The owner's pods after adopting and releasing. An owner that is being deleted claims nothing new.

    Raises ApiError 409 when a pod changed meanwhile; the next pass decides anew.
    """
    owned = cache.owned_by(uid(owner))
    strangers = [pod for pod in owned if not selector.matches(pod.labels)]
    if is_deleting(owner):
        return [pod for pod in owned if pod not in strangers] if strangers else owned
    wanted = [pod for pod in cache.orphans(cluster, namespace(owner)) if pod.is_active and selector.matches(pod.labels)]
    if not strangers and not wanted:
        return owned
    for pod in strangers:
        await _patch(actor, cache, cluster, pod, lambda obj: release_patch(obj, uid(owner)))
    if wanted and await actor.may_adopt(cluster, resource, owner):
        for pod in wanted:
            await _patch(actor, cache, cluster, pod, lambda obj: adoption_patch(obj, reference))
    return cache.owned_by(uid(owner))


async def _patch(actor: Actor, cache: PodCache, cluster: str, pod: Pod, make: Any) -> None:
    obj: Mapping[str, Any] | None = cache.informer.get_key(ObjectKey(cluster, pod.namespace, pod.name))
    if obj is None or metadata(obj).get("uid") != pod.uid:
        return
    try:
        await actor.client(cluster).patch(PODS, pod.name, make(obj), pod.namespace)
    except ApiError as error:
        if error.code not in {404, 422}:
            raise
