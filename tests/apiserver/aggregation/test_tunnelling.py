"""How a carried connection ends, when it ends at an awkward moment."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fleetplane.apiserver.aggregation import tunnelling
from fleetplane.apiserver.aggregation.tunnelling import carry
from fleetplane.apiserver.streaming.upgrade import RawConnection


class Wire:
    """A transport and a writer in one; what is written goes no further until ``flows`` is set."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.flows = asyncio.Event()
        self.blocked = asyncio.Event()
        self.transport = self

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drain(self) -> None:
        self.blocked.set()
        await self.flows.wait()

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    async def wait_closed(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0


def carried() -> tuple[RawConnection, Wire, Wire, asyncio.Task[None]]:
    """A client, its wire, the server's wire, and the task between them."""
    client_wire, server_wire = Wire(), Wire()
    client = RawConnection(cast(asyncio.Transport, client_wire))
    reader: Any = asyncio.StreamReader()
    return client, client_wire, server_wire, asyncio.create_task(carry(client, reader, cast(Any, server_wire)))


async def leave(client: RawConnection, wire: Wire, task: asyncio.Task[None]) -> None:
    """What the front end does when a client's connection is lost."""
    wire.close()
    task.cancel()
    client.feed_eof()
    await asyncio.sleep(0)


async def test_what_a_client_said_before_it_left_goes_on() -> None:
    client, client_wire, server_wire, task = carried()
    for word in (b"one", b"two", b"three"):
        client.feed_data(word)
    await server_wire.blocked.wait()

    await leave(client, client_wire, task)
    server_wire.flows.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert server_wire.written == [b"one", b"two", b"three"]
    assert server_wire.closed


async def test_a_server_that_does_not_take_it_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnelling, "LAST_SECONDS", 0.01)
    client, client_wire, server_wire, task = carried()
    client.feed_data(b"one")
    client.feed_data(b"two")
    await server_wire.blocked.wait()

    await leave(client, client_wire, task)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert server_wire.written == [b"one"]
    assert server_wire.closed


async def test_when_we_end_it_nobody_is_waited_for() -> None:
    client, client_wire, server_wire, task = carried()
    client.feed_data(b"one")
    await server_wire.blocked.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (client_wire.closed, server_wire.closed) == (True, True)
