"""The tree an expression is parsed into.

Macros are nodes of their own here (``Comprehension``, ``Bind``, ``OptionalMap``) instead of being expanded into a
general fold: they are checked, priced and compiled directly, which is both faster and easier to read. Nodes compare by
identity, so that the checker can note a type for each.

Operators are calls under their CEL names (``_+_``, ``_[_]``, ``!_`` …); ``offset`` is where a message should point.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    offset: int
    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Ident:
    offset: int
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Select:
    """``operand.name``; ``operand.?name`` when optional; ``has(operand.name)`` when test_only."""

    offset: int
    operand: Expr
    name: str
    optional: bool = False
    test_only: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    offset: int
    function: str
    arguments: tuple[Expr, ...]
    target: Expr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Logic:
    """``a && b && …`` or ``a || b || …``, kept flat so that long chains stay shallow; ``offsets`` of the operators."""

    offset: int
    is_and: bool
    operands: tuple[Expr, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ListLiteral:
    """``optional`` holds the indices of elements written ``?element``."""

    offset: int
    elements: tuple[Expr, ...]
    optional: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    offset: int
    key: Expr
    value: Expr
    optional: bool


@dataclass(frozen=True, slots=True, eq=False)
class MapLiteral:
    offset: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FieldInit:
    offset: int
    name: str
    value: Expr
    optional: bool


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """``type_name{field: value}``."""

    offset: int
    type_name: str
    fields: tuple[FieldInit, ...]


class Fold(Enum):
    ALL = "all"
    EXISTS = "exists"
    EXISTS_ONE = "exists_one"
    LIST = "list"
    MAP = "map"
    MAP_ENTRY = "map_entry"


@dataclass(frozen=True, slots=True, eq=False)
class Comprehension:
    """A macro that visits the elements of ``range``.

    ``variables`` holds one name (element, or key of a map) or two (index and element, or key and value).
    ``body`` is the predicate of ALL, EXISTS and EXISTS_ONE, and what is collected by the others; ``condition`` is the
    filter of the collecting ones.
    """

    offset: int
    fold: Fold
    range: Expr
    variables: tuple[str, ...]
    condition: Expr | None
    body: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Bind:
    """``cel.bind(name, value, body)``."""

    offset: int
    name: str
    value: Expr
    body: Expr


@dataclass(frozen=True, slots=True, eq=False)
class OptionalMap:
    """``target.optMap(name, body)``; ``optFlatMap`` when flat."""

    offset: int
    target: Expr
    name: str
    body: Expr
    flat: bool


Expr: TypeAlias = (
    Literal | Ident | Select | Call | Logic | ListLiteral | MapLiteral | Struct | Comprehension | Bind | OptionalMap
)
