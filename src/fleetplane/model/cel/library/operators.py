"""The operators, as functions: ``_+_``, ``_<_``, ``@in``, ``_[_]`` …

The interpreter has faster forms of the most common ones; these serve operands whose type is known only at run time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from fleetplane.model.cel.cost import (
    CONCATENATION,
    EQUALITY,
    IN_LIST,
    LIST_CONCATENATION,
    NOMINAL,
    SHORTER,
    Price,
)
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    Type,
    list_of,
    map_of,
    optional_of,
    parameter,
)
from fleetplane.model.cel.values import (
    NONE,
    Duration,
    Optional,
    Timestamp,
    Uint,
    checked_duration,
    checked_int,
    checked_timestamp,
    checked_uint,
    compare,
    equals,
    no_such_overload,
    some,
    weight_within,
)

_KEYS: Final = frozenset({bool, int, Uint, float, str})


def add(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return checked_int(left + right)
    if kind is float and other is float:
        return left + right
    if kind is str and other is str:
        return left + right
    if kind is Uint and other is Uint:
        return checked_uint(int(left) + int(right))
    if (kind is bytes and other is bytes) or (kind is list and other is list):
        return left + right
    if kind is Duration and other is Duration:
        return checked_duration(left.nanos + right.nanos)
    if kind is Timestamp and other is Duration:
        return checked_timestamp(left.nanos + right.nanos, left.offset)
    if kind is Duration and other is Timestamp:
        return checked_timestamp(left.nanos + right.nanos, right.offset)
    raise no_such_overload("_+_", left, right)


def subtract(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return checked_int(left - right)
    if kind is float and other is float:
        return left - right
    if kind is Uint and other is Uint:
        return checked_uint(int(left) - int(right))
    if kind is Duration and other is Duration:
        return checked_duration(left.nanos - right.nanos)
    if kind is Timestamp and other is Duration:
        return checked_timestamp(left.nanos - right.nanos, left.offset)
    if kind is Timestamp and other is Timestamp:
        return checked_duration(left.nanos - right.nanos)
    raise no_such_overload("_-_", left, right)


def multiply(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is int and other is int:
        return checked_int(left * right)
    if kind is float and other is float:
        return left * right
    if kind is Uint and other is Uint:
        return checked_uint(int(left) * int(right))
    raise no_such_overload("_*_", left, right)


def divide(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is int and other is int:
        if right == 0:
            raise CelError("division by zero")
        quotient = abs(left) // abs(right)
        return checked_int(quotient if (left < 0) == (right < 0) else -quotient)
    if kind is float and other is float:
        return divide_doubles(left, right)
    if kind is Uint and other is Uint:
        if right == 0:
            raise CelError("division by zero")
        return Uint(int(left) // int(right))
    raise no_such_overload("_/_", left, right)


def divide_doubles(left: float, right: float) -> float:
    """IEEE 754 division: by zero it answers an infinity or NaN, never an error."""
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def modulo(left: Any, right: Any) -> Any:
    kind, other = type(left), type(right)
    if kind is int and other is int:
        if right == 0:
            raise CelError("modulus by zero")
        remainder = abs(left) % abs(right)
        return -remainder if left < 0 else remainder
    if kind is Uint and other is Uint:
        if right == 0:
            raise CelError("modulus by zero")
        return Uint(int(left) % int(right))
    raise no_such_overload("_%_", left, right)


def negate(value: Any) -> Any:
    if type(value) is int:
        return checked_int(-value)
    if type(value) is float:
        return -value
    raise no_such_overload("-_", value)


def not_(value: Any) -> bool:
    if value is True:
        return False
    if value is False:
        return True
    raise no_such_overload("!_", value)


def less(left: Any, right: Any) -> bool:
    return compare(left, right) == -1


def less_equal(left: Any, right: Any) -> bool:
    return compare(left, right) in {-1, 0}


def greater(left: Any, right: Any) -> bool:
    return compare(left, right) == 1


def greater_equal(left: Any, right: Any) -> bool:
    return compare(left, right) in {0, 1}


def contained(needle: Any, haystack: Any) -> bool:
    if type(haystack) is list:
        return any(equals(needle, item) for item in haystack)
    if isinstance(haystack, Mapping):
        return lookup(haystack, needle) is not NONE
    raise no_such_overload("@in", needle, haystack)


def lookup(mapping: Mapping[Any, Any], key: Any) -> Any:
    """The value wrapped in an optional, or NONE. Numbers find keys of the same value; booleans only booleans.

    Raises CelError for what can never be a key.
    """
    if type(key) is not str:
        if type(key) not in _KEYS:
            raise no_such_overload("@in", key, mapping)
        if any((type(known) is bool) != (type(key) is bool) for known in islice(mapping, 1)):
            return NONE
    return some(mapping[key]) if key in mapping else NONE


def index(container: Any, key: Any) -> Any:
    if type(container) is list:
        return container[position(container, key)]
    if isinstance(container, Mapping):
        found = lookup(container, key)
        if found is NONE:
            raise no_such_key(key)
        return found.value
    if type(container) is Optional:
        return optional_index(container, key)
    raise no_such_overload("_[_]", container, key)


def position(items: Sequence[Any], key: Any) -> int:
    """The Python index of a CEL index (an int, or another number of an integer's value)."""
    if type(key) is not int:
        if type(key) is not Uint and not (type(key) is float and key.is_integer()):
            raise no_such_overload("_[_]", items, key)
        key = int(key)
    if 0 <= key < len(items):
        return int(key)
    raise CelError(f"index out of bounds: {key}")


def no_such_key(key: Any) -> CelError:
    shown = key if isinstance(key, str) else repr(key).removesuffix("()")
    return CelError(f"no such key: {shown[:256]}")


def optional_index(container: Any, key: Any) -> Optional:
    if type(container) is Optional:
        if not container.present:
            return NONE
        container = container.value
    if type(container) is list:
        try:
            return some(container[position(container, key)])
        except CelError:
            return NONE
    if isinstance(container, Mapping):
        found: Optional = lookup(container, key)
        return found
    raise no_such_overload("_[?_]", container, key)


def _equality_work(arguments: Sequence[Any]) -> int:
    return weight_within(arguments[0], 10_000_000) // 3


def _in_work(arguments: Sequence[Any]) -> int:
    return weight_within(arguments[1], 10_000_000) // 3


def _list_work(arguments: Sequence[Any]) -> int:
    return (len(arguments[0]) + len(arguments[1])) // 10


_NUMERIC: Final = ((INT, "int64"), (UINT, "uint64"), (DOUBLE, "double"))
_COMPARABLE: Final = (
    (BOOL, "bool", NOMINAL),
    (INT, "int64", NOMINAL),
    (UINT, "uint64", NOMINAL),
    (DOUBLE, "double", NOMINAL),
    (STRING, "string", SHORTER),
    (BYTES, "bytes", SHORTER),
    (TIMESTAMP, "timestamp", NOMINAL),
    (DURATION, "duration", NOMINAL),
)
_A: Final = parameter("A")
_B: Final = parameter("B")
_LIST: Final = list_of(_A)
_MAP: Final = map_of(_A, _B)


def _comparison(verb: str, call: Callable[[Any, Any], bool]) -> tuple[Overload, ...]:
    alike = [Overload(f"{verb}_{name}", (kind, kind), BOOL, call, price=price) for kind, name, price in _COMPARABLE]
    mixed = [
        Overload(f"{verb}_{left_name}_{right_name}", (left, right), BOOL, call)
        for left, left_name in _NUMERIC
        for right, right_name in _NUMERIC
        if left is not right
    ]
    return (*alike, *mixed)


def _arithmetic(verb: str, call: Callable[..., Any], *kinds: Type, price: Price = NOMINAL) -> tuple[Overload, ...]:
    return tuple(Overload(f"{verb}_{kind.name}", (kind, kind), kind, call, price=price) for kind in kinds)


FUNCTIONS: Final[Functions] = {
    # Only its types matter: the interpreter evaluates one branch.
    "_?_:_": (Overload("conditional", (BOOL, _A, _A), _A, lambda test, one, other: one if test else other),),
    "_+_": (
        *_arithmetic("add", add, INT, UINT, DOUBLE),
        *_arithmetic("add", add, STRING, BYTES, price=CONCATENATION),
        Overload("add_list", (_LIST, _LIST), _LIST, add, price=LIST_CONCATENATION, work=_list_work),
        Overload("add_duration_duration", (DURATION, DURATION), DURATION, add),
        Overload("add_timestamp_duration", (TIMESTAMP, DURATION), TIMESTAMP, add),
        Overload("add_duration_timestamp", (DURATION, TIMESTAMP), TIMESTAMP, add),
    ),
    "_-_": (
        *_arithmetic("subtract", subtract, INT, UINT, DOUBLE),
        Overload("subtract_duration_duration", (DURATION, DURATION), DURATION, subtract),
        Overload("subtract_timestamp_duration", (TIMESTAMP, DURATION), TIMESTAMP, subtract),
        Overload("subtract_timestamp_timestamp", (TIMESTAMP, TIMESTAMP), DURATION, subtract),
    ),
    "_*_": _arithmetic("multiply", multiply, INT, UINT, DOUBLE),
    "_/_": _arithmetic("divide", divide, INT, UINT, DOUBLE),
    "_%_": _arithmetic("modulo", modulo, INT, UINT),
    "-_": (
        Overload("negate_int64", (INT,), INT, negate),
        Overload("negate_double", (DOUBLE,), DOUBLE, negate),
    ),
    "!_": (Overload("logical_not", (BOOL,), BOOL, not_),),
    "_==_": (Overload("equals", (_A, _A), BOOL, equals, price=EQUALITY, work=_equality_work),),
    "_!=_": (
        Overload(
            "not_equals",
            (_A, _A),
            BOOL,
            lambda left, right: not equals(left, right),
            price=EQUALITY,
            work=_equality_work,
        ),
    ),
    "_<_": _comparison("less", less),
    "_<=_": _comparison("less_equals", less_equal),
    "_>_": _comparison("greater", greater),
    "_>=_": _comparison("greater_equals", greater_equal),
    "@in": (
        Overload("in_list", (_A, _LIST), BOOL, contained, price=IN_LIST, work=_in_work),
        Overload("in_map", (_A, _MAP), BOOL, contained),
    ),
    "_[_]": (
        Overload("index_list", (_LIST, INT), _A, index),
        Overload("index_map", (_MAP, _A), _B, index),
        Overload("optional_list_index_int", (optional_of(_LIST), INT), optional_of(_A), optional_index),
        Overload("optional_map_index_value", (optional_of(_MAP), _A), optional_of(_B), optional_index),
    ),
    "_[?_]": (
        Overload("list_optindex_optional_int", (_LIST, INT), optional_of(_A), optional_index),
        Overload("optional_list_optindex_optional_int", (optional_of(_LIST), INT), optional_of(_A), optional_index),
        Overload("map_optindex_optional_value", (_MAP, _A), optional_of(_B), optional_index),
        Overload("optional_map_optindex_optional_value", (optional_of(_MAP), _A), optional_of(_B), optional_index),
    ),
}
