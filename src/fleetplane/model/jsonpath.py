"""JSONPath as kubectl and CRDs speak it, compiled.

``JsonPath`` is one path (a printer column, a selectable field, ``kubectl wait --for=jsonpath``); ``Template`` is text
with paths in braces and ``{range}`` … ``{end}`` (``kubectl get -o jsonpath``). A path never fails on an object: what is
not there is not found. It fails at parse time, as ``ValueError``.

The language is kubectl's: ``.a.b``, ``['a.b']``, ``[0]``, ``[-1]``, ``[1:9:2]``, ``[*]``, ``..``, unions ``[0,2]`` and
``['a','b']``, filters ``[?(@.type=="Ready")]``; ``$`` and ``@`` both mean the current object, and ``\\.`` is a dot in a
name. There are no scripts and no logical operators, so nothing here can run code; what recursion can multiply is
bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

_MAX_LENGTH: Final = 16_384
_MAX_NODES: Final = 200_000
_MAX_DEPTH: Final = 32


class Field(NamedTuple):
    name: str


class Wildcard(NamedTuple):
    pass


class Recursive(NamedTuple):
    """The node and everything below it."""


class Index(NamedTuple):
    at: int


class Slice(NamedTuple):
    start: int | None
    stop: int | None
    step: int


class Union(NamedTuple):
    branches: tuple[Steps, ...]


class Literal(NamedTuple):
    value: Any


class Filter(NamedTuple):
    """Keeps the items for which ``left operator right`` holds, or where ``left`` finds anything."""

    left: Steps | Literal
    operator: str
    right: Steps | Literal | None


Step = Field | Wildcard | Recursive | Index | Slice | Union | Filter
Steps = tuple[Step, ...]


class JsonPath:
    """One compiled path. ``names`` is set when the path is fields only, so that callers can look it up directly."""

    __slots__ = ("_steps", "names", "text")

    text: str
    names: tuple[str, ...] | None

    def __init__(self, text: str, steps: Steps) -> None:
        self.text = text
        self._steps = steps
        fields = tuple(step.name for step in steps if isinstance(step, Field))
        self.names = fields if len(fields) == len(steps) else None

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """From ``{.a.b}``, ``.a.b``, ``$.a.b`` or ``a.b``. Raises ValueError."""
        inner = text.strip()
        if inner.startswith("{"):
            if not inner.endswith("}"):
                raise ValueError(f"unclosed action in the JSONPath {text!r}: close it with '}}'")
            inner = inner[1:-1]
        return cls(text, _Parser(inner).whole_path())

    def find(self, obj: Any) -> list[Any]:
        """Every value the path leads to, in the object's order; empty when there is none."""
        if self.names is None:
            return _walk(self._steps, [obj])
        for name in self.names:
            if type(obj) is not dict or name not in obj:
                return []
            obj = obj[name]
        return [obj]

    def __repr__(self) -> str:
        return f"JsonPath.parse({self.text!r})"


class Range(NamedTuple):
    steps: Steps
    body: tuple[Part, ...]


Part = str | JsonPath | Range


class Template:
    """Text with paths in braces, as ``kubectl get -o jsonpath=…`` takes it."""

    __slots__ = ("_parts", "text")

    text: str

    def __init__(self, text: str, parts: tuple[Part, ...]) -> None:
        self.text = text
        self._parts = parts

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ValueError."""
        if len(text) > _MAX_LENGTH:
            raise ValueError(f"the JSONPath template is too long: keep it under {_MAX_LENGTH} characters")
        actions = iter(_actions(text))
        return cls(text, _parts(actions, depth=0))

    def render(self, obj: Any) -> str:
        """The text; several values of one path are separated by a space, structures are JSON."""
        return "".join(_rendered(self._parts, obj))


def printed(value: Any) -> str:
    """One value as kubectl prints it: strings bare, everything else as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _rendered(parts: tuple[Part, ...], obj: Any) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, JsonPath):
            yield " ".join(map(printed, part.find(obj)))
        else:
            for item in _walk(part.steps, [obj]):
                yield from _rendered(part.body, item)


