"""Which step serves a call: the fastest that is right for the types the checker found.

A node is ``Compiled`` to a step and a certain cost, which was not charged yet.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from fleetplane.model.cel import calls, operations
from fleetplane.model.cel.cost import EQUALITY, NOMINAL
from fleetplane.model.cel.fields import literal
from fleetplane.model.cel.frame import Step
from fleetplane.model.cel.library import operators
from fleetplane.model.cel.library.declarations import Overload
from fleetplane.model.cel.schema_lists import has_merging, is_merging, merge, typed_equality
from fleetplane.model.cel.types import Kind, Type
from fleetplane.model.cel.values import hash_key, weight_within

_ABSENT: Final = object()
_NATIVE_KINDS: Final = frozenset({Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.TIMESTAMP, Kind.DURATION, Kind.BOOL})
_TEXT: Final = frozenset({Kind.STRING, Kind.BYTES})
_SAME_IN_PYTHON: Final = _NATIVE_KINDS | _TEXT
_UNCERTAIN: Final = frozenset({Kind.DYN, Kind.ERROR, Kind.PARAMETER, Kind.NULL})


class Compiled(NamedTuple):
    """``constant``: the value when it is known already."""

    step: Step
    cost: int
    constant: Any = _ABSENT

    @property
    def is_constant(self) -> bool:
        return self.constant is not _ABSENT


def constant(value: Any) -> Compiled:
    return Compiled(literal(value), 0, value)


def operator(name: str, arguments: list[Compiled], kinds: list[Type]) -> Compiled | None:
    """The fast form of an operator, if there is one for operands of these types."""
    if name == "!_":
        return Compiled(operations.negate_bool(arguments[0].step), arguments[0].cost + 1)
    if len(arguments) != 2:
        return None
    left, right = arguments
    kind = kinds[0].kind if kinds[0].kind is kinds[1].kind else None
    cost = left.cost + right.cost
    if name in operations.NATIVE and kind in _SAME_IN_PYTHON:
        return _comparison(name, kind, left, right)
    if name in {"_==_", "_!=_"} and has_merging(kinds[0]):
        return _schema_equality(name, left, right, kinds[0])
    if name == "_+_" and is_merging(kinds[0]):
        merged = merge(kinds[0])
        return Compiled(calls.priced(merged, NOMINAL, left.step, right.step, _list_work), cost)
    if kind is Kind.INT and name in _INT_STEPS:
        return Compiled(_INT_STEPS[name](left.step, right.step), cost + 1)
    if name == "_+_" and kind in _TEXT:
        return Compiled(operations.join_texts(left.step, right.step), cost)
    if name == "@in":
        return _in(left, right, kinds)
    if any(one.kind in _UNCERTAIN for one in kinds):
        return _anything(name, left, right)
    return None


def _comparison(name: str, kind: Kind | None, left: Compiled, right: Compiled) -> Compiled:
    native = operations.NATIVE[name]
    cost = left.cost + right.cost
    if kind not in _TEXT:
        return Compiled(native(left.step, right.step), cost + 1)
    constant = left if left.is_constant else right
    if constant.is_constant and len(constant.constant) <= 10:
        return Compiled(native(left.step, right.step), cost + (1 if constant.constant else 0))
    return Compiled(operations.compare_texts(operations.COMPARISONS[name], left.step, right.step), cost)


def _anything(name: str, left: Compiled, right: Compiled) -> Compiled | None:
    """Operators on values whose types only show at run time."""
    cost = left.cost + right.cost + 1
    if name in {"_==_", "_!=_"}:
        return Compiled(operations.equal_anything(left.step, right.step, negated=name == "_!=_"), cost)
    if name in _ORDERINGS:
        native = operations.COMPARISONS[name]
        return Compiled(operations.compare_anything(_ORDERINGS[name], native, name, left.step, right.step), cost)
    if name == "_+_":
        return Compiled(operations.add_anything(left.step, right.step), cost)
    if name in _ARITHMETIC:
        return Compiled(operations.binary(_ARITHMETIC[name], left.step, right.step), cost)
    return None


_ORDERINGS: Final = {
    "_<_": operators.less,
    "_<=_": operators.less_equal,
    "_>_": operators.greater,
    "_>=_": operators.greater_equal,
}
_ARITHMETIC: Final = {
    "_-_": operators.subtract,
    "_*_": operators.multiply,
    "_/_": operators.divide,
    "_%_": operators.modulo,
}


def _list_work(values: tuple[Any, Any]) -> int:
    return (len(values[0]) + len(values[1])) // 10


def _schema_equality(name: str, left: Compiled, right: Compiled, kind: Type) -> Compiled:
    equal = typed_equality(kind)
    function = equal if name == "_==_" else lambda one, other: not equal(one, other)
    return Compiled(calls.priced(function, EQUALITY, left.step, right.step, _first_work), left.cost + right.cost)


def _first_work(values: tuple[Any, Any]) -> int:
    return weight_within(values[0], 10_000_000) // 3


def _in(left: Compiled, right: Compiled, kinds: list[Type]) -> Compiled | None:
    if right.is_constant and isinstance(right.constant, list):
        keys = [hash_key(item) for item in right.constant]
        if None not in keys:
            return Compiled(operations.member_of(left.step, frozenset(keys), hash_key), left.cost)
    cost = left.cost + right.cost
    if kinds[0].kind is Kind.STRING and kinds[1].kind is Kind.LIST:
        return Compiled(operations.text_in_list(left.step, right.step), cost)
    if kinds[0].kind is Kind.STRING and kinds[1].kind is Kind.MAP:
        return Compiled(operations.key_in_map(left.step, right.step), cost + 1)
    if any(kind.kind in _UNCERTAIN for kind in kinds):
        return Compiled(operations.in_anything(left.step, right.step), cost)
    return None


def general(name: str, overloads: tuple[Overload, ...], arguments: list[Compiled], kinds: list[Type]) -> Compiled:
    cost = sum(argument.cost for argument in arguments)
    parts = [argument.step for argument in arguments]
    if len(overloads) == 1 and not any(kind.kind in _UNCERTAIN for kind in kinds):
        (overload,) = overloads
        return Compiled(calls.call(overload, parts), cost + (overload.price.known or 0))
    return Compiled(calls.dispatch(name, overloads, parts), cost)


_INT_STEPS: Final = {"_+_": operations.add_ints, "_-_": operations.subtract_ints, "_*_": operations.multiply_ints}
