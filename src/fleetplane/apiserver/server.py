"""The API server: one request, straight down the stages.

``ApiServer.handle`` is the only entrance, for the network and for callers in this process alike. It composes the stages,
turns every refusal into a Status, and lets nothing else out: an exception nobody expected is logged with its traceback
and told to the client as one sentence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import orjson
from prometheus_client import CollectorRegistry, generate_latest

from fleetplane.apiserver.admission.chain import AdmissionChain
from fleetplane.apiserver.admission.connecting import admit_connection
from fleetplane.apiserver.aggregation.stage import Aggregation
from fleetplane.apiserver.allocation import Allocators
from fleetplane.apiserver.audit import Audit, Trail
from fleetplane.apiserver.authorization.attributes import EVERY_CLUSTER, Attributes, Authorizer
from fleetplane.apiserver.authorization.attributes import forbidden as refusal
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.deleting import Deletes
from fleetplane.apiserver.discovery import Discovery
from fleetplane.apiserver.following import Follower
from fleetplane.apiserver.health import Health, version
from fleetplane.apiserver.http import JSON, Request, Response
from fleetplane.apiserver.metrics import ServerMetrics
from fleetplane.apiserver.negotiation import negotiate
from fleetplane.apiserver.openapi import OpenApi
from fleetplane.apiserver.reading import Reads
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.apiserver.routing import ROOT_CLUSTER, Target, resolve
from fleetplane.apiserver.shared import SharedLayer
from fleetplane.apiserver.storage import ObjectStorage, unavailable
from fleetplane.apiserver.subresources import Handler, Subresources
from fleetplane.apiserver.writing import Companions, Released, Writes
from fleetplane.model import errors
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.selectors import FieldSelector
from fleetplane.model.user import UserInfo
from fleetplane.store.protocol import Store, StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request acts as, and who really asked if that is another."""

    user: UserInfo
    impersonated_by: UserInfo | None = None


Authenticate = Callable[[Request, Target, str], Awaitable[Caller]]
"""From a request, its target and the id of the logical cluster it goes to, who asks. Raises ApiError 401 or 403."""
PathHandler = Callable[[Request], Awaitable[Response]]
Background = Callable[[], Awaitable[None]]

_STREAMS = frozenset({"log", "exec", "attach", "portforward", "proxy"})
_SELECTING = frozenset({"list", "watch", "deletecollection"})
_OF_ONE = frozenset({"update", "patch"})
_MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, slots=True)
class Limits:
    """How many requests may be in flight at once; watches and other streams do not count."""

    reading: int = 400
    mutating: int = 200


class _UnderWay:
    """How many requests of one sort are under way. ``with`` counts one; too many at once are told to come back."""

    __slots__ = ("_most", "now")

    def __init__(self, most: int) -> None:
        self._most = most
        self.now = 0

    def __enter__(self) -> None:
        if self.now >= self._most:
            raise errors.too_many_requests("too many requests, please try again later")
        self.now += 1

    def __exit__(self, *_: object) -> None:
        self.now -= 1


_UNCOUNTED = nullcontext()


def _at_root(_request: Request) -> str:
    return ROOT_CLUSTER


def _decide_nothing(_request: Object, _cluster: str) -> Object | None:
    return None


def _note_nothing(_cluster: str | None, _user: UserInfo) -> None:
    """Nobody wants to know who uses which cluster."""


@dataclass(slots=True)
class Parts:
    """What a server is made of.

    ``subresources`` and ``reviews`` are handlers by (plural, subresource) for what is no plain object access; ``paths``
    are handlers of whole paths outside the resource tree; ``background`` is what runs as long as the server does.
    ``home`` names the logical cluster of a request whose path names none.
    """

    store: Store
    registry: Registry
    clusters: Clusters
    environment: Environment
    authenticate: Authenticate
    authorize: Authorizer
    admission: AdmissionChain
    allocators: Allocators
    health: Health
    shared: SharedLayer | None = None
    followers: Sequence[Follower] = ()
    subresources: Mapping[tuple[str, str], Handler] = field(default_factory=dict)
    paths: Mapping[str, PathHandler] = field(default_factory=dict)
    background: Sequence[Background] = ()
    released: Released | None = None
    companions: Mapping[tuple[str, str], Companions] = field(default_factory=dict)
    aggregation: Aggregation | None = None
    limits: Limits = field(default_factory=Limits)
    audit: Audit | None = None
    home: Callable[[Request], str] = _at_root
    approve_request: Callable[[Object, str], Object | None] = _decide_nothing
    sign_request: Callable[[Object, str], Object | None] = _decide_nothing
    note_use: Callable[[str | None, UserInfo], None] = _note_nothing