# --- Evaluation ---------------------------------------------------------------------------------------------------


def _walk(steps: Steps, nodes: list[Any]) -> list[Any]:
    for step in steps:
        nodes = list(islice(_take(step, nodes), _MAX_NODES + 1))
        if len(nodes) > _MAX_NODES:
            raise ValueError("the JSONPath matches too many values: make it more specific")
    return nodes


def _take(step: Step, nodes: list[Any]) -> Iterator[Any]:
    match step:
        case Field(name):
            return (node[name] for node in nodes if type(node) is dict and name in node)
        case Index(at):
            return (node[at] for node in nodes if type(node) is list and -len(node) <= at < len(node))
        case Slice(start, stop, stride):
            return (item for node in nodes if type(node) is list for item in node[start:stop:stride])
        case Filter():
            return (item for node in nodes for item in _children(node) if _holds(step, item))
        case Union(branches):
            return (found for branch in branches for found in _walk(branch, nodes))
        case Wildcard():
            return (item for node in nodes for item in _children(node))
        case Recursive():
            return _descendants(nodes)


def _children(node: Any) -> Iterator[Any]:
    if type(node) is dict:
        return iter(node.values())
    return iter(node) if type(node) is list else iter(())


def _descendants(nodes: list[Any]) -> Iterator[Any]:
    stack = nodes[::-1]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(list(_children(node))))


_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def _holds(condition: Filter, item: Any) -> bool:
    left = _operand(condition.left, item)
    if condition.right is None:
        return bool(left)
    right = _operand(condition.right, item)
    if not left or not right or not _comparable(left[0], right[0]):
        return False
    return _COMPARE[condition.operator](left[0], right[0])


def _operand(side: Steps | Literal, item: Any) -> list[Any]:
    return [side.value] if isinstance(side, Literal) else _walk(side, [item])


def _comparable(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return type(left) is type(right)
    if isinstance(left, int | float):
        return isinstance(right, int | float)
    return isinstance(left, str) and isinstance(right, str)


# --- Parsing ------------------------------------------------------------------------------------------------------


_NAME: Final = re.compile(r"(?:\\.|[^\s.,\[\]$@{}()=!<>'\"*\\])+", re.DOTALL)
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,18}(\.[0-9]{1,18})?")
_SLICE: Final = re.compile(r"\s*([-+]?[0-9]{1,9})?\s*:\s*([-+]?[0-9]{1,9})?\s*(?::\s*([-+]?[0-9]{1,9})?\s*)?(?=[,\]])")
_INDEX: Final = re.compile(r"\s*([-+]?[0-9]{1,9})\s*(?=[,\]])")
_COMPARISON: Final = re.compile(r"==|!=|<=|>=|<|>")
_SPACE: Final = re.compile(r"\s*")
_WORDS: Final = {"true": True, "false": False}
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r"}


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text


