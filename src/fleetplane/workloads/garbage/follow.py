"""Follows one resource over all clusters and hands on metadata, keeping nothing.

An informer keeps every object; the collector must not. When the server has forgotten where we were, everything is
listed again and the receiver is told what is there, so that it can work out what went meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from fleetplane.client.backoff import Backoff
from fleetplane.client.cancelling import end_if_cancelled
from fleetplane.client.protocol import CLUSTER_ANNOTATION, ROOT, Client
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.resources import ResourceType
from fleetplane.workloads.garbage.graph import Meta, Uid, decode_meta

log = logging.getLogger(__name__)

Seen = Callable[[ResourceType, str, Meta], None]
Gone = Callable[[ResourceType, str, Meta], None]
Listed = Callable[[ResourceType, set[Uid]], None]

_PAGE: Final = 500
_RETRY: Final = Backoff(base=0.2, cap=30.0)
_WATCH_SECONDS: Final = (300, 600)


class Follower:
    """``seen`` is told of every state, ``gone`` of every deletion, ``listed`` of all uids after each list."""

    def __init__(
        self,
        client: Client,
        resource: ResourceType,
        environment: Environment,
        *,
        seen: Seen,
        gone: Gone,
        listed: Listed,
    ) -> None:
        self.resource = resource
        self._client = client
        self._environment = environment
        self._seen = seen
        self._gone = gone
        self._listed = listed
        self._version = ""
        self._synced = asyncio.Event()

    @property
    def has_synced(self) -> bool:
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    async def run(self) -> None:
        """Until cancelled, or until the resource is no longer served."""
        failures = 0
        while True:
            started = self._environment.monotonic()
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                failures = 0
            except ApiError as error:
                end_if_cancelled()
                if error.code in {404, 405}:
                    self._synced.set()
                    return
                self._version = "" if error.code in {410, 403, 401, 400} else self._version
                level = logging.DEBUG if error.code == 410 else logging.WARNING
                log.log(level, "garbage collector, %s: %s", self.resource.qualified, error.message)
            if self._environment.monotonic() - started < 1.0:
                failures += 1
                await asyncio.sleep(_RETRY.delay(failures, self._environment))

    async def _list(self) -> None:
        continue_: str | None = None
        found: set[Uid] = set()
        while True:
            page = await self._client.list_encoded(self.resource, limit=_PAGE, continue_=continue_)
            for item in page.items:
                found.add(self._take(item))
            continue_ = page.continue_
            if not continue_:
                break
            await asyncio.sleep(0)
        self._listed(self.resource, found)
        self._version = page.resource_version
        self._synced.set()

    async def _watch(self) -> None:
        seconds = self._environment.random.randint(*_WATCH_SECONDS)
        events = self._client.watch_encoded(
            self.resource, resource_version=self._version, timeout_seconds=seconds, bookmarks=True
        )
        async with aclosing(events):
            async for event in events:
                meta = decode_meta(event.object).metadata
                self._version = meta.resource_version or self._version
                if event.type == "DELETED":
                    self._gone(self.resource, cluster_of(meta), meta)
                elif event.type != "BOOKMARK":
                    self._seen(self.resource, cluster_of(meta), meta)

    def _take(self, encoded: bytes) -> Uid:
        meta = decode_meta(encoded).metadata
        cluster = cluster_of(meta)
        self._seen(self.resource, cluster, meta)
        return cluster, meta.uid


def cluster_of(meta: Meta) -> str:
    return (meta.annotations or {}).get(CLUSTER_ANNOTATION, ROOT)
