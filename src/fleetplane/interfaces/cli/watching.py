"""Following objects for as long as one wants: list, watch, and again when the watch ends.

A watch may end at any time (a timeout, a restart, an expired revision); whoever waits for something must not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Final

from fleetplane.client.protocol import Unreachable, WatchEvent
from fleetplane.client.rest import RestClient
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, resource_version, uid
from fleetplane.model.resources import ResourceType

_CHUNK: Final = 500
_RETRY_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 60.0
"""How long a server may be gone before we give up; a restart is shorter."""


async def changes(
    client: RestClient, resource: ResourceType, namespace: str | None, *, labels: str = "", fields: str = ""
) -> AsyncGenerator[WatchEvent, None]:
    """The objects that exist as ADDED, a BOOKMARK, then every change, without end.

    After an interruption the objects are listed again: what is new or different comes as ADDED or MODIFIED, what
    disappeared meanwhile as DELETED in its last known state.
    """
    known: dict[str, Object] = {}
    version = ""
    gone_for = 0.0
    while True:
        try:
            if not version:
                found, version = await _everything(client, resource, namespace, labels, fields)
                for event in _differences(known, found):
                    yield event
                known = {uid(obj): obj for obj in found}
                yield WatchEvent("BOOKMARK", {})
            gone_for = 0.0
            stream = client.watch(
                resource, namespace, labels=labels or None, fields=fields or None, resource_version=version
            )
            async with aclosing(stream) as events:
                async for event in events:
                    version = resource_version(event.object) or version
                    if event.type == "BOOKMARK":
                        continue
                    if event.type == "DELETED":
                        known.pop(uid(event.object), None)
                    else:
                        known[uid(event.object)] = event.object
                    yield event
        except Unreachable:
            if not version or gone_for >= _PATIENCE_SECONDS:
                raise
            gone_for += _RETRY_SECONDS
        except ApiError as error:
            if error.code != 410:
                raise
            version = ""
        await asyncio.sleep(_RETRY_SECONDS)  # a server that ends watches at once must not be asked in a circle


async def _everything(
    client: RestClient, resource: ResourceType, namespace: str | None, labels: str, fields: str
) -> tuple[list[Object], str]:
    page = await client.list(resource, namespace, labels=labels or None, fields=fields or None, limit=_CHUNK)
    found = list(page.items)
    while page.continue_:
        page = await client.list(
            resource, namespace, labels=labels or None, fields=fields or None, limit=_CHUNK, continue_=page.continue_
        )
        found += page.items
    return found, page.resource_version


def _differences(known: dict[str, Object], found: Iterable[Object]) -> list[WatchEvent]:
    remaining = dict(known)
    events = []
    for obj in found:
        before = remaining.pop(uid(obj), None)
        if before is None:
            events.append(WatchEvent("ADDED", obj))
        elif resource_version(before) != resource_version(obj):
            events.append(WatchEvent("MODIFIED", obj))
    # Deletions first: what was deleted and made again under its name must not seem gone in the end.
    return [*(WatchEvent("DELETED", obj) for obj in remaining.values()), *events]
