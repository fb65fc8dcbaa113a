"""Strategic merge patches: lists merged by key, and the directives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.builtin import definitions
from fleetplane.model.errors import ApiError
from fleetplane.model.patch import merge_patch, strategic_merge_patch
from fleetplane.model.schema import Schema, SchemaSet

SCHEMA = Schema.compile(
    {
        "type": "object",
        "properties": {
            "named": {
                "type": "array",
                "x-kubernetes-patch-strategy": "merge",
                "x-kubernetes-patch-merge-key": "name",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "args": {"type": "array", "items": {"type": "string"}},
                        "env": {
                            "type": "array",
                            "x-kubernetes-patch-strategy": "merge",
                            "x-kubernetes-patch-merge-key": "name",
                            "items": {"type": "object", "properties": {"name": {}, "value": {}}},
                        },
                    },
                },
            },
            "set": {"type": "array", "x-kubernetes-patch-strategy": "merge", "items": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "string"}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "whole": {
                "type": "object",
                "x-kubernetes-patch-strategy": "replace",
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            },
        },
    }
)


def patched(obj: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return strategic_merge_patch(SCHEMA, obj, patch)


@pytest.mark.parametrize(
    ("obj", "patch", "expected"),
    [
        ({"map": {"a": "1", "b": "2"}}, {"map": {"a": None, "c": "3"}}, {"map": {"b": "2", "c": "3"}}),
        ({"list": ["a", "b"]}, {"list": ["c"]}, {"list": ["c"]}),
        ({"set": ["a", "b"]}, {"set": ["c", "b"]}, {"set": ["c", "a", "b"]}),
        ({"whole": {"a": "1"}}, {"whole": {"b": "2"}}, {"whole": {"b": "2"}}),
        (
            {"named": [{"name": "a", "x": 1}, {"name": "b", "x": 2}]},
            {"named": [{"name": "b", "y": 3}]},
            {"named": [{"name": "a", "x": 1}, {"name": "b", "x": 2, "y": 3}]},
        ),
        (
            {"named": [{"name": "a"}, {"name": "b"}]},
            {"named": [{"name": "c"}]},
            {"named": [{"name": "c"}, {"name": "a"}, {"name": "b"}]},
        ),
        (
            {"named": [{"name": "a", "env": [{"name": "x", "value": "1"}]}]},
            {"named": [{"name": "a", "env": [{"name": "x", "value": "2"}, {"name": "y", "value": "3"}]}]},
            {"named": [{"name": "a", "env": [{"name": "x", "value": "2"}, {"name": "y", "value": "3"}]}]},
        ),
        (
            {"named": [{"name": "a"}, {"name": "b"}]},
            {"named": [{"name": "a", "$patch": "delete"}]},
            {"named": [{"name": "b"}]},
        ),
        (
            {"named": [{"name": "a"}, {"name": "b"}]},
            {"named": [{"$patch": "replace"}, {"name": "c"}]},
            {"named": [{"name": "c"}]},
        ),
        ({"map": {"a": "1"}}, {"map": {"$patch": "replace", "b": "2"}}, {"map": {"b": "2"}}),
        ({"map": {"a": "1"}}, {"map": {"$patch": "delete"}}, {"map": {}}),
        ({"map": {"a": "1"}}, {"map": {"$patch": "merge", "b": "2"}}, {"map": {"a": "1", "b": "2"}}),
        ({"map": {"a": "1"}}, {"$patch": "replace", "list": []}, {"list": []}),
        (
            {"map": {"a": "1", "b": "2"}},
            {"map": {"$retainKeys": ["b", "c"], "c": "3"}},
            {"map": {"b": "2", "c": "3"}},
        ),
        (
            {"set": ["a", "b", "c"]},
            {"$deleteFromPrimitiveList/set": ["b", "x"]},
            {"set": ["a", "c"]},
        ),
        (
            {"named": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
            {"$setElementOrder/named": [{"name": "c"}, {"name": "a"}]},
            {"named": [{"name": "b"}, {"name": "c"}, {"name": "a"}]},
        ),
        (
            {"named": [{"name": "a"}]},
            {
                "$setElementOrder/named": [{"name": "a"}, {"name": "b"}],
                "named": [{"name": "b", "x": 1}],
            },
            {"named": [{"name": "a"}, {"name": "b", "x": 1}]},
        ),
        (
            {"set": ["a", "b"]},
            {"$setElementOrder/set": ["b", "c"], "set": ["c"], "$deleteFromPrimitiveList/set": ["a"]},
            {"set": ["b", "c"]},
        ),
        ({}, {"$setElementOrder/named": [{"name": "a"}]}, {}),
        ({}, {"named": [{"name": "a", "x": None, "$patch": "merge"}]}, {"named": [{"name": "a"}]}),
        ({}, {"map": {"$retainKeys": ["a"], "a": "1"}}, {"map": {"a": "1"}}),
        ({"named": [{"name": "a"}]}, {"named": None}, {}),
        ({"unknown": {"a": [1]}}, {"unknown": {"a": [2], "b": 1}}, {"unknown": {"a": [2], "b": 1}}),
        ({"list": ["a"]}, {"list": {"a": 1}}, {"list": {"a": 1}}),
    ],
)
def test_merging(obj: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert patched(obj, patch) == expected


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ([], "must be a JSON object"),
        ({"named": [{"x": 1}]}, "lacks its merge key 'name'"),
        ({"named": ["a"]}, "cannot be merged in one list"),
        ({"named": [["a"]]}, "lists of lists"),
        ({"map": {"$patch": "explode"}}, 'unknown $patch directive "explode"'),
        ({"named": [{"name": "a", "$patch": "explode"}]}, 'unknown $patch directive "explode"'),
        ({"map": {"$retainKeys": ["a"], "b": "1"}}, "'b' is patched but not in $retainKeys"),
        ({"map": {"$retainKeys": "a"}}, "must be a list of field names"),
        ({"$deleteFromPrimitiveList/set": "a"}, "must be a list of scalars"),
        ({"$setElementOrder/named": "a"}, "must be lists"),
        ({"$setElementOrder/named": [{"name": "a"}], "named": [{"name": "b"}]}, "does not follow the order"),
        (
            {"$setElementOrder/named": [{"name": "a"}, {"name": "b"}], "named": [{"name": "b"}, {"name": "a"}]},
            "does not follow the order",
        ),
    ],
)
def test_patches_that_make_no_sense(patch: Any, error: str) -> None:
    obj = {"named": [{"name": "a"}], "map": {"a": "1"}, "set": ["a"]}

    with pytest.raises(ApiError) as caught:
        patched(obj, patch)

    assert caught.value.code == 400
    assert error in caught.value.message
    assert obj == {"named": [{"name": "a"}], "map": {"a": "1"}, "set": ["a"]}


def test_a_deployment_as_kubectl_patches_it() -> None:
    schema = SchemaSet(definitions()).named("io.k8s.api.apps.v1.Deployment")
    obj = {
        "spec": {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {
                "spec": {
                    "containers": [
                        {"name": "web", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                        {"name": "side", "image": "side:1"},
                    ],
                    "tolerations": [{"key": "a"}],
                }
            },
        }
    }
    patch = {
        "spec": {
            "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "template": {
                "spec": {
                    "$setElementOrder/containers": [{"name": "web"}, {"name": "side"}],
                    "containers": [{"name": "web", "image": "web:2", "ports": [{"containerPort": 443}]}],
                    "tolerations": [{"key": "b"}],
                }
            },
        }
    }

    result = strategic_merge_patch(schema, obj, patch)

    assert result["spec"]["strategy"] == {"type": "Recreate"}
    template = result["spec"]["template"]["spec"]
    assert template["containers"] == [
        {
            "name": "web",
            "image": "web:2",
            "ports": [{"containerPort": 443}, {"containerPort": 80, "protocol": "TCP"}],
        },
        {"name": "side", "image": "side:1"},
    ]
    assert template["tolerations"] == [{"key": "b"}]


NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.integers(0, 3) | st.text("xy", max_size=2)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES}, optional={"x": SCALARS, "args": st.lists(st.text("x", max_size=2), max_size=2)}
    ),
    max_size=3,
    unique_by=lambda item: str(item["name"]),
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "named": ITEMS,
        "set": st.lists(NAMES, unique=True, max_size=3),
        "list": st.lists(NAMES, max_size=3),
        "map": st.dictionaries(NAMES, st.text("x", max_size=2), max_size=3),
    },
)


@given(OBJECTS, OBJECTS)
def test_twice_is_once_and_nothing_given_changes(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr((obj, patch))

    once = patched(obj, patch)

    assert patched(once, patch) == once
    assert repr((obj, patch)) == before


@given(OBJECTS)
def test_an_empty_patch_changes_nothing(obj: dict[str, Any]) -> None:
    assert patched(obj, {}) == obj


@given(OBJECTS, OBJECTS)
def test_merging_keeps_every_item_of_both(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    result = patched(obj, patch)

    names = [item["name"] for item in result.get("named", [])]
    assert sorted(names) == sorted({item["name"] for one in (obj, patch) for item in one.get("named", [])})
    assert sorted(result.get("set", [])) == sorted({*obj.get("set", []), *patch.get("set", [])})


@given(OBJECTS, OBJECTS)
def test_the_order_of_the_patch_is_kept(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    result = patched(obj, patch)

    wanted = [item["name"] for item in patch.get("named", [])]
    assert [item["name"] for item in result.get("named", []) if item["name"] in wanted] == wanted


@given(OBJECTS, OBJECTS)
def test_without_a_schema_it_is_a_merge_patch(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    assert strategic_merge_patch(None, obj, patch) == merge_patch(obj, patch)
