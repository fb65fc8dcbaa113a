"""Which objects are meant: label selectors and field selectors.

A selector is parsed once and asked many times (each watcher asks for each event), so it is immutable and keeps its
equality terms apart: those are compared as one set operation, the rest one by one. Equality terms are also what an
index can answer; see ``equality_terms``.

Grammar and wording follow apimachinery's ``labels`` and ``fields`` packages. Bad selectors raise ``ValueError`` with
the text a Kubernetes server would give after "unable to parse". Nothing here looks inside objects: whoever calls
``matches`` says what the labels or fields are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from fleetplane.model import names
from fleetplane.model.errors import FieldError


class Operator(StrEnum):
    """How a requirement compares; the value is how a selector string writes it."""

    EQUALS = "="
    NOT_EQUALS = "!="
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER_THAN = ">"
    LESS_THAN = "<"


class Requirement(NamedTuple):
    """One condition on one label; ``values`` are distinct and sorted."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.EQUALS | Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_EQUALS | Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
        number = _integer(value)
        if number is None:
            return False
        bound = int(self.values[0])
        return number > bound if self.operator is Operator.GREATER_THAN else number < bound

    def __str__(self) -> str:
        match self.operator:
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"
            case Operator.IN | Operator.NOT_IN:
                return f"{self.key} {self.operator.value} ({','.join(self.values)})"
        return f"{self.key}{self.operator.value}{self.values[0]}"


class LabelSelector:
    """All of ``requirements``, which stand sorted; none of them selects everything.

    ``LabelSelector.nothing()`` is what an absent structured selector means: it selects no object.
    """

    __slots__ = ("_equal", "_other", "is_nothing", "requirements")

    requirements: tuple[Requirement, ...]
    is_nothing: bool

    def __init__(self, requirements: Iterable[Requirement] = (), *, is_nothing: bool = False) -> None:
        self.requirements = tuple(sorted(requirements))
        self.is_nothing = is_nothing
        equal: dict[str, str] = {}
        other: list[Requirement] = []
        for one in self.requirements:
            if _is_equality(one) and one.key not in equal:
                equal[one.key] = one.values[0]
            else:
                other.append(one)
        self._equal = equal.items()
        self._other = tuple(other)

    @classmethod
    def nothing(cls) -> LabelSelector:
        return cls(is_nothing=True)

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """From the string form, such as ``app=web,tier in (a,b),!canary``. Raises ValueError."""
        return cls(_Parser(text).requirements())

    @classmethod
    def from_object(cls, selector: Mapping[str, Any] | None) -> LabelSelector:
        """From ``metav1.LabelSelector``: None selects nothing, an empty one everything. Raises ValueError."""
        if selector is None:
            return cls.nothing()
        found = [_checked(key, Operator.EQUALS, [value]) for key, value in (selector.get("matchLabels") or {}).items()]
        for expression in selector.get("matchExpressions") or []:
            written = str(expression.get("operator") or "")
            operator = _STRUCTURED.get(written)
            if operator is None:
                raise ValueError(f'"{written}" is not a valid label selector operator')
            found.append(_checked(str(expression.get("key") or ""), operator, expression.get("values") or []))
        return cls(found)

    @classmethod
    def from_labels(cls, labels: Mapping[str, str] | None) -> LabelSelector:
        """From a plain map, as a Service or ReplicationController carries it; an empty one selects everything."""
        return cls(Requirement(key, Operator.EQUALS, (value,)) for key, value in (labels or {}).items())

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.is_nothing or not self._equal <= labels.items():
            return False
        return all(one.matches(labels) for one in self._other)

    @property
    def is_everything(self) -> bool:
        return not self.requirements and not self.is_nothing

    def equality_terms(self) -> list[tuple[str, str]]:
        """(key, value) pairs all of which a match must have: what an index can look up."""
        return [(one.key, one.values[0]) for one in self.requirements if _is_equality(one)]

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    def __repr__(self) -> str:
        return "LabelSelector.nothing()" if self.is_nothing else f"LabelSelector.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelSelector):
            return NotImplemented
        return (self.requirements, self.is_nothing) == (other.requirements, other.is_nothing)

    def __hash__(self) -> int:
        return hash((self.requirements, self.is_nothing))


