"""Conversions between types, ``size``, ``type`` and the string tests of the standard library."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from fleetplane.model.cel.cost import AFFIX, CONTAINING, MATCHING, Range, resized, traversal
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library import regex
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.library.times import parse_duration, parse_timestamp, show_duration, show_timestamp
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
    map_of,
    parameter,
    type_of,
)
from fleetplane.model.cel.values import (
    NANOS,
    Duration,
    Timestamp,
    TypeValue,
    Uint,
    checked_int,
    checked_timestamp,
    checked_uint,
    type_name,
)

_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER: Final = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?|[+-]?(?:inf(?:inity)?|nan)", re.I
)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def to_int(value: Any) -> int:
    match value:
        case bool():
            pass
        case int():
            return checked_int(int(value))
        case float():
            if not math.isfinite(value) or not -(2.0**63) < value < 2.0**63:
                raise CelError("integer overflow")
            return int(value)
        case str():
            return checked_int(_parsed(value, "int"))
        case Timestamp():
            return value.nanos // NANOS
        case Duration():
            return value.nanos
    raise _impossible(value, "int")


def to_uint(value: Any) -> Uint:
    match value:
        case bool():
            pass
        case int():
            return checked_uint(int(value))
        case float():
            if not math.isfinite(value) or not 0 <= value < 2.0**64:
                raise CelError("unsigned integer overflow")
            return Uint(value)
        case str():
            return checked_uint(_parsed(value, "uint"))
    raise _impossible(value, "uint")


def _parsed(text: str, target: str) -> int:
    if _DECIMAL.fullmatch(text) is None or (target == "uint" and text[0] in "+-"):
        raise CelError(f"type conversion error from 'string' to '{target}': it is not a decimal number")
    return int(text)


def to_double(value: Any) -> float:
    match value:
        case bool():
            pass
        case int() | float():
            return float(value)
        case str():
            if len(value) > 1000 or _NUMBER.fullmatch(value) is None:
                raise CelError("type conversion error from 'string' to 'double': it is not a number")
            return float(value)
    raise _impossible(value, "double")


def to_bool(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    if isinstance(value, str) and value in _TRUE:
        return True
    if isinstance(value, str) and value in _FALSE:
        return False
    raise _impossible(value, "bool")


def to_string(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            return show_double(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None
        case Timestamp():
            return show_timestamp(value)
        case Duration():
            return show_duration(value)
    shown = getattr(value, "cel_string", None)
    if isinstance(shown, str):
        return shown
    raise _impossible(value, "string")


def show_double(value: float) -> str:
    """As Go prints it (``%g``): shortest digits, an exponent below 1e-4 and from 1e6 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    mantissa, _, exponent = repr(value).partition("e")
    sign = "-" if mantissa[0] == "-" else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or "0") - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    scientific = point - 1
    if scientific < -4 or scientific >= 6:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{'-' if scientific < 0 else '+'}{abs(scientific):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits.ljust(point, "0")
    return f"{sign}{digits[:point]}.{digits[point:]}"


def to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if isinstance(value, bytes):
        return value
    raise _impossible(value, "bytes")


def to_timestamp(value: Any) -> Timestamp:
    if isinstance(value, Timestamp):
        return value
    if isinstance(value, str):
        return parse_timestamp(value)
    if type(value) is int:
        return checked_timestamp(value * NANOS)
    raise _impossible(value, "timestamp")


def to_duration(value: Any) -> Duration:
    if isinstance(value, Duration):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    if type(value) is int:
        return Duration(value)
    raise _impossible(value, "duration")


def _impossible(value: Any, target: str) -> CelError:
    return CelError(f"type conversion error from '{type_name(value)}' to '{target}'")


def _same(value: Any) -> Any:
    return value


_A: Final = parameter("A")
_B: Final = parameter("B")
_TO_BYTES: Final = resized(traversal(), lambda operands: Range(operands[0].size.least, operands[0].size.most * 4))
_FROM_BYTES: Final = resized(traversal(), lambda operands: Range(operands[0].size.least // 4, operands[0].size.most))
_SIZED: Final = (("string", STRING), ("bytes", BYTES), ("list", list_of(_A)), ("map", map_of(_A, _B)))

FUNCTIONS: Final[Functions] = {
    "int": tuple(
        Overload(f"{kind.name}_to_int64", (kind,), INT, to_int) for kind in (INT, UINT, DOUBLE, STRING, TIMESTAMP)
    ),
    "uint": tuple(Overload(f"{kind.name}_to_uint64", (kind,), UINT, to_uint) for kind in (UINT, INT, DOUBLE, STRING)),
    "double": tuple(
        Overload(f"{kind.name}_to_double", (kind,), DOUBLE, to_double) for kind in (DOUBLE, INT, UINT, STRING)
    ),
    "bool": tuple(Overload(f"{kind.name}_to_bool", (kind,), BOOL, to_bool) for kind in (BOOL, STRING)),
    "string": (
        *(
            Overload(f"{kind.name}_to_string", (kind,), STRING, to_string)
            for kind in (STRING, BOOL, INT, UINT, DOUBLE, TIMESTAMP, DURATION)
        ),
        Overload("bytes_to_string", (BYTES,), STRING, to_string, price=_FROM_BYTES),
    ),
    "bytes": (
        Overload("bytes_to_bytes", (BYTES,), BYTES, to_bytes),
        Overload("string_to_bytes", (STRING,), BYTES, to_bytes, price=_TO_BYTES),
    ),
    "timestamp": tuple(
        Overload(f"{kind.name}_to_timestamp", (kind,), TIMESTAMP, to_timestamp) for kind in (TIMESTAMP, STRING, INT)
    ),
    "duration": tuple(
        Overload(f"{kind.name}_to_duration", (kind,), DURATION, to_duration) for kind in (DURATION, STRING, INT)
    ),
    "dyn": (Overload("to_dyn", (_A,), DYN, _same),),
    "type": (Overload("type", (_A,), type_of(_A), lambda value: TypeValue(type_name(value))),),
    "size": (
        *(Overload(f"size_{name}", (kind,), INT, len) for name, kind in _SIZED),
        *(Overload(f"{name}_size", (kind,), INT, len, member=True) for name, kind in _SIZED),
    ),
    "contains": (
        Overload(
            "contains_string", (STRING, STRING), BOOL, lambda text, part: part in text, member=True, price=CONTAINING
        ),
    ),
    "startsWith": (Overload("starts_with_string", (STRING, STRING), BOOL, str.startswith, member=True, price=AFFIX),),
    "endsWith": (Overload("ends_with_string", (STRING, STRING), BOOL, str.endswith, member=True, price=AFFIX),),
    "matches": (
        Overload("matches", (STRING, STRING), BOOL, regex.matches, price=MATCHING),
        Overload("matches_string", (STRING, STRING), BOOL, regex.matches, member=True, price=MATCHING),
    ),
}
