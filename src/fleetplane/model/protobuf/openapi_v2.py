"""An OpenAPI v2 document as protobuf, the only form in which kubectl up to 1.28 reads it.

The message layout is that of gnostic's ``openapi.v2.Document``; what is given as data below are its field numbers.
Values that the layout keeps as ``Any`` (defaults, enums, ``x-`` extensions) travel as YAML text, and JSON is YAML.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from fleetplane.model.protobuf.wire import FIXED64, VARINT, tagged_varint, varint
from fleetplane.model.protobuf.wire import tagged_bytes as _message


def encode_document(document: Mapping[str, Any]) -> bytes:
    """The bytes of a swagger 2.0 document. Only what kubectl reads is carried: info, paths, definitions."""
    return b"".join(
        (
            _text(1, document.get("swagger")),
            _message(2, _info(document.get("info") or {})),
            _message(
                8, b"".join(_message(2, _named(path, _path_item(one))) for path, one in _items(document, "paths"))
            ),
            _message(
                9, b"".join(_message(1, _named(name, _schema(one))) for name, one in _items(document, "definitions"))
            ),
        )
    )


def _items(value: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    return (value.get(key) or {}).items()


def _text(field: int, value: Any) -> bytes:
    return _message(field, str(value).encode()) if value else b""


def _texts(field: int, values: Iterable[Any] | None) -> bytes:
    return b"".join(_message(field, str(value).encode()) for value in values or ())


def _flag(field: int, value: Any) -> bytes:
    return tagged_varint(field, 1) if value else b""


def _whole(field: int, value: Any) -> bytes:
    return varint(field << 3 | VARINT) + varint(int(value)) if value is not None else b""


def _double(field: int, value: Any) -> bytes:
    return varint(field << 3 | FIXED64) + struct.pack("<d", float(value)) if value is not None else b""


def _named(name: str, body: bytes) -> bytes:
    return _text(1, name) + _message(2, body)


def _any(value: Any) -> bytes:
    return _text(2, json.dumps(value))


def _extensions(field: int, value: Mapping[str, Any]) -> bytes:
    return b"".join(_message(field, _named(key, _any(one))) for key, one in value.items() if key.startswith("x-"))


def _info(info: Mapping[str, Any]) -> bytes:
    return _text(1, info.get("title")) + _text(2, info.get("version"))


_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _path_item(item: Mapping[str, Any]) -> bytes:
    operations = b"".join(
        _message(number, _operation(item[method])) for method, number in _METHODS.items() if method in item
    )
    return operations + b"".join(_message(9, _parameter(one)) for one in item.get("parameters") or ())


def _operation(operation: Mapping[str, Any]) -> bytes:
    return b"".join(
        (
            _texts(1, operation.get("tags")),
            _text(3, operation.get("description")),
            _text(5, operation.get("operationId")),
            _texts(6, operation.get("produces")),
            _texts(7, operation.get("consumes")),
            *(_message(8, _parameter(one)) for one in operation.get("parameters") or ()),
            _message(
                9, b"".join(_message(1, _named(code, _response(one))) for code, one in _items(operation, "responses"))
            ),
            _extensions(13, operation),
        )
    )


def _response(response: Mapping[str, Any]) -> bytes:
    body = _text(1, response.get("description"))
    if "schema" in response:
        body += _message(2, _message(1, _schema(response["schema"])))
    return _message(1, body)


def _parameter(parameter: Mapping[str, Any]) -> bytes:
    where = parameter.get("in")
    if where == "body":
        body = _text(2, parameter.get("name")) + _text(3, "body") + _flag(4, parameter.get("required"))
        return _message(1, _message(1, body + _message(5, _schema(parameter.get("schema") or {}))))
    is_query = where == "query"
    body = b"".join(
        (
            _flag(1, parameter.get("required")),
            _text(2, where),
            _text(3, parameter.get("description")),
            _text(4, parameter.get("name")),
            _text(6 if is_query else 5, parameter.get("type")),
            _flag(20 if is_query else 19, parameter.get("uniqueItems")),
        )
    )
    return _message(1, _message(2, _message(3 if is_query else 4, body)))


def _schema(schema: Mapping[str, Any]) -> bytes:
    kind = schema.get("type")
    parts = [
        _text(1, schema.get("$ref")),
        _text(2, schema.get("format")),
        _text(3, schema.get("title")),
        _text(4, schema.get("description")),
        _message(5, _any(schema["default"])) if "default" in schema else b"",
        _double(6, schema.get("multipleOf")),
        _double(7, schema.get("maximum")),
        _flag(8, schema.get("exclusiveMaximum")),
        _double(9, schema.get("minimum")),
        _flag(10, schema.get("exclusiveMinimum")),
        _whole(11, schema.get("maxLength")),
        _whole(12, schema.get("minLength")),
        _text(13, schema.get("pattern")),
        _whole(14, schema.get("maxItems")),
        _whole(15, schema.get("minItems")),
        _flag(16, schema.get("uniqueItems")),
        _whole(17, schema.get("maxProperties")),
        _whole(18, schema.get("minProperties")),
        _texts(19, schema.get("required")),
        b"".join(_message(20, _any(one)) for one in schema.get("enum") or ()),
    ]
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        parts.append(_message(21, _message(1, _schema(additional))))
    elif additional:
        parts.append(_message(21, _flag(2, True)))
    if kind:
        parts.append(_message(22, _texts(1, [kind] if isinstance(kind, str) else kind)))
    if isinstance(schema.get("items"), Mapping):
        parts.append(_message(23, _message(1, _schema(schema["items"]))))
    parts += [_message(24, _schema(one)) for one in schema.get("allOf") or ()]
    properties = schema.get("properties")
    if properties:
        named = (_message(1, _named(name, _schema(one))) for name, one in properties.items())
        parts.append(_message(25, b"".join(named)))
    parts.append(_extensions(31, schema))
    return b"".join(parts)
