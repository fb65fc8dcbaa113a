"""Kubernetes' semantic versions (semver.org 2.0.0): ``semver('1.2.3-rc.1')``, compared by precedence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from fleetplane.model.cel.cost import traversal
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BOOL, INT, STRING, opaque
from fleetplane.model.cel.values import UINT_MAX

_NUMBER: Final = r"(0|[1-9][0-9]{0,19})"
_VERSION: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """``precedence`` orders versions; build metadata has no part in it."""

    cel_type_name: ClassVar[str] = "kubernetes.Semver"
    cel_string: str
    precedence: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.precedence == other.precedence

    def __hash__(self) -> int:
        return hash(self.precedence)


def parse(text: str, normalize: bool = False) -> Version:
    """Raises CelError. ``normalize`` forgives a leading v, missing numbers and leading zeros."""
    if len(text) > _LONGEST:
        raise CelError("the version is too long")
    if normalize:
        text = _normalized(text)
    match = _VERSION.fullmatch(text)
    if match is None:
        raise CelError(f'"{text[:64]}" is no semantic version; write it like 1.2.3')
    numbers = tuple(int(number) for number in match.group(1, 2, 3))
    if max(numbers) > UINT_MAX:
        raise CelError("a number of the version is too large")
    return Version(text, (*numbers, *_release(match.group(4))))


def _release(text: str | None) -> tuple[Any, ...]:
    """A release comes after all its pre-releases; numbers come before words."""
    if text is None:
        return (1, ())
    identifiers: list[tuple[int, int, str]] = []
    for one in text.split("."):
        if not one or (one.isdigit() and len(one) > 1 and one[0] == "0") or (one.isdigit() and len(one) > 20):
            raise CelError("a part of the pre-release is empty or has leading zeros")
        identifiers.append((0, int(one), "") if one.isdigit() else (1, 0, one))
    return (0, tuple(identifiers))


def _normalized(text: str) -> str:
    parts = text.removeprefix("v").split(".", 2)
    for at, part in enumerate(parts):
        if len(part) > 1:
            stripped = part.lstrip("0")
            parts[at] = stripped if stripped and stripped[0] in "123456789" else f"0{stripped}"
    if len(parts) < 3:
        if "+" in parts[-1] or "-" in parts[-1]:
            raise CelError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def is_semver(text: str, normalize: bool = False) -> bool:
    try:
        parse(text, normalize)
    except CelError:
        return False
    return True


def compare(one: Version, other: Version) -> int:
    return (one.precedence > other.precedence) - (one.precedence < other.precedence)


SEMVER: Final = opaque("kubernetes.Semver")

FUNCTIONS: Final[Functions] = {
    "semver": (
        Overload("string_to_semver", (STRING,), SEMVER, parse, price=traversal()),
        Overload("string_bool_to_semver", (STRING, BOOL), SEMVER, parse, price=traversal()),
    ),
    "isSemver": (
        Overload("is_semver_string", (STRING,), BOOL, is_semver, price=traversal()),
        Overload("is_semver_string_bool", (STRING, BOOL), BOOL, is_semver, price=traversal()),
    ),
    "major": (Overload("semver_major", (SEMVER,), INT, lambda version: version.precedence[0], member=True),),
    "minor": (Overload("semver_minor", (SEMVER,), INT, lambda version: version.precedence[1], member=True),),
    "patch": (Overload("semver_patch", (SEMVER,), INT, lambda version: version.precedence[2], member=True),),
    "isGreaterThan": (
        Overload(
            "semver_is_greater_than", (SEMVER, SEMVER), BOOL, lambda one, other: compare(one, other) > 0, member=True
        ),
    ),
    "isLessThan": (
        Overload(
            "semver_is_less_than", (SEMVER, SEMVER), BOOL, lambda one, other: compare(one, other) < 0, member=True
        ),
    ),
    "compareTo": (Overload("semver_compare_to", (SEMVER, SEMVER), INT, compare, member=True),),
}
