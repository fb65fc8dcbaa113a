"""Whether other servers answer, and what they serve: asked when an APIService changes, and again from time to time.

The answer is the condition ``Available`` of the APIService, with Kubernetes' reasons, and an entry in the registry, from
which discovery and OpenAPI are made. A server that stops answering keeps its entry, marked as stale.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import orjson

from fleetplane.apiserver.aggregation.documents import from_aggregated, from_plain, schema_tag
from fleetplane.apiserver.aggregation.fetching import SwaggerFetcher
from fleetplane.apiserver.aggregation.proxying import Proxy
from fleetplane.apiserver.aggregation.remotes import Remote, Remotes
from fleetplane.apiserver.outgoing import CallFailed
from fleetplane.apiserver.own_writes import OwnWrites
from fleetplane.apiserver.pki import FRONT_PROXY_NAME, Pki
from fleetplane.apiserver.readers import StoreReader
from fleetplane.apiserver.registry import Registry, RemoteVersion
from fleetplane.model import errors
from fleetplane.model.builtin.types import API_SERVICES, CONFIG_MAPS, SERVICES
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.objects import Object, name
from fleetplane.store.protocol import StoreError

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 30.0
_BROKEN_SECONDS: Final = 2.0
_ASK_SECONDS: Final = 5.0
_MAX_DOCUMENT: Final = 16 * 1024 * 1024
_AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
_AUTHENTICATION: Final = "extension-apiserver-authentication"
_LOCAL: Final = ("True", "Local", "Local APIServices are always available")


class Verdict(NamedTuple):
    """The condition ``Available``; ``served`` is what the server serves, where it said so."""

    status: str
    reason: str
    message: str
    served: RemoteVersion | None = None


class _Unavailable(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(slots=True)
class _Due:
    at: float
    service: Object


class Watching:
    """``apply`` is for the follower of APIServices (after ``Remotes.apply``), ``run`` is background work."""

    def __init__(
        self,
        registry: Registry,
        remotes: Remotes,
        proxy: Proxy,
        reader: StoreReader,
        own: OwnWrites,
        environment: Environment,
        pki: Pki,
    ) -> None:
        self._registry = registry
        self._remotes = remotes
        self._proxy = proxy
        self._swaggers = SwaggerFetcher(registry, proxy)
        self._reader = reader
        self._own = own
        self._environment = environment
        self._pki = pki
        self._due: dict[tuple[str, str], _Due] = {}
        self._published: set[str] = set()
        self._changed = asyncio.Event()

    def reset(self) -> None:
        self._due.clear()

    def apply(self, cluster: str, service: Object, deleted: bool) -> None:
        key = (cluster, name(service))
        if deleted:
            self._due.pop(key, None)
            return
        known = self._due.get(key)
        if known is None or known.service.get("spec") != service.get("spec"):
            self._due[key] = _Due(0.0, service)
            self._changed.set()
        else:
            known.service = service

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            now = self._environment.monotonic()
            ready = [key for key, due in self._due.items() if due.at <= now]
            if ready:
                async with asyncio.TaskGroup() as group:
                    for key in ready:
                        group.create_task(self._look(key))
            wait = min((due.at for due in self._due.values()), default=now + _AGAIN_SECONDS)
            try:
                async with asyncio.timeout(max(wait - self._environment.monotonic(), 0.05)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _look(self, key: tuple[str, str]) -> None:
        due = self._due.get(key)
        if due is None:
            return
        cluster, service = key
        remote = self._remotes.named(cluster, service)
        verdict = Verdict(*_LOCAL) if remote is None else await self.judge(cluster, remote)
        if self._due.get(key) is due:
            pause = _AGAIN_SECONDS if verdict.status == "True" else _BROKEN_SECONDS
            due.at = self._environment.monotonic() + pause
        if remote is not None:
            self._serve(cluster, remote, verdict.served)
            await self._publish(cluster)
        await self._try_to_tell(cluster, service, verdict)
        if remote is not None and verdict.served is not None:
            await self._fetch_swagger(cluster, remote)

    def _serve(self, cluster: str, remote: Remote, served: RemoteVersion | None) -> None:
        """What discovery told, beside what is known of OpenAPI v2; stale where it told nothing."""
        key = (remote.group, remote.version)
        if self._remotes.named(cluster, remote.name) != remote:
            return
        known = self._registry.remote(cluster).get(key)
        if known is not None:
            served = replace(known, stale=True) if served is None else replace(served, swagger=known.swagger)
        if served is not None and served != known:
            self._registry.replace_remote(cluster, key, served)

    async def _fetch_swagger(self, cluster: str, remote: Remote) -> None:
        swagger = await self._swaggers.fetch(cluster, remote)
        key = (remote.group, remote.version)
        known = self._registry.remote(cluster).get(key)
        if known is None or self._remotes.named(cluster, remote.name) != remote:
            return  # it ended, or leads elsewhere, while it was asked
        if swagger is not known.swagger:
            self._registry.replace_remote(cluster, key, replace(known, swagger=swagger))

    # -- the condition -------------------------------------------------------------------------------------------------

    async def judge(self, cluster: str, remote: Remote) -> Verdict:
        """Ask the other server, and those who should know where it is."""
        try:
            await self._check_service(cluster, remote)
            served = await self._discover(cluster, remote)
        except _Unavailable as error:
            return Verdict("False", error.reason, str(error))
        except Exception:  # whatever another server says, it must not end ours
            log.exception("APIService %s cannot be judged", remote.name)
            return Verdict("False", "FailedDiscoveryCheck", "its answer makes no sense; the log has the details")
        return Verdict("True", "Passed", "all checks passed", served)

    async def _check_service(self, cluster: str, remote: Remote) -> None:
        where = f'service/{remote.service_name} in "{remote.service_namespace}"'
        service = await self._reader.get(cluster, SERVICES, remote.service_namespace, remote.service_name)
        if service is None:
            raise _Unavailable("ServiceNotFound", f"{where} is not present")
        ports = (service.get("spec") or {}).get("ports") or ()
        if not any(one.get("port") == remote.port for one in ports):
            raise _Unavailable("ServicePortError", f"{where} is not listening on port {remote.port}")
        try:
            await self._proxy.where(cluster, remote, "/")
        except CallFailed:
            told = f"endpoints for {where} have no addresses"
            raise _Unavailable("MissingEndpoints", told) from None

    async def _discover(self, cluster: str, remote: Remote) -> RemoteVersion:
        path = f"apis/{remote.group}/{remote.version}"
        status, plain = await self._ask(cluster, remote, f"/{path}", "application/json")
        if not 200 <= status < 300:
            self._missing(remote, f"bad status from https://{remote.service_name}/{path}: {status}")
        status, whole = await self._ask(cluster, remote, "/apis", _AGGREGATED)
        resources = from_aggregated(whole, remote.group, remote.version) if status == 200 else None
        if resources is None:
            resources = from_plain(plain, remote.group, remote.version)
        status, index = await self._ask(cluster, remote, "/openapi/v3", "application/json")
        return RemoteVersion(tuple(resources), schema_tag(index, path) if status == 200 else None)

    async def _ask(self, cluster: str, remote: Remote, path: str, accept: str) -> tuple[int, Any]:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                status, _, body = await self._proxy.ask(cluster, remote, path, {"Accept": accept}, _MAX_DOCUMENT)
            found = orjson.loads(body) if status == 200 else {}
        except TimeoutError:
            self._missing(remote, "context deadline exceeded")
        except CallFailed as error:
            self._missing(remote, str(error))
        except orjson.JSONDecodeError:
            return 502, {}
        return status, found if isinstance(found, dict) else {}

    def _missing(self, remote: Remote, why: str) -> Any:
        url = f"https://{remote.service_name}.{remote.service_namespace}.svc:{remote.port}"
        told = f"failing or missing response from {url}/apis/{remote.group}/{remote.version}: {why}"
        raise _Unavailable("FailedDiscoveryCheck", told)

    async def _try_to_tell(self, cluster: str, service: str, verdict: Verdict) -> None:
        try:
            await self._tell(cluster, service, verdict)
        except errors.ApiError as error:
            if error.code != 404:
                log.warning("the status of APIService %s cannot be written: %s", service, error)
        except StoreError as error:
            log.warning("the status of APIService %s cannot be written: %s", service, error)

    async def _tell(self, cluster: str, service: str, verdict: Verdict) -> None:
        wanted = {
            "type": "Available",
            "status": verdict.status,
            "reason": verdict.reason,
            "message": verdict.message,
        }
        now = timestamp(self._environment.now())

        async def make(current: Object) -> Object:
            status = current.setdefault("status", {})
            conditions = status.setdefault("conditions", [])
            known = next((one for one in conditions if one.get("type") == "Available"), None)
            if known is None:
                conditions.append({"lastTransitionTime": now, **wanted})
            else:
                if known.get("status") != verdict.status:
                    known["lastTransitionTime"] = now
                known |= wanted
            return current

        await self._own.change(cluster, API_SERVICES, service, make, subresource="status")

    # -- what other servers trust us by --------------------------------------------------------------------------------

    async def _publish(self, cluster: str) -> None:
        """The ConfigMap from which other servers learn whom to believe, once per cluster and start."""
        if cluster in self._published:
            return
        data = {
            "client-ca-file": self._pki.authority_pem.decode(),
            "requestheader-allowed-names": _json([FRONT_PROXY_NAME]),
            "requestheader-client-ca-file": self._pki.front_proxy_authority.certificate_pem.decode(),
            "requestheader-extra-headers-prefix": _json(["X-Remote-Extra-"]),
            "requestheader-group-headers": _json(["X-Remote-Group"]),
            "requestheader-username-headers": _json(["X-Remote-User"]),
        }
        metadata = {"name": _AUTHENTICATION, "namespace": "kube-system"}

        async def make(current: Object) -> Object:
            current["data"] = {**(current.get("data") or {}), **data}
            return current

        try:
            await self._own.ensure(cluster, CONFIG_MAPS, {"metadata": metadata, "data": data})
            await self._own.change(cluster, CONFIG_MAPS, _AUTHENTICATION, make, namespace="kube-system")
        except (errors.ApiError, StoreError) as error:
            log.warning("%s cannot be published: %s", _AUTHENTICATION, error)
        else:
            self._published.add(cluster)


def _json(value: list[str]) -> str:
    return orjson.dumps(value).decode()
