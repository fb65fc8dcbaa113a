"""A transport to which everything happens that happens to networks and processes.

Faults are drawn from the environment's chance, so a run replays from its seed. A fault is always one that a real network
or server could produce:

* a request is lost: the server never saw it, the client gets ``Unreachable``;
* an answer is lost: the server carried it out, the client gets ``Unreachable``;
* everything may take a while, also after the server decided: by the time the answer arrives, it is old;
* a write meets a conflict (409) that the server did not decide, as if somebody had been faster;
* the server puts a request off (429 with Retry-After) or is not available (503);
* a watch breaks, or its events arrive late, in order.

``kill`` makes the transport that of a dead process: what was on its way may still arrive and be carried out, but nothing
comes back and nothing new leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from fleetplane.client.protocol import Pairs, Transport, Unreachable
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError, conflict, too_many_requests, unavailable

Answer = tuple[int, Mapping[str, str], bytes]


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely each fault is, from 0 to 1 per request (per event for watches); delays in seconds."""

    lost_request: float = 0.0
    lost_answer: float = 0.0
    conflict: float = 0.0
    put_off: float = 0.0
    unavailable: float = 0.0
    broken_watch: float = 0.0
    slow: float = 0.0
    max_delay: float = 1.0

    @classmethod
    def some(cls) -> Faults:
        """A bad day: about one request in five meets something."""
        return cls(
            lost_request=0.05,
            lost_answer=0.05,
            conflict=0.04,
            put_off=0.02,
            unavailable=0.02,
            broken_watch=0.02,
            slow=0.3,
        )


NO_FAULTS = Faults()


class Step(NamedTuple):
    """One request of a run: when it was sent (virtual seconds), what it was, what became of it."""

    at: float
    who: str
    method: str
    path: str
    outcome: str


@dataclass
class FaultyTransport:
    """Wraps a transport. ``before`` and ``after`` are called around every request; they may kill the process."""

    inner: Transport
    environment: Environment
    faults: Faults = NO_FAULTS
    who: str = ""
    trace: list[Step] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    is_dead: bool = False
    _on_their_way: set[asyncio.Future[Answer]] = field(default_factory=set)

    def kill(self) -> None:
        self.is_dead = True

    async def request(self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes) -> Answer:
        self._check_alive()
        self.before()
        self._check_alive()
        await self._delay()
        fault = self._draw(method)
        if fault == "lost request":
            self._note(method, path, fault)
            raise Unreachable("the request was lost")
        if isinstance(fault, ApiError):
            self._note(method, path, str(fault.code))
            headers_back = {"retry-after": str(fault.retry_after)} if fault.retry_after else {}
            return fault.code, headers_back, orjson.dumps(fault.to_status())
        # The server's work does not end with the client: it goes on in a task of its own.
        sent = asyncio.ensure_future(self.inner.request(method, path, query, headers, body))
        self._on_their_way.add(sent)
        sent.add_done_callback(self._on_their_way.discard)
        answer = await asyncio.shield(sent)
        self._note(method, path, fault or str(answer[0]))
        self.after()
        self._check_alive()
        if fault == "lost answer":
            raise Unreachable("the answer was lost")
        await self._delay()
        self._check_alive()
        return answer

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        self._check_alive()
        await self._delay()
        if self._happens(self.faults.lost_request):
            raise Unreachable("the request was lost")
        async with self.inner.stream(method, path, query, headers, body) as (status, chunks):
            yield status, self._disturbed(chunks)

    async def close(self) -> None:
        await self.inner.close()

    async def settle(self) -> None:
        """Wait for what is still on its way to the server."""
        while self._on_their_way:
            await asyncio.wait(self._on_their_way)

    async def _disturbed(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Reads at once and hands on late: a slow network does not make the server wait."""
        arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def read() -> None:
            async for chunk in chunks:
                arrived.put_nowait(chunk)
            arrived.put_nowait(None)

        reading = asyncio.ensure_future(read())
        try:
            while (chunk := await arrived.get()) is not None:
                self._check_alive()
                await self._delay()
                if self._happens(self.faults.broken_watch):
                    raise Unreachable("the watch broke")
                yield chunk
            await reading
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    def _check_alive(self) -> None:
        """A dead process gets no further: whatever it was doing ends here, its clean-up included."""
        if self.is_dead:
            raise asyncio.CancelledError("the process is dead")

    async def _delay(self) -> None:
        if self._happens(self.faults.slow):
            await asyncio.sleep(self.environment.random.random() * self.faults.max_delay)

    def _draw(self, method: str) -> str | ApiError:
        faults = self.faults
        if self._happens(faults.lost_request):
            return "lost request"
        if self._happens(faults.lost_answer):
            return "lost answer"
        if self._happens(faults.put_off):
            return too_many_requests("the server is busy; try again", 1)
        if self._happens(faults.unavailable):
            return unavailable("the server is starting", None)
        if method in {"PUT", "PATCH"} and self._happens(faults.conflict):
            return conflict(
                "objects", "x", "the object has been modified; please apply your changes to the latest version"
            )
        return ""

    def _happens(self, likely: float) -> bool:
        return likely > 0 and self.environment.random.random() < likely

    def _note(self, method: str, path: str, outcome: str) -> None:
        self.trace.append(Step(round(self.environment.monotonic(), 6), self.who, method, path, outcome))
