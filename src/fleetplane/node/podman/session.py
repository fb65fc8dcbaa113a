"""A running exec or attach: a raw connection to Podman, framed by stream unless there is a terminal.

Each frame is a byte for the stream (1 output, 2 errors), three zero bytes, a big-endian length, and the data.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from fleetplane.node.runtime import RuntimeFailure, Stream, Terminal

BLOCK: Final = 32_768
LARGEST_FRAME: Final = 16 * 1024 * 1024


class PodmanSession:
    """``resize_to`` and ``code`` ask Podman about the command this connection belongs to."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        tty: bool,
        resize_to: Callable[[Terminal], Awaitable[None]],
        code: Callable[[], Awaitable[int]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._tty = tty
        self._resize_to = resize_to
        self._code = code

    async def read(self) -> AsyncIterator[tuple[Stream, bytes]]:
        try:
            if self._tty:
                while data := await self._reader.read(BLOCK):
                    yield "stdout", data
                return
            while True:
                head = await self._reader.readexactly(8)
                length = int.from_bytes(head[4:], "big")
                if head[0] > 3 or length > LARGEST_FRAME:
                    raise RuntimeFailure("Podman's output stream is damaged")
                left = length
                while left:
                    data = await self._reader.read(min(left, BLOCK))
                    if not data:
                        return
                    left -= len(data)
                    if head[0] == 3:
                        raise RuntimeFailure(data.decode(errors="replace").strip())
                    yield ("stderr" if head[0] == 2 else "stdout"), data
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def end_input(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    async def resize(self, size: Terminal) -> None:
        with contextlib.suppress(RuntimeFailure):
            await self._resize_to(size)

    async def exit_code(self) -> int:
        return await self._code()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
