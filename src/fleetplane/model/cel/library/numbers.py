"""cel-go's math library: ``math.greatest``, ``math.round``, ``math.bitAnd`` …"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from fleetplane.model.cel.cost import NOMINAL, WALK
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BOOL, DOUBLE, DYN, INT, UINT, Type, list_of, same
from fleetplane.model.cel.values import UINT_MAX, Uint, checked_int, compare

_NUMERIC: Final = (INT, UINT, DOUBLE)


def _best(sign: int, name: str) -> Callable[..., Any]:
    def best(*values: Any) -> Any:
        items: Sequence[Any] = values[0] if len(values) == 1 and type(values[0]) is list else values
        if not items:
            raise CelError(f"math.{name}(list) argument must not be empty")
        found = items[0]
        for item in items[1:]:
            if compare(item, found) == sign:
                found = item
        return found

    return best


def _extreme(name: str, sign: int) -> tuple[Overload, ...]:
    best = _best(sign, name)
    return (
        *(Overload(f"math_@{name}_{kind.name}", (kind,), kind, best) for kind in _NUMERIC),
        *(
            Overload(f"math_@{name}_{left.name}_{right.name}", (left, right), left if same(left, right) else DYN, best)
            for left in _NUMERIC
            for right in _NUMERIC
        ),
        *(Overload(f"math_@{name}_list_{kind.name}", (list_of(kind),), kind, best, price=WALK) for kind in _NUMERIC),
    )


def round_away(value: float) -> float:
    """To the nearest integer, halves away from zero."""
    if not math.isfinite(value) or abs(value) >= 2.0**52:
        return value
    whole = math.floor(abs(value))
    return math.copysign(whole + 1 if abs(value) - whole >= 0.5 else whole, value)


def _kept(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: math.copysign(float(function(value)), value) if math.isfinite(value) else value


def absolute(value: Any) -> Any:
    if type(value) is Uint:
        return value
    if type(value) is float:
        return abs(value)
    return checked_int(abs(value))


def sign(value: Any) -> Any:
    if type(value) is float:
        return value if math.isnan(value) else float((value > 0) - (value < 0))
    return type(value)((value > 0) - (value < 0))


def root(value: Any) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


def _shift(value: Any, places: int, move: Callable[[int, int], int]) -> Any:
    """On the 64 bits of the value; what leaves them is lost, and a right shift brings in zeros."""
    if places < 0:
        raise CelError(f"math.bitShift() negative offset: {places}")
    moved = 0 if places >= 64 else move(int(value) & UINT_MAX, places) & UINT_MAX
    return Uint(moved) if type(value) is Uint else _signed(moved)


def _signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


def _bits(name: str, function: Callable[[int, int], int]) -> tuple[Overload, ...]:
    def combine(left: Any, right: Any) -> Any:
        found = function(int(left), int(right))
        return Uint(found) if type(left) is Uint else found

    return tuple(Overload(f"math_{name}_{kind.name}_{kind.name}", (kind, kind), kind, combine) for kind in (INT, UINT))


def _of_doubles(name: str, result: Type, function: Callable[[float], Any]) -> tuple[Overload, ...]:
    return (Overload(f"math_{name}_double", (DOUBLE,), result, function, price=NOMINAL),)


def _of_numbers(name: str, function: Callable[[Any], Any], result: Type | None = None) -> tuple[Overload, ...]:
    return tuple(Overload(f"math_{name}_{kind.name}", (kind,), result or kind, function) for kind in _NUMERIC)


def _not(value: Any) -> Any:
    return Uint(~int(value) & UINT_MAX) if type(value) is Uint else ~value


def _left(value: Any, places: int) -> Any:
    return _shift(value, places, lambda bits, by: bits << by)


def _right(value: Any, places: int) -> Any:
    return _shift(value, places, lambda bits, by: bits >> by)


FUNCTIONS: Final[Functions] = {
    "math.greatest": _extreme("greatest", 1),
    "math.least": _extreme("least", -1),
    "math.ceil": _of_doubles("ceil", DOUBLE, _kept(math.ceil)),
    "math.floor": _of_doubles("floor", DOUBLE, _kept(math.floor)),
    "math.round": _of_doubles("round", DOUBLE, round_away),
    "math.trunc": _of_doubles("trunc", DOUBLE, _kept(math.trunc)),
    "math.isNaN": _of_doubles("isNaN", BOOL, math.isnan),
    "math.isInf": _of_doubles("isInf", BOOL, math.isinf),
    "math.isFinite": _of_doubles("isFinite", BOOL, math.isfinite),
    "math.abs": _of_numbers("abs", absolute),
    "math.sign": _of_numbers("sign", sign),
    "math.sqrt": _of_numbers("sqrt", root, DOUBLE),
    "math.bitAnd": _bits("bitAnd", lambda left, right: left & right),
    "math.bitOr": _bits("bitOr", lambda left, right: left | right),
    "math.bitXor": _bits("bitXor", lambda left, right: left ^ right),
    "math.bitNot": tuple(Overload(f"math_bitNot_{kind.name}", (kind,), kind, _not) for kind in (INT, UINT)),
    "math.bitShiftLeft": tuple(
        Overload(f"math_bitShiftLeft_{kind.name}_int", (kind, INT), kind, _left) for kind in (INT, UINT)
    ),
    "math.bitShiftRight": tuple(
        Overload(f"math_bitShiftRight_{kind.name}_int", (kind, INT), kind, _right) for kind in (INT, UINT)
    ),
}
