"""Many channels on one connection, none of which can stall another or make either end hold more than a window.

Each direction of a channel has a credit of ``WINDOW`` bytes. Sending costs credit, reading gives it back; who has none
waits, alone. So ``receive`` never waits and its queues are bounded by what this end has granted: a peer that sends more
than that is cut off. Frames cost a little more than their payload, so that a flood of empty ones is bounded too.

It knows no transport: it is given a way to send messages, and is fed those that arrive. Follows HTTP/2 (RFC 9113, 5.2).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from fleetplane.model.tunnel import CHUNK, Frame, Kind, TunnelError, credit_payload, parse_credit

WINDOW: Final = 256 * 1024
FRAME_COST: Final = 64
MAX_CHANNELS: Final = 256

Send = Callable[[bytes], Awaitable[None]]


class Lost(ConnectionError):
    """The channel is closed, or the connection under it is gone."""


class Channel:
    """One conversation. ``gone`` is set when the other end closed it or the connection ended."""

    def __init__(self, number: int, send: Send, forget: Callable[[int], None]) -> None:
        self.number = number
        self.gone = asyncio.Event()
        self.lost = False
        self._send = send
        self._forget = forget
        self._closed = False
        self._credit = WINDOW
        self._may_send = asyncio.Event()
        self._arrived: deque[Frame] = deque()
        self._held = 0
        self._to_return = 0
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()

    async def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send one frame, once the other end has room for it. Raises Lost."""
        cost = FRAME_COST + len(payload)
        async with self._turn:
            while self._credit < cost and not self._is_over():
                self._may_send.clear()
                await self._may_send.wait()
            if self._is_over():
                raise Lost("the channel is closed")
            self._credit -= cost
        await self._send(Frame(kind, self.number, payload).encode())

    async def send_data(self, kind: Kind, data: bytes) -> None:
        """Send bytes of any length. Raises Lost."""
        for start in range(0, len(data), CHUNK):
            await self.send(kind, data[start : start + CHUNK])

    async def receive(self) -> Frame | None:
        """The next frame, None when no more will come; what arrived before the end is still told."""
        while not self._arrived:
            if self._is_over():
                return None
            self._news.clear()
            await self._news.wait()
        frame = self._arrived.popleft()
        cost = FRAME_COST + len(frame.payload)
        self._held -= cost
        self._to_return += cost
        if self._to_return >= WINDOW // 4 and not self._is_over():
            amount, self._to_return = self._to_return, 0
            try:
                await self._send(Frame(Kind.CREDIT, self.number, credit_payload(amount)).encode())
            except ConnectionError:
                self.end(lost=True)
        return frame

    async def frames(self) -> AsyncIterator[Frame]:
        while (frame := await self.receive()) is not None:
            yield frame

    async def close(self) -> None:
        """Let go of the channel and tell the other end; what has arrived and was not read is dropped."""
        if self._closed:
            return
        self._closed = True
        self._arrived.clear()
        self._forget(self.number)
        told = self.gone.is_set()
        self._wake()
        if not told:
            try:
                await self._send(Frame(Kind.CLOSE, self.number).encode())
            except ConnectionError:
                self.lost = True

    def take(self, frame: Frame) -> None:
        """A frame from the other end. Raises TunnelError when it costs more than was granted."""
        if frame.kind is Kind.CREDIT:
            self._credit += parse_credit(frame.payload)
            if self._credit > WINDOW:
                raise TunnelError("more credit was returned than had been used")
            self._may_send.set()
        elif frame.kind is Kind.CLOSE:
            self.end(lost=False)
        else:
            self._held += FRAME_COST + len(frame.payload)
            if self._held + self._to_return > WINDOW:
                raise TunnelError("more was sent than had been granted")
            self._arrived.append(frame)
            self._news.set()

    def end(self, *, lost: bool) -> None:
        """The other end is gone: ``lost`` with the connection, or because it closed the channel."""
        self.lost = self.lost or (lost and not self.gone.is_set())
        self.gone.set()
        self._wake()

    def _is_over(self) -> bool:
        return self._closed or self.gone.is_set()

    def _wake(self) -> None:
        self._may_send.set()
        self._news.set()


class Multiplexer:
    """One end of a connection. ``accept`` is told of channels the other end opens; without it there may be none."""

    def __init__(self, send: Send, accept: Callable[[Channel, bytes], None] | None = None) -> None:
        self._send = send
        self._accept = accept
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._ended = False

    def __len__(self) -> int:
        return len(self._channels)

    async def open(self, payload: bytes) -> Channel:
        """Open a channel. Raises Lost when the connection has ended or has too many already."""
        if self._ended or len(self._channels) >= MAX_CHANNELS:
            raise Lost("the connection has ended" if self._ended else "the connection carries too many channels")
        self._last += 1
        channel = self._add(self._last)
        try:
            await self._send(Frame(Kind.OPEN, channel.number, payload).encode())
        except BaseException:
            self._forget(channel.number)
            raise
        return channel

    def receive(self, message: bytes) -> None:
        """Take one message. Never waits. Raises TunnelError: the connection should be ended then."""
        frame = Frame.decode(message)
        if frame.kind is Kind.OPEN:
            self._opened(frame)
            return
        channel = self._channels.get(frame.channel)
        if channel is None:
            return  # sent before the other end knew that we had closed it
        channel.take(frame)
        if frame.kind is Kind.CLOSE:
            self._forget(frame.channel)

    def end(self) -> None:
        """The connection is gone, and every channel with it."""
        self._ended = True
        for channel in list(self._channels.values()):
            channel.end(lost=True)
        self._channels.clear()

    def _opened(self, frame: Frame) -> None:
        if self._accept is None:
            raise TunnelError("only the server opens channels")
        if frame.channel <= self._last:
            raise TunnelError("a channel was opened twice")
        if len(self._channels) >= MAX_CHANNELS + MAX_CHANNELS // 4:
            raise TunnelError("too many channels")
        self._last = frame.channel
        self._accept(self._add(frame.channel), frame.payload)

    def _add(self, number: int) -> Channel:
        channel = Channel(number, self._send, self._forget)
        self._channels[number] = channel
        return channel

    def _forget(self, number: int) -> None:
        self._channels.pop(number, None)
