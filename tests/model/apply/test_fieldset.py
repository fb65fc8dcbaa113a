"""Sets of fields: their form, their algebra, and what hostile ones cannot do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetplane.model.apply.fieldset import FieldSet, key_element, shown, value_element


def test_the_form_of_managed_fields() -> None:
    raw: dict[str, Any] = {"f:spec": {"f:replicas": {}, "f:ports": {'k:{"port":80}': {".": {}, "f:port": {}}}}}

    fields = FieldSet.from_fields_v1(raw)

    assert fields.to_fields_v1() == raw
    assert [shown(path) for path in fields] == [".spec.replicas", ".spec.ports[port=80]", ".spec.ports[port=80].port"]


def test_sets_from_paths() -> None:
    assert FieldSet.of(("spec", "a"), ("spec", "a", "b"), ("status",)).trie == {
        "f:spec": {"f:a": {".": {}, "f:b": {}}},
        "f:status": {},
    }


def test_elements_are_shown_as_in_conflicts() -> None:
    path = ["f:spec", "f:list", key_element({"protocol": "TCP", "port": 80}), "f:x.y/z", value_element("a"), "i:3"]

    assert shown(path) == '.spec.list[port=80,protocol="TCP"].x.y/z[="a"][3]'


def test_foreign_keys_are_brought_into_canonical_form() -> None:
    raw: dict[str, Any] = {'k:{"b": 1, "a": "x"}': {".": {}}, 'v: "a"': {}}

    assert FieldSet.from_fields_v1(raw).trie == {'k:{"a":"x","b":1}': {}, 'v:"a"': {}}


DEEP: dict[str, Any] = {}
for _ in range(600):
    DEEP = {"f:a": DEEP}


@pytest.mark.parametrize(
    "raw", [None, [], {"x": {}}, {"f:a": 1}, {"k:1": {}}, {"k:{": {}}, {"i:x": {}}, {"i:1.5": {}}, DEEP]
)
def test_what_is_no_set(raw: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        FieldSet.from_fields_v1(raw)


Path = tuple[str, ...]
ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"n":"x"}', "v:1"])
PATHS = st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple)
MODELS = st.frozensets(PATHS, max_size=6)


def build(model: frozenset[Path]) -> FieldSet:
    total = FieldSet()
    for path in model:
        node: dict[str, Any] = {}
        for element in reversed(path):
            node = {element: node}
        total |= FieldSet(node)
    return total


def is_below(path: Path, model: frozenset[Path]) -> bool:
    return any(path[: len(other)] == other for other in model)


@given(MODELS)
def test_a_set_holds_what_was_put_in(model: frozenset[Path]) -> None:
    fields = build(model)

    assert frozenset(fields) == model
    assert bool(fields) is bool(model)
    assert FieldSet.from_fields_v1(fields.to_fields_v1()) == fields


@given(MODELS, MODELS)
def test_the_algebra_is_that_of_sets_of_paths(one: frozenset[Path], other: frozenset[Path]) -> None:
    a, b = build(one), build(other)

    assert a | b == build(one | other)
    assert a & b == build(one & other)
    assert a - b == build(one - other)
    assert a.without_below(b) == build(frozenset(path for path in one if not is_below(path, other)))
    assert a.only_below(b) == build(frozenset(path for path in one if is_below(path, other)))


@given(MODELS)
def test_leaves_have_nothing_below(model: frozenset[Path]) -> None:
    expected = frozenset(p for p in model if not any(q != p and q[: len(p)] == p for q in model))

    assert frozenset(build(model).leaves()) == expected


@given(MODELS, MODELS, MODELS)
def test_the_laws_of_sets(x: frozenset[Path], y: frozenset[Path], z: frozenset[Path]) -> None:
    a, b, c = build(x), build(y), build(z)

    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a & (b | c) == (a & b) | (a & c)
    assert (a - b) | (a & b) == a
    assert a - a == FieldSet()
