"""CEL's values over plain JSON data.

What is what: ``int`` is a 64-bit int, ``Uint`` a uint, ``float`` a double, ``bool``, ``str``, ``bytes``, ``None`` are
themselves, ``list`` and ``dict`` hold CEL values, objects of a schema stay the raw JSON mapping. Only what JSON cannot
say has a class here: ``Uint``, ``Duration``, ``Timestamp``, ``Optional``, ``TypeValue``.

Python would confuse ``True`` with ``1``; ``equals`` and ``compare`` never do. Nothing here changes a value it was
given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.model.cel.errors import CelError

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
UINT_MAX: Final = 2**64 - 1
NANOS: Final = 1_000_000_000
TIMESTAMP_MIN: Final = -62_135_596_800 * NANOS
"""0001-01-01T00:00:00Z in nanoseconds since 1970."""
TIMESTAMP_MAX: Final = 253_402_300_800 * NANOS - 1
"""9999-12-31T23:59:59.999999999Z in nanoseconds since 1970."""


class Uint(int):
    """An unsigned 64-bit integer; equal to the int and the double of the same value."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A span of time in nanoseconds; 64 bits, as in Go."""

    nanos: int


@dataclass(frozen=True, slots=True, eq=False)
class Timestamp:
    """A moment, in nanoseconds since 1970 UTC; the offset (seconds east) only matters for printing."""

    nanos: int
    offset: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and self.nanos == other.nanos

    def __lt__(self, other: Timestamp) -> bool:
        return self.nanos < other.nanos

    def __le__(self, other: Timestamp) -> bool:
        return self.nanos <= other.nanos

    def __gt__(self, other: Timestamp) -> bool:
        return self.nanos > other.nanos

    def __ge__(self, other: Timestamp) -> bool:
        return self.nanos >= other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)


@dataclass(frozen=True, slots=True)
class Optional:
    """A value or its absence; ``NONE`` is the absent one."""

    present: bool
    value: Any = None


NONE: Final = Optional(present=False)


def some(value: Any) -> Optional:
    return Optional(present=True, value=value)


@dataclass(frozen=True, slots=True)
class TypeValue:
    """What ``type(x)`` returns; two are the same when their names are."""

    name: str


_TYPE_NAMES: Final[Mapping[type, str]] = {
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    type(None): "null_type",
    Duration: "google.protobuf.Duration",
    Timestamp: "google.protobuf.Timestamp",
    Optional: "optional_type",
    TypeValue: "type",
}


def type_name(value: Any) -> str:
    """The name of a value's run-time type, as ``type(value)`` prints it."""
    known = _TYPE_NAMES.get(type(value))
    if known is not None:
        return known
    return str(getattr(value, "cel_type_name", "map" if isinstance(value, Mapping) else "dyn"))


NUMBERS: Final = frozenset({int, Uint, float})
_SAME_TYPE_ONLY: Final = frozenset({str, bytes, bool, Duration, Timestamp, TypeValue, type(None)})
_ORDERED: Final = frozenset({str, bytes, bool, Duration, Timestamp})


def equals(left: Any, right: Any) -> bool:
    """CEL's ``==``: numbers by value across types, everything else only within its type; never an error."""
    kind, other = type(left), type(right)
    if kind is other:
        if kind is list:
            return len(left) == len(right) and all(map(equals, left, right))
        if kind is dict:
            return len(left) == len(right) and all(
                key in right and equals(value, right[key]) for key, value in left.items()
            )
        if kind is Optional:
            return left.present == right.present and equals(left.value, right.value)
        return bool(left == right)
    if kind in NUMBERS and other in NUMBERS:
        return bool(left == right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return len(left) == len(right) and all(key in right and equals(left[key], right[key]) for key in left)
    return False


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1; raises CelError when the two have no order. NaN answers 2: no comparison with it is true."""
    kind, other = type(left), type(right)
    if (kind is other and kind in _ORDERED) or (kind in NUMBERS and other in NUMBERS):
        if left < right:
            return -1
        if left > right:
            return 1
        return 0 if left == right else 2
    if kind is other and getattr(left, "cel_ordered", False):
        return -1 if left < right else 1 if left > right else 0
    raise no_such_overload()


def no_such_overload(function: str = "", *arguments: Any) -> CelError:
    """The error of a call whose arguments, at run time, no declaration fits."""
    if not function:
        return CelError("no such overload")
    return CelError(f"no such overload: {function}({', '.join(map(type_name, arguments))})")


def checked_int(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise CelError("integer overflow")


def checked_uint(value: int) -> Uint:
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise CelError("unsigned integer overflow")


def checked_duration(nanos: int) -> Duration:
    if INT_MIN <= nanos <= INT_MAX:
        return Duration(nanos)
    raise CelError("duration overflow")


def checked_timestamp(nanos: int, offset: int = 0) -> Timestamp:
    if TIMESTAMP_MIN <= nanos <= TIMESTAMP_MAX:
        return Timestamp(nanos, offset)
    raise CelError("timestamp overflow")


def size_of(value: Any) -> int:
    """What the cost model calls a value's size: characters, bytes, elements, entries; 1 for everything else."""
    if isinstance(value, (str, bytes, list, dict)):
        return len(value)
    if isinstance(value, Mapping):
        return len(value)
    sized = getattr(value, "cel_size", None)
    return sized if isinstance(sized, int) else 1


def weight_within(value: Any, most: int) -> int:
    """How many values a walk over this one visits, counted until it passes ``most``: the work of comparing it."""
    total = 0
    pending = [value]
    while pending and total <= most:
        item = pending.pop()
        kind = type(item)
        total += 1
        if kind is list:
            if len(item) > most:
                return len(item)
            pending.extend(item)
        elif kind is dict:
            if len(item) > most:
                return len(item)
            pending.extend(item.values())
        elif kind is str or kind is bytes:
            total += len(item) >> 6
        elif kind is Optional:
            pending.append(item.value)
    return total


def hash_key(value: Any) -> Any:
    """A key for sets and dictionaries that agrees with ``equals``, or None when there is none (containers, NaN)."""
    kind = type(value)
    if kind in NUMBERS:
        return None if value != value else ("number", value)  # noqa: PLR0124 - NaN
    if kind in _SAME_TYPE_ONLY:
        return (kind, value)
    return None


def is_zero(value: Any) -> bool:
    """Whether this is its type's zero value: false, 0, '', empty containers, null, zero duration."""
    if value is None or value is False:
        return True
    if isinstance(value, Optional):
        return not value.present
    if isinstance(value, Duration):
        return value.nanos == 0
    if isinstance(value, Timestamp):
        return value.nanos == TIMESTAMP_MIN
    if isinstance(value, (int, float)):
        return value == 0
    if isinstance(value, (str, bytes, list, Mapping)):
        return len(value) == 0
    return False
