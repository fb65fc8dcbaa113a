"""What would change, as a person reads it: a unified diff of two states as YAML.

Fields that the server alone keeps (revisions, times, who owns what, status) are left out: they always differ and nobody
wrote them. Values of Secrets are not shown, only that they differ.
"""

from __future__ import annotations

from typing import Final

from fleetplane.interfaces.cli.terminal import Terminal, printable
from fleetplane.model.objects import Object, metadata

_SERVERS: Final = frozenset({"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid", "selfLink"})
_SECRET: Final = ("data", "stringData")


def unified(before: Object | None, after: Object | None, label: str) -> list[str]:
    """Lines without ends; empty when nothing that people write differs."""
    from difflib import unified_diff

    before, after = _hidden(before, after, "before"), _hidden(after, before, "after")
    return list(unified_diff(_lines(before), _lines(after), f"{label} (now)", f"{label} (then)", n=3, lineterm=""))


def print_diff(terminal: Terminal, lines: list[str]) -> None:
    for line in lines:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        style = ("bold",) if line.startswith(("+++", "---")) else (colour,) if colour else ()
        terminal.line(terminal.style(printable(line), *style))


def _hidden(obj: Object | None, other: Object | None, mark: str) -> Object | None:
    """A Secret with marks in place of its values."""
    if obj is None or obj.get("kind") != "Secret" or obj.get("apiVersion") != "v1":
        return obj
    shown = dict(obj)
    for field in _SECRET:
        beside = ((other or {}).get(field)) or {}
        if isinstance(values := obj.get(field), dict):
            same = {key for key, value in values.items() if key in beside and beside[key] == value}
            shown[field] = {key: "***" if key in same else f"*** ({mark})" for key in values}
    return shown


def _lines(obj: Object | None) -> list[str]:
    if obj is None:
        return []
    from fleetplane.model import yaml

    return yaml.dump(written(obj)).splitlines()


def written(obj: Object) -> Object:
    """The object without what only the server writes."""
    kept = {key: value for key, value in obj.items() if key not in {"status", "metadata"}}
    return {**kept, "metadata": {key: value for key, value in metadata(obj).items() if key not in _SERVERS}}