class ApiServer:
    """Serves the Kubernetes API over one store."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.registry = parts.registry
        self.certificates = parts.approve_request, parts.sign_request
        """What a controller needs to approve and sign CertificateSigningRequests."""
        self.clusters = parts.clusters
        self._environment = parts.environment
        shared = parts.shared
        storage = ObjectStorage(parts.store, shared.find) if shared is not None else ObjectStorage(parts.store)
        followers: dict[tuple[str, str], list[Follower]] = {}
        for follower in parts.followers:
            followers.setdefault(follower.resource, []).append(follower)
        self.writes = Writes(
            storage,
            parts.admission,
            parts.allocators,
            parts.clusters,
            parts.environment,
            followers,
            parts.released,
            parts.companions,
        )
        self.deletes = Deletes(storage, self.writes, parts.admission, parts.clusters, parts.environment)
        self._reads = Reads(storage, parts.clusters, parts.environment, shared)
        self._subresources = Subresources(
            storage, parts.registry, self.writes, self.deletes, parts.environment, parts.subresources
        )
        self._discovery = Discovery(parts.registry)
        self._openapi = OpenApi(parts.registry)
        self._reading = _UnderWay(parts.limits.reading)
        self._mutating = _UnderWay(parts.limits.mutating)
        self._metrics = ServerMetrics(
            lambda: {"readOnly": self._reading.now, "mutating": self._mutating.now},
            lambda target: parts.registry.find_anywhere(target.group, target.version, target.resource) is not None,
        )
        self.more_collectors: list[CollectorRegistry] = []
        """Registries of other parts of the plane, shown on the same page."""
        self.collectors = CollectorRegistry()
        self.collectors.register(self._metrics)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ApiServer]:
        """Follow what must be followed; ready when everything has been seen once."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(follower.run()) for follower in self._parts.followers]
            for follower in self._parts.followers:
                await follower.synced.wait()
            tasks += [group.create_task(_run(work)) for work in self._parts.background]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    async def handle(self, request: Request) -> Response:
        """Answer one request. Raises nothing but cancellation."""
        started = self._environment.monotonic()
        target = resolve(request)
        if target.cluster == ROOT_CLUSTER and not request.path.startswith("/clusters/"):
            target.cluster = self._parts.home(request)
        trail: Trail | None = None
        panicked = False
        try:
            cluster = self._parts.clusters.resolve(target.cluster)
            caller = await self._authenticate(request, target, cluster)
            attributes = _attributes(request, target, caller.user, cluster)
            if self._parts.audit is not None:
                trail = self._parts.audit.received(request, attributes, impersonated_by=caller.impersonated_by)
            self._authorize(attributes, trail)
            self._parts.note_use(cluster, caller.user)
            response = await self._answer(request, target, caller.user, cluster, trail)
        except errors.ApiError as error:
            response = error_response(error)
        except StoreError as error:
            response = error_response(unavailable(error))
        except RecursionError:
            response = error_response(errors.bad_request("the request is nested too deeply"))
        except Exception:
            log.exception("a request failed unexpectedly: %s %s", request.method, target.path)
            response = error_response(
                errors.internal("the server met an error it did not expect; its log has the details")
            )
            panicked = True
        if trail is not None:
            response.headers["Audit-Id"] = trail.audit_id
            if panicked:
                trail.panicked()
            elif response.stream is None:
                trail.completed(response.status, response.body)
            else:
                trail.started(response.status)
                response.stream = _audited(response.stream, trail, response.status)
        self._metrics.observe(request, target, response, self._environment.monotonic() - started)
        return response

    async def _answer(
        self, request: Request, target: Target, user: UserInfo, cluster: str | None, trail: Trail | None
    ) -> Response:
        elsewhere = None if self._parts.aggregation is None else self._parts.aggregation.find(cluster, target.path)
        if elsewhere is not None:
            with self._counted(target):
                return await elsewhere(request, user)
        if not target.is_resource:
            return await self._path(request, target, cluster)
        served = self._serve(target, cluster)
        call = Call(request, target, served, user, cluster)
        if trail is not None:
            call.annotations = trail.annotations
        call.representation = negotiate(request.headers.get("accept", ""))
        if served.deprecated:
            call.warn(served.deprecated)
        with self._counted(target):
            response = await self._dispatch(call)
        if call.warnings:
            response.headers["Warning"] = ", ".join(f"299 - {_quoted(text)}" for text in call.warnings)
        return response

    async def _authenticate(self, request: Request, target: Target, cluster: str | None) -> Caller:
        return await self._parts.authenticate(request, target, cluster or ROOT_CLUSTER)

    def authorize_call(self, call: Call) -> None:
        """Authorize a write that is part of a larger request. Raises ApiError 403."""
        self._authorize(_attributes(call.request, call.target, call.user, call.cluster), None)

    def _authorize(self, attributes: Attributes, trail: Trail | None) -> None:
        decision = self._parts.authorize(attributes)
        if trail is not None:
            trail.decided(decision)
        if not decision.allowed:
            raise refusal(attributes, decision.reason)

    def _serve(self, target: Target, cluster: str | None) -> Served:
        registry = self._parts.registry
        if cluster is None:
            if target.verb not in ("list", "watch"):
                raise errors.method_not_allowed("objects of all clusters can be listed and watched, nothing else")
            found = registry.find_anywhere(target.group, target.version, target.resource)
        else:
            found = registry.find(cluster, target.group, target.version, target.resource)
        if found is None:
            raise errors.unknown_path()
        if target.subresource and target.subresource not in found.subresources:
            raise errors.unknown_path()
        if target.verb in _OF_ONE and not target.name:
            raise errors.method_not_allowed()
        if found.type.namespaced:
            if target.verb == "create" and not target.namespace and "list" in found.verbs:
                raise errors.method_not_allowed()
            if (
                not target.namespace
                and target.verb not in ("list", "watch", "deletecollection")
                and (target.name or target.verb != "create" or "get" in found.verbs)
            ):
                raise errors.bad_request("namespace is required: an object of this kind lives in one")
        elif target.namespace and not (target.resource == "namespaces" and not target.group):
            raise errors.unknown_path()
        if not target.subresource and target.verb not in found.verbs:
            raise errors.method_not_allowed()
        if found.terminating and target.verb == "create":
            raise errors.method_not_allowed("create not allowed while custom resource definition is terminating")
        return found

    def _counted(self, target: Target) -> AbstractContextManager[None]:
        if target.verb == "watch" or target.subresource in _STREAMS:
            return _UNCOUNTED
        return self._mutating if target.verb in _MUTATING else self._reading

    async def _dispatch(self, call: Call) -> Response:
        handler = self._subresources.find(call)
        if handler is not None:
            await admit_connection(self._parts.admission, self._parts.clusters, self._environment, call)
            return await handler(call)
        match call.target.verb:
            case "get":
                return await self._reads.get(call)
            case "list":
                return await self._reads.list_(call)
            case "watch":
                return await self._reads.watch(call)
            case "create":
                if call.target.name:
                    raise errors.method_not_allowed()
                return await self.writes.create(call)
            case "update":
                return await self.writes.update(call)
            case "patch":
                return await self.writes.patch(call)
            case "delete":
                return await self.deletes.delete(call)
            case "deletecollection":
                return await self.deletes.delete_collection(call)
        raise errors.method_not_allowed()

    async def _path(self, request: Request, target: Target, cluster: str | None) -> Response:
        path = target.path
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        if path == "/version":
            return version()
        if path == "/metrics":
            body = b"".join(generate_latest(one) for one in (self.collectors, *self.more_collectors))
            return Response(200, body, "text/plain; version=0.0.4; charset=utf-8")
        health = await self._parts.health.answer(request, path)
        if health is not None:
            return health
        handler = self._parts.paths.get(path)
        if handler is not None:
            return await handler(request)
        where = cluster or ROOT_CLUSTER
        found = self._discovery.answer(request, target, where) or self._openapi.answer(request, target, where)
        if found is not None:
            return found
        if path == "/":
            return Response(200, orjson.dumps({"paths": self._root_paths(where)}))
        raise errors.unknown_path()

    def _root_paths(self, cluster: str) -> list[str]:
        groups = {one.type.group for one in self._parts.registry.all(cluster) if one.type.group}
        versions = {one.type.api_version for one in self._parts.registry.all(cluster) if one.type.group}
        listed = ["/api", "/api/v1", "/apis", *(f"/apis/{one}" for one in groups | versions)]
        return sorted([*listed, "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"])


