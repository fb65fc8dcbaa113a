"""Unknown fields go, known ones stay, and every loss is told."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.model.builtin import definitions
from fleetplane.model.errors import ApiError
from fleetplane.model.schema import Schema, SchemaSet, prune

STRING = {"type": "string"}


def test_unknown_fields_are_dropped_and_named() -> None:
    schema = Schema.compile(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "a": STRING,
                        "list": {"type": "array", "items": {"type": "object", "properties": {"b": STRING}}},
                        "map": {
                            "type": "object",
                            "additionalProperties": {"type": "object", "properties": {"c": STRING}},
                        },
                        "empty": {"type": "object"},
                    },
                }
            },
        }
    )
    obj = {
        "spec": {
            "a": "1",
            "x": 1,
            "list": [{"b": "1"}, {"b": "1", "y": 2}],
            "map": {"k": {"c": "1", "z": 3}},
            "empty": {"w": 4},
        },
        "v": 5,
    }

    dropped = prune(schema, obj)

    assert dropped == ["v", "spec.x", "spec.list[1].y", "spec.map.k.z", "spec.empty.w"]
    assert obj == {"spec": {"a": "1", "list": [{"b": "1"}, {"b": "1"}], "map": {"k": {"c": "1"}}, "empty": {}}}
    assert prune(schema, obj) == []


def test_preserved_fields_stay_but_known_ones_below_are_pruned() -> None:
    schema = Schema.compile(
        {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {"known": {"type": "object", "properties": {"a": STRING}}},
        }
    )
    obj = {"any": {"thing": 1}, "known": {"a": "1", "b": 2}}

    assert prune(schema, obj) == ["known.b"]
    assert obj == {"any": {"thing": 1}, "known": {"a": "1"}}


def test_maps_of_anything_and_of_scalars_stay() -> None:
    schema = Schema.compile(
        {
            "type": "object",
            "properties": {
                "labels": {"type": "object", "additionalProperties": STRING},
                "any": {"type": "object", "additionalProperties": True},
            },
        }
    )
    obj = {"labels": {"a": "b"}, "any": {"a": {"b": 1}}}

    assert prune(schema, obj) == []
    assert obj == {"labels": {"a": "b"}, "any": {"a": {"b": 1}}}


def test_embedded_resources_keep_their_identity() -> None:
    schema = Schema.compile(
        {
            "type": "object",
            "properties": {
                "object": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "properties": {"spec": {"type": "object", "properties": {"a": STRING}}},
                }
            },
        }
    )
    inner = {"apiVersion": "v1", "kind": "A", "metadata": {"name": "n", "x": 1}, "spec": {"a": "1"}, "y": 2}
    obj: dict[str, Any] = {"object": inner}

    assert prune(schema, obj) == ["object.y", "object.metadata.x"]


def test_built_in_kinds() -> None:
    schema = SchemaSet(definitions()).named("io.k8s.api.core.v1.Pod")
    obj = {
        "metadata": {"name": "a", "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
        "spec": {"containers": [{"name": "a", "imagee": "x", "resources": {"limits": {"cpu": 1}}}]},
    }

    assert prune(schema, obj) == ["spec.containers[0].imagee"]
    assert obj["metadata"] == {"name": "a", "managedFields": [{"fieldsV1": {"f:spec": {}}}]}


def test_values_of_the_wrong_type_are_left_to_validation() -> None:
    schema = Schema.compile({"type": "object", "properties": {"a": {"type": "object"}, "b": {"type": "array"}}})
    obj = {"a": [1], "b": {"c": 1}}

    assert prune(schema, obj) == []


def test_depth_is_an_error_not_a_crash() -> None:
    tree = Schema.compile({"$ref": "#/t"}, {"t": {"type": "object", "properties": {"a": {"$ref": "#/t"}}}})
    obj: dict[str, Any] = {}
    for _ in range(5000):
        obj = {"a": obj}

    with pytest.raises(ApiError, match="nested deeper"):
        prune(tree, obj)
