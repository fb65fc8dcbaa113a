"""Calls to the agent of a VM, over whatever stream leads there.

Many calls may be under way; each is answered on its own. When the stream ends, every call under way fails, and the next one
connects again. The VM is not trusted: what it sends is bounded and checked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fleetplane.model.environment import Environment
from fleetplane.operators.peerpods.podvm.guest.wire import (
    BLOB_BYTES,
    GREETING,
    NONCE_BYTES,
    Damaged,
    Unframer,
    frame,
)

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

GREETING_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 0.05
SKIPPED_BYTES: Final = 4 * 1024 * 1024
"""What may stand in the stream from before."""

Answer = tuple[dict[str, Any], bytes]


class AgentLost(Exception):
    """The agent is not there (any more)."""


class AgentRefused(Exception):
    """The agent did not do it; ``kind`` is a word to go by."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind


class AgentConnection:
    """See the module. ``close`` it; the VM goes on."""

    def __init__(self, dial: Dial, environment: Environment) -> None:
        self._dial = dial
        self._environment = environment
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._calls: dict[int, asyncio.Future[Answer]] = {}
        self._count = 0
        self._connecting = asyncio.Lock()

    async def ready(self, seconds: float) -> None:
        """Connect, waiting for the agent to come up. Raises AgentLost."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        await self.call("hello")
                    except AgentLost:
                        await asyncio.sleep(AGAIN_SECONDS)
                    else:
                        return
        except TimeoutError:
            raise AgentLost(f"the VM's agent did not come up within {seconds:g} s") from None

    async def call(self, name: str, blob: bytes = b"", /, **arguments: Any) -> Answer:
        """What the agent answers. Raises AgentLost, AgentRefused. Cancelled, the answer is passed over."""
        await self._connected()
        self._count += 1
        id = self._count
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._calls[id] = answer
        try:
            if self._writer is None:
                raise AgentLost("the VM's agent is not there")
            self._writer.write(frame({**arguments, "id": id, "call": name}, blob))
            await self._writer.drain()
            head, data = await answer
        except OSError as error:
            raise AgentLost(f"the VM's agent is not there: {error}") from None
        finally:
            self._calls.pop(id, None)
        if "error" in head:
            raise AgentRefused(str(head["error"])[:2000], str(head.get("kind") or ""))
        return head, data

    async def send(self, name: str, data: bytes, **arguments: Any) -> None:
        """A call with more bytes than one can carry, as several."""
        for start in range(0, max(len(data), 1), BLOB_BYTES):
            await self.call(name, data[start : start + BLOB_BYTES], **arguments)

    async def close(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
        self._hang_up()

    async def _connected(self) -> None:
        async with self._connecting:
            if self._writer is not None:
                return
            reader = writer = None
            try:
                async with asyncio.timeout(GREETING_SECONDS):
                    reader, writer = await self._dial()
                    rest = await self._greet(reader, writer)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, Damaged) as error:
                if writer is not None:
                    writer.close()
                raise AgentLost(f"the VM's agent does not answer: {str(error) or type(error).__name__}") from None
            except BaseException:
                if writer is not None:
                    writer.close()
                raise
            self._writer = writer
            self._reading = asyncio.ensure_future(self._read(reader, rest))

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Send the greeting, pass over what is older than its answer."""
        nonce = self._environment.random.randbytes(NONCE_BYTES)
        wanted, seen, passed = GREETING + nonce, b"", 0
        writer.write(wanted)
        await writer.drain()
        while (at := seen.find(wanted)) < 0:
            data = await reader.read(65536)
            passed += len(data)
            if not data or passed > SKIPPED_BYTES:
                raise Damaged("no greeting came back")
            seen = seen[-len(wanted) :] + data
        return seen[at + len(wanted) :]

    async def _read(self, reader: asyncio.StreamReader, rest: bytes) -> None:
        unframer = Unframer()
        try:
            while True:
                for head, blob in unframer.feed(rest):
                    waiting = self._calls.get(head.get("id", 0)) if isinstance(head.get("id"), int) else None
                    if waiting is not None and not waiting.done():
                        waiting.set_result((head, blob))
                rest = await reader.read(65536)
                if not rest:
                    return
        except (OSError, Damaged):
            return
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        for waiting in self._calls.values():
            if not waiting.done():
                waiting.set_exception(AgentLost("the VM's agent went away"))
                waiting.exception()  # whoever waits sees it; nobody else must
