"""Defaults are filled in, outermost first; nulls that are not allowed are as good as absent."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model.builtin import definitions
from fleetplane.model.errors import ApiError
from fleetplane.model.schema import Schema, SchemaSet, apply_defaults


def filled(raw: dict[str, Any], obj: Any) -> Any:
    apply_defaults(Schema.compile(raw), obj)
    return obj


def test_absent_fields_get_their_default() -> None:
    raw = {"type": "object", "properties": {"a": {"type": "integer", "default": 1}, "b": {"type": "string"}}}

    assert filled(raw, {}) == {"a": 1}
    assert filled(raw, {"a": 0, "b": "x"}) == {"a": 0, "b": "x"}


def test_false_and_zero_are_defaults() -> None:
    raw = {"type": "object", "properties": {"a": {"type": "boolean", "default": False}}}

    assert filled(raw, {}) == {"a": False}


def test_a_default_object_is_itself_filled_in_and_never_shared() -> None:
    raw = {
        "type": "object",
        "properties": {
            "a": {
                "type": "object",
                "default": {"list": [1]},
                "properties": {"list": {"type": "array", "items": {}}, "b": {"type": "string", "default": "x"}},
            }
        },
    }

    one = filled(raw, {})

    assert one == {"a": {"list": [1], "b": "x"}}
    one["a"]["list"].append(2)
    assert filled(raw, {}) == {"a": {"list": [1], "b": "x"}}


def test_defaults_inside_lists_and_maps() -> None:
    item = {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}
    raw = {
        "type": "object",
        "properties": {
            "list": {"type": "array", "items": item},
            "map": {"type": "object", "additionalProperties": item},
        },
    }

    obj = filled(raw, {"list": [{}, {"p": "UDP"}], "map": {"k": {}}})

    assert obj == {"list": [{"p": "TCP"}, {"p": "UDP"}], "map": {"k": {"p": "TCP"}}}


def test_nulls_go_unless_allowed() -> None:
    raw = {
        "type": "object",
        "properties": {
            "plain": {"type": "string"},
            "defaulted": {"type": "string", "default": "d"},
            "nullable": {"type": "string", "nullable": True, "default": "d"},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "list": {"type": "array", "items": {"type": "string", "default": "i"}},
            "strict": {"type": "array", "items": {"type": "string"}},
        },
    }

    obj = filled(
        raw,
        {
            "plain": None,
            "defaulted": None,
            "nullable": None,
            "map": {"a": None},
            "free": {"a": None},
            "list": [None],
            "strict": [None],
            "unknown": None,
        },
    )

    assert obj == {
        "defaulted": "d",
        "nullable": None,
        "map": {},
        "free": {"a": None},
        "list": ["i"],
        "strict": [None],
        "unknown": None,
    }


def test_to_built_in_kinds_null_means_absent() -> None:
    schema = SchemaSet(definitions()).named("io.k8s.api.apps.v1.Deployment")
    obj: dict[str, Any] = {
        "metadata": {"creationTimestamp": None},
        "spec": {"template": {"metadata": {"labels": None}}},
    }

    apply_defaults(schema, obj)

    assert obj == {"metadata": {}, "spec": {"template": {"metadata": {}}}}


def test_depth_is_an_error_not_a_crash() -> None:
    tree = Schema.compile({"$ref": "#/t"}, {"t": {"type": "object", "properties": {"a": {"$ref": "#/t"}}}})
    obj: dict[str, Any] = {}
    for _ in range(5000):
        obj = {"a": obj}

    with pytest.raises(ApiError, match="nested deeper"):
        apply_defaults(tree, obj)
