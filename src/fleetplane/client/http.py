"""The network transport: HTTP/1.1 over TLS or a Unix socket, by aiohttp.

It moves bytes and proves who we are; what they mean is the REST client's business. Each watch has a connection of its
own. Inline client certificates reach OpenSSL through an anonymous in-memory file, never through the disk.

A request is sent again on its own only after 401 with a credential that can be renewed: it was refused, so nothing was
done. Redirects are not followed: they would carry the credential elsewhere.
"""

from __future__ import annotations

import os
import socket
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from fleetplane.client.credentials import Credential, Credentials
from fleetplane.client.kubeconfig import Access, ConfigError
from fleetplane.client.protocol import Pairs, Unreachable
from fleetplane.client.rest import RestClient, connect
from fleetplane.model.environment import Environment, SystemEnvironment

REQUEST_TIMEOUT_SECONDS: Final = 65.0
"""A little more than the minute after which a server gives up on a request itself."""

CONNECT_TIMEOUT_SECONDS: Final = 15.0
MAX_BODY_BYTES: Final = 1024 * 1024 * 1024
_PATH_SAFE: Final = "/:@!$&'()*+,;=~-._"


class HttpTransport:
    """A ``Transport`` to the server of an ``Access``. Opened on first use; ``close`` ends every connection."""

    def __init__(self, access: Access, environment: Environment | None = None) -> None:
        self._access = access
        self._base, self._socket_path = _base(access.server)
        self._credentials = Credentials(access, environment or SystemEnvironment())
        self._session: aiohttp.ClientSession | None = None
        self._tls: tuple[Credential, ssl.SSLContext] | None = None
        self._fixed = _fixed_options(access, self._base)

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)
        renewed = False
        while True:
            credential = await self._credentials.current()
            options = self._options(credential, headers, timeout)
            try:
                async with self._open().request(method, self._url(path, query), data=body or None, **options) as response:
                    data = await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise self._unreachable(error) from error
            if response.status == 401 and self._credentials.can_renew and not renewed:
                self._credentials.renew(credential)
                renewed = True
                continue
            return response.status, {name.lower(): value for name, value in response.headers.items()}, data

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS)
        credential = await self._credentials.current()
        options = self._options(credential, headers, timeout)
        try:
            response = await self._open().request(method, self._url(path, query), data=body or None, **options)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        try:
            if response.status == 401:
                self._credentials.renew(credential)
            yield response.status, self._chunks(response)
        finally:
            response.close()  # not release(): an unfinished watch must not go back to the pool

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector
            if self._socket_path:
                connector = aiohttp.UnixConnector(path=self._socket_path, limit=0)
            else:
                connector = aiohttp.TCPConnector(limit=0, socket_factory=_alive_socket, ttl_dns_cache=30)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    def _options(self, credential: Credential, headers: Pairs, timeout: aiohttp.ClientTimeout) -> dict[str, Any]:
        sent = list(headers)
        if credential.authorization:
            sent.append(("authorization", credential.authorization))
        if not self._access.compress or _is_loopback(self._base):
            sent.append(("accept-encoding", "identity"))
        options = {**self._fixed, "headers": sent, "timeout": timeout}
        if self._base.startswith("https://"):
            options["ssl"] = self._tls_context(credential)
        return options

    def _tls_context(self, credential: Credential) -> ssl.SSLContext:
        """One context per client certificate; a renewed certificate makes new connections."""
        if self._tls is None or self._tls[0][1:] != credential[1:]:
            self._tls = (credential, tls_context(self._access, credential.certificate, credential.key))
        return self._tls[1]

    def _url(self, path: str, query: Pairs) -> URL:
        quoted = quote(path, safe=_PATH_SAFE)
        return URL(f"{self._base}{quoted}?{urlencode(query)}" if query else self._base + quoted, encoded=True)

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            why = f"its certificate is not trusted ({error.certificate_error})"
        elif isinstance(error, TimeoutError):
            why = "it did not answer in time"
        elif isinstance(error, aiohttp.ClientConnectorError):
            why = os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)
        else:
            why = str(error) or type(error).__name__
        return Unreachable(f"cannot reach {self._access.server}: {why}")


async def connect_to(access: Access, environment: Environment | None = None) -> RestClient:
    """A client for the server of an ``Access``; asks it once what it can do."""
    transport = HttpTransport(access, environment)
    try:
        client = await connect(transport)
    except BaseException:
        await transport.close()
        raise
    return client.acting_as(access.act_as, access.act_as_groups) if access.act_as else client


def tls_context(access: Access, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=access.ca.decode() if access.ca else None)
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        _load_certificate(context, certificate, key or b"")
    return context


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # OpenSSL's Python face only reads files; a memfd is one that no other process and no disk ever sees.
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate.rstrip() + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"the client certificate and key of the kubeconfig do not work: {error}") from None
    finally:
        os.close(descriptor)


def _base(server: str) -> tuple[str, str]:
    """(address to request, socket path)"""
    if server.startswith("unix://"):
        return "http://localhost", server[len("unix://") :]
    return server, ""


def _fixed_options(access: Access, base: str) -> dict[str, Any]:
    options: dict[str, Any] = {"allow_redirects": False, "skip_auto_headers": ("User-Agent",)}
    if access.tls_server_name:
        options["server_hostname"] = access.tls_server_name
    if proxy := access.proxy_url or _proxy_of_environment(base):
        if not proxy.startswith(("http://", "https://")):
            scheme = proxy.partition(":")[0]
            raise ConfigError(f"{scheme} proxies are not supported; use an http:// or https:// proxy")
        options["proxy"] = proxy
    return options


def _proxy_of_environment(base: str) -> str:
    """HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as every client honours them."""
    address = urlsplit(base)
    if _is_loopback(base) or urllib.request.proxy_bypass(address.hostname or ""):
        return ""
    return urllib.request.getproxies().get(address.scheme, "")


def _is_loopback(base: str) -> bool:
    return urlsplit(base).hostname in {"localhost", "127.0.0.1", "::1"}


def _alive_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket whose keep-alive finds a dead peer in about a minute, so that no watch hangs for ever."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
