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
    """Raises CelError when RE2 does not accept the pattern."""
    if len(pattern) > MAX_PATTERN:
        raise CelError("error parsing regexp: the pattern is too long")
    try:
        return re2.compile(pattern, _OPTIONS)
    except (re2.error, UnicodeError) as error:
        detail = error.args[0] if error.args else error
        shown = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
        raise CelError(f"error parsing regexp: {shown[:200]}") from None


def matches(text: str, pattern: str) -> bool:
    """Whether the pattern occurs anywhere in the text."""
    return compiled(pattern).search(text) is not None


def find(text: str, pattern: str) -> str:
    """The first match, or an empty string."""
    match = compiled(pattern).search(text)
    return "" if match is None else str(match.group())


def find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    """Matches that do not overlap; all of them when the limit is negative."""
    if limit == 0:
        return []
    found: list[str] = []
    for match in compiled(pattern).finditer(text):
        found.append(match.group())
        if len(found) == limit:
            break
    return found


def _work(arguments: Sequence[Any]) -> int:
    return len(arguments[0]) // 10


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
        ),
        Overload(
            "string_find_all_string_int",
            (STRING, STRING, INT),
            list_of(STRING),
            find_all,
            member=True,
            price=MATCHING,
            work=_work,
        ),
    ),
}
