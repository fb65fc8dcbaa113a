from __future__ import annotations

from typing import Any

from fleetplane.model.protobuf.openapi_v2 import encode_document
from fleetplane.model.protobuf.wire import read_fields

DOCUMENT = {
    "swagger": "2.0",
    "info": {"title": "Fleetplane", "version": "v1.37.0"},
    "paths": {
        "/api/v1/pods": {
            "get": {
                "operationId": "listPods",
                "produces": ["application/json"],
                "parameters": [{"in": "query", "name": "limit", "type": "integer", "uniqueItems": True}],
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/Pod"}}},
                "x-kubernetes-action": "list",
            },
            "post": {
                "parameters": [
                    {"in": "body", "name": "body", "required": True, "schema": {"$ref": "#/definitions/Pod"}}
                ]
            },
        }
    },
    "definitions": {
        "Pod": {
            "type": "object",
            "required": ["spec"],
            "properties": {
                "ports": {"type": "array", "items": {"type": "integer", "maximum": 65535}, "maxItems": 300},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "phase": {"allOf": [{"$ref": "#/definitions/Phase"}], "default": "Running", "enum": ["Running"]},
            },
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}],
        }
    },
}
WIRE = encode_document(DOCUMENT)


def at(raw: bytes, *numbers: int) -> Any:
    """The last value at a path of field numbers."""
    found: Any = raw
    for number in numbers:
        found = read_fields(found, 0, len(found))[number]
    return found


def test_the_document_says_what_it_is() -> None:
    assert at(WIRE, 1) == b"2.0"
    assert (at(WIRE, 2, 1), at(WIRE, 2, 2)) == (b"Fleetplane", b"v1.37.0")


def test_an_operation_carries_its_parameters_answer_and_extensions() -> None:
    get = at(WIRE, 8, 2, 2, 2)

    assert (at(WIRE, 8, 2, 1), at(get, 5), at(get, 6)) == (b"/api/v1/pods", b"listPods", b"application/json")
    query = at(get, 8, 1, 2, 3)
    assert (at(query, 2), at(query, 4), at(query, 6), at(query, 20)) == (b"query", b"limit", b"integer", 1)
    assert (at(get, 9, 1, 1), at(get, 9, 1, 2, 1, 2, 1, 1)) == (b"200", b"#/definitions/Pod")
    assert (at(get, 13, 1), at(get, 13, 2, 2)) == (b"x-kubernetes-action", b'"list"')


def test_a_body_is_a_parameter_with_a_schema() -> None:
    body = at(WIRE, 8, 2, 2, 4, 8, 1, 1)

    assert (at(body, 2), at(body, 3), at(body, 4), at(body, 5, 1)) == (b"body", b"body", 1, b"#/definitions/Pod")


def schema_of(name: bytes) -> bytes:
    """A property of the Pod."""
    pod: bytes = at(WIRE, 9, 1, 2)
    properties = at(pod, 25)
    place = 0
    while place < len(properties):
        length = properties[place + 1]
        assert length < 128
        entry = properties[place + 2 : place + 2 + length]
        if at(entry, 1) == name:
            found: bytes = at(entry, 2)
            return found
        place += 2 + length
    raise AssertionError(name)


def test_schemas_nest() -> None:
    pod = at(WIRE, 9, 1, 2)

    assert (at(WIRE, 9, 1, 1), at(pod, 19), at(pod, 22, 1)) == (b"Pod", b"spec", b"object")
    assert at(pod, 31, 1) == b"x-kubernetes-group-version-kind"
    assert (at(schema_of(b"ports"), 23, 1, 22, 1), at(schema_of(b"ports"), 14)) == (b"integer", 300)
    assert at(schema_of(b"labels"), 21, 1, 22, 1) == b"string"
    assert at(schema_of(b"phase"), 24, 1) == b"#/definitions/Phase"
    assert (at(schema_of(b"phase"), 5, 2), at(schema_of(b"phase"), 20, 2)) == (b'"Running"', b'"Running"')
