"""Does what plans say: the few writes that all built-in controllers make, each only when something differs.

Writes go through the manager's client, so what they return is in the informers before the next line runs. A write
whose answer was lost is looked up before anything is done again: names are chosen here, never by the server.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Literal

from fleetplane.client.discovery import Discovery
from fleetplane.client.protocol import CLUSTER_ANNOTATION, Client, Unreachable
from fleetplane.controller.events import EventRecorder
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, is_deleting, metadata, name, namespace, uid
from fleetplane.model.resources import ResourceType
from fleetplane.workloads.shared.ownership import Claims, adoption_patch, release_patch
from fleetplane.workloads.shared.templates import same_meaning

ATTEMPTS: Final = 3
REMEMBERED_CATALOGUES: Final = 16
_BETWEEN_ATTEMPTS: Final = 0.05


class Actor:
    """``client`` reads and writes any cluster; ``events`` tells people."""

    def __init__(self, client: Client, environment: Environment, events: EventRecorder) -> None:
        self.environment = environment
        self._client = client
        self._events = events
        self._discoveries: OrderedDict[str, Discovery] = OrderedDict()

    def client(self, cluster: str) -> Client:
        return self._client.in_cluster(cluster)

    def discovery(self, cluster: str) -> Discovery:
        """What the cluster serves. Only the clusters asked about lately are remembered: catalogues are large."""
        found = self._discoveries.get(cluster)
        if found is None:
            found = self._discoveries[cluster] = Discovery(self.client(cluster), self.environment)
            while len(self._discoveries) > REMEMBERED_CATALOGUES:
                self._discoveries.popitem(last=False)
        self._discoveries.move_to_end(cluster)
        return found

    @property
    def all_clusters(self) -> Client:
        """For lists and watches over every cluster."""
        return self._client

    def tell(
        self, cluster: str, obj: Mapping[str, Any], kind: Literal["Normal", "Warning"], reason: str, message: str
    ) -> None:
        """An event on ``obj``. Objects that we wrote ourselves do not carry their cluster, so it is named."""
        meta = metadata(obj)
        marked = {**(meta.get("annotations") or {}), CLUSTER_ANNOTATION: cluster}
        self._events.event({**obj, "metadata": {**meta, "annotations": marked}}, kind, reason, message)

    async def write_status(self, cluster: str, resource: ResourceType, obj: Object, status: Object) -> None:
        """Makes ``status`` the whole status; refused (409) when ``obj`` is not the latest."""
        current = obj.get("status") or {}
        if same_meaning(current, status):
            return
        patch = {
            "metadata": {"resourceVersion": metadata(obj).get("resourceVersion")},
            "status": merge_difference(current, status),
        }
        await self.client(cluster).patch(resource, name(obj), patch, namespace(obj) or None, subresource="status")

    async def create_child(self, cluster: str, resource: ResourceType, obj: Object) -> Object:
        """Creates an object under its given name; the same one made by an earlier attempt is as good.

        Raises ApiError: 409 AlreadyExists when somebody else's object has the name, or what the server says.
        """
        client = self.client(cluster)
        for attempt in range(ATTEMPTS):
            try:
                return await client.create(resource, obj, namespace(obj) or None)
            except Unreachable:
                if attempt + 1 == ATTEMPTS:
                    raise
            except ApiError as error:
                if error.code != 409 or not attempt:
                    raise
                found = await client.get(resource, name(obj), namespace(obj) or None)
                if controller_of(found) != controller_of(obj):
                    raise
                return found
            await asyncio.sleep(_BETWEEN_ATTEMPTS)
        raise AssertionError("unreachable")

    async def delete(
        self, cluster: str, resource: ResourceType, obj_namespace: str, obj_name: str, obj_uid: str
    ) -> bool:
        """Deletes exactly this object; False when it is gone already."""
        try:
            await self.client(cluster).delete(
                resource, obj_name, obj_namespace or None, uid=obj_uid, propagation="Background"
            )
        except ApiError as error:
            if error.code in {404, 409}:
                return False
            raise
        return True

    async def may_adopt(self, cluster: str, resource: ResourceType, owner: Object) -> bool:
        """Whether the owner still exists and stays, asked of the server: adopting for a dead owner kills the adopted."""
        try:
            fresh = await self.client(cluster).get(resource, name(owner), namespace(owner) or None)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return uid(fresh) == uid(owner) and not is_deleting(fresh)

    async def settle_claims(
        self,
        cluster: str,
        owner_resource: ResourceType,
        owner: Object,
        reference: Object,
        claims: Claims,
        resource: ResourceType,
    ) -> list[Object]:
        """Adopts and releases; the objects that are the owner's afterwards."""
        client = self.client(cluster)
        owned = list(claims.owned)
        for one in claims.release:
            await self._patch_if_there(client, resource, one, release_patch(one, uid(owner)))
        if claims.adopt and await self.may_adopt(cluster, owner_resource, owner):
            for one in claims.adopt:
                adopted = await self._patch_if_there(client, resource, one, adoption_patch(one, reference))
                if adopted is not None:
                    owned.append(adopted)
        return owned

    @staticmethod
    async def _patch_if_there(client: Client, resource: ResourceType, one: Object, patch: Object) -> Object | None:
        try:
            return await client.patch(resource, name(one), patch, namespace(one) or None)
        except ApiError as error:
            if error.code in {404, 422}:
                return None
            raise


def is_namespace_ending(error: ApiError) -> bool:
    """Creating was refused because the namespace is being deleted: nothing to tell anyone."""
    return error.code == 403 and any(cause.reason == "NamespaceTerminating" for cause in error.causes)


def merge_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """The merge patch (RFC 7386) that turns ``old`` into exactly ``new``."""
    difference: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        known = old.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            if inner := merge_difference(known, value):
                difference[key] = inner
        elif known != value or key not in old:
            difference[key] = value
    return difference
