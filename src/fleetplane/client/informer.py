"""A live, local copy of what a list would say.

An informer lists once, then watches from there; bookmarks let it resume after a broken connection without listing, and
when the server has forgotten that far back (410) it lists again and works out what changed meanwhile. Readers see one
consistent store that only moves forward; handlers are told each difference exactly once, in order, on the event loop.

A handler must be quick and must not block: it usually puts a key into a queue. What it raises is logged and costs only
itself. Informers never write, and never decide anything.

``observe`` closes the gap every cached controller knows: what our own write returned is in the store at once, before the
watch brings it, so that the next reconcile does not act on the past.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Final, Literal, NamedTuple

import msgspec

from fleetplane.client.backoff import Backoff
from fleetplane.client.cancelling import end_if_cancelled
from fleetplane.client.index import Index, IndexFunction
from fleetplane.client.protocol import INITIAL_EVENTS_END, Client, EncodedEvent
from fleetplane.client.snapshot import DecodedPool, ObjectKey, Snapshot, version_number, without_managed_fields
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef, ResourceType, resource_of
from fleetplane.model.selectors import LabelSelector

log = logging.getLogger(__name__)

RETRY: Final = Backoff(base=0.2, cap=30.0)
PAGE: Final = 500
HEALTHY_SECONDS: Final = 5.0
"""A watch that lived this long forgives earlier failures."""

WATCH_SECONDS: Final = (300, 600)
"""Watches are ended by the server after a random time between these, so that clients spread over servers."""

GRACE_SECONDS: Final = 30.0
"""A watch the server should have ended is given up after this much longer: the connection is dead."""


class Change(NamedTuple):
    """One difference. ``old`` is ``None`` for ADDED; for DELETED ``new`` is the last state known.

    ``initial`` marks objects found by listing rather than told by the watch: there may be very many of them at once.
    """

    event: Literal["ADDED", "MODIFIED", "DELETED"]
    old: Snapshot | None
    new: Snapshot
    initial: bool = False


Handler = Callable[[Change], None]
Objects = list[Object]
Snapshots = list[Snapshot]


class Informer:
    """See the module. ``run`` does the work until it is cancelled; everything else is synchronous reading.

    Args:
        client: Its cluster scopes the informer; ``None`` covers all logical clusters.
        namespace, labels, fields: Narrow what is cached, as in a list.
        indexes: Ways to find objects other than by key; see ``fleetplane.client.index`` for ready ones.
        decoded_limit: How many objects stay decoded (see ``snapshot``); raise it for readers that scan everything often.
        managed_fields: Whether objects keep their ``managedFields``; see ``keep_managed_fields``.
    """

    def __init__(
        self,
        client: Client,
        resource: ResourceRef,
        environment: Environment,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        indexes: Mapping[str, IndexFunction] | None = None,
        decoded_limit: int = 256,
        managed_fields: bool = True,
    ) -> None:
        self.resource: ResourceType = resource_of(resource)
        self._client = client
        self._environment = environment
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._pool = DecodedPool(decoded_limit)
        self._objects: dict[ObjectKey, Snapshot] = {}
        self._indexes = {name: Index(function) for name, function in (indexes or {}).items()}
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._version = ""
        self._failures = 0
        self._watch_list = client.capabilities.watch_list
        self._keeps_managed_fields = managed_fields
        self._transform: Callable[[bytes], bytes] | None = None
        self._may_be_absent = False
        self.last_error: str = ""

    # -- reading

    @property
    def has_synced(self) -> bool:
        """Whether the first list is complete. Before that, absence means nothing."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    @property
    def resource_version(self) -> str:
        """The version up to which everything is known."""
        return self._version

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def __iter__(self) -> Iterator[ObjectKey]:
        return iter(self._objects)

    def snapshot(self, key: ObjectKey) -> Snapshot | None:
        return self._objects.get(key)

    def get(self, name: str, namespace: str | None = None, *, cluster: str = "root") -> Object | None:
        return self.get_key(ObjectKey(cluster, namespace or "", name))

    def get_key(self, key: ObjectKey) -> Object | None:
        """The object, shared and immutable by convention; ``None`` when there is none."""
        found = self._objects.get(key)
        return None if found is None else found.object

    def snapshots(
        self, namespace: str | None = None, *, labels: str | LabelSelector | None = None, cluster: str | None = None
    ) -> Iterator[Snapshot]:
        """Lazily, in no order. Take a list of them before awaiting anything in between."""
        selector = LabelSelector.parse(labels) if isinstance(labels, str) else labels
        for key, found in self._objects.items():
            if namespace and key.namespace != namespace:
                continue
            if cluster is not None and key.cluster != cluster:
                continue
            if selector is None or selector.matches(found.labels):
                yield found

    def list(
        self, namespace: str | None = None, *, labels: str | LabelSelector | None = None, cluster: str | None = None
    ) -> Objects:
        return [one.object for one in self.snapshots(namespace, labels=labels, cluster=cluster)]

    def by_index(self, index: str, value: str) -> Objects:
        """The objects an index files under ``value``, oldest entry first."""
        return [one.object for one in self.snapshots_by_index(index, value)]

    def snapshots_by_index(self, index: str, value: str) -> Snapshots:
        return [self._objects[key] for key in self._indexes[index].find(value)]

    def count_by_index(self, index: str, value: str) -> int:
        return len(self._indexes[index].find(value))

    def index_values(self, index: str) -> Iterable[str]:
        return self._indexes[index].values()

    # -- extending

    def keep_managed_fields(self) -> None:
        """From now on objects keep their ``managedFields``, for whoever reads off them what was applied."""
        self._keeps_managed_fields = True

    def may_be_absent(self) -> None:
        """From now on a server that does not serve the resource at all has none of it; otherwise it is waited for."""
        self._may_be_absent = True

    def transform(self, function: Callable[[bytes], bytes]) -> None:
        """Keep of each object only what ``function`` makes of its JSON; for large objects of which little is read.

        Said before anything is cached, by whoever is alone in reading from this informer.
        """
        self._transform = function

    def keep_decoded(self, count: int) -> None:
        """Keep at least so many objects decoded: for readers that scan them again and again."""
        self._pool.limit = max(self._pool.limit, count)

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Add an index at any time; what is already here is filed at once. The same name again is ignored."""
        if name in self._indexes:
            return
        index = self._indexes[name] = Index(function)
        for found in self._objects.values():
            index.put(found)

    def add_handler(self, handler: Handler) -> Callable[[], None]:
        """Tell ``handler`` of every change, beginning with what is already here. Returns what takes it off again."""
        self._handlers.append(handler)
        for found in list(self._objects.values()):
            self._tell(handler, Change("ADDED", None, found, initial=True))
        return lambda: self._handlers.remove(handler)

    def observe(self, encoded: bytes, cluster: str) -> None:
        """Take in what a write returned, unless the watch has already brought that or something newer."""
        found = self._snapshot(bytes(memoryview(encoded)), cluster)  # a copy: the answer's buffer may be much larger
        if not self.has_synced or not found.version or found.version <= version_number(self._version):
            return
        if self._namespace and found.key.namespace != self._namespace:
            return
        known = self._objects.get(found.key)
        # With selectors only the server knows whether an object belongs here; one that already does may be refreshed.
        if known is None and (self._labels or self._fields):
            return
        self._put_newer(found)

    # -- following the server

    async def run(self) -> None:
        """List and watch until cancelled. Failures are logged and retried; only cancellation ends it."""
        while True:
            started = self._environment.monotonic()
            try:
                if not self._version:
                    await self._load()
                await self._follow()
                self.last_error = ""
                if self._environment.monotonic() - started >= 1.0:
                    continue  # it ended as watches do; one that ends at once is treated as a failure
            except ApiError as error:
                end_if_cancelled()
                self._note(error)
            except (TimeoutError, msgspec.DecodeError) as error:
                end_if_cancelled()
                self.last_error = str(error) or "the watch fell silent"
                log.warning("%s: %s; trying again", self.resource.qualified, self.last_error)
            if self._environment.monotonic() - started > HEALTHY_SECONDS:
                self._failures = 0
            self._failures += 1
            await asyncio.sleep(RETRY.delay(self._failures, self._environment))

    def _note(self, error: ApiError) -> None:
        self.last_error = error.message
        if error.code == 410:
            self._version = ""
            log.info("%s: the server no longer knows version we are at; listing again", self.resource.qualified)
        elif error.code == 404 and self._may_be_absent:
            if not self.has_synced or self._objects:
                log.info("%s: not served here, so there are none", self.resource.qualified)
            self._replace({}, "")
        elif error.code in {404, 403, 401, 400, 405, 422}:
            self._version = ""  # a change of rights or of what is served: begin anew once it is allowed
            log.warning("%s: %s; trying again", self.resource.qualified, error.message)
        else:
            log.warning("%s: %s; resuming", self.resource.qualified, error.message)

    async def _load(self) -> None:
        if self._watch_list:
            return  # the watch begins with everything there is
        found: dict[ObjectKey, Snapshot] = {}
        continue_: str | None = None
        while True:
            page = await self._client.list_encoded(
                self.resource,
                self._namespace,
                labels=self._labels,
                fields=self._fields,
                limit=PAGE,
                continue_=continue_,
            )
            for item in page.items:
                snapshot = self._snapshot(item, self._client.cluster)
                found[snapshot.key] = snapshot
            continue_ = page.continue_
            if not continue_:
                self._replace(found, page.resource_version)
                return
            await asyncio.sleep(0)  # a large list must not starve the loop

    async def _follow(self) -> None:
        initial: dict[ObjectKey, Snapshot] | None = {} if not self._version else None
        timeout = self._environment.random.randint(*WATCH_SECONDS)
        events = self._client.watch_encoded(
            self.resource,
            self._namespace,
            labels=self._labels,
            fields=self._fields,
            resource_version=self._version or None,
            send_initial_events=initial is not None,
            timeout_seconds=timeout,
        )
        try:
            async with asyncio.timeout(timeout + GRACE_SECONDS), aclosing(events):
                async for event in events:
                    if initial is None:
                        self._take(event)
                    elif self._take_initial(event, initial):
                        initial = None
        except ApiError as error:
            if initial is not None and error.code in {400, 422}:
                self._watch_list = False  # the server said it could and cannot
            raise

    def _take_initial(self, event: EncodedEvent, initial: dict[ObjectKey, Snapshot]) -> bool:
        """Collect one of the events that make up the first state; true when it is complete."""
        snapshot = self._snapshot(event.object, self._client.cluster, is_object=event.type != "BOOKMARK")
        if event.type == "BOOKMARK":
            if INITIAL_EVENTS_END not in snapshot.annotations:
                return False
            self._replace(initial, snapshot.resource_version)
            return True
        if event.type == "DELETED":
            initial.pop(snapshot.key, None)
        else:
            initial[snapshot.key] = snapshot
        return False

    def _take(self, event: EncodedEvent) -> None:
        snapshot = self._snapshot(event.object, self._client.cluster, is_object=event.type != "BOOKMARK")
        self._version = snapshot.resource_version or self._version
        if event.type == "BOOKMARK":
            return
        if event.type == "DELETED":
            self._remove(snapshot)
            return
        self._put_newer(snapshot)

    def _snapshot(self, encoded: bytes, cluster: str | None, *, is_object: bool = True) -> Snapshot:
        if not self._keeps_managed_fields:
            encoded = without_managed_fields(encoded)
        if self._transform is not None and is_object:
            encoded = self._transform(encoded)
        return Snapshot(encoded, self.resource, self._pool, cluster)

    # -- the store

    def _replace(self, found: dict[ObjectKey, Snapshot], version: str) -> None:
        first = not self.has_synced
        at = version_number(version)
        for known in [known for key, known in self._objects.items() if key not in found]:
            if known.version <= at:  # a newer one was observed while the list was on its way
                self._remove(known)
        for snapshot in found.values():
            self._put_newer(snapshot, initial=True)
        self._version = version
        self._synced.set()
        if first:
            log.debug("%s: %d objects at version %s", self.resource.qualified, len(found), version)

    def _put_newer(self, snapshot: Snapshot, *, initial: bool = False) -> None:
        """What is known already came earlier, as the answer to a write of our own."""
        known = self._objects.get(snapshot.key)
        if known is None or known.version < snapshot.version or not snapshot.version:
            self._put(snapshot, initial=initial)

    def _put(self, snapshot: Snapshot, *, initial: bool = False) -> None:
        old = self._objects.get(snapshot.key)
        if old is not None and old.uid != snapshot.uid:
            self._remove(old)  # deleted and made anew while we looked away: two objects, not a change of one
            old = None
        self._objects[snapshot.key] = snapshot
        for index in self._indexes.values():
            index.put(snapshot)
        change = Change("ADDED" if old is None else "MODIFIED", old, snapshot, initial)
        for handler in tuple(self._handlers):
            self._tell(handler, change)

    def _remove(self, last: Snapshot) -> None:
        known = self._objects.pop(last.key, None)
        if known is None:
            return
        for index in self._indexes.values():
            index.remove(last.key)
        change = Change("DELETED", known, last)
        for handler in tuple(self._handlers):
            self._tell(handler, change)

    def _tell(self, handler: Handler, change: Change) -> None:
        try:
            handler(change)
        except Exception:
            log.exception("%s: a handler failed on %s %s", self.resource.qualified, change.event, change.new.key)
