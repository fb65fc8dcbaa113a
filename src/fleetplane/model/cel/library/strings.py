"""cel-go's string library: positions count characters, ranges that do not exist are errors, results are bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from fleetplane.model.cel.cost import (
    NOMINAL,
    TRAVERSAL,
    WALK,
    Estimate,
    Operand,
    Price,
    Range,
    resized,
    scaled,
    traversal,
)
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.library.formatting import format_text
from fleetplane.model.cel.types import DYN, INT, STRING, list_of
from fleetplane.model.cel.values import size_of, weight_within

_SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""What Unicode calls white space."""
_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_UPPER: Final = {lower: lower - 32 for lower in range(ord("a"), ord("z") + 1)}
_QUOTED: Final = str.maketrans(
    {
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
        "\\": "\\\\",
        '"': '\\"',
    }
)


def _out_of_range(position: int) -> CelError:
    return CelError(f"index out of range: {position}")


def char_at(text: str, position: int) -> str:
    if not 0 <= position <= len(text):
        raise _out_of_range(position)
    return text[position : position + 1]


def index_of(text: str, part: str, start: int = 0) -> int:
    if not part:
        return start
    if start < 0:
        raise _out_of_range(start)
    return text.find(part, start)


def last_index_of(text: str, part: str, start: int | None = None) -> int:
    """``start``: where the last match may begin."""
    if start is None:
        return text.rfind(part)
    if not part:
        return start
    if start < 0:
        raise _out_of_range(start)
    return text.rfind(part, 0, min(start, len(text)) + len(part)) if start < len(text) else -1


def replace(text: str, old: str, new: str, limit: int = -1) -> str:
    return text.replace(old, new, max(limit, -1) if limit < len(text) + 1 else -1)


def split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if separator:
        return text.split(separator, -1 if limit < 0 else min(limit - 1, len(text)))
    if limit < 0 or limit >= len(text):
        return list(text)
    return [*text[: limit - 1], text[limit - 1 :]]


def substring(text: str, start: int, end: int | None = None) -> str:
    if end is None:
        end = len(text)
        if not 0 <= start <= end:
            raise _out_of_range(start)
        return text[start:]
    if start > end:
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    if not 0 <= start <= len(text):
        raise _out_of_range(start)
    if end > len(text):
        raise _out_of_range(end)
    return text[start:end]


def quote(text: str) -> str:
    return f'"{text.translate(_QUOTED)}"'


def join(items: Sequence[str], separator: str = "") -> str:
    return separator.join(items)


def _replaced_size(operands: Sequence[Operand]) -> Range:
    """The size after a replacement, from the sizes of the text, of what is replaced and by what."""
    text, old, new = (operand.size for operand in operands[:3])
    kept_most, times_most = text.most, 0
    if old.least == 0:
        times_most = text.most + 1
    elif new.most > old.least:
        kept_most, times_most = 0, math.ceil(text.most / old.least)
    kept_least, times_least = text.least, 0
    if old.most == 0:
        times_least = text.least + 1
    elif old.most > new.least:
        kept_least, times_least = 0, math.ceil(text.least / old.most)
    return Range(times_least, times_most).times(new).plus(Range(kept_least, kept_most))


def _split_size(operands: Sequence[Operand]) -> Range:
    limit = operands[2].constant if len(operands) > 2 else None
    return Range(0, limit if isinstance(limit, int) and limit >= 0 else operands[0].size.most)


def _join_estimate(operands: Sequence[Operand]) -> Estimate:
    items = operands[0]
    size = items.size.times(items.element)
    if len(operands) > 1:
        size = size.plus(operands[1].size.times(Range(max(items.size.least - 1, 0), max(items.size.most - 1, 0))))
    return Estimate(size.scaled(TRAVERSAL), size)


_JOIN: Final = Price(lambda _arguments, result: scaled(size_of(result), 2 * TRAVERSAL), _join_estimate)
_ONE_WALK: Final = traversal(same_size=True)
_TWO_WALKS: Final = traversal(factor=2 * TRAVERSAL)
_REPLACE: Final = resized(_TWO_WALKS, _replaced_size)
_SPLIT: Final = resized(_TWO_WALKS, _split_size)
_QUOTE: Final = resized(traversal(), lambda operands: Range(operands[0].size.least + 2, operands[0].size.most * 2 + 2))
_FORMAT: Final = resized(NOMINAL, lambda operands: Range(0, operands[0].size.plus(operands[1].size).most))


def _replace_work(arguments: Sequence[Any]) -> int:
    text, old, new = arguments[:3]
    times = len(text) + 1 if not old else len(text) // len(old)
    return (len(text) + times * len(new)) // 10


def _format_work(arguments: Sequence[Any]) -> int:
    return len(arguments[0]) // 10 + weight_within(arguments[1], 10_000_000)


def _join_work(arguments: Sequence[Any]) -> int:
    items = arguments[0]
    separator = len(arguments[1]) if len(arguments) > 1 else 0
    return (sum(map(size_of, items)) + separator * len(items)) // 10


def _method(
    name: str, parameters: tuple[Any, ...], result: Any, call: Callable[..., Any], price: Price, work: Any = None
) -> Overload:
    return Overload(name, (STRING, *parameters), result, call, member=True, price=price, work=work)


_TEXTS: Final = list_of(STRING)

FUNCTIONS: Final[Functions] = {
    "charAt": (_method("string_char_at_int", (INT,), STRING, char_at, NOMINAL),),
    "indexOf": (
        _method("string_index_of_string", (STRING,), INT, index_of, WALK),
        _method("string_index_of_string_int", (STRING, INT), INT, index_of, WALK),
    ),
    "lastIndexOf": (
        _method("string_last_index_of_string", (STRING,), INT, last_index_of, WALK),
        _method("string_last_index_of_string_int", (STRING, INT), INT, last_index_of, WALK),
    ),
    "lowerAscii": (_method("string_lower_ascii", (), STRING, lambda text: text.translate(_LOWER), _ONE_WALK),),
    "upperAscii": (_method("string_upper_ascii", (), STRING, lambda text: text.translate(_UPPER), _ONE_WALK),),
    "replace": (
        _method("string_replace_string_string", (STRING, STRING), STRING, replace, _REPLACE, _replace_work),
        _method("string_replace_string_string_int", (STRING, STRING, INT), STRING, replace, _REPLACE, _replace_work),
    ),
    "split": (
        _method("string_split_string", (STRING,), _TEXTS, split, _SPLIT),
        _method("string_split_string_int", (STRING, INT), _TEXTS, split, _SPLIT),
    ),
    "substring": (
        _method("string_substring_int", (INT,), STRING, substring, _ONE_WALK),
        _method("string_substring_int_int", (INT, INT), STRING, substring, _ONE_WALK),
    ),
    "trim": (_method("string_trim", (), STRING, lambda text: text.strip(_SPACES), _ONE_WALK),),
    "reverse": (_method("string_reverse", (), STRING, lambda text: text[::-1], _ONE_WALK),),
    "format": (_method("string_format", (list_of(DYN),), STRING, format_text, _FORMAT, _format_work),),
    "strings.quote": (Overload("strings_quote", (STRING,), STRING, quote, price=_QUOTE),),
    "join": (
        Overload("list_join", (_TEXTS,), STRING, join, member=True, price=_JOIN, work=_join_work),
        Overload("list_join_string", (_TEXTS, STRING), STRING, join, member=True, price=_JOIN, work=_join_work),
    ),
}
