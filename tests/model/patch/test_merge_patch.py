"""JSON Merge Patch: RFC 7386."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.errors import ApiError
from fleetplane.model.patch import merge_patch


@pytest.mark.parametrize(
    ("obj", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(obj: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merge_patch(obj, patch) == expected


@pytest.mark.parametrize("patch", [None, [], "a", 1])
def test_the_patch_must_be_an_object(patch: Any) -> None:
    with pytest.raises(ApiError, match="must be a JSON object"):
        merge_patch({}, patch)


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.integers(0, 3) | st.booleans() | st.text("xy", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
PATCHES = st.dictionaries(NAMES, st.recursive(VALUES | st.none(), lambda i: st.dictionaries(NAMES, i), max_leaves=5))


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = dict.fromkeys(old.keys() - new.keys())
    for name, value in new.items():
        if name not in old or type(old[name]) is not type(value) or old[name] != value:
            both = isinstance(old.get(name), dict) and isinstance(value, dict)
            patch[name] = difference(old[name], value) if both else value
    return patch


@given(OBJECTS, OBJECTS)
def test_the_difference_of_two_objects_leads_from_one_to_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merge_patch(old, difference(old, new)) == new


@given(OBJECTS, PATCHES)
def test_twice_is_once_and_nothing_given_changes(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr((obj, patch))

    once = merge_patch(obj, patch)

    assert merge_patch(once, patch) == once
    assert repr((obj, patch)) == before
