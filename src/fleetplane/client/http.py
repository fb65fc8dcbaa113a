"""The network transport: who we are, where the server is, and bytes to and fro.

What the bytes mean is the REST client's business. Requests go over our own small HTTP/1.1 (``http1``), or through aiohttp
where a proxy stands in the way (``proxied``). Inline client certificates reach OpenSSL through an anonymous in-memory
file, never through the disk.

A request is sent again on its own only after 401 with a credential that can be renewed: it was refused, so nothing was
done. Redirects are not followed: they would carry the credential elsewhere.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

from fleetplane.client.credentials import Credential, Credentials
from fleetplane.client.http1 import MAX_BODY_BYTES, Answer, Pool, Target
from fleetplane.client.kubeconfig import Access, ConfigError
from fleetplane.client.protocol import Pairs, Unreachable
from fleetplane.client.rest import RestClient, connect
from fleetplane.model.environment import Environment, SystemEnvironment

REQUEST_TIMEOUT_SECONDS: Final = 65.0
"""A little more than the minute after which a server gives up on a request itself."""

CONNECT_TIMEOUT_SECONDS: Final = 15.0
_PATH_SAFE: Final = "/:@!$&'()*+,;=~-._"


class Engine(Protocol):
    """What sends a request: ``Pool``, or the library behind a proxy. Raises OSError and TimeoutError."""

    async def request(self, method: str, target: str, headers: Pairs, body: bytes, timeout: float) -> Answer: ...

    def stream(
        self, method: str, target: str, headers: Pairs, body: bytes, timeout: float
    ) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]: ...

    async def close(self) -> None: ...


class HttpTransport:
    """A ``Transport`` to the server of an ``Access``. Opened on first use; ``close`` ends every connection."""

    def __init__(self, access: Access, environment: Environment | None = None) -> None:
        self._access = access
        self._address = urlsplit("http://localhost" if access.server.startswith("unix://") else access.server)
        self._proxy = _proxy(access)
        self._credentials = Credentials(access, environment or SystemEnvironment())
        self._engine: tuple[Credential, Engine] | None = None
        self._retired: list[Engine] = []
        self._compresses = access.compress and not _is_local(access)

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        renewed = False
        while True:
            credential = await self._credentials.current()
            sent = self._headers(headers, credential)
            if self._compresses:
                sent.append(("accept-encoding", "gzip"))
            engine = await self._connected(credential)
            try:
                answer = await engine.request(method, self._target(path, query), sent, body, REQUEST_TIMEOUT_SECONDS)
            except (OSError, TimeoutError) as error:
                raise self._unreachable(error) from error
            if answer.status == 401 and self._credentials.can_renew and not renewed:
                self._credentials.renew(credential)
                renewed = True
                continue
            if answer.headers.get("content-encoding") == "gzip":
                return answer.status, answer.headers, _unzipped(answer.body)
            return answer

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        credential = await self._credentials.current()
        engine = await self._connected(credential)
        sent = self._headers(headers, credential)
        stream = engine.stream(method, self._target(path, query), sent, body, REQUEST_TIMEOUT_SECONDS)
        try:
            status, chunks = await stream.__aenter__()
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        try:
            if status == 401:
                self._credentials.renew(credential)
            yield status, self._chunks(chunks)
        finally:
            await stream.__aexit__(None, None, None)

    async def close(self) -> None:
        if self._engine is not None:
            self._retired.append(self._engine[1])
            self._engine = None
        while self._retired:
            await self._retired.pop().close()

    async def _chunks(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in chunks:
                yield chunk
        except (OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _connected(self, credential: Credential) -> Engine:
        """One engine per client certificate: a renewed one makes new connections."""
        if self._engine is not None and self._engine[0][1:] == credential[1:]:
            return self._engine[1]
        if self._engine is not None:
            self._retired.append(self._engine[1])  # what is under way on it may finish
        if len(self._retired) > 1:
            await self._retired.pop(0).close()
        tls = None
        if self._address.scheme == "https":
            tls = tls_context(self._access, credential.certificate, credential.key)
        engine = self._proxied(tls) if self._proxy else Pool(self._direct(tls), CONNECT_TIMEOUT_SECONDS)
        self._engine = (credential, engine)
        return engine

    def _direct(self, tls: ssl.SSLContext | None) -> Target:
        if self._access.server.startswith("unix://"):
            return Target("localhost", 0, self._access.server[len("unix://") :])
        port = self._address.port or (443 if tls is not None else 80)
        return Target(self._address.hostname or "", port, "", tls, self._access.tls_server_name)

    def _proxied(self, tls: ssl.SSLContext | None) -> Engine:
        # Most connections need no proxy, and the library takes a while to import.
        from fleetplane.client.proxied import Proxied  # noqa: PLC0415

        base = f"{self._address.scheme}://{self._address.netloc}"
        return Proxied(base, self._proxy, tls, self._access.tls_server_name, CONNECT_TIMEOUT_SECONDS)

    def _headers(self, headers: Pairs, credential: Credential) -> list[tuple[str, str]]:
        if credential.authorization:
            return [*headers, ("authorization", credential.authorization)]
        return list(headers)

    def _target(self, path: str, query: Pairs) -> str:
        quoted = self._address.path + quote(path, safe=_PATH_SAFE)
        return f"{quoted}?{urlencode(query)}" if query else quoted

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not trusted ({error.verify_message})"
        elif isinstance(error, TimeoutError):
            why = "it did not answer in time"
        elif isinstance(error, OSError) and error.errno and error.errno > 0:
            why = os.strerror(error.errno)
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


def _proxy(access: Access) -> str:
    """The proxy to use: the kubeconfig's, else HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as every client honours them."""
    address = urlsplit(access.server)
    found = access.proxy_url
    if not found and not _is_local(access) and not urllib.request.proxy_bypass(address.hostname or ""):
        found = urllib.request.getproxies().get(address.scheme, "")
    if found and not found.startswith(("http://", "https://")):
        scheme = found.partition(":")[0]
        raise ConfigError(f"{scheme} proxies are not supported; use an http:// or https:// proxy")
    return found


def _is_local(access: Access) -> bool:
    return access.server.startswith("unix://") or urlsplit(access.server).hostname in {"localhost", "127.0.0.1", "::1"}


def _unzipped(body: bytes) -> bytes:
    """Bounded: a small answer must not become a huge one."""
    unpacking = zlib.decompressobj(wbits=31)
    try:
        data = unpacking.decompress(body, MAX_BODY_BYTES)
    except zlib.error as error:
        raise Unreachable(f"the server's answer cannot be unpacked: {error}") from None
    if unpacking.unconsumed_tail:
        raise Unreachable(f"the server's answer is larger than {MAX_BODY_BYTES} bytes")
    return data
