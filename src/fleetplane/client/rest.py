"""The one implementation of ``Client``: Kubernetes' REST conventions over any ``Transport``.

Everything that is the same in-process and over a network stands here: paths, queries, media types, paging, watch
framing, errors from ``Status``, waiting when the server says "not now". A transport only moves bytes.

It never retries a request that may have been carried out: that is for whoever knows whether doing it twice is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Final

import orjson

from fleetplane.client.lines import split_lines
from fleetplane.client.protocol import (
    ROOT,
    Capabilities,
    ClientChange,
    EncodedEvent,
    EncodedList,
    ObjectList,
    Pairs,
    PatchType,
    Propagation,
    Transport,
    WatchEvent,
    WriteObserver,
    cluster_of,
)
from fleetplane.client.wire import (
    APPLY_MEDIA_TYPE,
    JSON,
    PATCH_MEDIA_TYPES,
    decoded,
    decoded_event,
    decoded_item,
    decoded_list,
    delete_options,
    encoded,
    error_from,
    namespace_of,
    pairs,
    query_of,
    seconds,
    with_type,
    write_query,
)
from fleetplane.model.errors import ApiError, bad_request
from fleetplane.model.objects import Object, metadata
from fleetplane.model.resources import ResourceRef, ResourceType, resource_of

COMMIT_PATH: Final = "/apis/fleetplane.io/v1/commits"

MAX_REFUSALS: Final = 5
"""How often a request that the server put off (429 or 503 with Retry-After) is sent before its refusal is raised."""


class RestClient:
    """A ``Client``. Cheap to derive (``in_cluster``, ``acting_as``): derived clients share the transport.

    Args:
        transport: Moves the requests. ``close`` closes it.
        cluster: Where calls go; ``None`` lists and watches all clusters.
        capabilities: What the server can do; see ``connect``, which asks it.
        headers: Sent with every request (``User-Agent``).
        on_write: Told of every object that a write returned, so that caches need not wait for the watch.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        cluster: str | None = ROOT,
        capabilities: Capabilities = Capabilities(),  # noqa: B008 - immutable
        headers: Pairs = (("user-agent", "fleetplane"),),
        on_write: WriteObserver | None = None,
    ) -> None:
        if cluster not in {ROOT, None} and not capabilities.logical_clusters:
            raise ValueError(f"this server has no logical clusters, so there is no cluster {cluster!r} to go to")
        self._transport = transport
        self._cluster = cluster
        self._capabilities = capabilities
        self._headers = tuple(headers)
        self._on_write = on_write
        self._prefix = _cluster_prefix(cluster, capabilities)

    # -- scope

    @property
    def cluster(self) -> str | None:
        return self._cluster

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def can_commit(self) -> bool:
        return self._capabilities.commit

    @property
    def transport(self) -> Transport:
        return self._transport

    def in_cluster(self, cluster: str | None) -> RestClient:
        if cluster == self._cluster:
            return self
        return self._derived(cluster=cluster)

    def acting_as(self, user: str, groups: Sequence[str] = ()) -> RestClient:
        impersonation = [("impersonate-user", user), *(("impersonate-group", group) for group in groups)]
        kept = [pair for pair in self._headers if not pair[0].lower().startswith("impersonate-")]
        return self._derived(headers=(*kept, *impersonation))

    def observed_by(self, on_write: WriteObserver | None) -> RestClient:
        return self._derived(on_write=on_write)

    def over(self, transport: Transport) -> RestClient:
        """The same client over another transport: one that injects faults, records, or only pretends to write."""
        return self._derived(transport=transport)

    def _derived(self, **changes: Any) -> RestClient:
        arguments: dict[str, Any] = {
            "transport": self._transport,
            "cluster": self._cluster,
            "capabilities": self._capabilities,
            "headers": self._headers,
            "on_write": self._on_write,
        }
        return RestClient(**(arguments | changes))

    # -- reading

    async def get(
        self, resource: ResourceRef, name: str, namespace: str | None = None, *, resource_version: str | None = None
    ) -> Object:
        path = self._path(resource_of(resource), namespace, name)
        return decoded(await self._request("GET", path, query_of(resourceVersion=resource_version)))

    async def get_subresource(
        self, resource: ResourceRef, name: str, subresource: str, namespace: str | None = None
    ) -> Object:
        return decoded(await self._request("GET", self._path(resource_of(resource), namespace, name, subresource)))

    async def list_encoded(
        self,
        resource: ResourceRef,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        limit: int | None = None,
        continue_: str | None = None,
        resource_version: str | None = None,
        resource_version_match: str | None = None,
    ) -> EncodedList:
        query = query_of(
            labelSelector=labels,
            fieldSelector=fields,
            limit=limit,
            continue_=continue_,
            resourceVersion=resource_version,
            resourceVersionMatch=resource_version_match,
        )
        return decoded_list(await self._request("GET", self._path(resource_of(resource), namespace), query))

    async def list(
        self,
        resource: ResourceRef,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        limit: int | None = None,
        continue_: str | None = None,
        resource_version: str | None = None,
        resource_version_match: str | None = None,
    ) -> ObjectList:
        page = await self.list_encoded(
            resource,
            namespace,
            labels=labels,
            fields=fields,
            limit=limit,
            continue_=continue_,
            resource_version=resource_version,
            resource_version_match=resource_version_match,
        )
        kind = resource_of(resource)
        items = [decoded_item(item, kind) for item in page.items]
        return ObjectList(items, page.resource_version, page.continue_, page.remaining)

    async def iterate(
        self,
        resource: ResourceRef,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        chunk: int = 500,
    ) -> AsyncGenerator[Object, None]:
        continue_: str | None = None
        while True:
            page = await self.list(resource, namespace, labels=labels, fields=fields, limit=chunk, continue_=continue_)
            for item in page.items:
                yield item
            continue_ = page.continue_
            if not continue_:
                return

    async def watch_encoded(
        self,
        resource: ResourceRef,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        resource_version: str | None = None,
        bookmarks: bool = True,
        send_initial_events: bool = False,
        timeout_seconds: int | None = None,
    ) -> AsyncGenerator[EncodedEvent, None]:
        query = query_of(
            watch="true",
            labelSelector=labels,
            fieldSelector=fields,
            resourceVersion=resource_version,
            allowWatchBookmarks="true" if bookmarks else None,
            sendInitialEvents="true" if send_initial_events else None,
            resourceVersionMatch="NotOlderThan" if send_initial_events else None,
            timeoutSeconds=timeout_seconds,
        )
        path = self._path(resource_of(resource), namespace)
        async with self._stream("GET", path, query) as chunks, aclosing(split_lines(chunks)) as lines:
            async for line in lines:
                yield decoded_event(line)

    async def watch(
        self,
        resource: ResourceRef,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        resource_version: str | None = None,
        bookmarks: bool = True,
        send_initial_events: bool = False,
        timeout_seconds: int | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        events = self.watch_encoded(
            resource,
            namespace,
            labels=labels,
            fields=fields,
            resource_version=resource_version,
            bookmarks=bookmarks,
            send_initial_events=send_initial_events,
            timeout_seconds=timeout_seconds,
        )
        async with aclosing(events):
            async for event in events:
                obj = orjson.loads(event.object)
                yield WatchEvent(event.type, obj, self._cluster or cluster_of(obj))

    # -- writing

    async def create(
        self,
        resource: ResourceRef,
        obj: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str = "",
        name: str = "",
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
    ) -> Object:
        kind = resource_of(resource)
        path = self._path(kind, namespace or namespace_of(kind, obj), name if subresource else "", subresource)
        query = write_query(dry_run, field_manager, field_validation)
        return await self._write("POST", path, query, JSON, encoded(obj), kind, observe=not dry_run and not subresource)

    async def update(
        self,
        resource: ResourceRef,
        obj: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
    ) -> Object:
        kind = resource_of(resource)
        name = str(metadata(obj).get("name") or "")
        if not name:
            raise bad_request(f"{kind.kind} to be updated has no metadata.name")
        path = self._path(kind, namespace or namespace_of(kind, obj), name, subresource)
        query = write_query(dry_run, field_manager, field_validation)
        observe = not dry_run and subresource in {"", "status"}
        return await self._write("PUT", path, query, JSON, encoded(obj), kind, observe=observe)

    async def patch(
        self,
        resource: ResourceRef,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        type: PatchType = "merge",
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
    ) -> Object:
        kind = resource_of(resource)
        path = self._path(kind, namespace, name, subresource)
        query = write_query(dry_run, field_manager, field_validation)
        observe = not dry_run and subresource in {"", "status"}
        media_type = PATCH_MEDIA_TYPES[type]
        return await self._write("PATCH", path, query, media_type, orjson.dumps(patch), kind, observe=observe)

    async def apply(
        self,
        resource: ResourceRef,
        obj: Mapping[str, Any],
        namespace: str | None = None,
        *,
        field_manager: str,
        force: bool = True,
        subresource: str = "",
        dry_run: bool = False,
        field_validation: str | None = None,
    ) -> Object:
        kind = resource_of(resource)
        name = str(metadata(obj).get("name") or "")
        if not name:
            raise bad_request(f"{kind.kind} to be applied has no metadata.name")
        path = self._path(kind, namespace or namespace_of(kind, obj), name, subresource)
        query = [*write_query(dry_run, field_manager, field_validation), *query_of(force="true" if force else None)]
        body = encoded(with_type(obj, kind))
        observe = not dry_run and subresource in {"", "status"}
        return await self._write("PATCH", path, query, APPLY_MEDIA_TYPE, body, kind, observe=observe)

    async def delete(
        self,
        resource: ResourceRef,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_period_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        options = delete_options(propagation, grace_period_seconds, dry_run)
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
        if preconditions:
            options["preconditions"] = preconditions
        path = self._path(resource_of(resource), namespace, name)
        return decoded(await self._request("DELETE", path, body=orjson.dumps(options), media_type=JSON))

    async def delete_collection(
        self,
        resource: ResourceRef,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        propagation: Propagation | None = None,
        grace_period_seconds: int | None = None,
        dry_run: bool = False,
    ) -> None:
        options = delete_options(propagation, grace_period_seconds, dry_run)
        query = query_of(labelSelector=labels, fieldSelector=fields)
        path = self._path(resource_of(resource), namespace)
        await self._request("DELETE", path, query, body=orjson.dumps(options), media_type=JSON)

    async def commit(self, changes: Sequence[ClientChange]) -> Sequence[Object]:
        if not self.can_commit:
            raise ApiError(405, "this server cannot commit several changes as one")
        shown = []
        for change in changes:
            kind = resource_of(change.resource)
            where = {"group": kind.group, "version": kind.version, "resource": kind.plural}
            shown.append({"verb": change.verb, **where, "object": with_type(change.object, kind)})
        body = {"apiVersion": "fleetplane.io/v1", "kind": "Commit", "spec": {"changes": shown}}
        answer = await self._request("POST", self._prefix + COMMIT_PATH, body=orjson.dumps(body), media_type=JSON)
        objects: list[Object] = decoded(answer).get("status", {}).get("objects") or []
        for change, obj in zip(changes, objects, strict=False):
            if self._on_write is not None and change.verb != "delete":
                kind = resource_of(change.resource)
                self._on_write(kind, self._cluster or ROOT, obj, orjson.dumps(obj))
        return objects

    # -- by path

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | Pairs = (),
        headers: Mapping[str, str] | Pairs = (),
        body: bytes = b"",
    ) -> bytes:
        return await self._request(method, self._prefix + path, pairs(query), body=body, headers=pairs(headers))

    @asynccontextmanager
    async def raw_stream(
        self, method: str, path: str, *, query: Mapping[str, str] | Pairs = ()
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._stream(method, self._prefix + path, pairs(query), accept="*/*") as chunks:
            yield chunks

    async def close(self) -> None:
        await self._transport.close()

    # -- one request

    def _path(self, kind: ResourceType, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        for part in (namespace, name):
            if part and ("/" in part or "%" in part or part in {".", ".."}):
                raise bad_request(f"{part!r} cannot be the name of an object")
        return self._prefix + kind.path(namespace or "", name, subresource)

    async def _write(
        self, method: str, path: str, query: Pairs, media_type: str, body: bytes, kind: ResourceType, *, observe: bool
    ) -> Object:
        answer = await self._request(method, path, query, body=body, media_type=media_type)
        obj = decoded(answer)
        if observe and self._on_write is not None and "metadata" in obj and obj.get("kind") == kind.kind:
            self._on_write(kind, self._cluster or ROOT, obj, answer)
        return obj

    async def _request(
        self,
        method: str,
        path: str,
        query: Pairs = (),
        *,
        body: bytes = b"",
        media_type: str = "",
        headers: Pairs = (),
    ) -> bytes:
        sent = [*self._headers, *headers]
        if not any(name.lower() == "accept" for name, _ in headers):
            sent.append(("accept", JSON))
        if media_type:
            sent.append(("content-type", media_type))
        attempt = 1
        while True:
            status, answered, data = await self._transport.request(method, path, query, sent, body)
            if status < 300:
                return data
            wait = seconds(answered.get("retry-after"))
            # Only a refusal with Retry-After promises that nothing was done. An eviction's 429 is an answer: a budget
            # forbids it, and the caller decides what then.
            if not wait or status not in {429, 503} or attempt >= MAX_REFUSALS or path.endswith("/eviction"):
                raise error_from(status, data)
            attempt += 1
            await asyncio.sleep(wait)

    def _stream(
        self, method: str, path: str, query: Pairs, *, accept: str = JSON
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return _checked(self._transport.stream(method, path, query, [*self._headers, ("accept", accept)], b""))


@asynccontextmanager
async def _checked(
    stream: AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]],
) -> AsyncIterator[AsyncIterator[bytes]]:
    async with stream as (status, chunks):
        if status >= 300:
            raise error_from(status, b"".join([chunk async for chunk in chunks]))
        yield chunks


async def discover_capabilities(client: RestClient) -> Capabilities:
    """Ask the server who it is (``/version``)."""
    version = decoded(await client.raw("GET", "/version"))
    is_ours = "+fleetplane" in str(version.get("gitVersion") or "")
    minor = "".join(c for c in str(version.get("minor") or "") if c.isdigit())
    return Capabilities(
        logical_clusters=is_ours,
        commit=is_ours,
        # On by default since 1.32; older servers ignore the parameters and never send the closing bookmark.
        watch_list=is_ours or (str(version.get("major")) == "1" and int(minor or 0) >= 32),
    )


async def connect(transport: Transport, *, user_agent: str = "fleetplane") -> RestClient:
    """A client for whatever answers: asks the server once what it can do."""
    client = RestClient(transport, headers=(("user-agent", user_agent),))
    capabilities = await discover_capabilities(client)
    return RestClient(transport, capabilities=capabilities, headers=(("user-agent", user_agent),))


def _cluster_prefix(cluster: str | None, capabilities: Capabilities) -> str:
    if cluster == ROOT or not capabilities.logical_clusters:
        return ""
    return f"/clusters/{cluster or '*'}"
