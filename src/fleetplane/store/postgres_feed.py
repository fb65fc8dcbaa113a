"""How a server on PostgreSQL learns what all servers commit.

Revisions become visible in order, so "everything after the last I have" is always a whole answer, and the log is the
only truth. A notification merely says that it is worth asking; one that is lost costs a second. A server's own commits
are published from memory where nothing of another lies between.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from fleetplane.store import postgres_reads as reads
from fleetplane.store.hub import Hub
from fleetplane.store.protocol import Event

LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What the driver raises when the database cannot be reached or does not want."""

_POLL_SECONDS = 1.0
_RETRY_SECONDS = 0.2
_STEP = 1_000


class Feed:
    """Keeps a hub abreast of the database. ``me`` names this server in notifications."""

    def __init__(
        self, hub: Hub, pool: Any, connect: Callable[[], Awaitable[Any]], channel: str, me: str, compacted: int
    ) -> None:
        self.compacted = compacted
        self._hub = hub
        self._pool = pool
        self._connect = connect
        self._channel = channel
        self._me = me
        self._woken = asyncio.Event()
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Listen and catch up, for as long as the store is open, through any loss of the connection."""
        while True:
            with contextlib.suppress(*LOST):
                await self._listen()
            await asyncio.sleep(_RETRY_SECONDS)

    async def catch_up(self) -> None:
        """Publish everything that was visible when this was called."""
        async with self._one:
            while True:
                async with self._pool.acquire() as connection:
                    state, events = await reads.news(connection, self._hub.revision, _STEP)
                self.compacted = max(self.compacted, state.compacted)
                if state.compacted > self._hub.revision:
                    self._hub.restart(state.revision, state.compacted)
                    return
                if events:
                    self._hub.publish(events, events[-1].record.revision)
                if len(events) < _STEP:
                    return

    async def settled(self, events: Sequence[Event]) -> None:
        """Publish what this server has just committed, and what others committed before it."""
        if events[0].record.revision > self._hub.revision + 1:
            with contextlib.suppress(*LOST):  # then the next poll finds it
                await self.catch_up()
            return
        async with self._one:
            fresh = [event for event in events if event.record.revision > self._hub.revision]
            if fresh:
                self._hub.publish(fresh, fresh[-1].record.revision)

    async def _listen(self) -> None:
        connection = await self._connect()
        try:
            await connection.add_listener(self._channel, self._notified)
            while not connection.is_closed():
                self._woken.clear()
                await self.catch_up()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), _POLL_SECONDS)
        finally:
            connection.terminate()

    def _notified(self, _connection: object, _pid: int, _channel: str, who: object) -> None:
        if who != self._me:
            self._woken.set()
