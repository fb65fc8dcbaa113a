"""SPDY/3.1 framing, as much of it as Kubernetes' streams use.

kubectl up to 1.30 opens exec and attach with an HTTP upgrade to SPDY, and every kubectl tunnels port-forward's SPDY frames
through a WebSocket. Streams are opened by the client only; flow control is not used by these peers and not enforced here,
the transport's own back-pressure is. Source: SPDY Protocol, Draft 3.1.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from fleetplane.model.spdy import DICTIONARY

_SYN_STREAM: Final = 1
_SYN_REPLY: Final = 2
_RST_STREAM: Final = 3
_PING: Final = 6
_GOAWAY: Final = 7
_FIN: Final = 1
_MAX_FRAME: Final = 4 * 1024 * 1024
_MAX_HEADERS: Final = 64 * 1024
_MAX_STREAMS: Final = 1024
_PENDING_CHUNKS: Final = 64


class SpdyError(Exception):
    """The peer sent something that is not SPDY/3.1, or too much of it."""


class Stream:
    """One stream the client opened. ``headers`` have lower-case names."""

    def __init__(self, connection: SpdyConnection, number: int, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._connection = connection
        self._number = number
        self._received: asyncio.Queue[bytes | None] = asyncio.Queue(_PENDING_CHUNKS)
        self._closed = False

    async def read(self) -> AsyncIterator[bytes]:
        """What the client sends, until it ends its half."""
        while (chunk := await self._received.get()) is not None:
            yield chunk

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), 32 * 1024):
            await self._connection.send_data(self._number, data[start : start + 32 * 1024], fin=False)

    async def end(self) -> None:
        """End our half."""
        if not self._closed:
            self._closed = True
            await self._connection.send_data(self._number, b"", fin=True)

    async def feed(self, data: bytes | None) -> None:
        await self._received.put(data)


class SpdyConnection:
    """The server's side of one connection: bytes in through ``feed``, bytes out through ``send``."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue()

    async def streams(self) -> AsyncIterator[Stream]:
        """Streams as the client opens them, until the connection ends."""
        while (stream := await self._opened.get()) is not None:
            yield stream

    async def feed(self, data: bytes) -> None:
        """Take bytes from the client. Raises SpdyError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            length = int.from_bytes(self._buffer[5:8], "big")
            if length > _MAX_FRAME:
                raise SpdyError("a frame is too large")
            if len(self._buffer) < 8 + length:
                return
            head, body = bytes(self._buffer[:8]), bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            await self._frame(head, body)

    async def end(self) -> None:
        """The client is gone: every stream ends."""
        for stream in self._streams.values():
            await stream.feed(None)
        await self._opened.put(None)

    async def send_data(self, number: int, data: bytes, *, fin: bool) -> None:
        flags = _FIN if fin else 0
        await self._send(struct.pack(">I", number) + bytes([flags]) + len(data).to_bytes(3, "big") + data)

    async def _frame(self, head: bytes, body: bytes) -> None:
        if head[0] & 0x80:
            await self._control(int.from_bytes(head[2:4], "big"), head[4], body)
            return
        stream = self._streams.get(int.from_bytes(head[:4], "big"))
        if stream is None:
            return  # data for a stream that is already reset
        if body:
            await stream.feed(body)
        if head[4] & _FIN:
            await stream.feed(None)

    async def _control(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _SYN_STREAM and len(body) >= 10:
            number = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
            if len(self._streams) >= _MAX_STREAMS:
                raise SpdyError("too many streams")
            stream = Stream(self, number, self._headers(body[10:]))
            self._streams[number] = stream
            block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            await self._send_control(_SYN_REPLY, struct.pack(">I", number) + block)
            if flags & _FIN:
                await stream.feed(None)
            await self._opened.put(stream)
        elif kind == _RST_STREAM and len(body) >= 4:
            stream_or_none = self._streams.pop(int.from_bytes(body[:4], "big") & 0x7FFFFFFF, None)
            if stream_or_none is not None:
                await stream_or_none.feed(None)
        elif kind == _PING:
            await self._send_control(_PING, body)
        elif kind == _GOAWAY:
            await self._opened.put(None)

    async def _send_control(self, kind: int, body: bytes) -> None:
        await self._send(struct.pack(">HHB", 0x8003, kind, 0) + len(body).to_bytes(3, "big") + body)

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            data = self._inflate.decompress(block, _MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"a header block cannot be read: {error}") from None
        if self._inflate.unconsumed_tail:
            raise SpdyError("a header block is too large")
        try:
            (count,) = struct.unpack_from(">I", data)
            at, found = 4, {}
            for _ in range(count):
                name, at = _string(data, at)
                value, at = _string(data, at)
                found[name.lower()] = value
        except (struct.error, UnicodeDecodeError):
            raise SpdyError("a header block is cut short") from None
        return found


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise SpdyError("a header block is cut short")
    return data[at + 4 : end].decode(), end
