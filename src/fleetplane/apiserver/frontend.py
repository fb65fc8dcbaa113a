"""HTTP and TLS: from bytes on a connection to a ``Request``, and back.

The only module of the server that knows aiohttp. It bounds what a client can make us hold (header and body sizes, time to
send a body, time to read an answer) and hands everything else to the stages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from fleetplane.apiserver.decoding import MAX_BODY
from fleetplane.apiserver.http import Handler, Request, Response
from fleetplane.apiserver.patience import HANDSHAKE_SECONDS, Doorkeeper, Patience
from fleetplane.apiserver.server import error_response
from fleetplane.model import errors

_MAX_FIELD = 64 * 1024
_PIECE = 256 * 1024
"""A larger answer is written in pieces, each of which must be read in time."""
_NEVER_WAITS = 32 * 1024
"""So much fits into an empty buffer before a writer has to wait for the reader (half of asyncio's high-water mark)."""
_LINGERING_SECONDS = 2.0
"""What a client still sends after its refusal is read that long, so that it can read the refusal."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_STANDARD_HEADERS = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}


class Frontend:
    """Serves a ``Handler`` on TLS sockets."""

    def __init__(self, handle: Handler, patience: Patience | None = None) -> None:
        self._handle = handle
        self._patience = patience or Patience()
        self._door = Doorkeeper(self._patience)
        self._server = web.Server(
            self._serve,
            access_log=None,
            logger=_quiet_logger(),
            keepalive_timeout=120,
            max_line_size=_MAX_FIELD,
            max_field_size=_MAX_FIELD,
            handler_cancellation=True,
            auto_decompress=False,
            lingering_time=_LINGERING_SECONDS,
        )
        self._listeners: list[asyncio.Server] = []

    async def listen(self, host: str, port: int, tls: ssl.SSLContext) -> int:
        """Bind a TLS socket; returns the port. Raises OSError when it is in use."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            self._accept,
            host or None,
            port,
            ssl=tls,
            backlog=1024,
            reuse_address=True,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=2,
        )
        self._listeners.append(listener)
        bound: int = listener.sockets[0].getsockname()[1]
        return bound

    async def close(self, grace: float = 2.0) -> None:
        """Stop accepting, give requests in flight ``grace`` seconds, then end them."""
        self._door.close()
        for listener in self._listeners:
            listener.close()
        with contextlib.suppress(TimeoutError):
            await self._server.shutdown(grace)

    def _accept(self) -> asyncio.Protocol:
        connection = self._server()
        self._door.opened(connection)
        return connection

    async def _serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        self._door.asked(raw.protocol)
        try:
            return await self._answer(raw)
        finally:
            self._door.answered(raw.protocol, asyncio.get_running_loop().time())

    async def _answer(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            request = await _request(raw, self._patience.body)
        except errors.ApiError as error:
            response = error_response(error)
            response.headers["Connection"] = "close"
        else:
            response = await self._handle(request)
        if response.upgrade is not None:
            upgraded: web.StreamResponse = await response.upgrade(raw)
            return upgraded
        if response.stream is not None:
            return await _stream(raw, response, self._patience.reading)
        if len(response.body) > _PIECE:
            response.stream = _pieces(response.body)
            return await _stream(raw, response, self._patience.reading, len(response.body))
        headers = _STANDARD_HEADERS | response.headers if response.headers else dict(_STANDARD_HEADERS)
        headers["Content-Type"] = response.content_type
        return web.Response(status=response.status, body=response.body, headers=headers)


def _quiet_logger() -> logging.Logger:
    """aiohttp's logger, without what clients do wrong: anyone could fill the log, and with other people's secrets."""
    logger = logging.getLogger("fleetplane.apiserver.http")
    if not logger.filters:
        logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.HTTPException | ConnectionError)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


async def _request(raw: web.BaseRequest, patience: float) -> Request:
    url = raw.rel_url
    body = b""
    if raw.can_read_body and raw.method in _WITH_BODY:
        body = await _body(raw, patience)
    query: dict[str, str] = {}
    queries: dict[str, list[str]] = {}
    if url.raw_query_string:
        for key, value in url.query.items():
            query.setdefault(key, value)
            queries.setdefault(key, []).append(value)
    certificate: bytes | None = None
    remote = ""
    transport = raw.transport
    if transport is not None:
        secured = transport.get_extra_info("ssl_object")
        certificate = secured.getpeercert(True) if secured is not None else None
        peer = transport.get_extra_info("peername")
        remote = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    try:
        path = unquote(url.raw_path, errors="strict")
    except UnicodeDecodeError:
        raise errors.bad_request("the path is not valid UTF-8") from None
    if "\x00" in path:
        raise errors.bad_request("the path must not contain NUL")
    return Request(raw.method, path, query, queries, raw.headers, body, certificate, remote, None, raw)


async def _body(raw: web.BaseRequest, patience: float) -> bytes:
    """The whole body, bounded in size and time. Nothing is decompressed: what is small here would be large there."""
    length = raw.content_length
    if length is not None and length > MAX_BODY:
        raise errors.too_large(MAX_BODY)
    chunks: list[bytes] = []
    size = 0
    try:
        if raw.content.is_eof() and length is not None:  # it came with its head, as small ones do
            return raw.content.read_nowait()
        async with asyncio.timeout(patience):
            async for chunk in raw.content.iter_any():
                size += len(chunk)
                if size > MAX_BODY:
                    raise errors.too_large(MAX_BODY)
                chunks.append(chunk)
    except TimeoutError:
        raise errors.ApiError(408, "the body did not arrive in time", reason="Timeout") from None
    except (ValueError, web.HTTPException) as error:
        raise errors.bad_request(f"the body cannot be read: {error}") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _stream(
    raw: web.BaseRequest, response: Response, patience: float, length: int | None = None
) -> web.StreamResponse:
    """Send chunks as they come; a client that does not read is cut off."""
    answer = web.StreamResponse(status=response.status, headers=_STANDARD_HEADERS | response.headers)
    answer.headers["Content-Type"] = response.content_type
    answer.content_length = length
    stream = response.stream
    if stream is None:
        raise RuntimeError("a streamed response without a stream")
    try:
        await answer.prepare(raw)
        async for chunk in stream:
            if not chunk:
                continue
            if len(chunk) <= _NEVER_WAITS and raw.transport is not None and not raw.transport.get_write_buffer_size():
                await answer.write(chunk)
                continue
            async with asyncio.timeout(patience):
                await answer.write(chunk)
        await answer.write_eof()
    except (TimeoutError, ConnectionError):
        if raw.transport is not None:
            raw.transport.abort()
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
    return answer
