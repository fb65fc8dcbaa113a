"""Kubernetes' named formats: ``format.dns1123Label().validate(name)`` answers what is wrong, or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from fleetplane.model import names
from fleetplane.model.cel.cost import ONE, REGEX, TRAVERSAL, Estimate, Operand, Price, scaled
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.library.encoders import decode
from fleetplane.model.cel.library.times import parse_date, parse_timestamp
from fleetplane.model.cel.library.urls import parse_url
from fleetplane.model.cel.types import STRING, list_of, opaque, optional_of
from fleetplane.model.cel.values import NONE, Optional, some

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, eq=False)
class NamedFormat:
    """``pattern``: the length of the pattern it stands for, which prices it."""

    cel_type_name: ClassVar[str] = "kubernetes.NamedFormat"
    name: str
    problems: Callable[[str], Sequence[str]]
    pattern: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedFormat) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


def _of_prefix(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """A prefix of generated names may end with a dash."""
    return lambda text: check(text[:-2] + "a" if len(text) > 1 and text.endswith("-") else text)


def _parsing(parse: Callable[[str], Any], problem: str) -> Callable[[str], list[str]]:
    def problems(text: str) -> list[str]:
        try:
            parse(text)
        except CelError as error:
            return [problem or str(error)]
        return []

    return problems


def _uuid(text: str) -> list[str]:
    return [] if _UUID.fullmatch(text) else ["does not match the UUID format"]


FORMATS: Final[Mapping[str, NamedFormat]] = {
    one.name: one
    for one in (
        NamedFormat("dns1123Label", names.dns1123_label, 30),
        NamedFormat("dns1123Subdomain", names.dns1123_subdomain, 60),
        NamedFormat("dns1035Label", names.dns1035_label, 30),
        NamedFormat("qualifiedName", names.qualified_name, 60),
        NamedFormat("dns1123LabelPrefix", _of_prefix(names.dns1123_label), 30),
        NamedFormat("dns1123SubdomainPrefix", _of_prefix(names.dns1123_subdomain), 60),
        NamedFormat("dns1035LabelPrefix", _of_prefix(names.dns1035_label), 30),
        NamedFormat("labelValue", names.label_value, 40),
        NamedFormat("uri", _parsing(parse_url, ""), 128),
        NamedFormat("uuid", _uuid, 88),
        NamedFormat("byte", _parsing(decode, "invalid base64"), 70),
        NamedFormat("date", _parsing(parse_date, "invalid date"), 116),
        NamedFormat("datetime", _parsing(parse_timestamp, "invalid datetime"), 116),
    )
}


def named(name: str) -> Optional:
    found = FORMATS.get(name)
    return NONE if found is None else some(found)


def validate(form: NamedFormat, text: str) -> Optional:
    problems = form.problems(text)
    return some(list(problems)) if problems else NONE


_MAX_PATTERN: Final = 128


def _actual(arguments: Sequence[Any], _result: Any) -> int:
    return scaled(1 + len(arguments[1]), TRAVERSAL) * scaled(arguments[0].pattern, REGEX)


def _estimate(operands: Sequence[Operand]) -> Estimate:
    return Estimate(operands[1].size.scaled(TRAVERSAL).scaled(_MAX_PATTERN * REGEX).union(ONE))


FORMAT: Final = opaque("kubernetes.NamedFormat")


def _constant(form: NamedFormat) -> tuple[Overload, ...]:
    return (Overload(f"format.{form.name}", (), FORMAT, lambda: form),)


FUNCTIONS: Final[Functions] = {
    "format.named": (Overload("format-named", (STRING,), optional_of(FORMAT), named),),
    "validate": (
        Overload(
            "format-validate",
            (FORMAT, STRING),
            optional_of(list_of(STRING)),
            validate,
            member=True,
            price=Price(_actual, _estimate),
        ),
    ),
    **{f"format.{name}": _constant(form) for name, form in FORMATS.items()},
}
