"""What a CRD's schema must be like."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model.schema import check_structural

STRING = {"type": "string"}


def root(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": fields}}


def messages(raw: dict[str, Any]) -> list[str]:
    return [str(error) for error in check_structural(raw, "s")]


@pytest.mark.parametrize(
    "field",
    [
        STRING,
        {"x-kubernetes-int-or-string": True},
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^a"},
        {"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}]},
        {"x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "properties": {"a": STRING}, "anyOf": [{"properties": {"a": {"pattern": "a"}}}]},
        {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
        {
            "type": "array",
            "items": {"type": "object", "properties": {"n": STRING}, "required": ["n"]},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["n"],
        },
        {"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 1}}, "required": ["a"]},
    ],
)
def test_good_schemas(field: dict[str, Any]) -> None:
    assert messages(root(**field)) == []


X = "s.properties[x]"


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ({}, f"{X}.type: Required value: must not be empty for specified object fields"),
        ({"type": "array"}, f"{X}.items: Required value: must be specified"),
        (
            {"type": "array", "items": {}},
            f"{X}.items.type: Required value: must not be empty for specified array items",
        ),
        (
            {"type": "nul"},
            f'{X}.type: Unsupported value: "nul": supported values: "array", "boolean", "integer", '
            '"number", "object", "string"',
        ),
        ({**STRING, "$ref": "#/a"}, f"{X}.$ref: Forbidden: $ref is not supported"),
        (
            {"type": "array", "items": STRING, "uniqueItems": True},
            f"{X}.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            {"type": "object", "additionalProperties": False},
            f"{X}.additionalProperties: Forbidden: additionalProperties cannot be set to false",
        ),
        (
            {"type": "object", "additionalProperties": STRING, "properties": {"a": STRING}},
            f"{X}.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            {**STRING, "x-kubernetes-preserve-unknown-fields": False},
            f"{X}.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            {"x-kubernetes-int-or-string": True, "x-kubernetes-preserve-unknown-fields": True},
            f"{X}.x-kubernetes-preserve-unknown-fields: Invalid value: true: "
            "must be false if x-kubernetes-int-or-string is true",
        ),
        (
            {"type": "object", "x-kubernetes-embedded-resource": True},
            f"{X}.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true "
            "without x-kubernetes-preserve-unknown-fields",
        ),
        (
            {**STRING, "anyOf": [{"type": "string"}]},
            f"{X}.anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        ({**STRING, "not": {"nullable": True}}, f"{X}.not.nullable: Forbidden: must be false to be structural"),
        (
            {"type": "object", "allOf": [{"properties": {"a": {"pattern": "a"}}}]},
            f"{X}.properties[a]: Required value: because it is defined in {X}.allOf[0].properties[a]",
        ),
        (
            {**STRING, "pattern": "("},
            f'{X}.pattern: Invalid value: "(": must be a valid regular expression, but isn\'t: '
            "error parsing regexp, or it is too large",
        ),
        (
            {**STRING, "x-kubernetes-list-type": "atomic"},
            f'{X}.type: Invalid value: "string": must be array if x-kubernetes-list-type is specified',
        ),
        (
            {"type": "array", "items": STRING, "x-kubernetes-list-map-keys": ["a"]},
            f"{X}.x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty",
        ),
        (
            {
                "type": "array",
                "items": {"type": "object", "properties": {"n": STRING}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
            },
            f"{X}.items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, "
            "so it must have a default or be a required property",
        ),
        (
            {
                "type": "array",
                "items": {"type": "object", "properties": {"n": STRING}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["m"],
            },
            f'{X}.x-kubernetes-list-map-keys[0]: Invalid value: "m": entries must all be names of item properties',
        ),
        (
            {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"},
            f"{X}.items.x-kubernetes-map-type: Required value: "
            "must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            {"type": "integer", "default": "a"},
            f'{X}.default: Invalid value: "string":  in body must be of type integer: "string"',
        ),
        (
            {"type": "object", "properties": {"a": STRING}, "default": {"b": 1}},
            f'{X}.default: Invalid value: {{"b": 1}}: must not have unknown fields',
        ),
        (
            {**STRING, "x-kubernetes-validations": [{"message": "m"}]},
            f"{X}.x-kubernetes-validations[0].rule: Required value: rule is not specified",
        ),
    ],
)
def test_one_thing_wrong(field: dict[str, Any], error: str) -> None:
    assert messages(root(**field)) == [error]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ({"properties": {}}, "s.type: Required value: must not be empty at the root"),
        ({"type": "string"}, 's.type: Invalid value: "string": must be object at the root'),
        (
            {"type": "object", "additionalProperties": STRING},
            "s.additionalProperties: Forbidden: must not be used at the root",
        ),
        (
            {"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": STRING}}}},
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, "
            "but metadata is implicitly specified",
        ),
        (
            {"type": "object", "properties": {"metadata": {"type": "object", "default": {}}}},
            "s.properties[metadata].default: Forbidden: must not be set in top-level metadata",
        ),
        (
            {"type": "object", "properties": {"kind": {"type": "integer"}}},
            's.properties[kind].type: Invalid value: "integer": must be string',
        ),
    ],
)
def test_the_root(raw: dict[str, Any], error: str) -> None:
    assert messages(raw) == [error]


def test_metadata_may_restrict_names() -> None:
    metadata = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}}

    assert messages({"type": "object", "properties": {"metadata": metadata}}) == []


def test_depth_is_an_error_not_a_crash() -> None:
    raw: dict[str, Any] = {"type": "string"}
    for _ in range(2000):
        raw = {"type": "object", "properties": {"a": raw}}

    (error,) = messages(raw)

    assert "nested deeper" in error
