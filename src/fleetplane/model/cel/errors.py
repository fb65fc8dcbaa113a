"""What can go wrong with an expression: it does not compile, it fails, or it costs too much.

No other exception leaves this package, whatever the expression and the data. A message never contains the data's values
beyond the key or index that was asked for, because messages reach clients and logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong with an expression; ``offset`` counts characters from its start."""

    offset: int
    message: str


class CelError(Exception):
    """An expression could not be evaluated: no such key, division by zero, no such overload …"""


class CelCostExceeded(Exception):
    """An evaluation was stopped at its cost limit or its deadline.

    Not a ``CelError``, so that ``||`` and ``exists`` cannot swallow it.
    """


class CelCompileError(Exception):
    """An expression is not valid; ``issues`` lists why, ``str()`` shows each with a caret under its place.

    The layout is cel-go's, which users of Kubernetes know::

        ERROR: <input>:1:5: undefined field 'replica'
         | self.replica > 1
         | ....^
    """

    def __init__(self, source: str, issues: Sequence[Issue]) -> None:
        super().__init__("\n".join(_shown(source, issue) for issue in issues))
        self.source = source
        self.issues = tuple(issues)


def position(source: str, offset: int) -> tuple[int, int]:
    """Line (from 1) and column (from 0) of a character."""
    before = source[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1)


def _shown(source: str, issue: Issue) -> str:
    line, column = position(source, issue.offset)
    text = source.split("\n")[line - 1].replace("\t", " ")
    dots = "".join("." if ord(character) < 0x7F else "．" for character in text[:column])  # noqa: RUF001 - wide dot
    caret = "^" if column >= len(text) or ord(text[column]) < 0x7F else "＾"  # noqa: RUF001 - wide caret
    return f"ERROR: <input>:{line}:{column + 1}: {issue.message}\n | {text}\n | {dots}{caret}"
