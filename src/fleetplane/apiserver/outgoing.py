"""Calls the server makes to others: admission and conversion webhooks, aggregated API servers.

One session for all of them, bounded in connections; HTTPS only, TLS 1.2 or newer, checked against the bundle the caller
names (the system's authorities without one). A Service is reached through a ready endpoint of its own, because the
server need not be on the pods' side of a service proxy; its name is what the certificate must be for. No redirects, no
proxies, no cookies, answers bounded in size. Calls for virtual clusters go only where ``egress`` permits, and never over a
connection of the root cluster's. Failures are told in the words Go programs would use: people search for them.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from multidict import CIMultiDict

from fleetplane.apiserver.egress import Egress, NotAllowed
from fleetplane.apiserver.readers import StoreReader
from fleetplane.apiserver.routing import ROOT_CLUSTER
from fleetplane.model.builtin.types import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

MAX_ANSWER: Final = 8 * 1024 * 1024
_CONNECTIONS: Final = 200
_CONNECTIONS_PER_HOST: Final = 50
_CONNECT_SECONDS: Final = 10.0
_CONTEXTS: Final = 256
_SERVICE_LABEL: Final = "kubernetes.io/service-name"


class CallFailed(Exception):
    """The message says what went wrong, as ``Post "https://…": connect: connection refused``."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a call goes. ``host`` and ``port`` are connected to; ``name`` is what the certificate must be for.

    ``confined`` is for whoever does not own this machine: a virtual cluster.
    """

    host: str
    port: int
    name: str
    shown: str
    path: str
    confined: bool


class Services:
    """Finds an address behind a Service."""

    def __init__(self, reader: StoreReader, environment: Environment) -> None:
        self._reader = reader
        self._environment = environment

    async def find(self, cluster: str, namespace: str, name: str, port: int) -> tuple[str, int]:
        """(host, port) of a ready endpoint. Raises CallFailed."""
        service = await self._reader.get(cluster, SERVICES, namespace, name)
        if service is None:
            raise CallFailed(f'service "{name}" not found')
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return str(spec.get("externalName")), port
        found = next((one for one in spec.get("ports") or () if one.get("port") == port), None)
        if found is None:
            raise CallFailed(f'no service port {port} found for service "{name}"')
        ready = await self._endpoints(cluster, namespace, name, str(found.get("name") or ""))
        if not ready:
            raise CallFailed(f'no endpoints available for service "{name}"')
        return self._environment.random.choice(ready)

    async def _endpoints(self, cluster: str, namespace: str, name: str, port: str) -> list[tuple[str, int]]:
        slices = await self._reader.list(cluster, ENDPOINT_SLICES, namespace, labels=f"{_SERVICE_LABEL}={name}")
        found = [address for one in slices for address in _in_slice(one, port)]
        if found or slices:
            return found
        old = await self._reader.get(cluster, ENDPOINTS, namespace, name)
        return [] if old is None else _in_endpoints(old, port)


def _in_slice(endpoint_slice: Mapping[str, Any], port: str) -> list[tuple[str, int]]:
    if endpoint_slice.get("addressType") == "FQDN":
        return []
    numbers = [one["port"] for one in endpoint_slice.get("ports") or () if (one.get("name") or "") == port]
    hosts = [
        address
        for endpoint in endpoint_slice.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or ()
    ]
    return [(host, number) for host in hosts for number in numbers if number]


def _in_endpoints(endpoints: Mapping[str, Any], port: str) -> list[tuple[str, int]]:
    return [
        (address["ip"], one["port"])
        for subset in endpoints.get("subsets") or ()
        for address in subset.get("addresses") or ()
        for one in subset.get("ports") or ()
        if (one.get("name") or "") == port
    ]


class Outgoing:
    """See the module. ``run`` is background work that closes the session in the end."""

    def __init__(self, services: Services, egress: Egress) -> None:
        self._services = services
        self._egress = egress
        self._sessions: dict[bool, ClientSession] = {}
        """By whether they are confined: a connection is used again by its like only."""
        self._contexts: OrderedDict[tuple[str, str, str], ssl.SSLContext] = OrderedDict()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            for session in self._sessions.values():
                await session.close()

    # -- where ---------------------------------------------------------------------------------------------------------

    async def destination(self, cluster: str, config: Mapping[str, Any]) -> Destination:
        """Where a ``WebhookClientConfig`` leads. Raises CallFailed."""
        url = config.get("url")
        if url:
            from yarl import URL  # noqa: PLC0415 - with aiohttp, where there are webhooks

            parsed = URL(str(url))
            host = parsed.host or ""
            shown = str(parsed.with_query(None))
            return Destination(host, parsed.port or 443, host, shown, parsed.path or "/", _is_confined(cluster))
        service = config.get("service") or {}
        return await self.service(
            cluster,
            str(service.get("namespace") or ""),
            str(service.get("name") or ""),
            int(service.get("port") or 443),
            str(service.get("path") or "/"),
        )

    async def service(self, cluster: str, namespace: str, name: str, port: int, path: str) -> Destination:
        host, number = await self._services.find(cluster, namespace, name, port)
        server = f"{name}.{namespace}.svc"
        return Destination(host, number, server, f"https://{server}:{port}{path}", path, _is_confined(cluster))

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def post(self, cluster: str, config: Mapping[str, Any], body: Object, seconds: float) -> Object:
        """Send JSON to a webhook and read its JSON answer. Raises CallFailed."""
        shown = shown_url(config)
        context = self.trusting(str(config.get("caBundle") or ""))
        try:
            async with asyncio.timeout(seconds):
                where = await self.destination(cluster, config)
                headers = {"Accept": "application/json, */*", "Content-Type": "application/json"}
                query = {"timeout": f"{seconds:g}s"}
                async with self.request("POST", where, context, orjson.dumps(body), headers, query) as response:
                    answer = await bounded(response, MAX_ANSWER)
                    status, is_text = response.status, response.content_type.startswith("text/")
        except TimeoutError:
            raise CallFailed(f'Post "{shown}?timeout={seconds:g}s": context deadline exceeded') from None
        except CallFailed as error:
            raise CallFailed(f'Post "{shown}?timeout={seconds:g}s": {error}') from None
        if not 200 <= status < 300:
            raise CallFailed(_refusal(status, answer, is_text=is_text))
        try:
            found = orjson.loads(answer)
        except orjson.JSONDecodeError as error:
            raise CallFailed(f"couldn't get version/kind; json parse error: {error}") from None
        if not isinstance(found, dict):
            raise CallFailed("couldn't get version/kind; json parse error: the answer is not an object")
        return found

    @asynccontextmanager
    async def request(
        self,
        method: str,
        where: Destination,
        context: ssl.SSLContext,
        body: bytes,
        headers: Mapping[str, str],
        query: Mapping[str, str] | Sequence[tuple[str, str]],
    ) -> AsyncIterator[ClientResponse]:
        """One request; the answer is read inside the context. Raises CallFailed."""
        import aiohttp  # noqa: PLC0415 - loaded where something is called
        from yarl import URL  # noqa: PLC0415

        url = URL.build(scheme="https", host=where.host, port=where.port, path=where.path, query=query)
        named = CIMultiDict(headers.items())
        named["Host"] = where.name
        named.setdefault("User-Agent", "fleetplane-apiserver")
        try:
            async with self._open(where.confined).request(
                method,
                url,
                data=body or None,
                headers=named,
                ssl=context,
                server_hostname=where.name,
                allow_redirects=False,
            ) as response:
                yield response
        except (aiohttp.ClientError, OSError) as error:
            raise CallFailed(_reason(error, where)) from error

    async def connect(
        self, where: Destination, context: ssl.SSLContext
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own, kept alive and in nobody's pool. Raises CallFailed."""
        try:
            host = await self._permitted(where) if where.confined else where.host
            reader, writer = await asyncio.open_connection(
                host,
                where.port,
                ssl=context,
                server_hostname=where.name,
                ssl_handshake_timeout=_CONNECT_SECONDS,
                ssl_shutdown_timeout=2,
            )
        except OSError as error:
            raise CallFailed(_reason(error, where)) from error
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return reader, writer

    async def _permitted(self, where: Destination) -> str:
        """The first address of a host that may be called. Raises OSError."""
        found = await asyncio.get_running_loop().getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
        for *_, address in found:
            if self._egress.permits(str(address[0])):
                return str(address[0])
        raise NotAllowed

    def _open(self, confined: bool) -> ClientSession:
        found = self._sessions.get(confined)
        if found is None:
            import aiohttp  # noqa: PLC0415

            found = self._sessions[confined] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=_CONNECTIONS,
                    limit_per_host=_CONNECTIONS_PER_HOST,
                    socket_factory=self._egress.make_socket if confined else None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                auto_decompress=True,
            )
        return found

    # -- TLS -----------------------------------------------------------------------------------------------------------

    def trusting(self, bundle: str, *, client: str = "", verify: bool = True) -> ssl.SSLContext:
        """A context that trusts a base64 PEM bundle, or the system's; ``client`` is a file with our certificate and key.

        Raises CallFailed for a bundle that cannot be used.
        """
        key = (bundle, client, "verify" if verify else "")
        found = self._contexts.get(key)
        if found is not None:
            self._contexts.move_to_end(key)
            return found
        try:
            authorities = base64.b64decode(bundle).decode() if bundle else None
            context = ssl.create_default_context(cadata=authorities)
        except (ValueError, ssl.SSLError):
            raise CallFailed("unable to load root certificates: unable to parse bytes as PEM block") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if client:
            context.load_cert_chain(client)
        self._contexts[key] = context
        if len(self._contexts) > _CONTEXTS:
            self._contexts.popitem(last=False)
        return context


