"""Requests through an HTTP proxy, by aiohttp: tunnels, proxy credentials and TLS inside TLS are what it does well."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from fleetplane.client.http1 import Answer
from fleetplane.client.protocol import Pairs


class Proxied:
    """An ``Engine``. Opened on first use."""

    def __init__(
        self, base: str, proxy: str, tls: ssl.SSLContext | None, server_name: str, connect_timeout: float
    ) -> None:
        self._base = base
        self._connect_timeout = connect_timeout
        self._session: aiohttp.ClientSession | None = None
        self._options: dict[str, Any] = {"proxy": proxy, "allow_redirects": False}
        if tls is not None:
            self._options["ssl"] = tls
        if server_name:
            self._options["server_hostname"] = server_name

    async def request(self, method: str, target: str, headers: Pairs, body: bytes, timeout: float) -> Answer:
        try:
            async with await self._begin(method, target, headers, body, total=timeout) as response:
                data = await response.read()
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, data)

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: Pairs, body: bytes, timeout: float
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        try:
            response = await self._begin(method, target, headers, body, total=None)
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error
        try:
            yield response.status, _chunks(response)
        finally:
            response.close()  # not release(): an unfinished watch must not go back to the pool

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _begin(
        self, method: str, target: str, headers: Pairs, body: bytes, *, total: float | None
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=self._connect_timeout)
        url = URL(self._base + target, encoded=True)
        return await self._session.request(
            method, url, data=body or None, headers=list(headers), timeout=timeout, **self._options
        )


async def _chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error
