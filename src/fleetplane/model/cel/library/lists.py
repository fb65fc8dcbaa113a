"""Functions on lists: Kubernetes' ``isSorted``, ``sum``, ``min``, ``max``, ``indexOf``, ``lastIndexOf``, and cel-go's
``slice``, ``flatten``, ``sort``, ``sortBy``, ``distinct``, ``reverse``, ``first``, ``last`` and ``lists.range``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cmp_to_key
from itertools import pairwise
from typing import Any, Final

from fleetplane.model.cel.cost import NOMINAL, WALK, Estimate, Price, Range, resized
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.library.operators import add
from fleetplane.model.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    list_of,
    optional_of,
    parameter,
)
from fleetplane.model.cel.values import NONE, Duration, Uint, compare, equals, hash_key, some, type_name

MAX_RANGE: Final = 1_000_000

_COMPARABLE: Final = (BOOL, INT, UINT, DOUBLE, STRING, BYTES, DURATION, TIMESTAMP)
_SUMMABLE: Final = ((INT, 0), (UINT, Uint(0)), (DOUBLE, 0.0), (DURATION, Duration(0)))


def is_sorted(items: Sequence[Any]) -> bool:
    return all(compare(one, other) in {-1, 0} for one, other in pairwise(items))


def _summing(zero: Any) -> Callable[[Sequence[Any]], Any]:
    def total(items: Sequence[Any]) -> Any:
        result = items[0] if items else zero
        for item in items[1:]:
            result = add(result, item)
        return result

    return total


def smallest(items: Sequence[Any]) -> Any:
    return _extreme(items, -1, "min")


def largest(items: Sequence[Any]) -> Any:
    return _extreme(items, 1, "max")


def _extreme(items: Sequence[Any], sign: int, name: str) -> Any:
    if not items:
        raise CelError(f"{name} called on empty list")
    best = items[0]
    for item in items[1:]:
        if compare(item, best) == sign:
            best = item
    return best


def index_of(items: Sequence[Any], wanted: Any) -> int:
    return next((at for at, item in enumerate(items) if equals(item, wanted)), -1)


def last_index_of(items: Sequence[Any], wanted: Any) -> int:
    return next((at for at in range(len(items) - 1, -1, -1) if equals(items[at], wanted)), -1)


def part(items: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(items):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def flatten(items: Sequence[Any], depth: int = 1) -> list[Any]:
    if depth < 0:
        raise CelError("level must be non-negative")
    result = list(items)
    for _ in range(min(depth, 1000)):
        if not any(type(item) is list for item in result):
            break
        result = [inner for item in result for inner in (item if type(item) is list else (item,))]
    return result


def _ordered(items: Sequence[Any], keys: Sequence[Any]) -> list[Any]:
    if len({type_name(key) for key in keys}) > 1:
        raise CelError("list elements must have the same type")
    order = cmp_to_key(_strictly)
    places = sorted(range(len(items)), key=lambda at: order(keys[at]))
    return [items[at] for at in places]


def _strictly(left: Any, right: Any) -> int:
    found = compare(left, right)
    return 0 if found == 2 else found


def sort(items: Sequence[Any]) -> list[Any]:
    if items:
        compare(items[0], items[0])
    return _ordered(items, items)


def sort_by(items: Sequence[Any], keys: Sequence[Any]) -> list[Any]:
    if keys:
        compare(keys[0], keys[0])
    return _ordered(items, keys)


def distinct(items: Sequence[Any]) -> list[Any]:
    seen: set[Any] = set()
    odd: list[Any] = []
    result: list[Any] = []
    for item in items:
        key = hash_key(item)
        if key is not None:
            if key in seen:
                continue
            seen.add(key)
        elif any(equals(item, other) for other in odd):
            continue
        else:
            odd.append(item)
        result.append(item)
    return result


def up_to(count: int) -> list[int]:
    if count > MAX_RANGE:
        raise CelError(f"lists.range: at most {MAX_RANGE}")
    return list(range(count))


def _first(items: Sequence[Any]) -> Any:
    return some(items[0]) if items else NONE


def _last(items: Sequence[Any]) -> Any:
    return some(items[-1]) if items else NONE


def _length_work(arguments: Sequence[Any]) -> int:
    return len(arguments[0]) // 10


def _flatten_work(arguments: Sequence[Any]) -> int:
    total, level = 0, list(arguments[0])
    depth = arguments[1] if len(arguments) > 1 else 1
    while level and depth >= 0 and total < 1_000_000:
        total += len(level)
        level = [inner for item in level if type(item) is list for inner in item]
        depth -= 1
    return total // 10


def _square_work(arguments: Sequence[Any]) -> int:
    odd = sum(1 for item in arguments[0] if hash_key(item) is None)
    return len(arguments[0]) + odd * odd // 3


def _sort_work(arguments: Sequence[Any]) -> int:
    return len(arguments[0])


_A: Final = parameter("A")
_LIST: Final = list_of(_A)
_SAME: Final = resized(NOMINAL, lambda operands: Range(0, operands[0].size.most))
_RANGE: Final = Price(lambda _arguments, result: len(result), lambda _operands: Estimate(Range(1, MAX_RANGE)))


def _each(name: str, call: Callable[..., Any], *, boolean: bool = False) -> tuple[Overload, ...]:
    return tuple(
        Overload(f"list_{kind.name}_{name}", (list_of(kind),), BOOL if boolean else kind, call, member=True, price=WALK)
        for kind in _COMPARABLE
    )


FUNCTIONS: Final[Functions] = {
    "isSorted": _each("is_sorted", is_sorted, boolean=True),
    "min": _each("min", smallest),
    "max": _each("max", largest),
    "sum": tuple(
        Overload(f"list_{kind.name}_sum", (list_of(kind),), kind, _summing(zero), member=True, price=WALK)
        for kind, zero in _SUMMABLE
    ),
    "indexOf": (Overload("list_a_index_of_int", (_LIST, _A), INT, index_of, member=True, price=WALK),),
    "lastIndexOf": (Overload("list_a_last_index_of_int", (_LIST, _A), INT, last_index_of, member=True, price=WALK),),
    "slice": (Overload("list_slice", (_LIST, INT, INT), _LIST, part, member=True, price=_SAME, work=_length_work),),
    "flatten": (
        Overload("list_flatten", (list_of(_LIST),), _LIST, flatten, member=True, price=_SAME, work=_flatten_work),
        Overload(
            "list_flatten_int", (list_of(DYN), INT), list_of(DYN), flatten, member=True, price=_SAME, work=_flatten_work
        ),
    ),
    "sort": (Overload("list_sort", (_LIST,), _LIST, sort, member=True, price=_SAME, work=_sort_work),),
    "@sortByAssociatedKeys": (
        Overload("list_sort_by", (_LIST, list_of(parameter("K"))), _LIST, sort_by, price=_SAME, work=_sort_work),
    ),
    "distinct": (Overload("list_distinct", (_LIST,), _LIST, distinct, member=True, price=_SAME, work=_square_work),),
    "reverse": (
        Overload(
            "list_reverse", (_LIST,), _LIST, lambda items: items[::-1], member=True, price=_SAME, work=_length_work
        ),
    ),
    "first": (Overload("list_first", (_LIST,), optional_of(_A), _first, member=True),),
    "last": (Overload("list_last", (_LIST,), optional_of(_A), _last, member=True),),
    "lists.range": (Overload("lists_range", (INT,), list_of(INT), up_to, price=_RANGE),),
}
