"""Get, list and watch.

Reads never decode what they can splice. A list is consistent at one revision, whatever its length: a long one is read in
chunks and streamed. A watch is the same bytes as they are committed, preceded by the objects that exist where the client
asked for those.

resourceVersion semantics follow the Kubernetes API concepts ("unset", "0", exact, not older than); continue tokens carry
the revision of the first page, so that all pages show one state.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import datetime

import orjson

from fleetplane.apiserver.call import Call
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.encoding import CLUSTER_ANNOTATION, cached, rendered, splice_cluster
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.negotiation import JSON, Representation
from fleetplane.apiserver.registry import Served
from fleetplane.apiserver.representation import (
    bodies_of,
    encode_object,
    list_envelope,
    load,
    load_all,
    partial,
    plain,
    respond_record,
    table,
)
from fleetplane.apiserver.selection import Narrowed, narrow
from fleetplane.apiserver.shared import SharedLayer
from fleetplane.apiserver.storage import ObjectStorage, expired, key_of, not_found, too_large_version
from fleetplane.model import errors
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.store.protocol import (
    Event,
    Expired,
    FutureRevision,
    Key,
    Page,
    Record,
    Selection,
    SlowWatcher,
    StoreError,
    Watch,
)

_CHUNK = 500
_LONG_CHUNK = 5000
"""What a list without a limit reads at a time: long enough to be quick, short enough to let others in."""
_BOOKMARK_SECONDS = 60.0
_BREATH_SECONDS = 0.003
"""A watcher who has just been told something is told no more for so long: what comes in a rush comes in one piece."""
_BREATH_SECONDS_PER_WATCHER = 0.0002
_LONGEST_BREATH_SECONDS = 0.02
"""Telling all who watch the same takes the longer the more they are; a round of it shall not be all the server does."""
_MIN_WATCH_SECONDS = 1800
_MAX_TIMEOUT_SECONDS = 24 * 3600
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class Reads:
    """The reading verbs over one store."""

    def __init__(
        self, storage: ObjectStorage, clusters: Clusters, environment: Environment, shared: SharedLayer | None = None
    ) -> None:
        self._storage = storage
        self._shared = shared
        self._store = storage.store
        self._clusters = clusters
        self._environment = environment
        self._watching: Counter[Selection] = Counter()

    async def get(self, call: Call) -> Response:
        if call.cluster is None:
            raise errors.method_not_allowed("one object is read in its own cluster")
        target = call.target
        if call.request.query.get("history") in ("true", "1"):
            return await self._history(call, call.cluster)
        version = call.request.query.get("resourceVersion")
        if version:
            await self._check_reached(parse_version(version))
        record = await self._storage.record(call.served, call.cluster, target.namespace, target.name)
        return await respond_record(
            call.served,
            record,
            call.representation,
            now=self._environment.now(),
            include_object=call.request.query.get("includeObject") or "Metadata",
        )

    async def _history(self, call: Call, cluster: str) -> Response:
        """The versions of an object that are still kept, newest first; also of one that is gone.

        Our own: ``GET <object>?history=true``, with ``limit`` (100). Raises ApiError 404 when nothing is known of it.
        """
        target = call.target
        key = key_of(call.served, cluster, target.namespace, target.name)
        events = await self._store.history(key, limit=min(_limit(call.request.query.get("limit")) or 100, 1000))
        if not events:
            raise not_found(call.served.type, target.name)
        items = [
            {
                "revision": str(event.record.revision),
                "deleted": event.deleted,
                "object": await load(call.served, event.record),
            }
            for event in events
        ]
        return Response(
            200,
            orjson.dumps({"kind": "ObjectHistory", "apiVersion": "fleetplane.io/v1", "metadata": {}, "items": items}),
        )

    async def list_(self, call: Call) -> Response:
        query = call.request.query
        narrowed = narrow(call.served, call.cluster, call.target.namespace, query, name=call.target.name)
        limit = _limit(query.get("limit"))
        revision, after = await self._position(call, query)
        offset = _offset(query.get("offset"))
        page = await self._page(narrowed, limit, after, revision, offset)
        if page.next is None:
            page.records += await self._shared_records(call, narrowed)
        metadata: Object = {"resourceVersion": str(page.revision)}
        if page.next is not None:
            metadata["continue"] = _continue_token(page.revision, page.next)
            if page.remaining is not None and narrowed.matches is None:
                metadata["remainingItemCount"] = page.remaining
        return await self._respond_list(call, page, metadata)

    async def _page(
        self, narrowed: Narrowed, limit: int | None, after: Key | None, revision: int | None, offset: int
    ) -> Page:
        """One page, with what the store could not select sifted out; filled up to ``limit`` where that leaves gaps."""
        found: list[Record] = []
        matches = narrowed.matches
        while True:
            want = _LONG_CHUNK if limit is None else max(limit - len(found), 1)
            try:
                page = await self._store.list(
                    narrowed.selection,
                    limit=want if matches is None else _CHUNK,
                    after=after,
                    revision=revision,
                    offset=offset,
                    count_remaining=matches is None and limit is not None,
                )
            except Expired as error:
                raise _gone(error, continuing=after is not None) from None
            except FutureRevision as error:
                raise too_large_version(error) from None
            except ValueError as error:
                raise errors.bad_request(str(error)) from None
            revision, offset = page.revision, 0
            if matches is None and (limit is None or page.next is None or len(page.records) == limit):
                found += page.records
                if page.next is None or limit is not None:
                    return Page(found, page.revision, page.next, page.remaining)
                after = page.next
                continue
            for record in page.records:
                if matches is None or matches(record):
                    found.append(record)
                if limit is not None and len(found) == limit:
                    done = page.next is None and record is page.records[-1]
                    return Page(found, page.revision, None if done else record.key, page.remaining)
            if page.next is None:
                return Page(found, page.revision)
            after = page.next

    async def _shared_records(self, call: Call, narrowed: Narrowed) -> list[Record]:
        """The shared objects a list or watch shows besides the stored ones."""
        if self._shared is None or call.cluster is None:
            return []
        selection = narrowed.selection
        terms = frozenset((match.name, match.value) for match in selection.matches)
        return [
            record
            for record in self._shared.of(call.served, call.cluster, selection.namespace)
            if selection.name in (None, record.key.name)
            and terms.issubset(record.terms)
            and (narrowed.matches is None or narrowed.matches(record))
            and await self._store.get(record.key) is None
        ]

    async def _position(self, call: Call, query: Mapping[str, str]) -> tuple[int | None, Key | None]:
        """(revision, key to continue after) of a list."""
        match = query.get("resourceVersionMatch") or ""
        version = query.get("resourceVersion") or ""
        token = query.get("continue")
        if match and match not in ("Exact", "NotOlderThan"):
            raise _list_option(
                "resourceVersionMatch", errors.FieldError.not_supported, match, ["Exact", "NotOlderThan"]
            )
        if token:
            if version and version != "0":
                raise errors.bad_request("specifying resource version is not allowed when using continue")
            return _parse_continue(token)
        if match and not version:
            problem = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise _list_option("resourceVersionMatch", errors.FieldError.forbidden, problem)
        revision = parse_version(version)
        if not revision:
            if match == "Exact":
                problem = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
                raise _list_option("resourceVersionMatch", errors.FieldError.forbidden, problem)
            return None, None
        if match == "Exact" or (not match and query.get("limit")):
            return revision, None
        await self._check_reached(revision)
        return None, None

    async def _check_reached(self, revision: int) -> None:
        """Raises ApiError 504 for a revision that is not there yet."""
        current = await self._store.revision()
        if revision > current:
            raise too_large_version(FutureRevision(revision, current))

    async def _respond_list(self, call: Call, page: Page, metadata: Object) -> Response:
        served, representation = call.served, call.representation
        if representation.shape == "object" and representation.encoding == JSON and not representation.pretty:
            bodies = await bodies_of(served, page.records)
            if call.cluster is None:
                names = [self._clusters.name_of(record.key.cluster) for record in page.records]
                bodies = [splice_cluster(body, name) for body, name in zip(bodies, names, strict=True)]
            return Response(200, list_envelope(served.type.api_version, served.type.list_kind, metadata, bodies))
        objects = await load_all(served, page.records)
        if call.cluster is None:
            for obj, record in zip(objects, page.records, strict=True):
                self._name_cluster(obj, record)
        shown: Object
        if representation.shape == "Table":
            shown = table(
                served,
                objects,
                representation,
                now=self._environment.now(),
                include_object=call.request.query.get("includeObject") or "Metadata",
                list_metadata=metadata,
            )
        elif representation.shape.startswith("PartialObjectMetadata"):
            shown = {
                "kind": "PartialObjectMetadataList",
                "apiVersion": f"meta.k8s.io/{representation.meta_version}",
                "metadata": metadata,
                "items": [partial(obj, representation.meta_version) for obj in objects],
            }
        else:
            shown = {
                "kind": served.type.list_kind,
                "apiVersion": served.type.api_version,
                "metadata": metadata,
                "items": objects,
            }
        body, content_type = encode_object(shown, representation)
        return Response(200, body, content_type)

    def _name_cluster(self, obj: Object, record: Record) -> None:
        obj["metadata"].setdefault("annotations", {})[CLUSTER_ANNOTATION] = self._clusters.name_of(record.key.cluster)

    async def watch(self, call: Call) -> Response:
        query = call.request.query
        narrowed = narrow(call.served, call.cluster, call.target.namespace, query, name=call.target.name)
        send_initial = query.get("sendInitialEvents")
        version = query.get("resourceVersion") or ""
        if send_initial is not None and query.get("resourceVersionMatch") != "NotOlderThan":
            raise _list_option(
                "resourceVersionMatch",
                errors.FieldError.forbidden,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )
        revision = parse_version(version)
        initial = send_initial in ("true", "1") if send_initial is not None else not revision
        timeout = _timeout(query.get("timeoutSeconds"), self._environment)
        if revision and initial:
            await self._check_reached(revision)
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        view = _WatchView(call, narrowed, self._clusters, self._environment)
        if initial:
            watch = await self._store.watch(narrowed.selection)
        else:
            start = revision or None
            try:
                watch = await self._store.watch(narrowed.selection, start)
            except Expired as error:
                return Response(stream=_one(view.error(expired(error))), content_type=JSON)
            except FutureRevision as error:
                raise too_large_version(error) from None
        return Response(
            stream=self._stream(
                view, watch, initial=initial, bookmarks=bookmarks, end_mark=send_initial is not None, timeout=timeout
            ),
            content_type=JSON,
        )

    async def _stream(
        self, view: _WatchView, watch: Watch, *, initial: bool, bookmarks: bool, end_mark: bool, timeout: float
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        selection = view.narrowed.selection
        known = 0
        self._watching[selection] += 1
        try:
            if initial:
                async for page in self._store.stream(selection, chunk=_CHUNK):
                    known = page.revision
                    lines = [await view.added(record) for record in page.records if view.matches(record)]
                    if lines:
                        yield b"".join(lines)
                shared = await self._shared_records(view.call, view.narrowed)
                yield b"".join([await view.added(record) for record in shared])
                if end_mark and bookmarks:
                    yield view.bookmark(known, {_INITIAL_EVENTS_END: "true"})
                else:
                    yield b""
            else:
                yield b""  # the client sees the headers before anything happens
            while True:
                next_mark = loop.time() + _BOOKMARK_SECONDS
                try:
                    async with asyncio.timeout_at(min(deadline, next_mark)):
                        batch = await watch.next()
                except TimeoutError:
                    if bookmarks:
                        yield view.bookmark(max(watch.progress, known))
                    if loop.time() >= deadline:
                        return
                    continue
                lines = []
                for event in batch.events:
                    if event.record.revision > known and (line := await view.line(event)):
                        lines.append(line)
                if lines:
                    yield b"".join(lines)
                    await asyncio.sleep(_breath(self._watching[selection]))
        except SlowWatcher:
            return
        except Expired as error:
            yield view.error(expired(error))
        except StoreError as error:
            yield view.error(errors.unavailable(str(error)))
        except errors.ApiError as error:
            yield view.error(error)  # an object could not be converted
        finally:
            self._watching[selection] -= 1
            if not self._watching[selection]:
                del self._watching[selection]
            watch.close()


def _breath(watchers: int) -> float:
    return min(max(_BREATH_SECONDS, watchers * _BREATH_SECONDS_PER_WATCHER), _LONGEST_BREATH_SECONDS)


async def _one(line: bytes) -> AsyncIterator[bytes]:
    yield line


class _WatchView:
    """How one watcher sees the changes: which of them, and in which form."""

    def __init__(self, call: Call, narrowed: Narrowed, clusters: Clusters, environment: Environment) -> None:
        self.call = call
        self.narrowed = narrowed
        self._served: Served = call.served
        self._representation: Representation = call.representation
        self._all_clusters = call.cluster is None
        self._clusters = clusters
        self._environment = environment
        self._terms = frozenset((match.name, match.value) for match in narrowed.selection.matches)
        self._include_object = call.request.query.get("includeObject") or "Metadata"
        self._headers_sent = False

    def matches(self, record: Record) -> bool:
        if self._terms and not self._terms.issubset(record.terms):
            return False
        return self.narrowed.matches is None or self.narrowed.matches(record)

    async def added(self, record: Record) -> bytes:
        return await self._encode(b"ADDED", record)

    async def line(self, event: Event) -> bytes:
        """The event as this watcher should see it, empty when it should not."""
        previous = event.previous is not None and self.matches(event.previous)
        if event.deleted:
            return await self._encode(b"DELETED", event.record) if previous else b""
        if self.matches(event.record):
            return await self._encode(b"MODIFIED" if previous else b"ADDED", event.record)
        if previous and event.previous is not None:
            gone = event.previous
            last = Record(gone.key, gone.uid, event.record.revision, gone.created_revision, gone.encoding, gone.value)
            return await self._encode(b"DELETED", last)
        return b""

    async def _encode(self, kind: bytes, record: Record) -> bytes:
        served, representation = self._served, self._representation
        if representation.shape == "object" and plain(served, record):
            if self._all_clusters:
                name = self._clusters.name_of(record.key.cluster)
                return cached(
                    record,
                    (kind, name),
                    lambda: b'{"type":"%b","object":%b}\n' % (kind, splice_cluster(rendered(record), name)),
                )
            return cached(record, kind, lambda: b'{"type":"%b","object":%b}\n' % (kind, rendered(record)))
        obj = await load(served, record)
        if self._all_clusters:
            obj["metadata"].setdefault("annotations", {})[CLUSTER_ANNOTATION] = self._clusters.name_of(
                record.key.cluster
            )
        return self._wrap(kind, obj)

    def _wrap(self, kind: bytes, obj: Object) -> bytes:
        representation = self._representation
        shown = obj
        if representation.shape == "Table":
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            now: datetime = self._environment.now()
            shown = table(
                self._served,
                [obj],
                representation,
                now=now,
                include_object=self._include_object,
                list_metadata=meta,
                headers=not self._headers_sent,
            )
            self._headers_sent = True
        elif representation.shape.startswith("PartialObjectMetadata"):
            shown = partial(obj, representation.meta_version)
        return b'{"type":"%b","object":%b}\n' % (kind, orjson.dumps(shown))

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None = None) -> bytes:
        metadata: Object = {"resourceVersion": str(revision)}
        if annotations:
            metadata["annotations"] = dict(annotations)
        resource = self._served.type
        obj: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        if self._representation.shape == "Table":
            obj = {
                "kind": "Table",
                "apiVersion": f"meta.k8s.io/{self._representation.meta_version}",
                "metadata": {"resourceVersion": str(revision)},
                "columnDefinitions": None,
                "rows": [{"cells": [], "object": partial(obj)}],
            }
        elif self._representation.shape != "object":
            obj = partial(obj, self._representation.meta_version)
        return orjson.dumps({"type": "BOOKMARK", "object": obj}) + b"\n"

    def error(self, error: errors.ApiError) -> bytes:
        return orjson.dumps({"type": "ERROR", "object": error.to_status()}) + b"\n"


def parse_version(text: str) -> int:
    """A resourceVersion as a revision; 0 for unset. Raises ApiError 400."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise errors.bad_request(f"Invalid value: {text!r}: resourceVersion must be a whole number this server gave")
    return int(text)


