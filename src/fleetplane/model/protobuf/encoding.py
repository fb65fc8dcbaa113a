"""From JSON objects to protobuf, message by message.

Each message is compiled once into a list of (JSON name, writer). Fields of the object that the message does not know
are left out, as Go's typed clients do; null is absence. Values of the wrong type are refused, never coerced.
"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from fleetplane.model.objects import Object
from fleetplane.model.protobuf import values
from fleetplane.model.protobuf.errors import EncodeError
from fleetplane.model.protobuf.facts import Field, message_fields
from fleetplane.model.protobuf.wire import BYTES, FIXED64, VARINT, tagged_bytes, tagged_varint, varint

MAX_DEPTH: Final = 64

Writer = Callable[[Any, bytearray, int], None]
"""(JSON value, output, depth): appends the field with its tag."""

Value = Callable[[Any, int], bytes]
"""(JSON value, depth) -> the bytes of a length-delimited value, without tag and length."""

_SCHEMA: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"


def encode_message(message: str, obj: Object) -> bytes:
    """The message that says this object; ``apiVersion`` and ``kind`` are not part of it. Raises EncodeError."""
    return _message(message, obj, 0)


def _message(message: str, obj: Any, depth: int) -> bytes:
    if not isinstance(obj, dict):
        raise EncodeError(f"an object is needed for {message.rpartition('.')[2]}, not {type(obj).__name__}")
    if depth > MAX_DEPTH:
        raise EncodeError(f"objects nest deeper than {MAX_DEPTH}")
    out = bytearray()
    for name, writer in _writers(message):
        if name is None:
            writer(obj, out, depth)
        else:
            value = obj.get(name)
            if value is not None:
                try:
                    writer(value, out, depth)
                except EncodeError as error:
                    raise EncodeError(f"{name}: {error}") from None
    return bytes(out)


@cache
def _writers(message: str) -> tuple[tuple[str | None, Writer], ...]:
    """Writers in the order of field numbers; the name is None for an inlined message, which gets the whole object."""
    return tuple((None if field.inline else field.name, _writer(field)) for field in message_fields(message))


def _writer(field: Field) -> Writer:
    tag = varint(field.number << 3 | BYTES)
    if field.inline:
        return _inlined(field, tag)
    if field.shape in ("map", "mapitems"):
        return _mapped(field, tag)
    if field.shape == "items":
        return _delimited(tag, _items(field))
    if field.type in _INTEGERS or field.type == "double":
        return _number(field)
    return _listed(tag, _value(field)) if field.shape == "list" else _delimited(tag, _value(field))


def _delimited(tag: bytes, value_of: Value) -> Writer:
    def write(value: Any, out: bytearray, depth: int) -> None:
        content = value_of(value, depth)
        out += tag
        out += varint(len(content))
        out += content

    return write


def _listed(tag: bytes, value_of: Value) -> Writer:
    def write(value: Any, out: bytearray, depth: int) -> None:
        for one in _list(value):
            content = value_of(one, depth)
            out += tag
            out += varint(len(content))
            out += content

    return write


def _inlined(field: Field, tag: bytes) -> Writer:
    message = field.type

    def write(value: Any, out: bytearray, depth: int) -> None:
        content = _message(message, value, depth + 1)
        out += tag
        out += varint(len(content))
        out += content

    return write


def _mapped(field: Field, tag: bytes) -> Writer:
    value_of = _items(field) if field.shape == "mapitems" else _value(field)

    def write(value: Any, out: bytearray, depth: int) -> None:
        if not isinstance(value, dict):
            raise EncodeError(f"an object is needed, not {type(value).__name__}")
        for key in sorted(value):
            if value[key] is not None:
                content = tagged_bytes(1, _text(key, depth)) + tagged_bytes(2, value_of(value[key], depth))
                out += tag
                out += varint(len(content))
                out += content

    return write


def _items(field: Field) -> Value:
    one = _writer(Field(1, "items", field.type, "list", False, False, False))

    def wrapped(value: Any, depth: int) -> bytes:
        out = bytearray()
        one(value, out, depth + 1)
        return bytes(out)

    return wrapped


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise EncodeError(f"a list is needed, not {type(value).__name__}")
    return value


def _bool(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise EncodeError(f"true or false is needed, not {type(value).__name__}")
    return b"\1" if value else b"\0"


def _int(bits: int) -> Callable[[Any], bytes]:
    limit = 1 << (bits - 1)

    def encoded(value: Any) -> bytes:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not -limit <= value < limit:
            raise EncodeError(f"a whole number of {bits} bits is needed")
        return varint(value)

    return encoded


def _double(value: Any) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EncodeError(f"a number is needed, not {type(value).__name__}")
    try:
        return struct.pack("<d", value)
    except OverflowError:
        raise EncodeError("the number is too large") from None


_INTEGERS: Final[dict[str, Callable[[Any], bytes]]] = {"bool": _bool, "int32": _int(32), "int64": _int(64)}


def _number(field: Field) -> Writer:
    wire_type = FIXED64 if field.type == "double" else VARINT
    tag = varint(field.number << 3 | wire_type)
    encoded = _double if field.type == "double" else _INTEGERS[field.type]
    repeated = field.shape == "list"

    def write(value: Any, out: bytearray, depth: int) -> None:
        for one in _list(value) if repeated else (value,):
            content = encoded(one)
            out += tag
            out += content

    return write


def _text(value: Any, depth: int) -> bytes:
    if not isinstance(value, str):
        raise EncodeError(f"a string is needed, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise EncodeError("a string is not valid Unicode") from None


def _bytes(value: Any, depth: int) -> bytes:
    try:
        return b64decode(_text(value, depth), validate=True)
    except ValueError:
        raise EncodeError("a base64 string is needed") from None


def _plain(convert: Callable[[Any], bytes]) -> Value:
    def encoded(value: Any, depth: int) -> bytes:
        return convert(value)

    return encoded


def _schema_or_array(value: Any, depth: int) -> bytes:
    if isinstance(value, list):
        return b"".join(tagged_bytes(2, _message(_SCHEMA, one, depth + 1)) for one in value)
    return tagged_bytes(1, _message(_SCHEMA, value, depth + 1))


def _schema_or_strings(value: Any, depth: int) -> bytes:
    if isinstance(value, list):
        return b"".join(tagged_bytes(2, _text(one, depth)) for one in value)
    return tagged_bytes(1, _message(_SCHEMA, value, depth + 1))


def _schema_or_bool(value: Any, depth: int) -> bytes:
    if isinstance(value, bool):
        return tagged_varint(1, value)
    return tagged_varint(1, 1) + tagged_bytes(2, _message(_SCHEMA, value, depth + 1))


_SPECIAL: Final[dict[str, Value]] = {
    "string": _text,
    "bytes": _bytes,
    "time": _plain(values.time_to),
    "microtime": _plain(values.micro_time_to),
    "quantity": _plain(values.quantity_to),
    "intorstring": _plain(values.int_or_string_to),
    "json": _plain(values.json_to),
    "raw": _plain(values.json_to),
    "schemaorarray": _schema_or_array,
    "schemaorstrings": _schema_or_strings,
    "schemaorbool": _schema_or_bool,
}


def _value(field: Field) -> Value:
    special = _SPECIAL.get(field.type)
    if special is not None:
        return special
    message = field.type

    def nested(value: Any, depth: int) -> bytes:
        return _message(message, value, depth + 1)

    return nested
