"""The collector at work: a follower per resource, a queue of objects to look at, a few workers.

It is one long reconcile under the manager, so that it runs only where the manager leads and ends when the manager
stops. What is served changes while it runs: custom resources are followed as soon as they are established.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from fleetplane.client.cancelling import end_if_cancelled
from fleetplane.client.discovery import discover
from fleetplane.client.informer import Change, Informer
from fleetplane.client.protocol import ROOT
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import QueueClosed
from fleetplane.controller.manager import Manager
from fleetplane.controller.queue import WorkQueue
from fleetplane.model.builtin.types import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from fleetplane.model.errors import ApiError
from fleetplane.model.resources import ResourceType
from fleetplane.workloads.garbage.collector import Collector, Unresolvable
from fleetplane.workloads.garbage.definitions import established, without_schemas
from fleetplane.workloads.garbage.follow import Follower
from fleetplane.workloads.garbage.graph import Graph, Meta, Node, Uid, decode_meta, worth_at_start
from fleetplane.workloads.shared.actor import Actor

log = logging.getLogger(__name__)

KEY: Final = Request("", "", "collecting")
WORKERS: Final = 8
PATIENCE: Final = 30.0
"""Seconds to wait for resources that cannot be listed, before collecting without them."""
_LOOK_SECONDS: Final = 0.2
_SETTLE_SECONDS: Final = 0.3
"""A new object's owner may come a moment later by another watch: the server is asked for it only if it has not by then."""

_IGNORED: Final = frozenset({("", "events"), ("events.k8s.io", "events"), ("coordination.k8s.io", "leases")})
_NEEDED: Final = frozenset({"list", "watch", "delete"})


@dataclass(slots=True)
class _Followed:
    follower: Follower
    task: asyncio.Task[None]


