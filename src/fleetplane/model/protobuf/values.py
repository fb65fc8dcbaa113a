"""Messages whose JSON is a plain value, not an object of their fields: times, quantities, ports that may be names.

Each has a function from its decoded fields (number -> value, integers unsigned as on the wire) to JSON, and one from
JSON to its encoded fields. Durations are absent because no served kind has one.
"""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from fleetplane.model.environment import micro_timestamp, parse_timestamp, timestamp
from fleetplane.model.protobuf.errors import DecodeError, EncodeError
from fleetplane.model.protobuf.wire import signed, tagged_bytes, tagged_varint

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(fields: dict[int, Any]) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=signed(_number(fields, 1)), microseconds=signed(_number(fields, 2)) // 1000)
    except OverflowError:
        raise DecodeError("a time is outside the years 1 to 9999") from None


def time_from(fields: dict[int, Any]) -> str | None:
    """``metav1.Time``; the zero time is no time."""
    return timestamp(_moment(fields)) if fields else None


def micro_time_from(fields: dict[int, Any]) -> str | None:
    return micro_timestamp(_moment(fields)) if fields else None


def _parsed(value: Any) -> datetime:
    if not isinstance(value, str):
        raise EncodeError(f"a time must be a string, not {type(value).__name__}")
    try:
        return parse_timestamp(value)
    except ValueError:
        raise EncodeError(f"{value[:40]!r} is not an RFC 3339 time") from None


def time_to(value: Any) -> bytes:
    return tagged_varint(1, (_parsed(value) - _EPOCH) // timedelta(seconds=1)) + tagged_varint(2, 0)


def micro_time_to(value: Any) -> bytes:
    since = _parsed(value) - _EPOCH
    seconds = since // timedelta(seconds=1)
    return tagged_varint(1, seconds) + tagged_varint(2, since.microseconds * 1000)


def quantity_from(fields: dict[int, Any]) -> str:
    return text(fields.get(1, b"")) or "0"


def quantity_to(value: Any) -> bytes:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise EncodeError(f"a quantity must be a string or a number, not {type(value).__name__}")
    return tagged_bytes(1, str(value).encode())


def int_or_string_from(fields: dict[int, Any]) -> int | str:
    if _number(fields, 1) == 1:
        return text(fields.get(3, b""))
    return _int32(_number(fields, 2))


def int_or_string_to(value: Any) -> bytes:
    if isinstance(value, str):
        return tagged_varint(1, 1) + tagged_varint(2, 0) + tagged_bytes(3, value.encode())
    if isinstance(value, int) and not isinstance(value, bool):
        return tagged_varint(1, 0) + tagged_varint(2, value) + tagged_bytes(3, b"")
    raise EncodeError(f"an int-or-string must be a whole number or a string, not {type(value).__name__}")


def json_from(fields: dict[int, Any]) -> Any:
    """Messages that carry JSON text in their first field."""
    raw = fields.get(1, b"")
    if not isinstance(raw, bytes):
        raise DecodeError("embedded JSON has the wrong wire type")
    if not raw:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise DecodeError("embedded JSON is malformed") from None


def json_to(value: Any) -> bytes:
    try:
        return tagged_bytes(1, orjson.dumps(value))
    except (TypeError, orjson.JSONEncodeError):
        raise EncodeError("an embedded value is not JSON") from None


def double_from(raw: bytes) -> float | int:
    """As JSON shows it: whole numbers without a fraction."""
    (value,) = struct.unpack("<d", raw)
    if not math.isfinite(value):
        raise DecodeError("a number is not finite")
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else float(value)


def text(raw: Any) -> str:
    if not isinstance(raw, bytes):
        raise DecodeError("a string has the wrong wire type")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DecodeError("a string is not UTF-8") from None


def _number(fields: dict[int, Any], number: int) -> int:
    found = fields.get(number, 0)
    if not isinstance(found, int):
        raise DecodeError("a number has the wrong wire type")
    return found


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
