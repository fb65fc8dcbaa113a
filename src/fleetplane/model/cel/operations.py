"""Steps of operators: fast ones for operands of known types, careful ones (``…_anything``) for those of unknown types."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from fleetplane.model.cel.cost import EQUALITY
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.frame import Frame, Step, charge, toil
from fleetplane.model.cel.library.operators import add, contained, no_such_key, position
from fleetplane.model.cel.values import (
    INT_MAX,
    INT_MIN,
    Duration,
    Timestamp,
    Uint,
    equals,
    no_such_overload,
    size_of,
    weight_within,
)


def add_ints(left: Step, right: Step) -> Step:
    def step(frame: Frame) -> int:
        value: int = left(frame) + right(frame)
        if INT_MIN <= value <= INT_MAX:
            return value
        raise CelError("integer overflow")

    return step


def subtract_ints(left: Step, right: Step) -> Step:
    def step(frame: Frame) -> int:
        value: int = left(frame) - right(frame)
        if INT_MIN <= value <= INT_MAX:
            return value
        raise CelError("integer overflow")

    return step


def multiply_ints(left: Step, right: Step) -> Step:
    def step(frame: Frame) -> int:
        value: int = left(frame) * right(frame)
        if INT_MIN <= value <= INT_MAX:
            return value
        raise CelError("integer overflow")

    return step


COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
    "_==_": operator.eq,
    "_!=_": operator.ne,
}
"""Comparisons that Python does exactly as CEL, when both sides have one scalar type."""

NATIVE: Mapping[str, Callable[[Step, Step], Step]] = {
    "_<_": lambda left, right: lambda frame: left(frame) < right(frame),
    "_<=_": lambda left, right: lambda frame: left(frame) <= right(frame),
    "_>_": lambda left, right: lambda frame: left(frame) > right(frame),
    "_>=_": lambda left, right: lambda frame: left(frame) >= right(frame),
    "_==_": lambda left, right: lambda frame: left(frame) == right(frame),
    "_!=_": lambda left, right: lambda frame: left(frame) != right(frame),
}
"""The same as steps, without a call in between."""


def compare_texts(compare: Callable[[Any, Any], bool], left: Step, right: Step) -> Step:
    """Comparing strings or bytes costs a tenth of the shorter."""

    def step(frame: Frame) -> bool:
        one, other = left(frame), right(frame)
        charge(frame, (min(len(one), len(other)) + 9) // 10)
        return compare(one, other)

    return step


def join_texts(left: Step, right: Step) -> Step:
    def step(frame: Frame) -> Any:
        one, other = left(frame), right(frame)
        charge(frame, (len(one) + len(other) + 9) // 10)
        return one + other

    return step


def text_in_list(needle: Step, haystack: Step) -> Step:
    def step(frame: Frame) -> bool:
        wanted, items = needle(frame), haystack(frame)
        charge(frame, len(items))
        return wanted in items

    return step


def member_of(needle: Step, items: frozenset[Any], key: Callable[[Any], Any]) -> Step:
    """``x in [constants]``: free, whatever the list's length."""
    return lambda frame: key(needle(frame)) in items


def key_in_map(needle: Step, haystack: Step) -> Step:
    return lambda frame: needle(frame) in haystack(frame)


def index_list(operand: Step, index: Step) -> Step:
    def step(frame: Frame) -> Any:
        items, at = operand(frame), index(frame)
        return items[position(items, at)]

    return step


def index_map(operand: Step, index: Step) -> Step:
    """Maps with string keys."""

    def step(frame: Frame) -> Any:
        container, key = operand(frame), index(frame)
        try:
            return container[key]
        except KeyError:
            raise no_such_key(key) from None

    return step


def binary(function: Callable[[Any, Any], Any], left: Step, right: Step) -> Step:
    return lambda frame: function(left(frame), right(frame))


_SIMPLE = frozenset({bool, int, float, type(None), Uint, Timestamp, Duration})
_TEXT = frozenset({str, bytes})


def compare_anything(
    function: Callable[[Any, Any], bool], native: Callable[[Any, Any], Any], name: str, left: Step, right: Step
) -> Step:
    """An ordering where only the values tell their types; 1 was charged, text costs by its length."""

    def step(frame: Frame) -> bool:
        one, other = left(frame), right(frame)
        kind = type(one)
        if kind is type(other):
            if kind in _TEXT:
                charge(frame, (min(len(one), len(other)) + 9) // 10 - 1)
                return bool(native(one, other))
            if kind is int or kind is float:
                return bool(native(one, other))
        try:
            return function(one, other)
        except CelError:
            raise no_such_overload(name, one, other) from None

    return step


def equal_anything(left: Step, right: Step, *, negated: bool) -> Step:
    """``==`` where only the values tell their types; 1 was charged, containers and text cost by their size."""

    def step(frame: Frame) -> bool:
        one, other = left(frame), right(frame)
        kind = type(one)
        if kind in _TEXT:
            if kind is not type(other):
                charge(frame, (min(len(one), size_of(other)) + 9) // 10 - 1)
                return negated
            charge(frame, (min(len(one), len(other)) + 9) // 10 - 1)
            return bool(one != other if negated else one == other)
        if kind not in _SIMPLE:
            charge(frame, EQUALITY.actual((one, other), None) - 1)
            toil(frame, weight_within(one, 10_000_000) // 3)
        return equals(one, other) is not negated

    return step


def add_anything(left: Step, right: Step) -> Step:
    def step(frame: Frame) -> Any:
        one, other = left(frame), right(frame)
        if type(one) in _TEXT and type(one) is type(other):
            charge(frame, (len(one) + len(other) + 9) // 10 - 1)
        elif type(one) is list and type(other) is list:
            toil(frame, (len(one) + len(other)) // 10)
        return add(one, other)

    return step


def in_anything(needle: Step, haystack: Step) -> Step:
    def step(frame: Frame) -> bool:
        wanted, items = needle(frame), haystack(frame)
        if type(items) is list:
            charge(frame, len(items))
            if type(wanted) is str:
                return wanted in items
            toil(frame, weight_within(items, 10_000_000) // 3)
        else:
            charge(frame, 1)
        return contained(wanted, items)

    return step


def negate_bool(operand: Step) -> Step:
    def step(frame: Frame) -> bool:
        value = operand(frame)
        if value is True:
            return False
        if value is False:
            return True
        raise no_such_overload("!_", value)

    return step
