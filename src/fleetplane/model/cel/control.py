"""Steps that decide what to evaluate: ``&&``, ``||``, ``?:``, ``cel.bind``, ``optMap``, ``or``.

Each branch charges its own certain cost when it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.frame import COST, SOFT, Frame, Step, charge, over
from fleetplane.model.cel.values import NONE, Optional, no_such_overload, some


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
