"""Protobuf's wire: varints, tags, and skipping what is not known (protobuf.dev/programming-guides/encoding).

Positions are indices into one bytes object. Reading past its end raises IndexError, which the entry points turn into a
DecodeError; reading past the end of an inner message is noticed when that message ends.
"""

from __future__ import annotations

from typing import Any

from fleetplane.model.protobuf.errors import DecodeError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def read_varint(buffer: bytes, at: int) -> tuple[int, int]:
    """(value below 2**64, next position)."""
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise DecodeError("a number is longer than ten bytes")


def signed(value: int) -> int:
    """An unsigned 64-bit number as two's complement."""
    return value - (1 << 64) if value >> 63 else value


def skip(buffer: bytes, at: int, wire_type: int) -> int:
    """The position after a field of which the tag was read."""
    if wire_type == VARINT:
        return read_varint(buffer, at)[1]
    if wire_type == BYTES:
        length, at = read_varint(buffer, at)
        at += length
    elif wire_type == FIXED64:
        at += 8
    elif wire_type == FIXED32:
        at += 4
    else:
        raise DecodeError(f"wire type {wire_type} is not used by Kubernetes")
    if at > len(buffer):
        raise IndexError
    return at


def read_fields(buffer: bytes, at: int, end: int) -> dict[int, Any]:
    """The last value of each field between two positions: integers as they stand, everything else as bytes."""
    fields: dict[int, Any] = {}
    while at < end:
        tag, at = read_varint(buffer, at)
        start = at
        at = skip(buffer, at, tag & 7)
        if tag & 7 == VARINT:
            fields[tag >> 3] = read_varint(buffer, start)[0]
        elif tag & 7 == BYTES:
            length, start = read_varint(buffer, start)
            fields[tag >> 3] = buffer[start : start + length]
        else:
            fields[tag >> 3] = buffer[start:at]
    if at != end:
        raise DecodeError("a field runs over the end of its message")
    return fields


def varint(value: int) -> bytes:
    """A number as a varint; negative ones as two's complement in ten bytes."""
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def tagged_varint(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value)


def tagged_bytes(number: int, value: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(value)) + value
