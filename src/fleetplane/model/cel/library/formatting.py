"""``"%s is %d".format([name, age])``: printf for CEL values.

Clauses: ``%s`` anything, ``%d`` integers, ``%f`` and ``%e`` numbers (with a precision), ``%b`` ``%o`` ``%x`` ``%X``
in other bases, ``%%`` itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.times import show_duration, show_timestamp
from fleetplane.model.cel.values import Duration, Optional, Timestamp, TypeValue, type_name

MAX_PRECISION: Final = 1000
MAX_RESULT: Final = 10_000_000
"""Characters of a formatted text."""
_CLAUSE: Final = re.compile(r"%(?:\.([0-9]*))?(.)", re.DOTALL)


def format_text(template: str, arguments: Sequence[Any]) -> str:
    """Raises CelError for an unknown clause, a missing argument or one of the wrong type."""
    pieces: list[str] = []
    length = at = used = 0
    while (start := template.find("%", at)) >= 0:
        pieces.append(template[at:start])
        match = _CLAUSE.match(template, start)
        if match is None:
            raise CelError("could not parse formatting clause: unexpected end of string")
        at = match.end()
        if match.group() == "%%":
            pieces.append("%")
            continue
        if used >= len(arguments):
            raise CelError(f"index {used} out of range")
        pieces.append(_clause(match, arguments[used]))
        used += 1
        length += len(pieces[-1])
        if length > MAX_RESULT:
            raise CelError("the formatted text is too long")
    pieces.append(template[at:])
    return "".join(pieces)


def _clause(match: re.Match[str], value: Any) -> str:
    verb = match.group(2)
    precision = 6
    if match.group(1) is not None:
        if not match.group(1) or len(match.group(1)) > 4 or int(match.group(1)) > MAX_PRECISION:
            raise CelError(f"could not parse formatting clause: its precision must be within 0 and {MAX_PRECISION}")
        precision = int(match.group(1))
    match verb:
        case "s":
            return shown(value)
        case "d":
            return _decimal(value)
        case "f" | "e":
            return _floating(value, precision, verb)
        case "b" | "o" | "x" | "X":
            return _in_base(value, verb)
    raise CelError(f'could not parse formatting clause: unrecognized formatting clause "{verb}"')


def shown(value: Any) -> str:
    """Any value as ``%s`` prints it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(int(value))
        case float():
            return plain_double(value)
        case bytes():
            return value.decode("utf-8", "replace")
        case list():
            return _bounded(f"[{', '.join(map(shown, value))}]")
        case Timestamp():
            return show_timestamp(value)
        case Duration():
            return show_duration(value)
        case TypeValue():
            return value.name
        case Optional():
            return f"optional({shown(value.value)})" if value.present else "optional.none()"
        case Mapping():
            entries = sorted((shown(key), shown(item)) for key, item in value.items())
            return _bounded("{" + ", ".join(f"{key}: {item}" for key, item in entries) + "}")
    text = getattr(value, "cel_string", None)
    if isinstance(text, str):
        return text
    raise CelError(
        "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, "
        f"types, durations, and timestamps, was given {type_name(value)}"
    )


def _bounded(text: str) -> str:
    if len(text) > MAX_RESULT:
        raise CelError("the formatted text is too long")
    return text


def plain_double(value: float) -> str:
    """Shortest digits, never an exponent."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = format(Decimal(repr(value)), "f")
    return text[:-2] if text.endswith(".0") else text


def _special(value: Any) -> str | None:
    if isinstance(value, str) and value in {"NaN", "Infinity", "-Infinity"}:
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return plain_double(value)
    return None


def _decimal(value: Any) -> str:
    special = _special(value)
    if special is not None:
        return special
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong("decimal", "integers", value)
    return str(int(value))


def _floating(value: Any, precision: int, verb: str) -> str:
    special = _special(value)
    if special is not None:
        return special
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        clause = "fixed-point" if verb == "f" else "scientific"
        raise _wrong(clause, "doubles", value)
    return f"{float(value):.{precision}{verb}}"


def _in_base(value: Any, verb: str) -> str:
    if isinstance(value, bool) and verb == "b":
        return "1" if value else "0"
    if isinstance(value, int) and not isinstance(value, bool):
        return format(int(value), verb)
    if verb in "xX" and isinstance(value, (str, bytes)):
        raw = value.encode("utf-8", "replace") if isinstance(value, str) else value
        return raw.hex() if verb == "x" else raw.hex().upper()
    names = {"b": ("binary", "integers and bools"), "o": ("octal", "integers")}
    clause, wanted = names.get(verb, ("hex", "integers, byte buffers, and strings"))
    raise _wrong(clause, wanted, value)


def _wrong(clause: str, wanted: str, value: Any) -> CelError:
    return CelError(
        f"error during formatting: {clause} clause can only be used on {wanted}, was given {type_name(value)}"
    )
