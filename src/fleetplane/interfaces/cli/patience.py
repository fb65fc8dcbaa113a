"""A word to whoever waits for a slow server: when a request takes long and nothing is printed, say so on stderr.

Every command gets this without asking for it. Watches and logs are no requests in this sense: waiting is what they are for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from fleetplane.client.protocol import Pairs, Transport
from fleetplane.interfaces.cli.terminal import Terminal

_PATIENCE_SECONDS: Final = 2.0
_TICK_SECONDS: Final = 0.25


class Counted:
    """A transport that knows how many requests are under way and how many were answered."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.pending = 0
        self.answered = 0

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.pending += 1
        try:
            return await self._inner.request(method, path, query, headers, body)
        finally:
            self.pending -= 1
            self.answered += 1

    def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        return self._inner.stream(method, path, query, headers, body)

    async def close(self) -> None:
        await self._inner.close()


@asynccontextmanager
async def patience(terminal: Terminal, transport: Counted, server: str) -> AsyncIterator[None]:
    """Watch over a command's requests for as long as the block runs."""
    watching = asyncio.create_task(_watch(terminal, transport, server))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        terminal.wipe_status()


async def _watch(terminal: Terminal, transport: Counted, server: str) -> None:
    said = False
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        quiet = time.monotonic() - terminal.printed_at
        if not transport.pending or terminal.progressing or quiet < _PATIENCE_SECONDS:
            continue
        text = f"waiting for {server}, {transport.answered} requests answered so far"
        if terminal.err_interactive:
            terminal.show_status(f"{text} ({quiet:.0f}s)")
        elif not said:
            said = True
            terminal.warn(text)
