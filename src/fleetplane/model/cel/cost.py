"""What evaluating costs, in the units of cel-go: looking something up is 1, a character 0.1, making a list 10.

Every function has a ``Price`` with two sides that must agree: what one call did cost (``actual``, from its values) and
what a call may cost (``estimate``, from the sizes its arguments may have). The numbers are those of cel-go and of
Kubernetes' libraries, because an expression that a Kubernetes API server accepts must be accepted here, and the other
way round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fleetplane.model.cel.types import Kind, Type
from fleetplane.model.cel.values import size_of

UNBOUNDED: Final = 2**64 - 1

PER_CALL_LIMIT: Final = 1_000_000
"""Kubernetes' run-time limit of one evaluation."""
RUNTIME_BUDGET: Final = 10_000_000
"""Kubernetes' run-time budget of all expressions about one object (or one policy binding)."""
STATIC_LIMIT: Final = 10_000_000
"""Kubernetes' limit on the estimated cost of one expression, times how often its place may occur in an object."""
STATIC_CRD_LIMIT: Final = 100_000_000
"""Kubernetes' limit on the estimated cost of all expressions of one custom resource definition."""

LIST_COST: Final = 10
MAP_COST: Final = 30
STRUCT_COST: Final = 40
TRAVERSAL: Final = 0.1
REGEX: Final = 0.25


class Range(NamedTuple):
    """Least and most of a size or a cost; arithmetic saturates at ``UNBOUNDED``."""

    least: int
    most: int

    def plus(self, other: Range) -> Range:
        return Range(_capped(self.least + other.least), _capped(self.most + other.most))

    def times(self, other: Range) -> Range:
        return Range(_capped(self.least * other.least), _capped(self.most * other.most))

    def scaled(self, factor: float) -> Range:
        return Range(scaled(self.least, factor), scaled(self.most, factor))

    def union(self, other: Range) -> Range:
        return Range(min(self.least, other.least), max(self.most, other.most))


def _capped(value: int) -> int:
    return min(value, UNBOUNDED)


def scaled(size: int, factor: float) -> int:
    """A size times a factor, rounded up."""
    return _capped(math.ceil(size * factor))


def fixed(value: int) -> Range:
    return Range(value, value)


ZERO: Final = fixed(0)
ONE: Final = fixed(1)
UNKNOWN: Final = Range(0, UNBOUNDED)


class Operand(NamedTuple):
    """What is known of an argument before running: its type, its size, and the size of its elements."""

    type: Type
    size: Range
    element: Range
    constant: Any = None


class Estimate(NamedTuple):
    cost: Range
    size: Range | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """``actual(arguments, result)`` and ``estimate(operands)``; a method's target is its first argument.

    ``known`` is the price when it depends on nothing.
    """

    actual: Callable[[Sequence[Any], Any], int]
    estimate: Callable[[Sequence[Operand]], Estimate]
    known: int | None = None


def constant(cost: int) -> Price:
    return Price(lambda _arguments, _result: cost, lambda _operands: Estimate(fixed(cost)), known=cost)


NOMINAL: Final = constant(1)


def traversal(index: int = 0, factor: float = TRAVERSAL, *, same_size: bool = False) -> Price:
    """A walk over one string; ``same_size`` when the result is at most as long."""

    def estimate(operands: Sequence[Operand]) -> Estimate:
        size = operands[index].size
        return Estimate(size.scaled(factor), size if same_size else None)

    return Price(lambda arguments, _result: scaled(size_of(arguments[index]), factor), estimate)


def resized(price: Price, size: Callable[[Sequence[Operand]], Range]) -> Price:
    """The same price, with the size of the result."""
    return Price(
        price.actual, lambda operands: Estimate(price.estimate(operands).cost, size(operands)), known=price.known
    )


def _affix_estimate(operands: Sequence[Operand]) -> Estimate:
    return Estimate(operands[1].size.scaled(TRAVERSAL))


AFFIX: Final = Price(lambda arguments, _result: scaled(size_of(arguments[0]), TRAVERSAL), _affix_estimate)
"""startsWith and endsWith: estimated by what is looked for, charged by where."""


def _shorter_actual(arguments: Sequence[Any], _result: Any) -> int:
    return scaled(min(size_of(arguments[0]), size_of(arguments[1])), TRAVERSAL)


def _shorter_estimate(operands: Sequence[Operand]) -> Estimate:
    most = min(operands[0].size.most, operands[1].size.most)
    return Estimate(Range(1 if most > 0 else 0, most).scaled(TRAVERSAL))


SHORTER: Final = Price(_shorter_actual, _shorter_estimate)
"""Ordering two strings: as long as the shorter."""


def _equality_actual(arguments: Sequence[Any], _result: Any) -> int:
    if hasattr(arguments[0], "cel_type_name"):
        return 1
    return _shorter_actual(arguments, None)


def _equality_estimate(operands: Sequence[Operand]) -> Estimate:
    if operands[0].type.kind is Kind.OPAQUE:
        return Estimate(ONE)
    return _shorter_estimate(operands)


EQUALITY: Final = Price(_equality_actual, _equality_estimate)


def _concatenation_estimate(operands: Sequence[Operand]) -> Estimate:
    size = operands[0].size.plus(operands[1].size)
    return Estimate(size.scaled(TRAVERSAL), size)


CONCATENATION: Final = Price(
    lambda arguments, _result: scaled(size_of(arguments[0]) + size_of(arguments[1]), TRAVERSAL),
    _concatenation_estimate,
)
LIST_CONCATENATION: Final = resized(NOMINAL, lambda operands: operands[0].size.plus(operands[1].size))
IN_LIST: Final = Price(
    lambda arguments, _result: size_of(arguments[1]), lambda operands: Estimate(operands[1].size.scaled(1))
)


def _regex_estimate(operands: Sequence[Operand]) -> Estimate:
    text = operands[0].size.plus(ONE).scaled(TRAVERSAL)
    return Estimate(text.times(operands[1].size.scaled(REGEX)), Range(0, operands[0].size.most))


MATCHING: Final = Price(
    lambda arguments, _result: scaled(1 + size_of(arguments[0]), TRAVERSAL) * scaled(size_of(arguments[1]), REGEX),
    _regex_estimate,
)
CONTAINING: Final = Price(
    lambda arguments, _result: scaled(size_of(arguments[0]), TRAVERSAL) * scaled(size_of(arguments[1]), TRAVERSAL),
    lambda operands: Estimate(operands[0].size.scaled(TRAVERSAL).times(operands[1].size.scaled(TRAVERSAL))),
)


def walk_cost(value: Any) -> int:
    """The cost of visiting everything in a value: scalars 1, text by length."""
    total = 0
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            total += int(len(item.encode("utf-8", "replace")) * TRAVERSAL)
        elif isinstance(item, bytes):
            total += int(len(item) * TRAVERSAL)
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, Mapping):
            pending.extend(item.keys())
            pending.extend(item.values())
        else:
            total += 1
    return total


def _walk_estimate(operands: Sequence[Operand]) -> Estimate:
    target = operands[0]
    if target.type.kind is not Kind.LIST:
        return Estimate(target.size.scaled(TRAVERSAL))
    each = ONE
    if target.type.parameters[0].kind in {Kind.STRING, Kind.BYTES}:
        each = each.plus(target.element.scaled(TRAVERSAL))
    return Estimate(target.size.times(each))


WALK: Final = Price(lambda arguments, _result: walk_cost(arguments[0]), _walk_estimate)
"""sum, min, max, isSorted, indexOf …: one visit of each element."""
