"""Writes as the server makes them, as far as a kind's behaviour is concerned."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fleetplane.apiserver.kinds import BEHAVIOURS, KindBehaviour

Object = dict[str, Any]
Written = tuple[Object, list[str]]


def behaviour_of(obj: Object) -> KindBehaviour:
    group = str(obj["apiVersion"]).rpartition("/")[0]
    return BEHAVIOURS[(group, obj["kind"])]


def create_object(obj: Object) -> Written:
    """(the object to be stored, what is wrong with it)"""
    made = copy.deepcopy(obj)
    made.setdefault("metadata", {}).setdefault("name", "a")
    behaviour = behaviour_of(made)
    behaviour.default(made)
    behaviour.prepare_create(made)
    return made, [str(error) for error in behaviour.validate(made, None)]


def update_object(new: Object, old: Object, subresource: str = "") -> Written:
    made, before = copy.deepcopy(new), copy.deepcopy(old)
    behaviour = behaviour_of(made)
    behaviour.default(made)
    rules = behaviour.subresources.get(subresource)
    (rules.prepare if rules else behaviour.prepare_update)(made, before)
    check = rules.validate if rules else behaviour.validate_status if subresource == "status" else behaviour.validate
    return made, [str(error) for error in check(made, before)]


@pytest.fixture
def create() -> Callable[[Object], Written]:
    return create_object


@pytest.fixture
def update() -> Callable[..., Written]:
    return update_object


@pytest.fixture
def stored() -> Callable[[Object], Object]:
    """An object as it is kept; it must be valid."""

    def keep(obj: Object) -> Object:
        made, problems = create_object(obj)
        assert problems == []
        return made

    return keep
