"""The closures an expression is compiled into: one small function per node, each taking the frame.

A closure trusts the static types it was made for; where a value turns out not to have its declared type, Python's own
error surfaces and the program reports it as a CelError.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetplane.model.cel.adapt import Adapter
from fleetplane.model.cel.cost import EQUALITY, Price
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.frame import COST, SOFT, Frame, Step, charge, over, toil
from fleetplane.model.cel.library.declarations import Overload
from fleetplane.model.cel.library.operators import add, contained, no_such_key, position
from fleetplane.model.cel.types import Kind, accepts
from fleetplane.model.cel.values import (
    INT_MAX,
    INT_MIN,
    NONE,
    Duration,
    Optional,
    Timestamp,
    Uint,
    equals,
    no_such_overload,
    size_of,
    some,
    weight_within,
)


def literal(value: Any) -> Step:
    return lambda _frame: value


def variable(slot: int) -> Step:
    return lambda frame: frame[slot]


# -- fields -----------------------------------------------------------------------------------------------------------


def field_of_variable(slot: int, key: str, convert: Adapter | None) -> Step:
    """``variable.field`` of an object; a null property is an absent one."""

    def step(frame: Frame) -> Any:
        try:
            value = frame[slot][key]
        except (KeyError, TypeError):
            raise no_such_key(key) from None
        if value is None:
            raise no_such_key(key)
        return value if convert is None else convert(value)

    return step


def field_of_object(operand: Step, key: str, convert: Adapter | None) -> Step:
    def step(frame: Frame) -> Any:
        container = operand(frame)
        try:
            value = container[key]
        except (KeyError, TypeError):
            raise no_such_key(key) from None
        if value is None:
            raise no_such_key(key)
        return value if convert is None else convert(value)

    return step


def field_of_map(operand: Step, key: str) -> Step:
    def step(frame: Frame) -> Any:
        container = operand(frame)
        try:
            return container[key]
        except (KeyError, TypeError):
            return field_of_anything(container, key)

    return step


def field_of_anything(container: Any, key: str) -> Any:
    """A field where only the value can tell: of a map, or within an optional."""
    if isinstance(container, Mapping):
        if key in container:
            return container[key]
        raise no_such_key(key)
    if type(container) is Optional:
        return optional_field(container, key, None, null_is_absent=False)
    raise no_such_overload()


def has_field(operand: Step, key: str, *, null_is_absent: bool) -> Step:
    def step(frame: Frame) -> bool:
        container = operand(frame)
        if type(container) is Optional:
            if not container.present:
                return False
            container = container.value
        if not isinstance(container, Mapping):
            raise no_such_overload()
        if null_is_absent:
            return container.get(key) is not None
        return key in container

    return step


def select_optional(operand: Step, key: str, convert: Adapter | None, *, null_is_absent: bool) -> Step:
    return lambda frame: optional_field(operand(frame), key, convert, null_is_absent=null_is_absent)


def optional_field(container: Any, key: str, convert: Adapter | None, *, null_is_absent: bool) -> Optional:
    if type(container) is Optional:
        if not container.present:
            return NONE
        container = container.value
    if not isinstance(container, Mapping):
        raise no_such_overload()
    if key not in container:
        return NONE
    value = container[key]
    if value is None and null_is_absent:
        return NONE
    if type(value) is Optional:
        return value
    return some(value if convert is None else convert(value))


# -- operators on known types -----------------------------------------------------------------------------------------


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


# -- control ----------------------------------------------------------------------------------------------------------


def logic(operands: Sequence[tuple[Step, int]], *, is_and: bool) -> Step:
    """``&&`` or ``||``: the first operand that decides wins, even over errors before it."""
    decides = not is_and
    goes_on = is_and
    parts = tuple(operands)

    def step(frame: Frame) -> bool:
        failure: CelError | None = None
        for operand, cost in parts:
            if cost:
                total = frame[COST] = frame[COST] + cost
                if total > frame[SOFT]:
                    over(frame)
            try:
                value = operand(frame)
            except CelError as error:
                failure = failure or error
                continue
            if value is decides:
                return not is_and
            if value is not goes_on:
                failure = failure or no_such_overload("_&&_" if is_and else "_||_", value)
        if failure is not None:
            raise failure
        return goes_on

    return step


def conditional(condition: Step, chosen: Step, chosen_cost: int, other: Step, other_cost: int) -> Step:
    def step(frame: Frame) -> Any:
        value = condition(frame)
        if value is True:
            charge(frame, chosen_cost)
            return chosen(frame)
        if value is False:
            charge(frame, other_cost)
            return other(frame)
        raise no_such_overload("_?_:_", value)

    return step


_PENDING = object()


def bind(slot: int, value: Step, cost: int, body: Step) -> tuple[Step, Step]:
    """``cel.bind``: the step, and the one that reads its variable, which computes it when first read."""

    def read(frame: Frame) -> Any:
        known = frame[slot]
        if known is _PENDING:
            charge(frame, cost)
            known = frame[slot] = value(frame)
        return known

    def step(frame: Frame) -> Any:
        frame[slot] = _PENDING
        return body(frame)

    return step, read


def optional_map(target: Step, slot: int, body: Step, body_cost: int, absent_cost: int, *, flat: bool) -> Step:
    def step(frame: Frame) -> Optional:
        found = target(frame)
        if type(found) is not Optional:
            raise no_such_overload("optFlatMap" if flat else "optMap", found)
        if not found.present:
            charge(frame, absent_cost)
            return NONE
        charge(frame, body_cost)
        frame[slot] = found.value
        result = body(frame)
        if not flat:
            return some(result)
        if type(result) is not Optional:
            raise no_such_overload("optFlatMap", result)
        return result

    return step


def optional_or(target: Step, other: Step, cost: int, *, unwrap: bool) -> Step:
    """``or`` and ``orValue``: the other side is evaluated only if there is no value."""

    def step(frame: Frame) -> Any:
        found = target(frame)
        if type(found) is not Optional:
            raise no_such_overload("orValue" if unwrap else "or", found)
        if found.present:
            return found.value if unwrap else found
        charge(frame, cost)
        result = other(frame)
        if not unwrap and type(result) is not Optional:
            raise no_such_overload("or", found, result)
        return result

    return step


# -- calls ------------------------------------------------------------------------------------------------------------


def call(overload: Overload, arguments: Sequence[Step]) -> Step:
    """A call whose overload is certain; a price that depends on nothing was charged already."""
    function = overload.call
    if overload.price.known is not None and overload.work is overload.result_work is None:
        if len(arguments) == 1:
            (first,) = arguments
            return lambda frame: function(first(frame))
        if len(arguments) == 2:
            first, second = arguments
            return lambda frame: function(first(frame), second(frame))
    steps = tuple(arguments)
    priced = overload.price.known is None

    def step(frame: Frame) -> Any:
        values = [argument(frame) for argument in steps]
        return _metered(frame, overload, values, priced=priced)

    return step


def _metered(frame: Frame, overload: Overload, values: Sequence[Any], *, priced: bool) -> Any:
    if overload.work is not None:
        toil(frame, overload.work(values))
    result = overload.call(*values)
    if overload.result_work is not None:
        toil(frame, overload.result_work(result))
    if priced:
        charge(frame, overload.price.actual(values, result))
    return result


def dispatch(name: str, overloads: Sequence[Overload], arguments: Sequence[Step]) -> Step:
    """A call whose overload depends on the values; remembered by their types, of which there are few."""
    steps = tuple(arguments)
    table = tuple(overloads)
    by_name = any(kind.kind is Kind.OPAQUE for overload in table for kind in overload.parameters)
    known: dict[tuple[type, ...], Overload] = {}

    def step(frame: Frame) -> Any:
        values = [argument(frame) for argument in steps]
        types = tuple(map(type, values))
        overload = known.get(types)
        if overload is None:
            overload = next((one for one in table if all(map(accepts, one.parameters, values))), None)
            if overload is None:
                raise no_such_overload(name, *values)
            if not by_name:
                known[types] = overload
        return _metered(frame, overload, values, priced=True)

    return step


def priced(function: Callable[[Any, Any], Any], price: Price, left: Step, right: Step, work: Any) -> Step:
    """A two-sided operator with a price by value."""

    def step(frame: Frame) -> Any:
        values = (left(frame), right(frame))
        if work is not None:
            toil(frame, work(values))
        charge(frame, price.actual(values, None))
        return function(*values)

    return step
