"""Compiled schemas: lazy, shared, and what they know about their values."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model.schema import Schema, SchemaSet, validate

DEFINITIONS: dict[str, dict[str, Any]] = {
    "a.Tree": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#/definitions/a.Tree"}},
            "first": {"$ref": "#/components/schemas/a.Tree", "description": "the same type"},
        },
    },
    "a.Loop": {"$ref": "#/definitions/a.Loop"},
}


def test_a_type_may_hold_itself() -> None:
    tree = Schema.compile({"$ref": "#/definitions/a.Tree"}, DEFINITIONS)

    items = tree.properties["children"].items

    assert items is tree
    assert tree.properties["first"] is tree
    assert not validate(tree, {"name": "a", "children": [{"first": {"children": []}}]})
    assert validate(tree, {"children": [{"first": {"name": 1}}]})


def test_schemas_of_one_set_share_definitions() -> None:
    schemas = SchemaSet(DEFINITIONS)

    one = Schema.compile({"properties": {"x": {"$ref": "#/definitions/a.Tree"}}}, schemas)

    assert one.properties["x"] is schemas.named("a.Tree")


def test_references_to_nothing_and_to_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match=r"refers to 'a\.None', which is not defined"):
        SchemaSet(DEFINITIONS).named("a.None")
    with pytest.raises(ValueError, match="leads to itself"):
        _ = SchemaSet(DEFINITIONS).named("a.Loop").type


def test_what_merging_needs_is_kept() -> None:
    schema = Schema.compile(
        {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"type": "string"}}},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-merge-key": "name",
            "x-kubernetes-patch-strategy": "merge,retainKeys",
        }
    )

    assert schema.list_type == "map"
    assert schema.list_map_keys == ("name",)
    assert schema.patch_merge_key == "name"
    assert schema.patch_strategies == {"merge", "retainKeys"}
    assert not schema.is_atomic
    assert Schema.compile({"type": "array", "items": {}}).is_atomic
    assert Schema.compile({"type": "object", "x-kubernetes-map-type": "atomic"}).is_atomic


def test_a_whole_resource_has_its_identity_implicitly() -> None:
    schema = Schema.compile(
        {
            "type": "object",
            "properties": {
                "spec": {"type": "object"},
                "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}},
            },
        },
        root=True,
    )

    metadata = schema.properties["metadata"]

    assert metadata.properties["finalizers"].list_type == "set"
    assert metadata.properties["ownerReferences"].list_map_keys == ("uid",)
    assert not validate(schema, {"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "abc"}})
    assert validate(schema, {"metadata": {"name": "abcd"}})


def test_types_with_null_are_plain_types() -> None:
    schema = Schema.compile({"type": ["string", "null"]}, {})

    assert schema.type == "string"
    assert not schema.nullable


def test_fields_of_maps_are_their_values() -> None:
    labels = Schema.compile({"type": "object", "additionalProperties": {"type": "string"}})

    assert labels.field("anything") is labels.additional
    assert Schema.compile({"type": "object"}).field("x") is None


def test_unknown_attributes_are_attribute_errors() -> None:
    with pytest.raises(AttributeError):
        _ = Schema.compile({}).colour  # type: ignore[attr-defined]
