"""No object, however strange, makes a behaviour fail instead of saying what is wrong."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetplane.apiserver.kinds import BEHAVIOURS, KindBehaviour
from fleetplane.model.builtin import BuiltinResource, catalog, definitions
from fleetplane.model.errors import FieldError

REF = "#/components/schemas/"
TEXTS = [
    "",
    "a",
    "A b",
    "a.example.com/x",
    "RollingUpdate",
    "Always",
    "10.0.0.1",
    "fd00::/64",
    "50%",
    "-1",
    "*",
    "é",
    "1Gi",
]
NUMBERS = [0, 1, -1, 80, 1 << 31, -(1 << 40)]
NOISE: list[Any] = [None, True, 0, -5, 1.5, "", "x", [], [None], [1], {}, {"a": None}, {"spec": []}, [{}], [[]]]

STORED = [one for one in catalog() if one.is_storage_version]


def made_from(name: str, dice: random.Random, depth: int = 0) -> Any:
    """An object of the right types but any content."""
    last = name.rpartition(".")[2]
    if last == "Quantity":
        return dice.choice(["1", "500m", "-1", "1Gi", "x", 0, 2.5])
    if last == "IntOrString":
        return dice.choice([*NUMBERS, *TEXTS])
    if last in ("Time", "MicroTime"):
        return dice.choice(["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000001+02:00"])
    schema = definitions()[name]
    return value_of(schema, dice, depth)


def value_of(schema: dict[str, Any], dice: random.Random, depth: int) -> Any:
    if "$ref" in schema:
        return made_from(schema["$ref"].removeprefix(REF), dice, depth + 1)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        if isinstance(schema.get("additionalProperties"), dict):
            return {dice.choice(TEXTS): value_of(schema["additionalProperties"], dice, depth + 1) for _ in range(2)}
        share = 0.75 if depth < 3 else 0.35 if depth < 9 else 0.0
        return {
            key: value_of(of, dice, depth + 1)
            for key, of in schema.get("properties", {}).items()
            if (key in schema.get("required", ()) and depth < 12) or dice.random() < share
        }
    if kind == "array":
        return [value_of(schema["items"], dice, depth + 1) for _ in range(dice.choice([0, 1, 2]))]
    if kind == "boolean":
        return dice.random() < 0.5
    if kind in ("integer", "number"):
        return dice.choice(NUMBERS)
    if kind == "string":
        return dice.choice([*schema.get("enum", ()), *TEXTS])
    return dice.choice([{}, "x", 1])


def spoiled(value: Any, dice: random.Random) -> Any:
    """The same with something of a wrong type somewhere."""
    if dice.random() < 0.15 or not value or not isinstance(value, dict | list):
        return copy.deepcopy(dice.choice(NOISE))
    keys: Any = list(value) if isinstance(value, dict) else range(len(value))
    key = dice.choice(keys)
    value[key] = spoiled(value[key], dice)
    return value


def whole(resource: BuiltinResource, dice: random.Random) -> dict[str, Any]:
    obj: dict[str, Any] = made_from(resource.definition, dice)
    obj |= {"apiVersion": resource.type.api_version, "kind": resource.type.kind}
    obj["metadata"] = {"name": dice.choice(["a", "A"]), "uid": "u", "namespace": "n"} | dice.choice(
        [{}, {"labels": {"a": "b"}}, {"annotations": {"x": "y"}}]
    )
    return obj


def behaviour_of(resource: BuiltinResource) -> KindBehaviour:
    return BEHAVIOURS[(resource.type.group, resource.type.kind)]


@pytest.mark.parametrize("resource", STORED, ids=lambda one: one.type.qualified)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32))
def test_whatever_has_the_right_types_is_checked(resource: BuiltinResource, seed: int) -> None:
    dice, behaviour = random.Random(seed), behaviour_of(resource)
    new, old = whole(resource, dice), whole(resource, dice)
    for one in (new, old):
        behaviour.default(one)
        behaviour.prepare_create(one)
    behaviour.prepare_update(new, old)
    found = [*behaviour.validate(new, None), *behaviour.validate(new, old), *behaviour.validate_status(new, old)]
    for rules in behaviour.subresources.values():
        other = copy.deepcopy(new)
        rules.prepare(other, old)
        found += rules.validate(other, old)

    assert all(isinstance(error, FieldError) for error in found)
    assert list(behaviour.validate(old, old)) is not None
    assert {name for name, _ in behaviour.terms(new)} == behaviour.indexed_fields


@pytest.mark.parametrize("resource", STORED, ids=lambda one: one.type.qualified)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32))
def test_defaults_are_filled_into_anything(resource: BuiltinResource, seed: int) -> None:
    dice, behaviour = random.Random(seed), behaviour_of(resource)
    obj = whole(resource, dice)
    for key in ("spec", "status", *obj):
        if key in obj and key not in ("apiVersion", "kind", "metadata"):
            obj[key] = spoiled(obj[key], dice)
    behaviour.default(obj)
    behaviour.prepare_create(obj)
    behaviour.prepare_update(obj, whole(resource, dice))

    assert obj["kind"] == resource.type.kind


@pytest.mark.parametrize("resource", STORED, ids=lambda one: one.type.qualified)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32))
def test_defaults_filled_in_twice_are_filled_in_once(resource: BuiltinResource, seed: int) -> None:
    once = whole(resource, random.Random(seed))
    behaviour = behaviour_of(resource)
    behaviour.default(once)
    twice = copy.deepcopy(once)
    behaviour.default(twice)

    assert twice == once
