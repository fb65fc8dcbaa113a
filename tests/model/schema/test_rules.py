"""Where CEL rules apply, and what the value was before."""

from __future__ import annotations

from typing import Any

from fleetplane.model.schema import ABSENT, Schema, walk_rules

RULE = [{"rule": "self == oldSelf"}]
SCHEMA = Schema.compile(
    {
        "type": "object",
        "x-kubernetes-validations": [{"rule": "true"}],
        "properties": {
            "plain": {"type": "object", "properties": {"a": {"type": "string"}}},
            "spec": {
                "type": "object",
                "properties": {
                    "x": {"type": "string", "nullable": True, "x-kubernetes-validations": RULE},
                    "map": {
                        "type": "object",
                        "additionalProperties": {"type": "string", "x-kubernetes-validations": RULE},
                    },
                    "atomic": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": RULE}},
                    "keyed": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["n"],
                        "items": {
                            "type": "object",
                            "properties": {
                                "n": {"type": "string"},
                                "v": {"type": "integer", "x-kubernetes-validations": RULE},
                            },
                        },
                    },
                },
            },
        },
    }
)


def sites(new: Any, old: Any = ABSENT) -> list[tuple[str, Any, Any]]:
    return [(site.path, site.value, site.old) for site in walk_rules(SCHEMA, new, old)]


def test_every_value_with_rules_is_found() -> None:
    new = {"plain": {"a": "1"}, "spec": {"x": "1", "map": {"k": "2"}, "atomic": ["3"], "keyed": [{"n": "a", "v": 4}]}}

    assert sites(new) == [
        ("", new, ABSENT),
        ("spec.x", "1", ABSENT),
        ("spec.map[k]", "2", ABSENT),
        ("spec.atomic[0]", "3", ABSENT),
        ("spec.keyed[0].v", 4, ABSENT),
    ]


def test_old_values_are_found_by_name_and_by_key() -> None:
    old = {"spec": {"x": "0", "map": {"k": "1"}, "atomic": ["3"], "keyed": [{"n": "a", "v": 1}, {"n": "b", "v": 2}]}}
    new = {"spec": {"x": "1", "map": {"k": "2", "l": "3"}, "atomic": ["3"], "keyed": [{"n": "b", "v": 3}]}}

    assert sites(new, old)[1:] == [
        ("spec.x", "1", "0"),
        ("spec.map[k]", "2", "1"),
        ("spec.map[l]", "3", ABSENT),
        ("spec.atomic[0]", "3", ABSENT),
        ("spec.keyed[0].v", 3, 2),
    ]


def test_null_has_no_rules_and_no_old_object_means_absent() -> None:
    assert sites({"spec": {"x": None}}, None) == [("", {"spec": {"x": None}}, ABSENT)]


def test_a_schema_without_rules_costs_nothing() -> None:
    schema = Schema.compile({"type": "object", "properties": {"a": {"type": "string"}}})

    assert not schema.leads_to_rules()
    assert list(walk_rules(schema, {"a": "x"})) == []
