"""Messages of other people's gRPC services, declared as dataclasses: the field's number beside its name and type.

For the few services we call or offer (a container runtime, device plugins): their messages are small and known, so a
class each is clearer than generated code, and only the fields we use are declared. What a peer sends beyond them is
skipped, as proto3 wants. Values that are zero are not sent; absent ones read as zero.

    @dataclass
    class Mount:
        container_path: str = text(1)
        readonly: bool = flag(3)

    decode(Mount, encode(Mount("/data", True)))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.wire import BYTES, VARINT, read_varint, signed, skip, tagged_bytes, tagged_varint, varint

_NUMBER: Final = "protobuf"

Message = TypeVar("Message")
Writer = Callable[[Any], bytes]
Reader = Callable[[Any, int | bytes], Any]
"""(value so far, what the wire has) -> the new value."""


def text(number: int) -> Any:
    """A string, empty by default."""
    return dataclasses.field(default="", metadata={_NUMBER: number})


def raw(number: int) -> Any:
    """Bytes, none by default."""
    return dataclasses.field(default=b"", metadata={_NUMBER: number})


def whole(number: int) -> Any:
    """An integer or an enumeration's number, 0 by default."""
    return dataclasses.field(default=0, metadata={_NUMBER: number})


def flag(number: int) -> Any:
    """A truth, false by default."""
    return dataclasses.field(default=False, metadata={_NUMBER: number})


def one(number: int) -> Any:
    """A message, declared as ``Other | None``; absent by default."""
    return dataclasses.field(default=None, metadata={_NUMBER: number})


def many(number: int) -> Any:
    """A list of strings, integers or messages."""
    return dataclasses.field(default_factory=list, metadata={_NUMBER: number})


def pairs(number: int) -> Any:
    """A map from string to string."""
    return dataclasses.field(default_factory=dict, metadata={_NUMBER: number})


def encode(message: Any) -> bytes:
    """The bytes of a message declared here."""
    kind: Any = type(message)
    return b"".join(write(getattr(message, name)) for name, write in _writers(kind))


def decode(kind: type[Message], data: bytes) -> Message:
    """The message these bytes are. Raises DecodeError."""
    declared: Any = kind
    readers = _readers(declared)
    found: dict[str, Any] = {}
    at = 0
    try:
        while at < len(data):
            tag, at = read_varint(data, at)
            start, at = at, skip(data, at, tag & 7)
            known = readers.get(tag >> 3)
            if known is None:
                continue
            name, wire_types, read = known
            if tag & 7 not in wire_types:
                raise DecodeError(f"field {name} of {kind.__name__} has the wrong wire type")
            if tag & 7 == VARINT:
                value: int | bytes = read_varint(data, start)[0]
            else:
                length, start = read_varint(data, start)
                value = data[start : start + length]
            found[name] = read(found.get(name), value)
    except IndexError:
        raise DecodeError(f"a message {kind.__name__} is cut short") from None
    return kind(**found)


@cache
def _fields(kind: type) -> list[tuple[str, int, Any]]:
    types = get_type_hints(kind)
    return sorted(
        ((one.name, one.metadata[_NUMBER], types[one.name]) for one in dataclasses.fields(kind)),
        key=lambda field: field[1],
    )


@cache
def _writers(kind: type) -> list[tuple[str, Writer]]:
    return [(name, _writer(number, declared)) for name, number, declared in _fields(kind)]


@cache
def _readers(kind: type) -> dict[int, tuple[str, tuple[int, ...], Reader]]:
    return {number: (name, *_reader(declared)) for name, number, declared in _fields(kind)}


def _writer(number: int, declared: Any) -> Writer:
    if declared is str:
        return lambda value: tagged_bytes(number, value.encode()) if value else b""
    if declared is bytes:
        return lambda value: tagged_bytes(number, value) if value else b""
    if declared in (int, bool):
        return lambda value: tagged_varint(number, int(value)) if value else b""
    if get_origin(declared) is dict:

        def write_map(value: dict[str, str]) -> bytes:
            entries = (tagged_bytes(1, k.encode()) + tagged_bytes(2, v.encode()) for k, v in sorted(value.items()))
            return b"".join(tagged_bytes(number, entry) for entry in entries)

        return write_map
    if get_origin(declared) is list:
        (item,) = get_args(declared)
        if item is int:
            return lambda value: tagged_bytes(number, b"".join(varint(one) for one in value)) if value else b""
        each: Writer = str.encode if item is str else encode
        return lambda value: b"".join(tagged_bytes(number, each(one)) for one in value)
    return lambda value: tagged_bytes(number, encode(value)) if value is not None else b""


def _reader(declared: Any) -> tuple[tuple[int, ...], Reader]:
    if declared is str:
        return (BYTES,), lambda _, value: _text(value)
    if declared is bytes:
        return (BYTES,), lambda _, value: value
    if declared is int:
        return (VARINT,), lambda _, value: signed(value)
    if declared is bool:
        return (VARINT,), lambda _, value: bool(value)
    if get_origin(declared) is dict:
        return (BYTES,), lambda before, value: {**(before or {}), **_entry(value)}
    if get_origin(declared) is list:
        (item,) = get_args(declared)
        if item is int:
            return (VARINT, BYTES), lambda before, value: [*(before or ()), *_numbers(value)]
        each: Callable[[Any], Any] = _text if item is str else lambda value: decode(item, value)
        return (BYTES,), lambda before, value: _appended(before, each(value))
    inner = next(part for part in get_args(declared) if part is not type(None))
    return (BYTES,), lambda _, value: decode(inner, value)


def _appended(before: list[Any] | None, value: Any) -> list[Any]:
    if before is None:
        return [value]
    before.append(value)
    return before


def _text(value: Any) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise DecodeError("a string is not UTF-8") from None


def _numbers(value: int | bytes) -> list[int]:
    """One number, or several packed."""
    if isinstance(value, int):
        return [signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = read_varint(value, at)
        found.append(signed(number))
    return found


@dataclasses.dataclass
class _Entry:
    key: str = text(1)
    value: str = text(2)


def _entry(value: Any) -> dict[str, str]:
    entry = decode(_Entry, value)
    return {entry.key: entry.value}
