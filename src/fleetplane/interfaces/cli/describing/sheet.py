"""A sheet of fields, blocks and tables about one object, laid out when it is whole.

Sections write facts; how wide the labels are and where colour goes is decided here, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.interfaces.cli.output import cell_text, columns
from fleetplane.interfaces.cli.terminal import Terminal, printable

_INDENT: Final = "  "


class Sheet:
    def __init__(self) -> None:
        self._parts: list[tuple[str, list[str]]] = []

    def field(self, label: str, value: Any) -> None:
        """One line; nothing where there is no value."""
        if value is not None and value not in ("", [], {}):
            self._parts.append((label, [cell_text(value)]))

    def pairs(self, label: str, values: Mapping[str, Any]) -> None:
        """A line per pair, sorted."""
        if values:
            self._parts.append((label, [cell_text(f"{key}={value}") for key, value in sorted(values.items())]))

    def block(self, label: str, lines: Sequence[str]) -> None:
        """Lines below a label of their own."""
        if lines:
            self._parts.append((label, ["", *(printable(line) for line in lines)]))

    def table(self, label: str, heading: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "") -> None:
        if rows:
            texts = [[cell_text(cell) if cell not in (None, "") else "-" for cell in row] for row in rows]
            self.block(label, columns([list(heading), *texts]))
        elif empty:
            self._parts.append((label, [empty]))

    def yaml(self, label: str, value: Any) -> None:
        if value in (None, {}, []):
            return
        from fleetplane.model import yaml

        self.block(label, yaml.dump(value).splitlines())

    def print(self, terminal: Terminal) -> None:
        labels = [label for label, lines in self._parts if lines[0]]
        width = max(map(len, labels), default=0) + 3
        for label, lines in self._parts:
            head = terminal.style(f"{label}:", "bold")
            if not lines[0]:
                terminal.line(head)
                for line in lines[1:]:
                    terminal.line(_INDENT + line)
                continue
            terminal.line(head + " " * (width - len(label) - 1) + lines[0])
            for line in lines[1:]:
                terminal.line(" " * width + line)
