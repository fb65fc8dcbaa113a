"""Requests to Podman's API over its Unix socket, and its refusals as our exceptions.

Podman keeps its API stable within a major version; ``v4.0.0`` is understood by 4.x and 5.x services. Connections are
kept open; streams (events, pulls) hold one each. Hijacked connections (exec, attach) are opened by ``hijack`` alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from fleetplane.node.runtime import ImageMissing, NotThere, RuntimeFailure

BASE = "/v4.0.0/libpod"
HEAD_LIMIT = 65_536


class PodmanApi:
    """One service. ``revive`` is awaited when nobody listens any more, before one more try; ``close`` when done."""

    def __init__(self, socket: str, revive: Callable[[], Awaitable[None]] | None = None) -> None:
        self._socket = socket
        self._revive = revive
        self._reviving = asyncio.Lock()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket, limit=32),
            base_url="http://podman",
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        *,
        timeout: float = 120.0,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The decoded JSON answer, or None. Raises RuntimeFailure, NotThere."""
        data = orjson.dumps(body) if body is not None else None
        sent = {"Content-Type": "application/json", **(headers or {})} if data is not None else dict(headers or {})
        try:
            status, answer = await self._send(method, path, query, data, sent, timeout)
        except aiohttp.ClientConnectorError as error:
            # Nothing was sent, so nothing can happen twice.
            await self._call_back_to_life(error)
            try:
                status, answer = await self._send(method, path, query, data, sent, timeout)
            except (aiohttp.ClientError, OSError) as again:
                raise RuntimeFailure(f"Podman's API cannot be reached: {again}") from again
        except (aiohttp.ClientError, OSError) as error:
            raise RuntimeFailure(f"Podman's API cannot be reached: {error}") from error
        if status >= 400:
            raise failure(status, answer)
        return _decoded(answer)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> tuple[int, bytes]:
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(method, BASE + path, params=query, data=data, headers=headers) as response,
            ):
                return response.status, await response.read()
        except TimeoutError:
            raise RuntimeFailure(f"Podman did not answer within {timeout:g}s ({method} {path})") from None

    async def _call_back_to_life(self, error: Exception) -> None:
        if self._revive is None:
            raise RuntimeFailure(f"Podman's API cannot be reached: {error}") from error
        async with self._reviving:
            await self._revive()

    async def version(self) -> str:
        """Podman's version, from a ping: asking for it in full makes Podman run half a dozen programs."""
        try:
            async with asyncio.timeout(10), self._session.get("/libpod/_ping") as response:
                await response.read()
                return response.headers.get("Libpod-Api-Version", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RuntimeFailure(f"Podman's API cannot be reached: {error}") from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """A body as it comes."""
        try:
            async with self._session.request(
                method, BASE + path, params=query, headers=dict(headers or {}), data=data
            ) as response:
                if response.status >= 400:
                    raise failure(response.status, await response.read())
                yield response.content
        except (aiohttp.ClientError, OSError) as error:
            raise RuntimeFailure(f"Podman's API cannot be reached: {error}") from error

    async def hijack(
        self, path: str, query: Mapping[str, str], body: Any = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Turn a connection into a raw one (exec start, attach)."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=HEAD_LIMIT)
        except OSError as error:
            raise RuntimeFailure(f"Podman's API cannot be reached: {error}") from error
        data = orjson.dumps(body) if body is not None else b""
        head = (
            f"POST {BASE}{path}?{urlencode(query)} HTTP/1.1\r\nHost: podman\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        try:
            await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise RuntimeFailure(f"Podman closed the connection: {error}") from error
        status = int(answer.split(b" ", 2)[1])
        if status not in {101, 200}:
            rest = await reader.read(HEAD_LIMIT)
            writer.close()
            raise failure(status, rest)
        return reader, writer

    async def close(self) -> None:
        await self._session.close()


def failure(status: int, answer: bytes) -> RuntimeFailure:
    """What Podman answered instead, as an exception."""
    try:
        decoded = json.loads(answer)
        message = str(decoded.get("message") or decoded.get("cause") or "")
    except (ValueError, AttributeError):
        message = answer.decode(errors="replace").strip()
    message = message or f"Podman answered with status {status}"
    if status == 404:
        return ImageMissing(message) if "image" in message and "no such container" not in message else NotThere(message)
    return RuntimeFailure(message)


def _decoded(answer: bytes) -> Any:
    if not answer.strip():
        return None
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise RuntimeFailure("Podman's answer is not JSON") from error
