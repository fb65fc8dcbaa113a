"""Two answers, field by field, modulo what no two servers can have in common.

Identities, times, revisions, allocated addresses and generated name suffixes become placeholders. What still differs is
looked up in ``docs/known-differences.md``, the one place where a difference may be excused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from .peers import Answer

KNOWN = Path(__file__).parents[3] / "docs" / "known-differences.md"
ABSENT = "(absent)"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_AGE = re.compile(r"^(\d+[smh])+$")
_ADDRESS = re.compile(r"\b10\.0\.0\.\d+\b")
_GENERATED = re.compile(r"\bgen-[a-z0-9]{5}\b")
_VALUE = re.compile(r"^(\w+ value): (\[|map\[|&?[\w.]+\{|\{|0x)(?:.*)(: .*)$", re.DOTALL)
_SORTED_BY: dict[str, Callable[[Any], str]] = {
    "conditions": lambda one: str(one.get("type")),
    "items": lambda one: str((one.get("metadata") or {}).get("name")),
    "resources": lambda one: str(one.get("name") if isinstance(one, dict) else one),
    "resourceRules": json.dumps,
    "nonResourceRules": json.dumps,
    "verbs": str,
}
_BY_NAME = {
    "resourceVersion": "<revision>",
    "continue": "<continue>",
    "nodePort": "<port>",
    "healthCheckNodePort": "<port>",
}


class Difference(NamedTuple):
    """``path`` as in ``body.spec.ports[0].port``; a value that is missing is ``(absent)``."""

    case: str
    path: str
    real: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.case} | {self.path} | real: {_short(self.real)} | ours: {_short(self.ours)}"


def compare(case: str, real: Answer, ours: Answer) -> list[Difference]:
    """What differs. Answers of different status differ in that; their bodies are not looked at."""
    if real.status != ours.status:
        return [Difference(case, "status", _outcome(real), _outcome(ours))]
    if isinstance(real.body, dict) and isinstance(ours.body, dict):
        kinds = [(one.body.get("apiVersion"), one.body.get("kind")) for one in (real, ours)]
        if kinds[0] != kinds[1]:
            return [Difference(case, "body.kind", " ".join(map(str, kinds[0])), " ".join(map(str, kinds[1])))]
    found = []
    if bool(real.headers.get("Retry-After")) != bool(ours.headers.get("Retry-After")):
        found.append(Difference(case, "Retry-After", real.headers.get("Retry-After"), ours.headers.get("Retry-After")))
    return found + [Difference(case, *one) for one in differences("body", normal(real.body), normal(ours.body))]


def normal(value: Any, key: str = "") -> Any:
    """The value with placeholders for what is bound to differ, and without nulls, which mean nothing."""
    if isinstance(value, dict):
        made = {_UUID.sub("<uid>", name): normal(one, name) for name, one in value.items() if one is not None}
        if made.get("kind") == "Status":
            _normal_status(made)
        return made
    if isinstance(value, list):
        items = [normal(one) for one in value]
        if key == "managedFields":
            items = _by_manager(items)
        if key == "causes":
            return _by_field(items)
        if key in _SORTED_BY:
            items.sort(key=_SORTED_BY[key])
        return items
    if key in _BY_NAME and value not in (None, "", "0", 0):
        return _BY_NAME[key]
    if isinstance(value, str):
        for pattern, shown in ((_UUID, "<uid>"), (_TIME, "<time>"), (_ADDRESS, "<ip>"), (_GENERATED, "gen-<suffix>")):
            value = pattern.sub(shown, value)
        return "<age>" if not key and _AGE.match(value) else value
    return value


def _by_field(causes: list[Any]) -> dict[str, list[str]]:
    """The messages of each field: their order means nothing, and 1.20 gives some twice.

    A value that is no plain text or number is shown as Go writes it by 1.20, as JSON later; only the rest is compared.
    """
    found: dict[str, set[str]] = {}
    for one in causes:
        at = f"{one.get('field') or ''} {one.get('reason')}"
        found.setdefault(at, set()).add(_VALUE.sub(r"\1: <value>\3", str(one.get("message"))))
    return {at: sorted(messages) for at, messages in found.items()}


def _by_manager(entries: list[Any]) -> list[Any]:
    """What each manager owns, through whichever subresource: 1.20 did not tell those apart."""
    found: dict[tuple[str, str], Any] = {}
    for one in entries:
        at = (str(one.get("manager")), str(one.get("operation")))
        if at in found:
            found[at]["fieldsV1"] = _union(found[at]["fieldsV1"], one["fieldsV1"])
        else:
            found[at] = {name: part for name, part in one.items() if name != "subresource"}
    return [found[at] for at in sorted(found)]


def _union(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: _union(one.get(name, {}), other.get(name, {})) for name in one | other}


def _outcome(answer: Answer) -> str:
    message = answer.body.get("message") if isinstance(answer.body, dict) else ""
    return f"{answer.status} {message or ''}".strip()


def _normal_status(status: dict[str, Any]) -> None:
    """Empty details say nothing; the message of a refusal with causes repeats them, in an order nobody promises."""
    if not status.get("details"):
        status.pop("details", None)
    causes = (status.get("details") or {}).get("causes")
    if causes and isinstance(status.get("message"), str):
        status["message"] = status["message"].partition("is invalid: ")[0]


def differences(path: str, real: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(real, dict) and isinstance(ours, dict):
        for key in sorted(real.keys() | ours.keys()):
            yield from differences(f"{path}.{key}", real.get(key, ABSENT), ours.get(key, ABSENT))
    elif isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        for index, (theirs, mine) in enumerate(zip(real, ours, strict=True)):
            yield from differences(f"{path}[{index}]", theirs, mine)
    elif real != ours or isinstance(real, bool) != isinstance(ours, bool):
        yield path, real, ours


class Excuse(NamedTuple):
    """One row of the table: patterns, with ``*`` for anything, that a difference must match in all four."""

    case: str
    path: str
    real: str
    ours: str

    def covers(self, one: Difference) -> bool:
        return (
            _matches(one.case, self.case)
            and _matches(one.path, self.path)
            and _matches(_shown(one.real), self.real)
            and _matches(_shown(one.ours), self.ours)
        )


@dataclass(slots=True)
class Excuses:
    """What is excused, and which of it was ever needed."""

    rows: list[Excuse]
    used: set[Excuse] = field(default_factory=set)

    def remaining(self, found: list[Difference]) -> list[Difference]:
        """The differences nothing excuses."""
        left = []
        for one in found:
            covering = [row for row in self.rows if row.covers(one)]
            self.used.update(covering)
            if not covering:
                left.append(one)
        return left

    @property
    def unused(self) -> list[Excuse]:
        return [row for row in self.rows if row not in self.used]


def read_excuses(path: Path = KNOWN, first: str = "request") -> Excuses:
    """The rows of the tables whose first column is ``first``."""
    rows = []
    inside = False
    for line in path.read_text().splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        cells = [cell.replace("\\|", "|") for cell in cells]
        if cells[0].lower() == first:
            inside = True
        elif inside and not set(cells[0]) <= {"-", ":", " "}:
            rows.append(Excuse(*cells[:4]))
    return Excuses(rows)


def _matches(text: str, pattern: str) -> bool:
    """``*`` matches anything; nothing else is special."""
    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _short(value: Any) -> str:
    text = _shown(value)
    return text if len(text) <= 400 else text[:400] + "…"
