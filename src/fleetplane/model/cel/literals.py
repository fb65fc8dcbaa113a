"""Literals that can never be right: a malformed duration, timestamp or regular expression is a compile-time error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fleetplane.model.cel.ast import Call, Literal
from fleetplane.model.cel.checked import Checked
from fleetplane.model.cel.errors import CelError, Issue
from fleetplane.model.cel.library.regex import compiled
from fleetplane.model.cel.library.times import parse_duration, parse_timestamp

_CHECKS: Final[dict[str, Callable[[str], Any]]] = {
    "duration": parse_duration,
    "timestamp": parse_timestamp,
    "matches": compiled,
}


def literal_issues(checked: Checked) -> list[Issue]:
    """What is wrong with the literal arguments of ``duration()``, ``timestamp()`` and ``matches()``."""
    issues: list[Issue] = []
    for node in checked.overloads:
        if not isinstance(node, Call) or node.function not in _CHECKS or not node.arguments:
            continue
        argument = node.arguments[-1]
        if not isinstance(argument, Literal) or not isinstance(argument.value, str):
            continue
        try:
            _CHECKS[node.function](argument.value)
        except CelError as error:
            issues.append(Issue(argument.offset, f"invalid {node.function} argument: {error}"))
    return issues
