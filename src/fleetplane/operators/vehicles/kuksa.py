"""Vehicle signals from an Eclipse Kuksa databroker, by its public gRPC API ``kuksa.val.v2``, or ``v1`` where it is older.

A subscription answers the present value of every signal at once and then each change; a signal without a value says
nothing. Signals are VSS paths and must be known to the broker: what it does not know or does not let us read it refuses in
its own words. gRPC is an extra of the package and loaded when the first such source is opened; the few messages are read
and written here, with every length checked. This module only listens: it never publishes or actuates.

Sources: eclipse-kuksa/kuksa-databroker, ``kuksa/val/v2/{val,types}.proto`` and ``kuksa/val/v1/{val,types}.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.wire import BYTES, read_fields, read_varint, skip, tagged_bytes, tagged_varint
from fleetplane.operators.vehicles.signals import Sample, SourceFailure

V2: Final = "/kuksa.val.v2.VAL/Subscribe"
V1: Final = "/kuksa.val.v1.VAL/Subscribe"
BUFFER: Final = 1000
"""Samples the broker keeps for us while we are busy: the most it takes."""
_LARGEST: Final = 1 << 20
_FIELD_PATH, _FIELD_VALUE, _VIEW_CURRENT = 1, 2, 1


@dataclass(frozen=True, slots=True)
class Kuksa:
    """``root_certificates`` (PEM) turns TLS on; ``token`` is a JWT. Neither is ever shown."""

    host: str
    signals: Sequence[str]
    port: int = 55555
    root_certificates: bytes = b""
    token: str = field(default="", repr=False)

    async def samples(self) -> AsyncIterator[Sample]:
        try:
            import grpc  # noqa: PLC0415 - an extra, loaded only where such a source is used
        except ImportError:
            raise SourceFailure("a Kuksa databroker needs the package grpcio: install fleetplane[grpc]") from None
        target, options = f"{self.host}:{self.port}", [("grpc.max_receive_message_length", _LARGEST)]
        if self.root_certificates:
            credentials = grpc.ssl_channel_credentials(root_certificates=self.root_certificates)
            channel = grpc.aio.secure_channel(target, credentials, options=options)
        else:
            channel = grpc.aio.insecure_channel(target, options=options)
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else []
        try:
            for method, request, read in (
                (V2, subscription(self.signals), samples_of),
                (V1, _old(self.signals), _olds),
            ):
                try:
                    async for answer in channel.unary_stream(method)(request, metadata=metadata):
                        for sample in read(answer):
                            yield sample
                except grpc.aio.AioRpcError as error:
                    if method == V2 and error.code() == grpc.StatusCode.UNIMPLEMENTED:
                        continue  # an older broker
                    raise SourceFailure(
                        f"the Kuksa databroker {target} ended the subscription: {error.details() or error.code().name}"
                    ) from None
                else:
                    return
        except DecodeError as error:
            raise SourceFailure(f"the Kuksa databroker {target} said something that cannot be read: {error}") from None
        finally:
            await channel.close()


# -- kuksa.val.v2


def subscription(signals: Sequence[str]) -> bytes:
    """``SubscribeRequest``."""
    return b"".join(tagged_bytes(1, one.encode()) for one in signals) + tagged_varint(2, BUFFER)


def samples_of(answer: bytes) -> Iterator[Sample]:
    """What a ``SubscribeResponse`` says. Raises DecodeError."""
    for entry in _each(answer, 1):
        pair = _fields(entry)
        value = _value(_fields(_part(_fields(_part(pair, 2)), 2)))
        if value is not None:
            yield Sample(_text(pair.get(1)), value)


# -- kuksa.val.v1


def _old(signals: Sequence[str]) -> bytes:
    wanted = tagged_varint(2, _VIEW_CURRENT) + tagged_varint(3, _FIELD_PATH) + tagged_varint(3, _FIELD_VALUE)
    return b"".join(tagged_bytes(1, tagged_bytes(1, one.encode()) + wanted) for one in signals)


def _olds(answer: bytes) -> Iterator[Sample]:
    for notification in _each(answer, 1):
        entry = _fields(_part(_fields(notification), 1))
        value = _value(_fields(_part(entry, 2)))
        if value is not None:
            yield Sample(_text(entry.get(1)), value)


# -- the wire


def _each(message: bytes, number: int) -> Iterator[bytes]:
    """All values of a repeated field of messages."""
    at = 0
    try:
        while at < len(message):
            tag, at = read_varint(message, at)
            start, at = at, skip(message, at, tag & 7)
            if tag == number << 3 | BYTES:
                length, start = read_varint(message, start)
                yield message[start : start + length]
    except IndexError:
        raise DecodeError("the message is cut off") from None


def _fields(message: bytes) -> dict[int, Any]:
    try:
        return read_fields(message, 0, len(message))
    except IndexError:
        raise DecodeError("the message is cut off") from None


def _part(fields: dict[int, Any], number: int) -> bytes:
    found = fields.get(number, b"")
    if not isinstance(found, bytes):
        raise DecodeError(f"field {number} is no message")
    return found


def _text(found: Any) -> str:
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else ""


def _value(fields: dict[int, Any]) -> float | str | bool | None:
    """The scalar of a value (both versions number them alike); ``None`` for none and for lists."""
    for number, found in fields.items():
        match number:
            case 11 if isinstance(found, bytes):
                return _text(found)
            case 12 if isinstance(found, int):
                return bool(found)
            case 13 | 14 if isinstance(found, int):
                return float((found >> 1) ^ -(found & 1))
            case 15 | 16 if isinstance(found, int):
                return float(found)
            case 17 if isinstance(found, bytes) and len(found) == 4:
                return float(struct.unpack("<f", found)[0])
            case 18 if isinstance(found, bytes) and len(found) == 8:
                return float(struct.unpack("<d", found)[0])
            case 11 | 12 | 13 | 14 | 15 | 16 | 17 | 18:
                raise DecodeError(f"the value {number} has the wrong wire type")
    return None
