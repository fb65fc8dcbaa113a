"""How long a client may keep us waiting, and who ends the connections of those that do.

aiohttp closes idle connections, but waits for ever for the first request of a connection and for a client that does not
read its answer. One timer looks at all connections every now and then, so that patience costs a request next to nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp.web_protocol import RequestHandler

HANDSHAKE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds for the first head of a connection, for a whole body, and for a client to read what was written."""

    head: float = 30.0
    body: float = 60.0
    reading: float = 60.0


class Doorkeeper:
    """Knows which connections have yet to ask for anything, and which have an answer to read."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._new: dict[RequestHandler, float] = {}
        self._answered: dict[RequestHandler, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._period = max(min(patience.head, patience.reading) / 4, 0.1)

    def opened(self, connection: RequestHandler) -> None:
        loop = asyncio.get_running_loop()
        self._new[connection] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._period, self._look)

    def asked(self, connection: RequestHandler) -> None:
        self._new.pop(connection, None)
        self._answered.pop(connection, None)

    def answered(self, connection: RequestHandler, now: float) -> None:
        self._answered[connection] = now

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection, since in list(self._new.items()):
            late = now - since - self._patience.head
            transport = connection.transport
            if late > 0 and transport is not None:
                transport.abort()
            if late > (0 if transport is not None else HANDSHAKE_SECONDS):
                del self._new[connection]
        for connection, since in list(self._answered.items()):
            transport = connection.transport
            if transport is None or not transport.get_write_buffer_size():
                del self._answered[connection]
            elif now - since > self._patience.reading:
                transport.abort()
                del self._answered[connection]
        self._timer = loop.call_later(self._period, self._look) if self._new or self._answered else None
