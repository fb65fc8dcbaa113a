"""Asking a container over the network: the HTTP, TCP and gRPC health requests of probes and hooks.

Requests go to the pod's address from the node, as the kubelet's do: no proxy, no certificate check on HTTPS, at most
ten redirects within the same host, and no more of a body than a message needs.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict

from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.messages import decode, encode, text, whole
from fleetplane.node.grpc_library import load_grpc
from fleetplane.node.pod import ContainerView
from fleetplane.node.probes import Answer

SHOWN_BODY: Final = 10 * 1024
MOST_REDIRECTS: Final = 10
_GRPC_SERVING: Final = 1
_GRPC_STATUSES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


@dataclass
class _HealthRequest:
    """``grpc.health.v1``."""

    service: str = text(1)


@dataclass
class _HealthResponse:
    status: int = whole(1)


def port_number(container: ContainerView, port: Any) -> int:
    """The number of a port given by number or by the name a container port has. Raises ValueError."""
    if isinstance(port, int):
        number = port
    elif isinstance(port, str) and port.isdecimal():
        number = int(port)
    else:
        named = [p for p in container.spec.get("ports") or [] if p.get("name") == port]
        if not named:
            raise ValueError(f"couldn't find port {port!r} in the ports of container {container.name}")
        number = int(named[0].get("containerPort") or 0)
    if not 0 < number < 65_536:
        raise ValueError(f"invalid port number: {number}")
    return number


def bracketed(host: str) -> str:
    """A host as it stands in a URL: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


class NetworkAsker:
    """Holds one HTTP session without pooling: each probe is a connection of its own, as the kubelet's."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Nothing is verified, so nothing that could verify is loaded: certificate stores are slow to read.
            unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            unverified.check_hostname = False
            unverified.verify_mode = ssl.CERT_NONE
            connector = aiohttp.TCPConnector(force_close=True, limit=0, ssl=unverified)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._session

    async def http(
        self, get: Mapping[str, Any], container: ContainerView, addresses: Sequence[str], timeout_seconds: float
    ) -> Answer:
        """An HTTP GET; 200 to 399 is healthy."""
        host = str(get.get("host") or (addresses[0] if addresses else ""))
        if not host:
            return Answer(False, "the pod has no address to ask")
        scheme = str(get.get("scheme") or "HTTP").lower()
        try:
            port = port_number(container, get.get("port"))
        except ValueError as error:
            return Answer(False, str(error))
        path = str(get.get("path") or "/")
        url = f"{scheme}://{bracketed(host)}:{port}{path if path.startswith('/') else '/' + path}"
        headers: CIMultiDict[str] = CIMultiDict({"User-Agent": "kube-probe/1.37", "Accept": "*/*"})
        for header in get.get("httpHeaders") or []:
            name, value = str(header.get("name") or ""), str(header.get("value") or "")
            if name.lower() in {"user-agent", "accept", "host"}:
                headers[name] = value
            else:
                headers.add(name, value)
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._http().get(url, headers=headers, max_redirects=MOST_REDIRECTS) as response,
            ):
                await response.content.read(SHOWN_BODY)
                code = response.status
        except TimeoutError:
            return Answer(
                False,
                f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(False, f'Get "{url}": {error}')
        if 200 <= code < 400:
            return Answer(True)
        return Answer(False, f"HTTP probe failed with statuscode: {code}")

    async def tcp(
        self, socket: Mapping[str, Any], container: ContainerView, addresses: Sequence[str], timeout_seconds: float
    ) -> Answer:
        """A TCP connection that can be opened is healthy."""
        host = str(socket.get("host") or (addresses[0] if addresses else ""))
        if not host:
            return Answer(False, "the pod has no address to ask")
        try:
            port = port_number(container, socket.get("port"))
            async with asyncio.timeout(timeout_seconds):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return Answer(False, f"dial tcp {bracketed(host)}:{port}: i/o timeout")
        except (OSError, ValueError) as error:
            return Answer(False, f"dial tcp {bracketed(host)}: {error}")
        writer.close()
        return Answer(True)

    async def grpc(
        self, grpc: Mapping[str, Any], container: ContainerView, addresses: Sequence[str], timeout_seconds: float
    ) -> Answer:
        """The standard health service (``grpc.health.v1.Health/Check``) answering SERVING."""
        try:
            library = load_grpc()
        except ImportError:
            return Answer(False, "gRPC probes need the package grpcio: install fleetplane[grpc]")
        if not addresses:
            return Answer(False, "the pod has no address to ask")
        codes, grpc_aio = library.StatusCode, library.aio
        request = encode(_HealthRequest(str(grpc.get("service") or "")))
        target = f"{bracketed(addresses[0])}:{port_number(container, grpc.get('port'))}"
        try:
            # A channel of its own, as each probe's connection is: a shared one would remember earlier failures.
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc_aio.insecure_channel(target, options=options) as channel:
                call = channel.unary_unary("/grpc.health.v1.Health/Check")
                reply: bytes = await call(request, timeout=timeout_seconds)
        except grpc_aio.AioRpcError as error:
            if error.code() is codes.DEADLINE_EXCEEDED:
                within = f"{timeout_seconds:g}s" if timeout_seconds >= 1 else f"{timeout_seconds * 1000:g}ms"
                return Answer(False, f'timeout: failed to connect service "{target}" within {within}')
            if error.code() is codes.UNIMPLEMENTED:
                words = "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                return Answer(False, f"error: {words}")
            return Answer(False, f"error: health rpc failed: {error.details()}")
        try:
            status = decode(_HealthResponse, reply).status
        except DecodeError as error:
            return Answer(False, f"error: health rpc failed: {error}")
        if status == _GRPC_SERVING:
            return Answer(True)
        return Answer(False, f'service unhealthy (responded with "{_GRPC_STATUSES.get(status, status)}")')

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