def _attributes(request: Request, target: Target, user: UserInfo, cluster: str | None) -> Attributes:
    where = EVERY_CLUSTER if cluster is None else cluster
    if not target.is_resource:
        return Attributes(user, target.verb, path=target.path, cluster=where)
    attributes = Attributes(
        user,
        target.verb,
        target.group,
        target.version,
        target.resource,
        target.subresource,
        target.namespace,
        target.name,
        cluster=where,
    )
    selector = request.query.get("fieldSelector")
    if selector and target.verb in _SELECTING:
        _narrow(attributes, selector)
    return attributes


async def _audited(stream: AsyncIterator[bytes], trail: Trail, status: int) -> AsyncIterator[bytes]:
    try:
        async for chunk in stream:
            yield chunk
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
        trail.completed(status)


def _narrow(attributes: Attributes, selector: str) -> None:
    """What a list or watch narrows itself to counts in authorization: a node may watch its own pods, nobody else's."""
    try:
        parsed = FieldSelector.parse(selector)
    except ValueError:
        return  # the stage that selects refuses it
    attributes.field_selector = parsed.requirements
    names = [one.value for one in parsed.requirements if one.field == "metadata.name" and not one.negated]
    if names and not attributes.name:
        attributes.name = names[0]


async def _run(work: Background) -> None:
    await work()


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def error_response(error: errors.ApiError) -> Response:
    """The Status of a refusal."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(error.retry_after, 1))}
    if error.code == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="fleetplane"'
    return Response(error.code, orjson.dumps(error.to_status()), JSON, headers)
