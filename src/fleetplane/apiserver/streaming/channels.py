"""The channels of one exec or attach, whatever carries them: standard streams, terminal size, and the final status.

``WebSocketChannels`` speaks ``v5.channel.k8s.io`` and its elders, where the first byte of a message names the channel;
``SpdyChannels`` has one SPDY stream per channel. ``pump`` connects either with a session in the container.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

from aiohttp import WSMsgType, web

from fleetplane.apiserver.streaming.protocol import Session
from fleetplane.apiserver.streaming.spdy import SpdyConnection, Stream
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
ERROR: Final = 3
RESIZE: Final = 4
_CLOSE: Final = 255
WEBSOCKET_PROTOCOLS: Final = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
SPDY_PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io")


class Channels(Protocol):
    def stdin(self) -> AsyncIterator[bytes]: ...

    def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """(width, height) of the client's terminal, each time it changes."""

    async def write(self, channel: int, data: bytes) -> None: ...

    async def finish(self, status: Object) -> None:
        """Tell the client how it ended and close."""


async def pump(session: Session, channels: Channels, *, stdin: bool, tty: bool) -> None:
    """Carry everything both ways until the command's output ends or the client goes away."""
    try:
        async with asyncio.TaskGroup() as group:
            helpers = []
            if stdin:
                helpers.append(group.create_task(_input(session, channels)))
            if tty:
                helpers.append(group.create_task(_resize(session, channels)))
            async for name, data in session.read():
                await channels.write(STDOUT if name == "stdout" else STDERR, data)
            status = await _outcome(session)
            for task in helpers:
                task.cancel()
        await channels.finish(status)
    finally:
        await session.close()


async def _outcome(session: Session) -> Object:
    """The Status to end with: the command's exit code, or why nobody knows it."""
    try:
        return exit_status(await session.exit_code())
    except ApiError as error:
        return error.to_status()


async def _input(session: Session, channels: Channels) -> None:
    async for data in channels.stdin():
        await session.write(data)
    await session.end_input()


async def _resize(session: Session, channels: Channels) -> None:
    async for width, height in channels.sizes():
        await session.resize(width, height)


def exit_status(code: int) -> Object:
    """The Status that ends an exec, as kubectl reads it."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def parse_size(data: bytes) -> tuple[int, int] | None:
    """``{"Width":80,"Height":24}``, None for anything else."""
    try:
        size = json.loads(data)
        width, height = int(size["Width"]), int(size["Height"])
    except (ValueError, KeyError, TypeError):
        return None
    return (width, height) if 0 < width < 65536 and 0 < height < 65536 else None


class WebSocketChannels:
    """Channels in the messages of one WebSocket; ``receive`` must run beside ``pump``."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._base64 = socket.ws_protocol == "base64.channel.k8s.io"
        self._stdin: asyncio.Queue[bytes | None] = asyncio.Queue(64)
        self._sizes: asyncio.Queue[bytes | None] = asyncio.Queue(64)

    async def receive(self) -> None:
        """Sort what the client sends into its channels, until it goes away."""
        try:
            async for message in self._socket:
                if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                    continue
                await self._take(message.data if isinstance(message.data, bytes) else message.data.encode())
        finally:
            for queue in (self._stdin, self._sizes):
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(None)

    async def _take(self, message: bytes) -> None:
        if not message:
            return
        channel, data = message[0], message[1:]
        if self._base64:
            channel, data = channel - ord("0"), base64.b64decode(data)
        if channel == STDIN:
            await self._stdin.put(data)
        elif channel == RESIZE:
            await self._sizes.put(data)
        elif channel == _CLOSE and data[:1] == bytes([STDIN]):
            await self._stdin.put(None)

    async def stdin(self) -> AsyncIterator[bytes]:
        while (data := await self._stdin.get()) is not None:
            yield data

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        while (data := await self._sizes.get()) is not None:
            if (size := parse_size(data)) is not None:
                yield size

    async def write(self, channel: int, data: bytes) -> None:
        if self._base64:
            await self._socket.send_str(str(channel) + base64.b64encode(data).decode())
        else:
            await self._socket.send_bytes(bytes([channel]) + data)

    async def finish(self, status: Object) -> None:
        await self.write(ERROR, json.dumps(status).encode())
        await self._socket.close()


class SpdyChannels:
    """Channels as streams of one SPDY connection, once the client has opened all it announced."""

    def __init__(self, streams: dict[str, Stream], close: Callable[[], Awaitable[None]]) -> None:
        self._streams = streams
        self._close = close

    @classmethod
    async def open(
        cls, connection: SpdyConnection, expected: set[str], close: Callable[[], Awaitable[None]]
    ) -> SpdyChannels:
        """Wait for the streams named by ``expected`` (``error``, ``stdin`` …). Raises TimeoutError."""
        found: dict[str, Stream] = {}
        async with asyncio.timeout(30):
            async for stream in connection.streams():
                found[stream.headers.get("streamtype", "")] = stream
                if expected <= found.keys():
                    break
        return cls(found, close)

    async def stdin(self) -> AsyncIterator[bytes]:
        stream = self._streams.get("stdin")
        if stream is not None:
            async for data in stream.read():
                yield data

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        stream = self._streams.get("resize")
        if stream is not None:
            async for data in stream.read():
                for line in data.splitlines():
                    if (size := parse_size(line)) is not None:
                        yield size

    async def write(self, channel: int, data: bytes) -> None:
        stream = self._streams.get("stdout" if channel == STDOUT else "stderr") or self._streams.get("stdout")
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: Object) -> None:
        error = self._streams.get("error")
        if error is not None:
            await error.write(json.dumps(status).encode())
        for stream in self._streams.values():
            await stream.end()
        await self._close()
