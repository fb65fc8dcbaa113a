"""HTTP/1.1 to one server, with nothing in it that a client of the API does not need.

An operator's CPU is mostly spent sending small requests, and general HTTP libraries spend four fifths of theirs on
generality. This is the rest: keep-alive connections over TCP, TLS or a Unix socket, one request at a time on each,
bodies by length, in chunks or until the end, streams with back-pressure. No redirects, cookies, compression or proxies:
where a proxy is in the way the library does the work (see ``http``).

What a server sends is bounded and checked: heads, chunk lines and bodies have limits, and an answer that is not
well-formed closes the connection. A connection on which anything went wrong is never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple, cast

from aiohappyeyeballs import start_connection

from fleetplane.client.protocol import Pairs

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024 * 1024
MAX_LINE_BYTES: Final = 256
STREAM_BUFFER_BYTES: Final = 1024 * 1024
"""How much of a stream is kept for a reader that does not come; beyond it the server is not read from."""

IDLE_SECONDS: Final = 25.0
"""Unused connections are closed before servers usually do it, so that requests do not meet a closing one."""

MAX_IDLE: Final = 64


class ConnectionLost(ConnectionError):
    """The connection ended before the answer did. ``was_idle``: it had been waiting, and no byte of an answer came."""

    def __init__(self, message: str, *, was_idle: bool = False) -> None:
        super().__init__(message)
        self.was_idle = was_idle


class MalformedAnswer(ConnectionError):
    """The server does not speak HTTP/1.1 as we understand it."""


class Answer(NamedTuple):
    """Header names are lower-case; of a repeated one the last value counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Target(NamedTuple):
    """Where to connect: a host and port, or the path of a Unix socket. ``tls`` is ``None`` for plain text."""

    host: str
    port: int
    path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""


class _State(Enum):
    IDLE = 0
    HEAD = 1
    LENGTH = 2
    CHUNK_SIZE = 3
    CHUNK = 4
    TRAILER = 5
    UNTIL_END = 6


