"""The bytes of a connection that has switched protocols, carried between a client and another server.

Nothing is understood of what passes: WebSocket and SPDY end their streams themselves, in bytes like any other. TLS knows
no half-closed connections here, so when one side closes, what it said before is delivered, and then both are closed. A side
that does not read stops the other from being read; a connection on which nothing moves for hours is ended.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from fleetplane.apiserver.streaming.upgrade import RawConnection

IDLE_SECONDS: Final = 4 * 3600.0
"""As long as a kubelet keeps a connection on which nothing moves."""
LAST_SECONDS: Final = 2.0
"""How long the last bytes may take to be delivered."""
_PIECE: Final = 64 * 1024


async def carry(
    client: RawConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: float = IDLE_SECONDS
) -> None:
    """Until either side closes, or nothing has moved for ``idle`` seconds; both are closed then."""
    loop = asyncio.get_running_loop()
    moved = loop.time()

    async def up() -> None:
        nonlocal moved
        async for data in client.read():
            moved = loop.time()
            writer.write(data)
            await writer.drain()
            moved = loop.time()

    async def down() -> None:
        nonlocal moved
        while data := await reader.read(_PIECE):
            moved = loop.time()
            await client.write(data)
            moved = loop.time()

    async def wait_idle() -> None:
        while (left := moved + idle - loop.time()) > 0:  # noqa: ASYNC110 - what it waits for is that nothing happens
            await asyncio.sleep(left)

    upward = asyncio.create_task(up())
    tasks = [upward, asyncio.create_task(down()), asyncio.create_task(wait_idle())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if client.is_closing():  # a client that leaves is why this is cancelled; what it said before still goes on
            await asyncio.wait([upward], timeout=LAST_SECONDS)
        raise
    finally:
        await _end(tasks)
        await client.close()
        await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection when what was written is out, or cannot be got out."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(LAST_SECONDS):
            await writer.wait_closed()
    writer.transport.abort()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Raises what ended a task, if that is neither a lost connection nor our cancelling it."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, OSError):
            raise result
