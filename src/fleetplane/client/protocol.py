"""How objects are reached: the contract between everything that reads or writes objects and whatever serves them.

Operators, built-in controllers, the node and the command line know this protocol and nothing below it, so the same
code runs inside a plane and against any Kubernetes. Objects are plain dicts; a resource is named by its
``ResourceType`` or by a typed kind class that carries one. Failures are ``fleetplane.model.errors.ApiError``; an
``Unreachable`` one says that nobody knows whether the request was carried out.

Two reading styles, one contract: ``list`` and ``watch`` give decoded objects, ``list_encoded`` and ``watch_encoded``
the same things as JSON bytes, for readers (informers, mirrors) that keep many objects and look into few.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata
from fleetplane.model.resources import ResourceRef, ResourceType

PatchType = Literal["json", "merge", "strategic"]
Propagation = Literal["Foreground", "Background", "Orphan"]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

Pairs = Sequence[tuple[str, str]]
"""Query parameters or headers; a name may be repeated."""

ROOT: Final = "root"
"""The default logical cluster, and the only one of a plain Kubernetes."""

CLUSTER_ANNOTATION: Final = "fleetplane.io/cluster"
"""On every object read over all clusters (``/clusters/*``); never stored, and taken off again by writes."""

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
"""Annotation of the bookmark that ends the initial events of a watch (KEP-3157)."""


class Unreachable(ApiError):
    """The request or its answer was lost on the way: a write may or may not have happened."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message)


def cluster_of(obj: Mapping[str, Any], default: str = ROOT) -> str:
    """The logical cluster of an object that was read over all clusters."""
    return (metadata(obj).get("annotations") or {}).get(CLUSTER_ANNOTATION) or default


@dataclass(frozen=True, slots=True)
class ObjectList:
    """One page of a list. ``continue_`` is empty on the last page."""

    items: list[Object]
    resource_version: str
    continue_: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``cluster`` is the logical cluster of the object: ``root`` unless the client watches all of them."""

    type: EventType
    object: Object
    cluster: str = "root"


@dataclass(frozen=True, slots=True)
class EncodedList:
    """``ObjectList`` with its items as JSON. Built-in kinds may leave out ``apiVersion`` and ``kind`` there."""

    items: Sequence[bytes]
    resource_version: str
    continue_: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """A watch event with its object as JSON."""

    type: EventType
    object: bytes


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do beyond every Kubernetes.

    ``logical_clusters``: paths under ``/clusters/<name>``; without it there is ``root`` alone. ``commit``: several
    changes as one. ``watch_list``: a watch can begin with the objects that exist (``send_initial_events``).
    """

    logical_clusters: bool = False
    commit: bool = False
    watch_list: bool = False


@dataclass(frozen=True, slots=True)
class ClientChange:
    """One part of an atomic ``commit``: the object is created, updated (by its resourceVersion) or deleted."""

    verb: Literal["create", "update", "delete"]
    resource: ResourceRef
    object: Object


class Transport(Protocol):
    """Moves one HTTP-shaped request; the in-process and the network transport differ only here.

    ``path`` is decoded (the network transport quotes it). Answers' header names are lower-case. Raises ``Unreachable``
    when no answer came.
    """

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]: ...

    def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        """A response whose body arrives in chunks (watches, logs); leaving the context ends it."""

    async def close(self) -> None: ...


WriteObserver = Callable[[ResourceType, str, Object, bytes], None]
"""Told of every object a write returned: (resource, cluster, object, its JSON). Dry runs and deletions are not told."""


class Client(Protocol):
    """Every call names (cluster, namespace, name); ``namespace=None`` means all namespaces, or cluster scope."""

    @property
    def cluster(self) -> str | None:
        """The logical cluster calls go to; ``None`` is the wildcard for list and watch over all clusters."""

    def in_cluster(self, cluster: str | None) -> Client: ...

    def acting_as(self, user: str, groups: Sequence[str] = ()) -> Client:
        """The same client, impersonating."""

    def observed_by(self, on_write: WriteObserver | None) -> Client:
        """The same client, telling ``on_write`` of every object its writes return."""

    async def get(
        self, resource: ResourceRef, name: str, namespace: str | None = None, *, resource_version: str | None = None
    ) -> Object: ...

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
    ) -> ObjectList: ...

    def iterate(
        self,
        resource: ResourceRef,
        namespace: str | None = None,
        *,
        labels: str | None = None,
        fields: str | None = None,
        chunk: int = 500,
    ) -> AsyncGenerator[Object, None]:
        """Every object, fetched in chunks of one consistent list."""

    def watch(
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
        """Changes after ``resource_version`` until the server ends the watch. Raises ApiError 410 when it expired."""

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
    ) -> EncodedList: ...

    def watch_encoded(
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
    ) -> AsyncGenerator[EncodedEvent, None]: ...

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
        """Create an object, or POST to a subresource (``token``, ``binding``, ``eviction``) of ``name``."""

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
    ) -> Object: ...

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
    ) -> Object: ...

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
        """Server-side apply (KEP-555)."""

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
    ) -> Object: ...

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
    ) -> None: ...

    async def get_subresource(
        self, resource: ResourceRef, name: str, subresource: str, namespace: str | None = None
    ) -> Object: ...

    async def commit(self, changes: Sequence[ClientChange]) -> Sequence[Object]:
        """All changes or none, where ``can_commit``; raises ApiError 405 elsewhere."""

    @property
    def can_commit(self) -> bool: ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | Pairs = (),
        headers: Mapping[str, str] | Pairs = (),
        body: bytes = b"",
    ) -> bytes:
        """Any request by path (discovery, tables, metrics, logs); raises ApiError on refusal."""

    def raw_stream(
        self, method: str, path: str, *, query: Mapping[str, str] | Pairs = ()
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A streamed body by path (``pods/log?follow=true``)."""

    async def close(self) -> None: ...
