"""Capacity as algebra: shares sum to the limit, differ by one at most, and change as little as they can."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.operators.peerpods.kinds import VM_RESOURCE, WORKER_LABEL
from fleetplane.operators.peerpods.plan import BadLimit, Node, left_behind, parse_limit, plan, shares, spread

EXISTING = st.dictionaries(
    st.sampled_from([f"n{i}" for i in range(7)]), st.one_of(st.none(), st.integers(0, 6)), min_size=1
)


def config(name: str, age: int = 0, *, deleting: bool = False, nodes: dict[str, int] | None = None, **spec: Any) -> Any:
    meta = {"name": name, "namespace": "default", "uid": name, "creationTimestamp": f"2026-01-01T00:00:{age:02}Z"}
    if deleting:
        meta["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    listed = [{"name": node, "capacity": count} for node, count in (nodes or {}).items()]
    return {"metadata": meta, "spec": {"nodeSelector": {"a": "b"}, **spec}, "status": {"nodes": listed}}


def nodes(**capacities: int | None) -> list[Node]:
    return [Node(name, {"a": "b"}, capacity) for name, capacity in capacities.items()]


def test_ten_on_three_nodes_is_four_three_three() -> None:
    assert spread(10, dict.fromkeys("abc")) == {"a": 4, "b": 3, "c": 3}


def test_fewer_than_nodes_still_gives_all_of_it_out() -> None:
    assert sum(spread(2, dict.fromkeys("abcde")).values()) == 2


@given(st.integers(0, 40), EXISTING)
def test_shares_sum_to_the_limit_and_differ_by_one_at_most(limit: int, existing: dict[str, int | None]) -> None:
    found = spread(limit, existing)

    assert sum(found.values()) == limit
    assert found.keys() == existing.keys()
    assert max(found.values()) - min(found.values()) <= 1


@given(st.integers(0, 40), EXISTING)
def test_the_fewest_nodes_change(limit: int, existing: dict[str, int | None]) -> None:
    found = spread(limit, existing)
    whole, rest = divmod(limit, len(existing))

    def changes(shares: dict[str, int]) -> int:
        return sum(existing[name] != share for name, share in shares.items())

    every_way = [
        changes({name: whole + (name in larger) for name in existing}) for larger in combinations(existing, rest)
    ]
    assert changes(found) == min(every_way)


@given(st.integers(0, 40), EXISTING)
def test_a_second_time_changes_nothing(limit: int, existing: dict[str, int | None]) -> None:
    once = spread(limit, existing)

    assert spread(limit, once) == once


def test_per_node_gives_every_node_the_limit_and_no_limit_gives_one() -> None:
    assert shares(5, "PerNode", {"a": None, "b": 2}) == {"a": 5, "b": 5}
    assert shares(None, None, {"a": None, "b": 2}) == {"a": 1, "b": 1}


@pytest.mark.parametrize("text", ["abc", "-1", "1.5", "1_0", " 1", "٣", "9" * 30, "1e3"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadLimit, match="whole number"):
        parse_limit(text)


def test_a_node_that_left_loses_the_key_and_others_take_its_share() -> None:
    asked = config("one", limit="6", nodes={"a": 3, "b": 3})
    left = Node("b", {}, 3)

    found = plan(asked, [asked], [*nodes(a=3), left])

    assert found.changes == {"a": 6, "b": None}


def test_capacity_somebody_else_put_on_other_nodes_is_left_alone() -> None:
    asked = config("one", limit="3")

    found = plan(asked, [asked], [*nodes(a=3), Node("stranger", {}, 20)])

    assert found.changes == {}


def test_of_two_configs_the_older_has_the_node_and_the_younger_is_told() -> None:
    older, younger = config("older", 1, limit="4"), config("younger", 2, limit="9")

    assert plan(younger, [younger, older], nodes(a=None)).lost == {"a": "default/older"}
    assert plan(younger, [younger, older], nodes(a=4)).changes == {}
    assert plan(older, [younger, older], nodes(a=None)).changes == {"a": 4}


def test_a_config_being_deleted_leaves_what_another_now_has() -> None:
    dying = config("one", 1, deleting=True, nodes={"a": 3, "b": 3})
    heir = config("two", 2, limit="1")

    assert left_behind(dying, [dying], nodes(a=3, b=3)) == ["a", "b"]
    assert left_behind(dying, [dying, heir], nodes(a=3, b=3)) == []


def test_without_a_selector_workers_are_meant_and_an_empty_one_means_all() -> None:
    asked = config("one", limit="3")
    pool = [Node("w", {WORKER_LABEL: ""}), Node("x")]
    asked["spec"].pop("nodeSelector")

    assert plan(asked, [asked], pool).shares == {"w": 3}
    asked["spec"]["nodeSelector"] = {}
    assert plan(asked, [asked], pool).shares == {"w": 2, "x": 1}


def test_capacity_that_is_no_number_is_written_anew() -> None:
    odd = Node.of({"metadata": {"name": "a", "labels": {"a": "b"}}, "status": {"capacity": {VM_RESOURCE: "1k"}}})
    asked = config("one", limit="1000")

    assert plan(asked, [asked], [odd]).changes == {"a": 1000}