def _is_confined(cluster: str) -> bool:
    return cluster != ROOT_CLUSTER


def shown_url(config: Mapping[str, Any]) -> str:
    """How a webhook's address is told to people."""
    if config.get("url"):
        return str(config["url"])
    service = config.get("service") or {}
    path = str(service.get("path") or "/")
    return f"https://{service.get('name')}.{service.get('namespace')}.svc:{service.get('port') or 443}{path}"


async def bounded(response: ClientResponse, most: int) -> bytes:
    """The body of an answer. Raises CallFailed when it is larger than ``most`` bytes."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > most:
            raise CallFailed(f"the answer is larger than {most} bytes")
    return bytes(body)


def _reason(error: Exception, where: Destination) -> str:
    import aiohttp  # noqa: PLC0415

    address = f"[{where.host}]:{where.port}" if ":" in where.host else f"{where.host}:{where.port}"
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(cause, NotAllowed):
        return f"dial tcp {address}: {cause}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {_certificate_problem(cause, where.name)}"
    if isinstance(cause, ssl.SSLError):
        return f"tls: {cause.reason or cause}"
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return f"dial tcp: lookup {where.host}: no such host"
    if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
        return f"dial tcp {address}: connect: connection refused"
    if isinstance(error, aiohttp.ServerTimeoutError):
        return f"dial tcp {address}: i/o timeout"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {address}: connect: {cause}"
    return str(error) or type(error).__name__


def _certificate_problem(error: ssl.SSLCertVerificationError, name: str) -> str:
    text = error.verify_message or str(error)
    if "issuer" in text or "self" in text:
        return "certificate signed by unknown authority"
    if "expired" in text:
        return "certificate has expired or is not yet valid"
    return f"certificate is not valid for {name}: {text}"


_REFUSALS: Final = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


def _refusal(status: int, body: bytes, *, is_text: bool) -> str:
    """What client-go makes of an answer that is an error."""
    try:
        told = orjson.loads(body)
        if isinstance(told, dict) and told.get("kind") == "Status" and told.get("message"):
            return str(told["message"])
    except orjson.JSONDecodeError:
        pass
    if status in _REFUSALS:
        return _REFUSALS[status]
    text = body[:2048].decode(errors="replace").strip() if is_text else "unknown"
    if status in (403, 406, 415):
        return text
    if status >= 500:
        return f"an error on the server ({json.dumps(text)}) has prevented the request from succeeding"
    return f"the server responded with the status code {status} but did not return more information"
