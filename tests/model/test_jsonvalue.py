"""Plain JSON values: how deep they nest, and copies of them."""

from __future__ import annotations

from typing import Any

from fleetplane.model.jsonvalue import copied, is_too_deep


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_depth_is_counted_in_lists_and_maps() -> None:
    assert not is_too_deep(nested(5), limit=5)
    assert is_too_deep(nested(6), limit=5)
    assert is_too_deep(nested(100_000))
    assert not is_too_deep(1, limit=0)


def test_a_copy_shares_nothing_that_can_change() -> None:
    value = {"a": [1, {"b": None}], "c": 1.5, "d": 2**70, "e": "x"}

    again = copied(value)

    assert again == value
    again["a"][1]["b"] = 1
    assert value["a"] == [1, {"b": None}]