class GarbageCollection:
    """``shared`` are informers that exist anyway: what they see need not be watched twice."""

    def __init__(
        self,
        manager: Manager,
        actor: Actor,
        shared: Iterable[Informer],
        definitions: Informer,
    ) -> None:
        self._manager = manager
        self._actor = actor
        self._definitions = definitions
        definitions.transform(without_schemas)
        self.graph = Graph()
        self._collector = Collector(actor, self.graph)
        self._queue: WorkQueue[Uid] | None = None
        self._unsettled: deque[tuple[float, Uid]] = deque()
        """(when to look, object) of those with an owner that has not been seen, soonest first."""
        self._shared = {(one.resource.group, one.resource.plural): one for one in shared}
        self._followed: dict[tuple[str, str], _Followed] = {}
        self._started = False
        for informer in self._shared.values():
            informer.add_handler(partial(self._see_change, informer.resource))

    def controller(self) -> Controller:
        return Controller(
            "garbage-collector",
            CUSTOM_RESOURCE_DEFINITIONS,
            self.reconcile,
            predicate=lambda _: False,
            watches=[Watch(CUSTOM_RESOURCE_DEFINITIONS, _wake), Watch(NAMESPACES, _wake)],
            max_concurrent=1,
            resync=None,
            timeout=10**9,
        )

    async def reconcile(self, _: Request) -> Result | None:
        self._queue = WorkQueue(self._actor.environment)
        self._unsettled.clear()
        self._started = False
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work(), name=f"garbage worker {n}") for n in range(WORKERS)]
                try:
                    await self._run(group)
                finally:
                    self._queue.close()  # before the group waits for the workers: none may go back to an open queue
                for task in (*workers, *(one.task for one in self._followed.values())):
                    task.cancel()
        finally:
            self._followed.clear()
            self._queue.close()
        return Result(requeue_after=1.0)

    async def _run(self, group: asyncio.TaskGroup) -> None:
        """Follows what there is to follow, until the manager stops."""
        followed_for: object = None
        begun = self._actor.environment.monotonic()
        while self._manager.is_ready:
            version = self._definitions.resource_version
            if version != followed_for and await self._follow_all(group):
                followed_for = version
            if not self._started and (self._is_synced() or self._actor.environment.monotonic() - begun > PATIENCE):
                self._started = True
                self._enqueue(worth_at_start(self.graph.nodes.values()))
            self._settle()
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_synced(self) -> bool:
        shared = all(one.has_synced for one in self._shared.values())
        return shared and all(one.follower.has_synced for one in self._followed.values())

    # what is followed

    async def _follow_all(self, group: asyncio.TaskGroup) -> bool:
        """Whether the server could be asked what there is."""
        try:
            wanted = await self._resources()
        except ApiError as error:
            end_if_cancelled()
            log.warning("garbage collector: %s; asking again", error.message)
            return False
        for key in [key for key in self._followed if key not in wanted or self._followed[key].task.done()]:
            followed = self._followed.pop(key)
            followed.task.cancel()
            if key not in wanted:
                self._listed(followed.follower.resource, set())
        for key, resource in wanted.items():
            if key not in self._followed and key not in self._shared:
                follower = Follower(
                    self._actor.all_clusters,
                    resource,
                    self._actor.environment,
                    seen=self._see,
                    gone=self._lose,
                    listed=self._listed,
                )
                task = group.create_task(follower.run(), name=f"garbage follower {resource.qualified}")
                self._followed[key] = _Followed(follower, task)
        return True

    async def _resources(self) -> dict[tuple[str, str], ResourceType]:
        """Everything deletable that is served: the root cluster's resources, and every cluster's own definitions."""
        found: dict[tuple[str, str], ResourceType] = {}
        for one in (await discover(self._actor.client(ROOT))).preferred():
            if one.verbs >= _NEEDED:
                found[one.type.group, one.type.plural] = one.type
        for definition in self._definitions.snapshots():
            if (defined := established(definition.encoded)) is not None:
                found.setdefault((defined.group, defined.plural), defined)
        return {key: one for key, one in found.items() if key not in _IGNORED}

    # what is seen

    def _see_change(self, resource: ResourceType, change: Change) -> None:
        if change.event == "DELETED":
            self._gone((change.new.key.cluster, change.new.uid))
        else:
            meta = decode_meta(change.new.encoded).metadata
            self._enqueue(self.graph.observe(change.new.key.cluster, resource, meta))

    def _see(self, resource: ResourceType, cluster: str, meta: Meta) -> None:
        self._enqueue(self.graph.observe(cluster, resource, meta))

    def _lose(self, _: ResourceType, cluster: str, meta: Meta) -> None:
        self._gone((cluster, meta.uid))

    def _gone(self, key: Uid) -> None:
        self._enqueue(self.graph.remove(key))

    def _listed(self, resource: ResourceType, present: set[Uid]) -> None:
        for node in self.graph.of_resource(resource):
            if node.uid not in present:
                self._gone(node.uid)

    # looking

    def _enqueue(self, nodes: Iterable[Node]) -> None:
        if self._queue is None or not self._started:
            return
        for node in nodes:
            if any(self._is_unseen(node, one.uid) for one in node.owners):
                self._unsettled.append((self._actor.environment.monotonic() + _SETTLE_SECONDS, node.uid))
            else:
                self._queue.add(node.uid)

    def _settle(self) -> None:
        """Have those looked at whose owners have not come. Where they have, there is nothing to ask."""
        now = self._actor.environment.monotonic()
        while self._unsettled and self._unsettled[0][0] <= now:
            node = self.graph.nodes.get(self._unsettled.popleft()[1])
            if node is not None and self._queue is not None and self.graph.needs_a_look(node):
                self._queue.add(node.uid)

    def _is_unseen(self, node: Node, owner_uid: str) -> bool:
        owner = self.graph.nodes.get((node.uid[0], owner_uid))
        return owner is not None and owner.identity is None and not owner.is_absent

    async def _work(self) -> None:
        assert self._queue is not None
        queue = self._queue
        while True:
            try:
                key = await queue.get()
            except QueueClosed:
                return
            try:
                node = self.graph.nodes.get(key)
                if node is not None:
                    self._enqueue(await self._collector.look(node))
                queue.forget(key)
            except Unresolvable as error:
                log.info("garbage collector: %s", error)
                queue.add_after(key, PATIENCE)
            except ApiError as error:
                if error.code not in {404, 409}:
                    log.warning("garbage collector: %s", error.message)
                queue.add_rate_limited(key)
            finally:
                queue.done(key)


def _wake(_: Snapshot) -> Iterable[Request]:
    return (KEY,)