class _Parser:
    """Reads one path from left to right."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_LENGTH:
            raise ValueError(f"the JSONPath is too long: keep it under {_MAX_LENGTH} characters")
        self.text = text
        self.at = 0
        self.depth = 0

    def fail(self, expected: str) -> ValueError:
        return ValueError(f"invalid JSONPath {self.text!r}: expected {expected} at position {self.at}")

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def accept(self, literal: str) -> bool:
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def whole_path(self) -> Steps:
        self.take(_SPACE)
        steps = self.path()
        self.take(_SPACE)
        if self.at != len(self.text):
            raise self.fail("the end of the path")
        return steps

    def path(self) -> Steps:
        steps: list[Step] = []
        if not (self.accept("$") or self.accept("@")) and (name := self.take(_NAME)):
            steps.append(Field(_unescaped(name.group())))
        while True:
            if self.accept(".."):
                steps.append(Recursive())
                if name := self.take(_NAME):
                    steps.append(Field(_unescaped(name.group())))
                elif self.accept("*"):
                    steps.append(Wildcard())
            elif self.accept("."):
                if self.accept("*"):
                    steps.append(Wildcard())
                elif name := self.take(_NAME):
                    steps.append(Field(_unescaped(name.group())))
                elif not self.text.startswith("[", self.at) and self.text[self.at :].strip():
                    raise self.fail("a field name")
            elif self.accept("["):
                steps.append(self.bracket())
            else:
                return tuple(steps)

    def bracket(self) -> Step:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"invalid JSONPath: brackets nest deeper than {_MAX_DEPTH}")
        members = [self.member()]
        while self.accept(","):
            members.append(self.member())
        if not self.accept("]"):
            raise self.fail("']'")
        self.depth -= 1
        if len(members) == 1 and len(members[0]) == 1:
            return members[0][0]
        return Union(tuple(members))

    def member(self) -> Steps:
        """One of the things between the commas; Steps, because it may be a path."""
        self.take(_SPACE)
        is_path = self.text[self.at : self.at + 1] in {".", "$", "@"}
        found = self.path() if is_path else (self.selector(),)
        self.take(_SPACE)
        return found

    def selector(self) -> Step:
        if self.accept("*"):
            return Wildcard()
        if quoted := self.take(_QUOTED):
            return Field(_unescaped(quoted.group()[1:-1]))
        if index := self.take(_INDEX):
            return Index(int(index.group(1)))
        if bounds := self.take(_SLICE):
            start, stop, step = (None if part is None else int(part) for part in bounds.groups())
            if step is not None and step < 1:
                raise self.fail("a positive step")
            return Slice(start, stop, step or 1)
        if self.accept("?("):
            return self.condition()
        raise self.fail("an index, a slice, a quoted name, '*' or '?('")

    def condition(self) -> Filter:
        left = self.operand()
        self.take(_SPACE)
        operator, right = "", None
        if comparison := self.take(_COMPARISON):
            operator = comparison.group()
            right = self.operand()
            self.take(_SPACE)
        if not self.accept(")"):
            raise self.fail("a comparison or ')'")
        return Filter(left, operator, right)

    def operand(self) -> Steps | Literal:
        self.take(_SPACE)
        if quoted := self.take(_QUOTED):
            return Literal(_unescaped(quoted.group()[1:-1]))
        if number := self.take(_NUMBER):
            return Literal(float(number.group()) if number.group(1) else int(number.group()))
        for word, value in _WORDS.items():
            if self.accept(word):
                return Literal(value)
        if self.text[self.at : self.at + 1] not in {".", "$", "@", "["}:
            raise self.fail("a path, a quoted text or a number")
        return self.path()


def _actions(text: str) -> Iterator[tuple[bool, str]]:
    """The template cut into (is it in braces, text); braces inside quotes do not count."""
    at = 0
    while at < len(text):
        start = text.find("{", at)
        if start < 0:
            yield False, text[at:]
            return
        if start > at:
            yield False, text[at:start]
        end = start + 1
        while end < len(text) and text[end] != "}":
            quoted = _QUOTED.match(text, end)
            end = quoted.end() if quoted else end + 1
        if end >= len(text):
            raise ValueError(f"unclosed action in the template {text!r}: close it with '}}'")
        yield True, text[start + 1 : end].strip()
        at = end + 1


def _parts(actions: Iterator[tuple[bool, str]], depth: int) -> tuple[Part, ...]:
    """Everything up to the ``{end}`` of this range, or to the end of the template."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"invalid template: ranges nest deeper than {_MAX_DEPTH}")
    parts: list[Part] = []
    for is_action, text in actions:
        if not is_action:
            parts.append(text)
        elif text == "end":
            if not depth:
                raise ValueError("invalid template: {end} without {range}")
            return tuple(parts)
        elif text == "range" or text.startswith(("range ", "range\t")):
            parts.append(Range(_Parser(text[len("range") :]).whole_path(), _parts(actions, depth + 1)))
        elif quoted := _QUOTED.fullmatch(text):
            parts.append(_text(quoted.group()[1:-1]))
        else:
            parts.append(JsonPath(text, _Parser(text).whole_path()))
    if depth:
        raise ValueError("invalid template: {range} without {end}")
    return tuple(parts)


def _text(quoted: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match.group(1), match.group(1)), quoted)
