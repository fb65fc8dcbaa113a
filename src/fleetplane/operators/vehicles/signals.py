"""Where signals come from: a small protocol, a player of recorded drives, and an MQTT subscriber.

A source yields samples until it ends or raises ``SourceFailure``; whoever reads it decides whether to begin again. The
MQTT client speaks as much of MQTT 3.1.1 as receiving needs (CONNECT, SUBSCRIBE, PUBLISH at QoS 0 and 1, PING), checks
every length, and never publishes anything. A payload is a JSON scalar, an object with ``value``, or a plain text.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import orjson

from fleetplane.operators.vehicles.rules import value_of

KEEP_ALIVE: Final = 30
_LONGEST: Final = 64 * 1024
_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _PING = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90, 0xC0


class Sample(NamedTuple):
    topic: str
    value: float | str | bool


class SourceFailure(Exception):
    """The source is not there or not to be understood; the message is one sentence for people."""


class SignalSource(Protocol):
    def samples(self) -> AsyncIterator[Sample]: ...


class Moment(NamedTuple):
    """One line of a recorded drive; ``at`` in seconds from its beginning."""

    at: float
    sample: Sample


def read_drive(text: str) -> Iterator[Moment]:
    """Lines of ``{"t": seconds, "topic": …, "value": …}``, in time order. Raises SourceFailure with the line's number."""
    before = 0.0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found = orjson.loads(line)
            moment = Moment(float(found["t"]), Sample(str(found["topic"]), value_of(found["value"])))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise SourceFailure(
                f'line {number} of the drive is not {{"t": seconds, "topic": …, "value": …}}: {error}'
            ) from None
        if moment.at < before:
            raise SourceFailure(f"line {number} of the drive is earlier than the line before it")
        before = moment.at
        yield moment


@dataclass(frozen=True, slots=True)
class Drive:
    """Plays a recorded drive, ``speed`` times as fast as it was recorded."""

    text: str
    speed: float = 1.0
    loop: bool = False

    async def samples(self) -> AsyncIterator[Sample]:
        moments = list(read_drive(self.text))
        while True:
            at = 0.0
            for moment in moments:
                if moment.at > at:
                    await asyncio.sleep((moment.at - at) / self.speed)
                    at = moment.at
                yield moment.sample
            if not self.loop or at <= 0.0:
                return


@dataclass(frozen=True, slots=True)
class Mqtt:
    """Subscribes to a broker. Topics become signal names as they are, with ``/`` for ``.`` in VSS paths left alone."""

    host: str
    port: int = 1883
    topics: Sequence[str] = ("#",)
    client_id: str = "fleetplane"
    username: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    async def samples(self) -> AsyncIterator[Sample]:
        try:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            raise SourceFailure(f"the MQTT broker {self.host}:{self.port} cannot be reached: {error}") from None
        pinging = asyncio.ensure_future(_ping(writer))
        try:
            await self._begin(reader, writer)
            async for kind, body in _packets(reader):
                if kind & 0xF0 != _PUBLISH:
                    continue
                sample, packet = _published(kind, body)
                if packet is not None:
                    writer.write(_packet(_PUBACK, packet.to_bytes(2, "big")))
                if sample is not None:
                    yield sample
        except (OSError, asyncio.IncompleteReadError) as error:
            raise SourceFailure(f"the MQTT broker {self.host}:{self.port} closed the connection: {error}") from None
        finally:
            pinging.cancel()
            with suppress(asyncio.CancelledError):
                await pinging
            writer.close()

    async def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flags = 0x02 | (0x80 if self.username else 0) | (0x40 if self.password else 0)
        body = _text("MQTT") + bytes([4, flags]) + KEEP_ALIVE.to_bytes(2, "big") + _text(self.client_id)
        body += (_text(self.username) if self.username else b"") + (_text(self.password) if self.password else b"")
        writer.write(_packet(_CONNECT, body))
        async with asyncio.timeout(10):
            kind, answer = await _read_packet(reader)
        if kind != _CONNACK or len(answer) < 2 or answer[1] != 0:
            code = answer[1] if len(answer) > 1 else "?"
            raise SourceFailure(f"the MQTT broker {self.host}:{self.port} refused the connection (code {code})")
        wanted = b"".join(_text(topic) + b"\x00" for topic in self.topics or ("#",))
        writer.write(_packet(_SUBSCRIBE, b"\x00\x01" + wanted))
        await writer.drain()


def tls_context(authority: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    """TLS that trusts this authority (PEM; the system's where empty), and shows a certificate of our own where given.

    Raises SourceFailure. The key is on disk for as long as it is read, for nobody else to see.
    """
    try:
        context = ssl.create_default_context(cadata=authority or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate or key:
            with tempfile.TemporaryDirectory() as folder:  # made with mode 0700
                path = Path(folder) / "client.pem"
                path.touch(mode=0o600)
                path.write_text(certificate + "\n" + key)
                context.load_cert_chain(path)
    except (ssl.SSLError, ValueError) as error:
        raise SourceFailure(f"the certificates for the broker cannot be used: {error}") from None
    return context


async def _ping(writer: asyncio.StreamWriter) -> None:
    while True:
        await asyncio.sleep(KEEP_ALIVE / 2)
        writer.write(_packet(_PING, b""))


async def _packets(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    while True:
        yield await _read_packet(reader)


async def _read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = 0
    for shift in (0, 7, 14, 21):
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
    if length > _LONGEST:
        raise SourceFailure(f"the MQTT broker sent a message of {length} bytes; at most {_LONGEST} are taken")
    return kind, await reader.readexactly(length)


def _published(kind: int, body: bytes) -> tuple[Sample | None, int | None]:
    """The sample of a PUBLISH and, at QoS 1, the packet to acknowledge."""
    size = int.from_bytes(body[:2], "big")
    topic, rest = body[2 : 2 + size].decode("utf-8", "replace"), body[2 + size :]
    packet = None
    if kind & 0x06:
        packet, rest = int.from_bytes(rest[:2], "big"), rest[2:]
    value = payload_value(rest)
    return (None if value is None else Sample(topic, value)), packet


def payload_value(payload: bytes) -> float | str | bool | None:
    """What a payload says; ``None`` for nothing."""
    found: Any
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        found = payload.decode("utf-8", "replace")
    if isinstance(found, dict):
        found = found.get("value")
    return None if found is None or isinstance(found, list | dict) else value_of(found)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(kind: int, body: bytes) -> bytes:
    length, size = len(body), bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        size.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(size) + body
