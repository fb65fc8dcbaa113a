"""Views the server keeps of some of its own objects: role bindings, definitions, namespaces, webhooks.

A follower reads all objects of a resource once and then every change, in order, so that a stage can decide without I/O.
Whoever wrote an object may wait until a follower has seen it (``reached``): a definition is served, a role holds, before
its creator is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fleetplane.apiserver.encoding import decode
from fleetplane.model.objects import Object
from fleetplane.store.protocol import Expired, Selection, SlowWatcher, Store

Apply = Callable[[str, Object, bool], None]
"""``apply(cluster_id, object, deleted)``; must be idempotent, because a follower that lost its place starts over."""


class Follower:
    """Feeds every object of one stored resource, in all clusters, to ``apply``."""

    def __init__(self, store: Store, group: str, resource: str, apply: Apply, reset: Callable[[], None]) -> None:
        self._store = store
        self._selection = Selection(group, resource)
        self._apply = apply
        self._reset = reset
        self._seen = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.synced = asyncio.Event()

    @property
    def resource(self) -> tuple[str, str]:
        return self._selection.group, self._selection.resource

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._reset()
            watch = await self._store.watch(self._selection)
            try:
                async for page in self._store.stream(self._selection):
                    for record in page.records:
                        self._apply(record.key.cluster, decode(record), False)
                    self._advance(page.revision)
                self._advance(watch.progress)
                self.synced.set()
                while True:
                    batch = await watch.next()
                    for event in batch.events:
                        self._apply(event.record.key.cluster, decode(event.record), event.deleted)
                    self._advance(batch.revision)
            except (Expired, SlowWatcher):
                continue
            finally:
                watch.close()

    def _advance(self, revision: int) -> None:
        self._seen = max(self._seen, revision)
        still = []
        for wanted, future in self._waiting:
            if wanted <= self._seen:
                if not future.done():
                    future.set_result(None)
            else:
                still.append((wanted, future))
        self._waiting = still

    async def reached(self, revision: int) -> None:
        """Return once every change up to ``revision`` of this resource has been applied."""
        if revision <= self._seen:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        await future
