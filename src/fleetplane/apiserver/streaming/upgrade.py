"""Taking an HTTP connection over for SPDY, or for another server: answer 101, then move raw bytes.

aiohttp has no public way to do this for protocols other than WebSocket; what is used here is the hook its own WebSocket
code uses (``set_parser``), in one place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web


class RawConnection:
    """The bytes of an upgraded connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._received: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._pending = 0

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Called by aiohttp with everything that arrives."""
        if data:
            self._pending += len(data)
            if self._pending > 1024 * 1024:
                self._transport.pause_reading()
            self._received.put_nowait(bytes(data))
        return False, b""

    def feed_eof(self) -> None:
        self._received.put_nowait(None)

    def set_exception(self, _error: BaseException, _cause: BaseException | None = None) -> None:
        """Called by aiohttp when the connection is lost."""
        self._received.put_nowait(None)

    async def read(self) -> AsyncIterator[bytes]:
        while (data := await self._received.get()) is not None:
            self._pending -= len(data)
            if self._pending < 256 * 1024 and not self._transport.is_closing():
                self._transport.resume_reading()
            yield data

    async def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        while self._transport.get_write_buffer_size() > 1024 * 1024 and not self._transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # a transport taken over from aiohttp has no drain of its own

    def is_closing(self) -> bool:
        """Whether the client has gone, or is being sent away."""
        return self._transport.is_closing()

    async def close(self) -> None:
        self._transport.close()


def take_over(raw: web.BaseRequest, headers: Mapping[str, str]) -> RawConnection:
    """Switch protocols; ``headers`` go into the 101 answer. Raises ConnectionResetError when the client has gone."""
    transport = raw.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    transport.write("\r\n".join(lines).encode("latin-1"))
    connection = RawConnection(transport)
    protocol: Any = raw.protocol
    protocol.keep_alive(False)
    protocol.set_parser(connection)
    return connection