class Connection(asyncio.Protocol):
    """One connection; ``begin`` a request, await ``head``, then ``whole`` or ``chunks``."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._state = _State.IDLE
        self._buffer = b""
        self._left = 0
        self._received = 0
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._keeps_alive = True
        self._used = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.idle_since = 0.0

    # -- for the pool

    @property
    def is_reusable(self) -> bool:
        return self._state is _State.IDLE and self._keeps_alive and self._error is None and not self._buffer

    def close(self) -> None:
        self._error = self._error or ConnectionLost("the connection was closed")
        if self._transport is not None:
            self._transport.abort()

    # -- one exchange

    def begin(self, request: bytes) -> None:
        if self._error is not None or self._transport is None:
            raise self._error or ConnectionLost("the connection is not open", was_idle=True)
        self._state = _State.HEAD
        self._received = 0
        self._chunks.clear()
        self._held = 0
        self._transport.write(request)

    async def head(self) -> None:
        """Wait for status and headers."""
        while self._state is _State.HEAD:
            await self._more()

    async def whole(self, limit: int) -> bytes:
        """Wait for the whole body."""
        while self._state is not _State.IDLE:
            if self._received > limit:
                raise MalformedAnswer(f"the answer is larger than {limit} bytes")
            if self._paused:
                self._resume()
            await self._more()
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._held = 0
        return body

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._held -= len(chunk)
                if self._paused and self._held < STREAM_BUFFER_BYTES // 2:
                    self._resume()
                yield chunk
            if self._state is _State.IDLE:
                return
            await self._more()

    async def _more(self) -> None:
        self._check()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._state is not _State.IDLE and not self._chunks:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._state is _State.IDLE:
            # Nobody asked: whatever it is (a timeout notice, an attack), the connection is of no more use.
            self._fail(MalformedAnswer("the server sent something nobody asked for"))
            return
        self._used = True
        try:
            self._parse(self._buffer + data if self._buffer else data)
        except (MalformedAnswer, ValueError) as error:
            self._fail(error if isinstance(error, MalformedAnswer) else MalformedAnswer(f"bad answer: {error}"))
            return
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._state is _State.UNTIL_END and error is None:
            self._finish()
        was_idle = self._used and self._state is _State.HEAD and not self._received and not self._buffer
        why = f": {error}" if error is not None and str(error) else ""
        self._error = self._error or ConnectionLost(f"the server closed the connection{why}", was_idle=was_idle)
        self._wake()

    # -- parsing

    def _parse(self, data: bytes) -> None:
        start, end = 0, len(data)
        while start < end or self._state is _State.IDLE:
            match self._state:
                case _State.HEAD:
                    stop = data.find(b"\r\n\r\n", start)
                    if stop < 0:
                        if end - start > MAX_HEAD_BYTES:
                            raise MalformedAnswer("the headers of the answer are too long")
                        break
                    self._received = 1
                    self._parse_head(data[start:stop])
                    start = stop + 4
                case _State.LENGTH | _State.CHUNK:
                    piece = data[start : start + self._left] if start or end > self._left else data
                    self._hold(piece)
                    start += len(piece)
                    self._left -= len(piece)
                    if not self._left:
                        if self._state is _State.LENGTH:
                            self._finish()
                        else:
                            self._state = _State.TRAILER
                            self._left = -1  # the line end after a chunk's data
                case _State.CHUNK_SIZE | _State.TRAILER:
                    stop = data.find(b"\r\n", start)
                    if stop < 0:
                        if end - start > MAX_LINE_BYTES:
                            raise MalformedAnswer("a chunk of the answer has no size")
                        break
                    self._parse_line(data[start:stop])
                    start = stop + 2
                case _State.UNTIL_END:
                    self._hold(data[start:])
                    start = end
                case _State.IDLE:
                    if start < end:
                        raise MalformedAnswer("the server sent more than it announced")
                    break
        self._buffer = data[start:] if start < end else b""

    def _parse_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        protocol, _, rest = first.partition(" ")
        if not protocol.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise MalformedAnswer("the server does not answer in HTTP/1.1")
        self.status = int(rest[:3])
        if self.status < 200:
            if self.status == 101:
                raise MalformedAnswer("the server switched protocols unasked")
            return  # 100 and its like announce an answer that is still to come
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise MalformedAnswer("the answer has a header without a name")
            headers[name.lower()] = value.strip()
        self.headers = headers
        connection = headers.get("connection", "").lower()
        self._keeps_alive = connection != "close" and (protocol == "HTTP/1.1" or connection == "keep-alive")
        self._state, self._left = self._framing(headers)
        if self._state is _State.LENGTH and not self._left:
            self._finish()

    def _framing(self, headers: Mapping[str, str]) -> tuple[_State, int]:
        if self.status in {204, 304}:
            return _State.LENGTH, 0
        coding = headers.get("transfer-encoding", "").lower()
        if coding:
            if coding != "chunked":
                raise MalformedAnswer(f"the server uses the transfer encoding {coding!r}")
            return _State.CHUNK_SIZE, 0
        length = headers.get("content-length")
        if length is None:
            self._keeps_alive = False
            return _State.UNTIL_END, 0
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            raise MalformedAnswer("the answer has no usable length")
        return _State.LENGTH, int(length)

    def _parse_line(self, line: bytes) -> None:
        if self._state is _State.TRAILER:
            if self._left == -1:
                if line:
                    raise MalformedAnswer("a chunk of the answer is longer than announced")
                self._state, self._left = _State.CHUNK_SIZE, 0
            elif not line:
                self._finish()
            return
        size = line.partition(b";")[0].strip()
        if not size or len(size) > 8 or any(c not in b"0123456789abcdefABCDEF" for c in size):
            raise MalformedAnswer("a chunk of the answer has no usable size")
        self._left = int(size, 16)
        self._state = _State.CHUNK if self._left else _State.TRAILER

    def _hold(self, piece: bytes) -> None:
        self._chunks.append(piece)
        self._held += len(piece)
        self._received += len(piece)
        if self._held > STREAM_BUFFER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _finish(self) -> None:
        self._state = _State.IDLE
        if self._paused:
            self._resume()

    def _fail(self, error: Exception) -> None:
        self._error = error
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass
class Pool:
    """Connections to one server. Requests that wait for nobody: there is always a connection, a new one if need be."""

    target: Target
    connect_timeout: float
    _idle: list[Connection] = field(default_factory=list)
    _open: set[Connection] = field(default_factory=set)

    async def request(self, method: str, target: str, headers: Pairs, body: bytes, timeout: float) -> Answer:
        """One request and its whole answer. Raises OSError, TimeoutError, ConnectionLost, MalformedAnswer."""
        data = self._encoded(method, target, headers, body)
        async with asyncio.timeout(timeout):
            while True:
                connection, is_fresh = await self._take()
                try:
                    connection.begin(data)
                    await connection.head()
                    answer = Answer(connection.status, connection.headers, await connection.whole(MAX_BODY_BYTES))
                except ConnectionLost as lost:
                    self._drop(connection)
                    # It closed while it waited for work. What is harmless twice may simply be asked again.
                    if method == "GET" and lost.was_idle and not is_fresh:
                        continue
                    raise
                except BaseException:
                    self._drop(connection)
                    raise
                self._give_back(connection)
                return answer

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: Pairs, body: bytes, timeout: float
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """An answer read as it comes, on a connection of its own that is closed with the context.

        ``timeout`` is for the answer to begin; it may then take for ever.
        """
        connection = await self._connect()
        try:
            connection.begin(self._encoded(method, target, headers, body))
            async with asyncio.timeout(timeout):
                await connection.head()
            yield connection.status, connection.chunks()
        finally:
            self._drop(connection)

    async def close(self) -> None:
        for connection in list(self._open):
            self._drop(connection)
        self._idle.clear()

    async def _take(self) -> tuple[Connection, bool]:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and now - connection.idle_since < IDLE_SECONDS:
                return connection, False
            self._drop(connection)
        return await self._connect(), True

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        to = self.target
        tls_name = (to.server_name or to.host) if to.tls is not None else None
        async with asyncio.timeout(self.connect_timeout):
            if to.path:
                _, connection = await loop.create_unix_connection(Connection, to.path)
            else:
                addresses = await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
                connected = await start_connection(addresses, happy_eyeballs_delay=0.25, interleave=1)
                keep_alive(connected)
                try:
                    _, connection = await loop.create_connection(
                        Connection, sock=connected, ssl=to.tls, server_hostname=tls_name
                    )
                except BaseException:
                    # The loop owns the socket by now, and may still watch it: closing it here would give its number to the
                    # next connection, which the loop then refuses. Ended it is noticed, and closed by its owner.
                    with contextlib.suppress(OSError):
                        connected.shutdown(socket.SHUT_RDWR)
                    raise
        self._open.add(connection)
        return connection

    def _give_back(self, connection: Connection) -> None:
        if connection.is_reusable and len(self._idle) < MAX_IDLE:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _encoded(self, method: str, target: str, headers: Pairs, body: bytes) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method in {"POST", "PUT", "PATCH"}:
            lines.append(f"content-length: {len(body)}")
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise ValueError("a header of the request contains a line end")
        return head.encode("latin-1") + b"\r\n\r\n" + body

    @property
    def _host(self) -> str:
        if self.target.path:
            return "localhost"
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        return f"{host}:{self.target.port}"


def keep_alive(connected: socket.socket) -> None:
    """Find a dead peer in about a minute, so that no watch hangs for ever."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
