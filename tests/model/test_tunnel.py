"""Frames keep what they carry; channels share a connection without standing in each other's way."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.model.multiplex import FRAME_COST, MAX_CHANNELS, WINDOW, Channel, Lost, Multiplexer
from fleetplane.model.tunnel import (
    MAX_PAYLOAD,
    Frame,
    Kind,
    Opening,
    TunnelError,
    code_payload,
    credit_payload,
    parse_code,
    parse_size,
    size_payload,
)

SMALL = settings(max_examples=40, deadline=None)
frames = st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=200))


@SMALL
@given(frames)
def test_a_frame_is_read_as_it_was_written(frame: Frame) -> None:
    assert Frame.decode(frame.encode()) == frame


@SMALL
@given(st.binary(max_size=60))
def test_any_bytes_are_a_frame_or_refused(message: bytes) -> None:
    try:
        frame = Frame.decode(message)
    except TunnelError:
        return
    assert frame.encode() == message


@SMALL
@given(st.binary(max_size=60))
def test_any_payload_is_an_opening_or_refused(payload: bytes) -> None:
    try:
        Opening.decode(payload)
    except TunnelError:
        return
    pytest.fail("random bytes opened a channel")


@SMALL
@given(st.integers(1, 65535), st.integers(1, 65535), st.integers(-(2**31), 2**31 - 1))
def test_sizes_and_codes_are_kept(width: int, height: int, code: int) -> None:
    assert parse_size(size_payload(width, height)) == (width, height)
    assert parse_code(code_payload(code)) == code


def test_a_frame_has_a_largest_size() -> None:
    with pytest.raises(ValueError, match="at most"):
        Frame(Kind.STDOUT, 1, b"x" * (MAX_PAYLOAD + 1)).encode()
    with pytest.raises(TunnelError):
        Frame.decode(b"\x05" + bytes(4) + b"x" * (MAX_PAYLOAD + 1))


class Pair:
    """Two ends, each of which gets at once what the other sends."""

    def __init__(self) -> None:
        self.accepted: list[Channel] = []
        self.node = Multiplexer(self._to_server, lambda channel, _payload: self.accepted.append(channel))
        self.server = Multiplexer(self._to_node)

    async def _to_server(self, message: bytes) -> None:
        self.server.receive(message)

    async def _to_node(self, message: bytes) -> None:
        self.node.receive(message)

    async def channel(self) -> tuple[Channel, Channel]:
        mine = await self.server.open(b"{}")
        return mine, self.accepted[-1]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=100_000), max_size=12))
async def test_what_is_sent_arrives_whole_and_in_order(pieces: list[bytes]) -> None:
    pair = Pair()
    server, node = await pair.channel()

    async def send() -> None:
        for piece in pieces:
            await node.send_data(Kind.STDOUT, piece)
        await node.send(Kind.EXIT, code_payload(0))
        await node.close()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(send())
        received = [frame async for frame in server.frames()]

    assert b"".join(one.payload for one in received[:-1]) == b"".join(pieces)
    assert received[-1].kind is Kind.EXIT
    assert (len(pair.server), len(pair.node)) == (0, 0)


async def test_a_stalled_channel_stops_its_sender_and_nobody_else() -> None:
    pair = Pair()
    _stalled, flooding = await pair.channel()
    lively, talking = await pair.channel()

    flood = asyncio.create_task(flooding.send_data(Kind.STDOUT, b"x" * (4 * WINDOW)))
    await asyncio.sleep(0)
    await talking.send_data(Kind.STDOUT, b"hello")
    heard = await lively.receive()

    assert heard is not None
    assert heard.payload == b"hello"
    assert not flood.done()
    assert _stalled._held <= WINDOW
    await flooding.close()
    with pytest.raises(Lost):
        await flood


async def test_more_than_was_granted_is_refused() -> None:
    pair = Pair()
    server, _ = await pair.channel()
    full = (WINDOW // (FRAME_COST + 1024)) * [Frame(Kind.STDOUT, server.number, bytes(1024)).encode()]
    for message in full:
        pair.server.receive(message)

    with pytest.raises(TunnelError, match="granted"):
        pair.server.receive(full[0])


async def test_credit_nobody_used_is_refused() -> None:
    pair = Pair()
    server, _ = await pair.channel()

    with pytest.raises(TunnelError, match="credit"):
        pair.server.receive(Frame(Kind.CREDIT, server.number, credit_payload(1)).encode())


async def test_a_node_opens_no_channels() -> None:
    with pytest.raises(TunnelError, match="only the server"):
        Pair().server.receive(Frame(Kind.OPEN, 1, b"{}").encode())


async def test_channels_are_counted() -> None:
    pair = Pair()
    for _ in range(MAX_CHANNELS):
        await pair.server.open(b"{}")

    with pytest.raises(Lost, match="too many"):
        await pair.server.open(b"{}")


async def test_when_the_connection_ends_everyone_who_waits_is_told() -> None:
    pair = Pair()
    server, _ = await pair.channel()
    waiting = asyncio.create_task(server.receive())
    await asyncio.sleep(0)

    pair.server.end()

    assert await waiting is None
    assert server.lost
    with pytest.raises(Lost):
        await pair.server.open(b"{}")
