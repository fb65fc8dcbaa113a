"""Finalizers: being asked before an object is gone.

An operator that has something to clean up outside the API puts its finalizer on the object before it makes that
something, and takes it off when the clean-up is done. Both write only when there is something to write, guarded by the
object's version, and look again when somebody else was faster.
"""

from __future__ import annotations

from typing import Final

from fleetplane.client.protocol import Client
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, finalizers, is_deleting, metadata
from fleetplane.model.resources import ResourceRef

ATTEMPTS: Final = 5


async def add_finalizer(client: Client, resource: ResourceRef, obj: Object, name: str) -> Object:
    """The object with the finalizer. One that is being deleted can get none and is returned as it is."""
    for _ in range(ATTEMPTS):
        if name in finalizers(obj) or is_deleting(obj):
            return obj
        try:
            return await _write(client, resource, obj, [*finalizers(obj), name])
        except ApiError as error:
            if error.code != 409:
                raise
        obj = await client.get(resource, metadata(obj)["name"], metadata(obj).get("namespace"))
    raise ApiError(409, f"finalizer {name}: the object kept changing; trying again later")


async def remove_finalizer(client: Client, resource: ResourceRef, obj: Object, name: str) -> None:
    """Take the finalizer off; fine if the object or the finalizer is gone already."""
    for _ in range(ATTEMPTS):
        if name not in finalizers(obj):
            return
        try:
            await _write(client, resource, obj, [one for one in finalizers(obj) if one != name])
        except ApiError as error:
            if error.code == 404:
                return
            if error.code != 409:
                raise
        else:
            return
        try:
            obj = await client.get(resource, metadata(obj)["name"], metadata(obj).get("namespace"))
        except ApiError as error:
            if error.code == 404:
                return
            raise
    raise ApiError(409, f"finalizer {name}: the object kept changing; trying again later")


async def _write(client: Client, resource: ResourceRef, obj: Object, wanted: list[str]) -> Object:
    meta = metadata(obj)
    guard = {"uid": meta.get("uid"), "resourceVersion": meta.get("resourceVersion")}
    patch = {"metadata": {**guard, "finalizers": wanted}}
    return await client.patch(resource, meta["name"], patch, meta.get("namespace"), type="merge")
