"""From protobuf to JSON objects, message by message.

Each message is compiled once into a table from tag to a reader (a closure that reads one value and puts it into the
object). What comes out is what Go's encoder would have written as JSON: zero values of optional fields are absent,
those of pointers are told, the fields of inlined structures stand in their parent. Zero times are left out, where Go
writes null.

Never trusts a length: every read is bounded by the buffer and checked against the message it belongs to, and messages
nest at most ``MAX_DEPTH`` deep.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from fleetplane.model.objects import Object
from fleetplane.model.protobuf import values
from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.facts import Field, message_fields
from fleetplane.model.protobuf.wire import BYTES, FIXED64, VARINT, read_fields, read_varint, signed, skip

MAX_DEPTH: Final = 64

Reader = Callable[[bytes, int, Object, int], int]
"""(buffer, position after the tag, object being made, depth) -> position after the value."""

Value = Callable[[bytes, int, int, int], Any]
"""(buffer, start, end, depth) -> what a length-delimited value means."""

_SCHEMA: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"

_INTEGERS: Final = ("bool", "int32", "int64")


def decode_message(message: str, buffer: bytes, depth: int = 0) -> Object:
    """The object a message says, without ``apiVersion`` and ``kind``; ``depth`` is how deep it is nested already.

    Raises DecodeError.
    """
    found: Object = {}
    try:
        _read_into(_readers(message), buffer, 0, len(buffer), found, depth)
    except IndexError:
        raise DecodeError("the message is cut short") from None
    return found


def _read_into(readers: dict[int, Reader], buffer: bytes, at: int, end: int, found: Object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise DecodeError(f"messages nest deeper than {MAX_DEPTH}")
    while at < end:
        tag = buffer[at]
        at += 1
        if tag > 127:
            tag, at = read_varint(buffer, at - 1)
        reader = readers.get(tag)
        at = skip(buffer, at, tag & 7) if reader is None else reader(buffer, at, found, depth)
    if at != end:
        raise DecodeError("a field runs over the end of its message")


@cache
def _readers(message: str) -> dict[int, Reader]:
    """The readers of a message by tag. Nested messages are looked up when met: types may contain themselves."""
    readers: dict[int, Reader] = {}
    for field in message_fields(message):
        wire_type = VARINT if field.type in _INTEGERS else FIXED64 if field.type == "double" else BYTES
        if field.shape not in ("one", "list"):
            wire_type = BYTES
        readers[field.number << 3 | wire_type] = _reader(field)
        if field.shape == "list" and field.type in _INTEGERS:
            readers[field.number << 3 | BYTES] = _packed(field)
    return readers


def _reader(field: Field) -> Reader:
    if field.inline:
        return _inlined(field)
    if field.shape in ("map", "mapitems"):
        return _mapped(field)
    if field.type in _INTEGERS and field.shape == "one":
        return _integer(field)
    if field.type in _INTEGERS:
        return _integers(field) if field.shape == "list" else _delimited(field)
    if field.type == "double":
        return _double(field)
    return _listed(field) if field.shape == "list" else _delimited(field)


def _length(buffer: bytes, at: int) -> tuple[int, int]:
    """(start, end) of a length-delimited value."""
    length = buffer[at]
    at += 1
    if length > 127:
        length, at = read_varint(buffer, at - 1)
    end = at + length
    if end > len(buffer):
        raise IndexError
    return at, end


_NUMBERS: Final[dict[str, Callable[[int], Any]]] = {"bool": bool, "int32": signed, "int64": signed}


def _integer(field: Field) -> Reader:
    name, meaning, drop_zero = field.name, _NUMBERS[field.type], field.omit_zero and not field.pointer

    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        value = buffer[at]
        at += 1
        if value > 127:
            value, at = read_varint(buffer, at - 1)
        if value or not drop_zero:
            found[name] = meaning(value)
        return at

    return read


def _integers(field: Field) -> Reader:
    name, meaning = field.name, _NUMBERS[field.type]

    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        value, at = read_varint(buffer, at)
        found.setdefault(name, []).append(meaning(value))
        return at

    return read


def _packed(field: Field) -> Reader:
    name, meaning = field.name, _NUMBERS[field.type]

    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        at, end = _length(buffer, at)
        values_found = found.setdefault(name, [])
        while at < end:
            value, at = read_varint(buffer, at)
            values_found.append(meaning(value))
        if at != end:
            raise DecodeError("a list of numbers runs over its end")
        return at

    return read


def _double(field: Field) -> Reader:
    name = field.name

    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        if at + 8 > len(buffer):
            raise IndexError
        found[name] = values.double_from(buffer[at : at + 8])
        return at + 8

    return read


def _delimited(field: Field) -> Reader:
    name, meaning = field.name, _meaning(field)
    drop_zero = field.omit_zero and not field.pointer and field.type in ("string", "bytes")

    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        start, end = _length(buffer, at)
        if start != end or not drop_zero:
            value = meaning(buffer, start, end, depth)
            if value is not None:
                found[name] = value
        return end

    return read


def _listed(field: Field) -> Reader:
    name, meaning = field.name, _meaning(field)

    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        start, end = _length(buffer, at)
        found.setdefault(name, []).append(meaning(buffer, start, end, depth))
        return end

    return read


def _inlined(field: Field) -> Reader:
    message = field.type

    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        start, end = _length(buffer, at)
        _read_into(_readers(message), buffer, start, end, found, depth + 1)
        return end

    return read


def _mapped(field: Field) -> Reader:
    """Maps from strings: each entry is a message of key (1) and value (2), either absent when zero."""
    name, meaning = field.name, _meaning(field)

    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        start, end = _length(buffer, at)
        entry = read_fields(buffer, start, end)
        raw = entry.get(2, b"")
        if not isinstance(raw, bytes):
            raise DecodeError(f"a value of {name} has the wrong wire type")
        found.setdefault(name, {})[values.text(entry.get(1, b""))] = meaning(raw, 0, len(raw), depth)
        return end

    return read


def _meaning(field: Field) -> Value:
    """What the bytes of one value of a field mean."""
    if field.shape in ("items", "mapitems"):
        wrapped = {1 << 3 | BYTES: _reader(Field(1, "items", field.type, "list", False, False, False))}

        def items(buffer: bytes, start: int, end: int, depth: int) -> Any:
            found: Object = {"items": []}
            _read_into(wrapped, buffer, start, end, found, depth + 1)
            return found["items"]

        return items
    special = _SPECIAL.get(field.type)
    if special is not None:
        return special
    message = field.type

    def nested(buffer: bytes, start: int, end: int, depth: int) -> Any:
        found: Object = {}
        _read_into(_readers(message), buffer, start, end, found, depth + 1)
        return found

    return nested


def _text(buffer: bytes, start: int, end: int, depth: int) -> str:
    try:
        return buffer[start:end].decode()
    except UnicodeDecodeError:
        raise DecodeError("a string is not UTF-8") from None


def _bytes(buffer: bytes, start: int, end: int, depth: int) -> str:
    return b64encode(buffer[start:end]).decode()


def _plain(convert: Callable[[dict[int, Any]], Any]) -> Value:
    def read(buffer: bytes, start: int, end: int, depth: int) -> Any:
        return convert(read_fields(buffer, start, end))

    return read


def _raw(buffer: bytes, start: int, end: int, depth: int) -> Any:
    """An embedded object: JSON, or protobuf in an envelope of its own."""
    fields = read_fields(buffer, start, end)
    raw = fields.get(1, b"")
    if isinstance(raw, bytes) and raw.startswith(b"k8s\0"):
        from fleetplane.model.protobuf.envelope import decode  # noqa: PLC0415 (envelopes and messages contain each other)

        return decode(raw, depth=depth + 1)
    return values.json_from(fields)


def _schema(raw: Any, depth: int) -> Object:
    if not isinstance(raw, bytes):
        raise DecodeError("a schema has the wrong wire type")
    found: Object = {}
    _read_into(_readers(_SCHEMA), raw, 0, len(raw), found, depth + 1)
    return found


def _schema_or(listed: Value) -> Value:
    """A schema (1), or where there are none of those a list of something else (2)."""

    readers: dict[int, Reader] = {1 << 3 | BYTES: _one_schema, 2 << 3 | BYTES: _many_of(listed)}

    def read(buffer: bytes, start: int, end: int, depth: int) -> Any:
        found: Object = {}
        _read_into(readers, buffer, start, end, found, depth + 1)
        return found.get("many") or found.get("one")

    return read


def _one_schema(buffer: bytes, at: int, found: Object, depth: int) -> int:
    start, end = _length(buffer, at)
    found["one"] = _schema(buffer[start:end], depth)
    return end


def _many_of(listed: Value) -> Reader:
    def read(buffer: bytes, at: int, found: Object, depth: int) -> int:
        start, end = _length(buffer, at)
        found.setdefault("many", []).append(listed(buffer, start, end, depth))
        return end

    return read


def _schema_or_bool(buffer: bytes, start: int, end: int, depth: int) -> Any:
    fields = read_fields(buffer, start, end)
    return _schema(fields[2], depth) if 2 in fields else bool(fields.get(1))


_SPECIAL: Final[dict[str, Value]] = {
    "string": _text,
    "bytes": _bytes,
    "time": _plain(values.time_from),
    "microtime": _plain(values.micro_time_from),
    "quantity": _plain(values.quantity_from),
    "intorstring": _plain(values.int_or_string_from),
    "json": _plain(values.json_from),
    "raw": _raw,
    "schemaorarray": _schema_or(lambda buffer, start, end, depth: _schema(buffer[start:end], depth)),
    "schemaorstrings": _schema_or(_text),
    "schemaorbool": _schema_or_bool,
}