def _limit(text: str | None) -> int | None:
    if not text:
        return None
    try:
        limit = int(text)
    except ValueError:
        raise errors.bad_request(f"limit must be a whole number, not {text!r}") from None
    if limit < 0:
        raise errors.bad_request("limit must not be negative")
    return limit or None


def _offset(text: str | None) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise errors.bad_request(f"offset must be a whole number, not {text!r}")
    return int(text)


def _timeout(text: str | None, environment: Environment) -> float:
    if not text:
        return _MIN_WATCH_SECONDS * (1 + environment.random.random())
    try:
        seconds = int(text)
    except ValueError:
        raise errors.bad_request(f"timeoutSeconds must be a whole number, not {text!r}") from None
    if seconds <= 0:
        return _MIN_WATCH_SECONDS * (1 + environment.random.random())
    return min(seconds, _MAX_TIMEOUT_SECONDS)


def _continue_token(revision: int, after: Key) -> str:
    raw = orjson.dumps({"v": "fleetplane/v1", "rv": revision, "after": list(after)})
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _parse_continue(token: str) -> tuple[int, Key]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        cluster, group, resource, namespace, name = (str(part) for part in data["after"])
        return int(data["rv"]), Key(cluster, group, resource, namespace, name)
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise errors.bad_request("continue key is not valid: start the list again without it") from None


def _gone(error: Expired, *, continuing: bool) -> errors.ApiError:
    if not continuing:
        return expired(error)
    return errors.expired(
        "The provided continue parameter is too old to display a consistent list result. "
        "You can start a new list without the continue parameter."
    )


def _list_option(field: str, make: object, *arguments: object) -> errors.ApiError:
    cause: errors.FieldError = make(field, *arguments)  # type: ignore[operator]
    return errors.invalid("ListOptions", "", [cause], group="meta.k8s.io")
