"""JSON Patch: RFC 6902, all or nothing, bounded."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.errors import ApiError
from fleetplane.model.patch import json_patch


@pytest.mark.parametrize(
    ("obj", "patch", "expected"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/b"}], {"a": 1}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": {"b": None}}], {"a": {"b": None}}),
        ({"a": [1]}, [{"op": "replace", "path": "/a/0", "value": 2}], {"a": [2]}),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"a": [1, 2, 3]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": [2, 3, 1]}),
        ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
        ({"a/b": 1, "m~n": 2}, [{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/m~0n"}], {}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 1}}], {"b": 1}),
        ({"": 1}, [{"op": "remove", "path": "/"}], {}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
        ({"a": {}}, [{"op": "test", "path": "/a/b", "value": None}], {"a": {}}),
    ],
)
def test_operations(obj: dict[str, Any], patch: list[Any], expected: dict[str, Any]) -> None:
    assert json_patch(obj, patch) == expected


@pytest.mark.parametrize(
    ("patch", "detail"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], "testing value /a failed: test failed"),
        ([{"op": "test", "path": "/a", "value": True}], "testing value /a failed: test failed"),
        ([{"op": "remove", "path": "/x"}], "remove operation does not apply: doc is missing key: /x: missing value"),
        ([{"op": "replace", "path": "/x", "value": 1}], "replace operation does not apply: doc is missing key: /x"),
        ([{"op": "add", "path": "/x/y", "value": 1}], 'add operation does not apply: doc is missing path: "/x/y"'),
        ([{"op": "add", "path": "/a/b", "value": 1}], 'add operation does not apply: doc is missing path: "/a/b"'),
        ([{"op": "add", "path": "/l/5", "value": 1}], "Unable to access invalid index: 5"),
        ([{"op": "add", "path": "/l/01", "value": 1}], "Unable to access invalid index: 01"),
        ([{"op": "move", "from": "/l", "path": "/l/0"}], "cannot be moved into itself"),
        ([{"op": "replace", "path": "", "value": []}], "the patched object is not a JSON object"),
    ],
)
def test_what_does_not_apply_is_unprocessable_and_changes_nothing(patch: list[Any], detail: str) -> None:
    obj = {"a": 1, "l": [1]}

    with pytest.raises(ApiError) as caught:
        json_patch(obj, [{"op": "add", "path": "/l/-", "value": 2}, *patch])

    assert caught.value.code == 422
    assert detail in caught.value.message
    assert obj == {"a": 1, "l": [1]}


@pytest.mark.parametrize(
    "patch",
    [
        {},
        [1],
        [{"op": "x", "path": ""}],
        [{"op": "add", "path": "/a"}],
        [{"op": "remove", "path": "a"}],
        [{"op": "remove", "path": "/~2"}],
        [{"op": "remove"}],
        [{"op": "move", "path": "/a"}],
        [{"op": ["add"], "path": "/a"}],
    ],
)
def test_malformed_patches_are_bad_requests(patch: Any) -> None:
    with pytest.raises(ApiError, match="error decoding patch") as caught:
        json_patch({}, patch)

    assert caught.value.code == 400


def test_operations_are_counted() -> None:
    with pytest.raises(ApiError, match="maximum operations in a JSON patch is 10000, got 10001") as caught:
        json_patch({}, [{"op": "add", "path": "/a", "value": 1}] * 10_001)

    assert caught.value.code == 413


def test_copies_cannot_multiply_without_bound() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 1000
    start = time.perf_counter()

    with pytest.raises(ApiError, match=r"accumulated size increase of copy|nested deeper"):
        json_patch({"a": ["x" * 100]}, doubling)

    assert time.perf_counter() - start < 2


def test_depth_is_an_error_not_a_crash() -> None:
    with pytest.raises(ApiError, match="nested deeper"):
        json_patch(
            {"a": {}},
            [{"op": "move", "from": "/a", "path": "/b"}, {"op": "add", "path": "/a", "value": {}}]
            + [{"op": "add", "path": "/a" + "/a" * n, "value": {}} for n in range(600)],
        )


def test_the_result_shares_nothing() -> None:
    obj: dict[str, Any] = {"a": {"b": [1]}}
    patch = [{"op": "add", "path": "/c", "value": {"d": []}}]

    result = json_patch(obj, patch)
    result["a"]["b"].append(2)
    result["c"]["d"].append(1)

    assert obj == {"a": {"b": [1]}}
    assert patch[0]["value"] == {"d": []}


NAMES = st.sampled_from(["a", "b", "~/"])
VALUES = st.recursive(
    st.none() | st.integers(0, 3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)


@given(OBJECTS, NAMES, VALUES)
def test_what_was_added_can_be_tested_and_removed(obj: dict[str, Any], name: str, value: Any) -> None:
    obj.pop(name, None)
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")

    added = json_patch(obj, [{"op": "add", "path": pointer, "value": value}])

    assert added == obj | {name: value}
    assert (
        json_patch(added, [{"op": "test", "path": pointer, "value": value}, {"op": "remove", "path": pointer}]) == obj
    )


POINTERS = st.lists(st.sampled_from(["a", "b", "~0~1", "0", "-", "-1"]), max_size=3).map(
    lambda p: "".join(f"/{s}" for s in p)
)
OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": POINTERS},
    optional={"from": POINTERS, "value": VALUES},
)


@given(OBJECTS, st.lists(OPERATIONS, max_size=5))
def test_any_patch_applies_or_is_an_api_error(obj: dict[str, Any], patch: list[Any]) -> None:
    try:
        assert isinstance(json_patch(obj, patch), dict)
    except ApiError as error:
        assert error.code in (400, 422)
