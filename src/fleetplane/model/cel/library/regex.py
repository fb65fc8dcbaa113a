"""Regular expressions with RE2's semantics, and Kubernetes' ``find`` and ``findAll``.

Python's own ``re`` takes exponential time on hostile patterns, so patterns run in RE2 itself (google-re2), which is
linear and bounded in memory, and whose syntax is the one Go documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import re2  # type: ignore[import-untyped]

from fleetplane.model.cel.cost import MATCHING
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import INT, STRING, list_of

MAX_PATTERN: Final = 10_000
"""Characters; RE2 would take more, but nobody writes them."""


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 4 << 20
    return options


_OPTIONS: Final = _options()


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """The pattern over UTF-8. Raises CelError when RE2 does not accept it."""
    if len(pattern) > MAX_PATTERN:
        raise CelError("error parsing regexp: the pattern is too long")
    try:
        return re2.compile(pattern.encode(), _OPTIONS)
    except (re2.error, UnicodeError) as error:
        detail = error.args[0] if error.args else error
        shown = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        raise CelError(f"error parsing regexp: {shown[:200]}") from None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def matches(text: str, pattern: str) -> bool:
    """Whether the pattern occurs anywhere in the text."""
    return compiled(pattern).search(_encoded(text)) is not None


def find(text: str, pattern: str) -> str:
    """The first match, or an empty string."""
    match = compiled(pattern).search(_encoded(text))
    return "" if match is None else bytes(match.group()).decode("utf-8", "replace")


def find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    """Matches that do not overlap; all of them when the limit is negative.

    As in Go, an empty match right behind another match does not count; nor does one within a character.
    """
    if limit == 0:
        return []
    found: list[str] = []
    data = _encoded(text)
    last = -1
    for match in compiled(pattern).finditer(data):
        start, end = match.span()
        if start == end and (start == last or (start < len(data) and data[start] & 0xC0 == 0x80)):
            continue
        last = end
        found.append(data[start:end].decode("utf-8", "replace"))
        if len(found) == limit:
            break
    return found


def _work(arguments: Sequence[Any]) -> int:
    return len(arguments[0]) // 10


def _result_work(result: Any) -> int:
    return len(result)


FUNCTIONS: Final[Functions] = {
    "find": (Overload("string_find_string", (STRING, STRING), STRING, find, member=True, price=MATCHING),),
    "findAll": (
        Overload(
            "string_find_all_string",
            (STRING, STRING),
            list_of(STRING),
            find_all,
            member=True,
            price=MATCHING,
            work=_work,
            result_work=_result_work,
        ),
        Overload(
            "string_find_all_string_int",
            (STRING, STRING, INT),
            list_of(STRING),
            find_all,
            member=True,
            price=MATCHING,
            work=_work,
            result_work=_result_work,
        ),
    ),
}