def validate_label_selector(selector: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    """What is wrong with a ``metav1.LabelSelector`` that stands at ``path`` of an object."""
    errors: list[FieldError] = []
    if selector is None:
        return errors
    for key, value in (selector.get("matchLabels") or {}).items():
        errors += [FieldError.invalid(f"{path}.matchLabels", key, wrong) for wrong in names.label_key(key)]
        errors += [FieldError.invalid(f"{path}.matchLabels", value, wrong) for wrong in names.label_value(value)]
    for index, expression in enumerate(selector.get("matchExpressions") or []):
        here = f"{path}.matchExpressions[{index}]"
        operator, values = expression.get("operator"), expression.get("values") or []
        if operator in {"In", "NotIn"}:
            if not values:
                detail = "must be specified when `operator` is 'In' or 'NotIn'"
                errors.append(FieldError.required(f"{here}.values", detail))
        elif operator in {"Exists", "DoesNotExist"}:
            if values:
                detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                errors.append(FieldError.forbidden(f"{here}.values", detail))
        else:
            errors.append(FieldError.invalid(f"{here}.operator", operator, "not a valid selector operator"))
        key = str(expression.get("key") or "")
        errors += [FieldError.invalid(f"{here}.key", key, wrong) for wrong in names.label_key(key)]
        for place, value in enumerate(values):
            wrong_values = names.label_value(value)
            errors += [FieldError.invalid(f"{here}.values[{place}]", value, wrong) for wrong in wrong_values]
    return errors


_STRUCTURED: Final[Mapping[str, Operator]] = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.DOES_NOT_EXIST,
}
_SET_BASED: Final = frozenset({Operator.IN, Operator.NOT_IN})
_EXISTENCE: Final = frozenset({Operator.EXISTS, Operator.DOES_NOT_EXIST})
_ORDERED: Final = frozenset({Operator.GREATER_THAN, Operator.LESS_THAN})

_INT64_DIGITS: Final = re.compile(r"[+-]?[0-9]{1,20}")
_INT64: Final = range(-(1 << 63), 1 << 63)


def _integer(text: str | None) -> int | None:
    """A decimal that fits int64, or None."""
    if text is None or not _INT64_DIGITS.fullmatch(text):
        return None
    number = int(text)
    return number if number in _INT64 else None


def _is_equality(one: Requirement) -> bool:
    return one.operator is Operator.EQUALS or (one.operator is Operator.IN and len(one.values) == 1)


