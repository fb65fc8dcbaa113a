"""Which fields a value has, what changed, and how lists merge."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.apply.fieldset import Trie
from fleetplane.model.apply.typed import all_fields, applied_fields, compare, merge
from fleetplane.model.errors import ApiError
from fleetplane.model.schema import Schema, SchemaSet

from .kinds import SCHEMA

SPEC = SCHEMA.properties["spec"]


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"replicas": 1, "name": None}, {".": {}, "f:replicas": {}, "f:name": {}}),
        ({"args": ["a", "b"]}, {".": {}, "f:args": {}}),
        ({"set": ["a"]}, {".": {}, "f:set": {".": {}, 'v:"a"': {}}}),
        (
            {"ports": [{"port": 80, "x": "1"}]},
            {
                ".": {},
                "f:ports": {
                    ".": {},
                    'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:x": {}},
                },
            },
        ),
        ({"labels": {"a": "b"}}, {".": {}, "f:labels": {".": {}, "f:a": {}}}),
        ({"labels": {}, "ports": []}, {".": {}, "f:labels": {}, "f:ports": {}}),
        ({"selector": {"a": "b"}}, {".": {}, "f:selector": {}}),
        ({"free": {"a": {"b": [1]}}}, {".": {}, "f:free": {".": {}, "f:a": {".": {}, "f:b": {}}}}),
        ({"unknown": {"a": 1}}, {".": {}, "f:unknown": {".": {}, "f:a": {}}}),
        ({"replicas": {"not": "an integer"}}, {".": {}, "f:replicas": {}}),
    ],
)
def test_a_new_value_is_owned_with_its_containers(spec: dict[str, Any], fields: Trie) -> None:
    assert all_fields(SPEC, spec) == fields


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"replicas": 1, "inner": {"a": "x"}}, {"f:replicas": {}, "f:inner": {"f:a": {}}}),
        ({"labels": {"a": "b"}}, {"f:labels": {"f:a": {}}}),
        ({"labels": {}, "inner": {}}, {"f:labels": {}, "f:inner": {}}),
        ({"ports": [], "replicas": 1}, {"f:ports": {}, "f:replicas": {}}),
        (
            {"ports": [{"port": 80, "protocol": "UDP"}]},
            {"f:ports": {'k:{"port":80,"protocol":"UDP"}': {".": {}, "f:port": {}, "f:protocol": {}}}},
        ),
        ({"set": ["a"], "args": []}, {"f:set": {'v:"a"': {}}, "f:args": {}}),
        ({"free": {"a": {"b": 1}}}, {"f:free": {"f:a": {".": {}, "f:b": {}}}}),
    ],
)
def test_an_applied_value_is_owned_by_its_leaves_and_items(spec: dict[str, Any], fields: Trie) -> None:
    assert applied_fields(SPEC, spec) == fields


def test_an_applied_list_names_each_item_once() -> None:
    with pytest.raises(ApiError, match=r'names the item \{"port":80,"protocol":"TCP"\} twice'):
        applied_fields(SPEC, {"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]})


def test_a_port_of_a_built_in_kind_is_tcp_unless_it_says_otherwise() -> None:
    ports = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port", "protocol"],
        "items": {"type": "object", "properties": {"port": {"type": "integer"}, "protocol": {"type": "string"}}},
    }
    schema = Schema.compile(ports, SchemaSet({}))

    assert applied_fields(schema, [{"port": 1}]) == {'k:{"port":1,"protocol":"TCP"}': {".": {}, "f:port": {}}}


@pytest.mark.parametrize(
    ("old", "new", "added", "modified", "removed"),
    [
        ({"a": 1}, {"a": 1}, {}, {}, {}),
        ({"name": "x"}, {"name": "y"}, {}, {"f:name": {}}, {}),
        ({}, {"labels": {"a": "b"}}, {"f:labels": {".": {}, "f:a": {}}}, {}, {}),
        ({"labels": {"a": "b"}}, {"labels": {"c": "d"}}, {"f:labels": {"f:c": {}}}, {}, {"f:labels": {"f:a": {}}}),
        ({"args": ["a"]}, {"args": ["b"]}, {}, {"f:args": {}}, {}),
        ({"selector": {"a": "b"}}, {"selector": {"c": "d"}}, {}, {"f:selector": {}}, {}),
        ({"set": ["a", "b"]}, {"set": ["c", "b"]}, {"f:set": {'v:"c"': {}}}, {}, {"f:set": {'v:"a"': {}}}),
        ({"set": ["a", "b"]}, {"set": ["b", "a"]}, {}, {}, {}),
        (
            {"ports": [{"port": 1, "x": "a"}, {"port": 2}]},
            {"ports": [{"port": 2, "protocol": "TCP"}, {"port": 1, "x": "b"}]},
            {"f:ports": {'k:{"port":2,"protocol":"TCP"}': {"f:protocol": {}}}},
            {"f:ports": {'k:{"port":1,"protocol":"TCP"}': {"f:x": {}}}},
            {},
        ),
        (
            {"ports": [{"port": 1}, {"port": 1, "x": "a"}]},
            {"ports": [{"port": 1}]},
            {},
            {"f:ports": {'k:{"port":1,"protocol":"TCP"}': {}}},
            {},
        ),
        ({"free": {"a": {"b": 1}}}, {"free": {"a": 1}}, {}, {"f:free": {"f:a": {}}}, {"f:free": {"f:a": {"f:b": {}}}}),
    ],
)
def test_differences(old: Any, new: Any, added: Trie, modified: Trie, removed: Trie) -> None:
    assert compare(SPEC, old, new) == (added, modified, removed)


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("ab", "ab", "ab"),
        ("ab", "cab", "cab"),
        ("ab", "c", "abc"),
        ("abc", "b", "abc"),
        ("abc", "ca", "bca"),
        ("ab", "xba", "xba"),
        ("amb", "xba", "mxba"),
        ("", "ab", "ab"),
        ("ab", "", "ab"),
        ("abc", "axc", "abxc"),
    ],
)
def test_lists_merge_in_the_applied_order(live: str, applied: str, merged: str) -> None:
    spec = {"set": list(live)}

    merge(SPEC, spec, {"set": list(applied)})

    assert "".join(spec["set"]) == merged


def test_items_merge_by_key_and_duplicates_are_replaced() -> None:
    spec: dict[str, Any] = {"ports": [{"port": 1, "x": "a"}, {"port": 2, "x": "b"}, {"port": 2, "x": "c"}]}

    merge(SPEC, spec, {"ports": [{"port": 1, "name": "n"}, {"port": 2, "name": "m"}]})

    assert spec == {"ports": [{"port": 1, "x": "a", "name": "n"}, {"port": 2, "name": "m"}]}


ORDERS = st.lists(st.sampled_from("abcdef"), unique=True)


@given(ORDERS, ORDERS)
def test_a_merged_list_keeps_everything_and_the_applied_order(live: list[str], applied: list[str]) -> None:
    spec = {"set": list(live)}

    merge(SPEC, spec, {"set": applied})

    result = spec["set"]
    assert sorted(result) == sorted({*live, *applied})
    assert [one for one in result if one in applied] == applied
    only_live = [one for one in live if one not in applied]
    assert [one for one in result if one in only_live] == only_live


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 3),
        "set": ORDERS,
        "args": st.lists(st.sampled_from("ab"), max_size=2),
        "labels": st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3),
        "selector": st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3),
        "ports": st.lists(
            st.fixed_dictionaries({"port": st.integers(1, 3)}, optional={"x": st.sampled_from("xy")}),
            max_size=3,
            unique_by=lambda port: str(port["port"]),
        ),
    },
)


@given(SPECS, SPECS)
def test_differences_are_symmetric(old: dict[str, Any], new: dict[str, Any]) -> None:
    forth, back = compare(SPEC, old, new), compare(SPEC, new, old)

    assert forth.added == back.removed
    assert forth.modified == back.modified


@given(SPECS, SPECS)
def test_merging_changes_only_what_is_applied(live: dict[str, Any], applied: dict[str, Any]) -> None:
    merged = deepcopy(live)

    merge(SPEC, merged, deepcopy(applied))

    assert not compare(SPEC, live, merged).removed
    assert not compare(SPEC, applied, merged).modified
