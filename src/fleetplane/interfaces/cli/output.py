"""How objects are printed: JSON, YAML, names, JSONPath and columns of one's own; tables come from the server.

The choice is parsed before anything is asked of a server, so a typo costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.interfaces.cli.errors import UsageError
from fleetplane.interfaces.cli.terminal import Terminal, printable
from fleetplane.model.objects import Object, metadata, name
from fleetplane.model.resources import ResourceType

LIST_FORMATS: Final = "wide, json, yaml, name, jsonpath=…, custom-columns=…"
_SIMPLE: Final = frozenset({"", "text", "wide", "json", "yaml", "name"})
_UNAVAILABLE: Final = frozenset({"go-template", "go-template-file", "template", "templatefile"})

Results = Sequence[tuple[ResourceType, Object]]


@dataclass(frozen=True, slots=True)
class Format:
    """``kind`` is empty (text for people), ``wide``, ``json``, ``yaml``, ``name``, ``jsonpath`` or ``custom-columns``."""

    kind: str
    render: Callable[[Object], str] | None = None

    @property
    def is_text(self) -> bool:
        return self.kind in {"", "wide"}


def parse_format(text: str) -> Format:
    """Raises CommandError."""
    if text in _SIMPLE:
        return Format("" if text == "text" else text)
    kind, separator, argument = text.partition("=")
    if kind in _UNAVAILABLE:
        raise UsageError(f"--output {kind} is not available; use jsonpath='{{.metadata.name}}' instead")
    if kind not in {"jsonpath", "custom-columns"}:
        raise UsageError(f"--output {text!r} is not known; use one of {LIST_FORMATS}")
    if not separator or not argument:
        raise UsageError(f"--output {kind} needs a template: {_EXAMPLES[kind]}")
    try:
        return Format(kind, _template(argument) if kind == "jsonpath" else _custom_columns(argument))
    except ValueError as error:
        raise UsageError(f"--output {kind} cannot be read: {error}") from None


_EXAMPLES: Final = {
    "jsonpath": "jsonpath='{.items[*].metadata.name}'",
    "custom-columns": "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName",
}


def print_objects(terminal: Terminal, chosen: Format, results: Results, *, single: bool) -> None:
    """Print whole objects; ``single`` ones bare, others as a ``List``, as kubectl does."""
    from fleetplane.interfaces.cli.resources import reference

    if chosen.kind == "name":
        for resource, obj in results:
            terminal.line(reference(resource, name(obj)))
        return
    objects = [without_noise(obj) if chosen.kind in {"json", "yaml"} else obj for _, obj in results]
    shown: Object = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects}
    print_document(terminal, chosen, objects[0] if single and objects else shown)


def print_document(terminal: Terminal, chosen: Format, document: Any) -> None:
    """Print one JSON value in a format that is not for people."""
    if chosen.kind == "yaml":
        from fleetplane.model import yaml

        terminal.write(yaml.dump(document))
    elif chosen.render is not None:
        text = chosen.render(document)
        terminal.write(text if not text or text.endswith("\n") or not terminal.interactive else text + "\n")
    else:
        terminal.line(json.dumps(document, indent=2, ensure_ascii=False))


def without_noise(obj: Object) -> Object:
    """The object without who owns which field: that is for machines, and longer than the rest."""
    if "managedFields" not in metadata(obj):
        return obj
    kept = {key: value for key, value in metadata(obj).items() if key != "managedFields"}
    return {**obj, "metadata": kept}


def columns(rows: Sequence[Sequence[str]], *, gap: int = 3) -> list[str]:
    """Rows as aligned lines, the last column free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pad = " " * gap
    return [pad.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def cell_text(value: Any) -> str:
    """One cell on one line."""
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else json.dumps(value)
    first, _, rest = text.partition("\n")
    return printable(first).replace("\t", " ") + ("..." if rest.strip() else "")


def _template(argument: str) -> Callable[[Object], str]:
    from fleetplane.model.jsonpath import Template

    text = argument if "{" in argument else "{" + argument + "}"
    return Template.parse(text).render


def _custom_columns(argument: str) -> Callable[[Object], str]:
    from fleetplane.model.jsonpath import JsonPath, printed

    titles, paths = [], []
    for part in argument.split(","):
        title, separator, path = part.partition(":")
        if not separator or not title or not path:
            raise ValueError(f"{part!r} is not TITLE:.path; {_EXAMPLES['custom-columns']}")
        titles.append(title)
        paths.append(JsonPath.parse(path))

    def render(document: Object) -> str:
        objects = document["items"] if document.get("kind") == "List" else [document]
        rows = [titles]
        for obj in objects:
            found = [path.find(obj) for path in paths]
            rows.append([printable(",".join(map(printed, values))) or "<none>" for values in found])
        return "\n".join(columns(rows)) + "\n"

    return render
