"""Writing status: only what differs, only when something does.

A status is given as the fields an operator answers for; fields of others stay. The patch carries the version it was
computed from, because lists (conditions) are replaced whole: when somebody else wrote meanwhile, the object is read
again and the difference computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fleetplane.client.protocol import Client
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata
from fleetplane.model.resources import ResourceRef

ATTEMPTS: Final = 5

StatusChange = Mapping[str, Any] | Callable[[Object], Mapping[str, Any]]
"""The fields that should hold (``None`` removes one), or a function from the current status to them."""


async def update_status(client: Client, resource: ResourceRef, obj: Object, change: StatusChange) -> Object:
    """Make the status say so. Returns the object as it then is; raises what the server says, 404 included."""
    for _ in range(ATTEMPTS):
        current = obj.get("status") or {}
        wanted = change(current) if callable(change) else change
        if not (difference := status_difference(current, wanted)):
            return obj
        meta = metadata(obj)
        patch = {"metadata": {"resourceVersion": meta.get("resourceVersion")}, "status": difference}
        try:
            return await client.patch(resource, meta["name"], patch, meta.get("namespace"), subresource="status")
        except ApiError as error:
            if error.code != 409:
                raise
        obj = await client.get(resource, meta["name"], meta.get("namespace"))
        if metadata(obj).get("uid") != meta.get("uid"):
            raise ApiError(404, f"{meta['name']} was deleted and made anew; its status is another's")
    raise ApiError(409, "status: the object kept changing; trying again later")


def status_difference(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> Object:
    """The merge patch (RFC 7386) that makes ``wanted`` hold; empty when it does. Mappings are compared by field."""
    difference: Object = {}
    for key, value in wanted.items():
        known = current.get(key)
        if value is None:
            if key in current:
                difference[key] = None
        elif isinstance(value, Mapping) and isinstance(known, Mapping):
            if inner := status_difference(known, value):
                difference[key] = inner
        elif known != value or key not in current:
            difference[key] = value
    return difference