def _checked(key: str, operator: Operator, values: Sequence[str]) -> Requirement:
    """A requirement whose parts are valid. Raises ValueError."""
    _check_key(key)
    if operator in _SET_BASED and not values:
        raise ValueError("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    if operator in _EXISTENCE and values:
        raise ValueError(
            f"values: Invalid value: {list(values)}: values set must be empty for exists and does not exist"
        )
    if operator in _ORDERED and _integer(values[0]) is None:
        raise ValueError(
            f"values[0]: Invalid value: \"{values[0]}\": for 'Gt', 'Lt' operators, the value must be an integer"
        )
    for index, value in enumerate(values):
        if wrong := names.label_value(value):
            raise ValueError(f'values[{index}][{key}]: Invalid value: "{value}": {"; ".join(wrong)}')
    return Requirement(key, operator, tuple(sorted(set(values))))


def _check_key(key: str) -> None:
    if wrong := names.label_key(key):
        raise ValueError(f'key: Invalid value: "{key}": {"; ".join(wrong)}')


_TOKEN: Final = re.compile(r"==|!=|[=!(),<>]|[^=!(),<>\s]+")
_SPECIAL: Final = frozenset({"==", "!=", "=", "!", "(", ")", ",", "<", ">"})
_END: Final = ""
_BINARY: Final[Mapping[str, Operator]] = {
    "in": Operator.IN,
    "notin": Operator.NOT_IN,
    "=": Operator.EQUALS,
    "==": Operator.EQUALS,
    "!=": Operator.NOT_EQUALS,
    ">": Operator.GREATER_THAN,
    "<": Operator.LESS_THAN,
}


def _is_word(word: str) -> bool:
    return word != _END and word not in _SPECIAL


class _Parser:
    """One pass over the words of a label selector; the end reads as the empty word."""

    def __init__(self, text: str) -> None:
        self._words: list[str] = [*_TOKEN.findall(text), _END]
        self._at = 0

    def _peek(self) -> str:
        return self._words[self._at]

    def _next(self) -> str:
        word = self._words[self._at]
        if word != _END:
            self._at += 1
        return word

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while (word := self._peek()) != _END:
            if not _is_word(word) and word != "!":
                raise ValueError(f"found '{word}', expected: !, identifier, or 'end of string'")
            found.append(self._requirement())
            word = self._next()
            if word == _END:
                break
            if word != ",":
                raise ValueError(f"found '{word}', expected: ',' or 'end of string'")
            following = self._peek()
            if not _is_word(following) and following != "!":
                raise ValueError(f"found '{following}', expected: identifier after ','")
        return found

    def _requirement(self) -> Requirement:
        try:
            negated = self._peek() == "!"
            if negated:
                self._next()
            key = self._next()
            if not _is_word(key):
                raise ValueError(f"found '{key}', expected: identifier")
            _check_key(key)
            if negated:
                return _checked(key, Operator.DOES_NOT_EXIST, [])
            if self._peek() in {_END, ","}:
                return _checked(key, Operator.EXISTS, [])
            written = self._next()
            operator = _BINARY.get(written)
            if operator is None:
                raise ValueError(f"found '{written}', expected: in, notin, =, ==, !=, gt, lt")
            return _checked(key, operator, self._set() if operator in _SET_BASED else [self._single()])
        except ValueError as error:
            raise ValueError(f"unable to parse requirement: {error}") from None

    def _single(self) -> str:
        if self._peek() in {_END, ","}:
            return ""
        word = self._next()
        if not _is_word(word):
            raise ValueError(f"found '{word}', expected: identifier")
        return word

    def _set(self) -> list[str]:
        """``(a,b)``; an empty place between commas or brackets is the empty value."""
        if (word := self._next()) != "(":
            raise ValueError(f"found '{word}' expected: '('")
        values: list[str] = []
        expected = "',', ')' or identifier"
        while True:
            word = self._next()
            if _is_word(word):
                values.append(word)
                word, expected = self._next(), "',' or ')'"
            elif word in {",", ")"}:
                values.append("")
            if word == ")":
                return values
            if word != ",":
                raise ValueError(f"found '{word}', expected: {expected}")
            expected = "',', or identifier"


class FieldRequirement(NamedTuple):
    """One condition on one field; an absent field has the empty value."""

    field: str
    value: str
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.field}{'!=' if self.negated else '='}{_escaped(self.value)}"


class FieldSelector(NamedTuple):
    """All of ``requirements``, in the order written; none of them selects everything."""

    requirements: tuple[FieldRequirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        r"""From ``metadata.name=a,status.phase!=Failed``; ``\,``, ``\=`` and ``\\`` escape. Raises ValueError."""
        found: list[FieldRequirement] = []
        for term in _split_terms(text):
            if not term:
                continue
            match = _FIELD_OPERATOR.search(term)
            if match is None:
                raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
            value = _unescaped(term[match.end() :])
            found.append(FieldRequirement(term[: match.start()], value, match.group() == "!="))
        return cls(tuple(found))

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(one.field, "") == one.value) is not one.negated for one in self.requirements)

    @property
    def is_everything(self) -> bool:
        return not self.requirements

    def fields(self) -> list[str]:
        """The fields that are asked for, so that a kind can refuse those it does not know."""
        return [one.field for one in self.requirements]

    def equality_terms(self) -> list[tuple[str, str]]:
        """(field, value) pairs all of which a match must have."""
        return [(one.field, one.value) for one in self.requirements if not one.negated]

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


_FIELD_OPERATOR: Final = re.compile("!=|==|=")
_FIELD_TERMS: Final = re.compile(r"(?:[^\\,]|\\.|\\$)*", re.DOTALL)


def _split_terms(text: str) -> list[str]:
    """At the commas that no backslash precedes."""
    terms: list[str] = []
    at = 0
    while at <= len(text):
        match = _FIELD_TERMS.match(text, at)
        end = match.end() if match else at
        terms.append(text[at:end])
        at = end + 1
    return terms


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _unescaped(value: str) -> str:
    if not any(one in value for one in "\\,="):
        return value
    plain: list[str] = []
    letters = iter(value)
    for letter in letters:
        if letter in ",=":
            raise ValueError(f"invalid field selector: unescaped character in value: {letter}")
        if letter == "\\":
            following = next(letters, "")
            if following not in {"\\", ",", "="}:
                raise ValueError(f"invalid field selector: invalid escape sequence: \\{following}")
            letter = following
        plain.append(letter)
    return "".join(plain)
