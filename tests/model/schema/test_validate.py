"""What is wrong with an object, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.model.builtin import definitions
from fleetplane.model.schema import ABSENT, Schema, SchemaSet, validate
from fleetplane.model.schema.validate import _Walk


def spec(field: dict[str, Any]) -> Schema:
    """A schema whose ``spec.x`` is the field."""
    return Schema.compile(
        {"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": field}}}}, root=True
    )


def errors_of(field: dict[str, Any], value: Any) -> list[str]:
    return [str(error) for error in validate(spec(field), {"spec": {"x": value}})]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        (
            {"type": "integer"},
            "a",
            'spec.x: Invalid value: "string": spec.x in body must be of type integer: "string"',
        ),
        ({"type": "string"}, 1, 'spec.x: Invalid value: "integer": spec.x in body must be of type string: "integer"'),
        ({"type": "string"}, None, 'spec.x: Invalid value: "null": spec.x in body must be of type string: "null"'),
        ({"type": "boolean"}, 1.5, 'spec.x: Invalid value: "number": spec.x in body must be of type boolean: "number"'),
        (
            {"x-kubernetes-int-or-string": True},
            True,
            'spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean"',
        ),
        (
            {"type": "integer", "minimum": 1},
            0,
            "spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1",
        ),
        (
            {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
            1,
            "spec.x: Invalid value: 1: spec.x in body should be greater than 1",
        ),
        (
            {"type": "number", "maximum": 1.5},
            2,
            "spec.x: Invalid value: 2: spec.x in body should be less than or equal to 1.5",
        ),
        (
            {"type": "number", "maximum": 2.0, "exclusiveMaximum": True},
            2,
            "spec.x: Invalid value: 2: spec.x in body should be less than 2",
        ),
        (
            {"type": "integer", "multipleOf": 5},
            7,
            "spec.x: Invalid value: 7: spec.x in body should be a multiple of 5",
        ),
        ({"type": "string", "maxLength": 2}, "abc", "spec.x: Too long: may not be more than 2 bytes"),
        (
            {"type": "string", "minLength": 2},
            "a",
            'spec.x: Invalid value: "a": spec.x in body should be at least 2 chars long',
        ),
        ({"type": "string", "pattern": "^a"}, "b", "spec.x: Invalid value: \"b\": spec.x in body should match '^a'"),
        (
            {"type": "string", "format": "date-time"},
            "b",
            'spec.x: Invalid value: "b": spec.x in body must be of type date-time: "b"',
        ),
        ({"type": "string", "enum": ["a", "b"]}, "c", 'spec.x: Unsupported value: "c": supported values: "a", "b"'),
        (
            {"type": "array", "items": {"type": "string"}, "maxItems": 1},
            ["a", "b"],
            "spec.x: Too many: 2: must have at most 1 items",
        ),
        (
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            [],
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 items",
        ),
        (
            {"type": "array", "items": {"type": "string"}},
            ["a", 1],
            'spec.x[1]: Invalid value: "integer": spec.x[1] in body must be of type string: "integer"',
        ),
        ({"type": "object", "properties": {}, "required": ["y"]}, {}, "spec.x.y: Required value"),
        (
            {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
            {},
            "spec.x: Invalid value: 0: spec.x in body should have at least 1 properties",
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1},
            {"a": "", "b": ""},
            "spec.x: Too many: 2: must have at most 1 items",
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"k": 1},
            'spec.x.k: Invalid value: "integer": spec.x.k in body must be of type string: "integer"',
        ),
        (
            {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            ["a", "b", "a", "a"],
            'spec.x[2]: Duplicate value: "a"',
        ),
        (
            {
                "type": "array",
                "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer"}}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["n"],
            },
            [{"n": "a", "v": 1}, {"n": "a", "v": 2}],
            'spec.x[1]: Duplicate value: {"n": "a"}',
        ),
        (
            {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
            {"kind": "A"},
            "spec.x.apiVersion: Required value: must not be empty",
        ),
    ],
)
def test_one_thing_wrong(field: dict[str, Any], value: Any, error: str) -> None:
    assert errors_of(field, value) == [error]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({"type": "integer"}, 1.0),
        ({"type": "number"}, 1),
        ({"type": "string", "nullable": True}, None),
        ({"type": "string", "nullable": True, "anyOf": [{"minLength": 1}, {"pattern": "a"}]}, None),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, "80%"),
        ({"x-kubernetes-int-or-string": True}, 80),
        ({"type": "string", "format": "no-such-format"}, "x"),
        ({"type": "integer", "format": "int32"}, 2147483647),
        ({"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set"}, [1, 2]),
        ({"type": "array", "items": {"type": "integer"}}, [1, 1]),
        ({"x-kubernetes-preserve-unknown-fields": True}, {"a": [None]}),
        ({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 2}, {"a": "", "b": ""}),
    ],
)
def test_nothing_wrong(field: dict[str, Any], value: Any) -> None:
    assert errors_of(field, value) == []


def test_integers_have_the_range_of_their_format() -> None:
    (error,) = errors_of({"type": "integer", "format": "int32"}, 1 << 31)

    assert error.endswith("Checked value must be of type integer with format int32 in spec.x")


def test_junctors() -> None:
    branches = [{"required": ["a"]}, {"required": ["b"]}]
    field = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}

    assert errors_of({**field, "oneOf": branches}, {"a": "", "b": ""}) == [
        '<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives'
    ]
    assert errors_of({**field, "anyOf": branches}, {}) == [
        '<nil>: Invalid value: "": "spec.x" must validate at least one schema (anyOf)',
        "spec.x.a: Required value",
    ]
    assert errors_of({**field, "allOf": branches}, {"a": ""}) == [
        "spec.x.b: Required value",
        '<nil>: Invalid value: "": "spec.x" must validate all the schemas (allOf)',
    ]
    assert errors_of({**field, "not": branches[0]}, {"a": ""}) == [
        '<nil>: Invalid value: "": "spec.x" must not validate the schema (not)'
    ]


def test_several_errors_are_all_told() -> None:
    field = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}

    assert len(errors_of(field, {"a": 1})) == 2
    assert len(errors_of({"type": "array", "items": {"type": "string"}}, [1] * 5000)) == 500


def test_what_did_not_change_is_not_wrong() -> None:
    item = {
        "type": "object",
        "properties": {"n": {"type": "string"}, "v": {"type": "integer", "maximum": 5}},
        "required": ["n"],
    }
    list_map = {
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["n"],
    }
    schema = spec(list_map)
    old = {"spec": {"x": [{"n": "a", "v": 9}, {"n": "b", "v": 1}]}}

    assert validate(schema, {"spec": {"x": [{"n": "c"}, {"n": "a", "v": 9}]}}, old) == []
    assert len(validate(schema, {"spec": {"x": [{"n": "b", "v": 9}]}}, old)) == 1
    assert len(validate(schema, {"spec": {"x": [{"n": "a", "v": 8}]}}, old)) == 1


def test_true_is_not_one() -> None:
    assert len(validate(spec({"type": "integer"}), {"spec": {"x": True}}, {"spec": {"x": 1}})) == 1


def test_built_in_kinds() -> None:
    schema = SchemaSet(definitions()).named("io.k8s.api.core.v1.Pod")
    pod = {
        "metadata": {"name": "a", "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {
            "containers": [
                {
                    "name": "a",
                    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                    "ports": [{"containerPort": 80}, {"containerPort": 80}],
                    "livenessProbe": {"httpGet": {"port": "http"}},
                }
            ]
        },
    }
    assert validate(schema, pod) == []

    bad = {"spec": {"containers": [{"image": 1, "resources": {"limits": {"cpu": True}}}]}}
    assert [error.field for error in validate(schema, bad)] == [
        "spec.containers[0].name",
        "spec.containers[0].image",
        "<nil>",
        "spec.containers[0].resources.limits.cpu",
    ]


def test_depth_is_an_error_not_a_crash() -> None:
    tree = Schema.compile({"$ref": "#/t"}, {"t": {"type": "object", "properties": {"a": {"$ref": "#/t"}}}})
    obj: Any = 1
    for _ in range(2000):
        obj = {"a": obj}

    (error,) = validate(tree, obj)

    assert "nested deeper than 200 levels" in str(error)


def test_a_pattern_that_cannot_be_compiled_never_matches() -> None:
    assert errors_of({"type": "string", "pattern": "("}, "a")


NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(-3, 3)
LEAVES = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "maxLength": st.integers(0, 3),
            "minLength": st.integers(0, 2),
            "pattern": st.sampled_from(["^a", "b$", r"\s"]),
            "format": st.sampled_from(["byte", "ipv4", "x", "date"]),
            "enum": st.lists(st.sampled_from(["", "a", "ab"]), min_size=1),
            "nullable": st.booleans(),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={
            "maximum": NUMBERS,
            "minimum": NUMBERS,
            "exclusiveMinimum": st.booleans(),
            "multipleOf": st.sampled_from([1, 2, 0.5]),
            "enum": st.lists(NUMBERS, min_size=1),
            "nullable": st.booleans(),
        },
    ),
    st.fixed_dictionaries({"type": st.just("boolean")}, optional={"nullable": st.booleans()}),
    st.just({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
)
RESTRICTIONS = st.fixed_dictionaries(
    {},
    optional={
        "required": st.lists(NAMES, max_size=2, unique=True),
        "maxProperties": st.integers(0, 2),
        "minLength": st.integers(0, 2),
        "maximum": NUMBERS,
        "enum": st.lists(st.sampled_from([1, "a", None]), min_size=1),
    },
)


def extended(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, min_size=1)},
            optional={
                "required": st.lists(NAMES, max_size=2, unique=True),
                "nullable": st.booleans(),
                "anyOf": st.lists(RESTRICTIONS, min_size=1, max_size=2),
                "not": RESTRICTIONS,
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("object"), "additionalProperties": inner}, optional={"maxProperties": st.integers(0, 2)}
        ),
        st.fixed_dictionaries(
            {"type": st.just("array"), "items": inner},
            optional={
                "maxItems": st.integers(0, 2),
                "x-kubernetes-list-type": st.sampled_from(["set", "atomic"]),
                "oneOf": st.lists(RESTRICTIONS, min_size=1, max_size=2),
            },
        ),
        st.fixed_dictionaries(
            {
                "type": st.just("array"),
                "items": st.fixed_dictionaries(
                    {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, min_size=1)}
                ),
                "x-kubernetes-list-type": st.just("map"),
                "x-kubernetes-list-map-keys": st.lists(NAMES, min_size=1, max_size=2, unique=True),
            }
        ),
    )


SCHEMAS = st.recursive(LEAVES, extended, max_leaves=6)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -2, 2.0, 1.5, "", "a", "ab", "abcd", "1.2.3.4", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(SCHEMAS, VALUES)
@settings(max_examples=300)
def test_what_the_fast_check_accepts_the_walk_accepts(raw: dict[str, Any], value: Any) -> None:
    schema = Schema.compile(raw)
    if schema.accepts(value):
        walk = _Walk()
        walk.value(schema, value, ABSENT, "")
        assert walk.errors == []


@given(SCHEMAS, VALUES.filter(lambda value: value is not None))
def test_an_object_is_always_valid_as_its_own_successor(raw: dict[str, Any], value: Any) -> None:
    assert validate(Schema.compile(raw), value, value) == []
