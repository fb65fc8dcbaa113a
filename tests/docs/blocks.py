"""Reading the documentation: its fenced blocks, and what is said about running them.

A block of commands is ```` ```console ```` (lines that begin with ``$ `` are commands, others what they print) or
```` ```bash ````. It is run unless the line before it says why not::

    <!-- not run: needs a Kubernetes cluster -->

Commands of one page share a shell, a folder (a copy of ``examples``) and a plane, from top to bottom.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = frozenset({"console", "bash", "sh", "shell"})
_FENCE = re.compile(r"^(\s*)```\s*([\w-]*)\s*$")
_NOT_RUN = re.compile(r"<!--\s*not run:\s*(\S.*?)\s*-->")


@dataclass(frozen=True)
class Block:
    """``line`` is where it begins; ``not_run`` why it is not run, empty when it is."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str

    @property
    def commands(self) -> list[str]:
        if self.language != "console":
            lines = self.text.splitlines()
        else:
            lines = [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]
        joined = "\n".join(lines).replace("\\\n", " ")
        return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    begun: tuple[int, str, str] | None = None
    text: list[str] = []
    reason = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if begun is None:
            if fence:
                begun, text = (number, fence[1], fence[2]), []
            elif line.strip():
                found = _NOT_RUN.search(line)
                reason = found[1] if found else ""
        elif fence and not fence[2]:
            yield Block(page, begun[0], begun[2], "\n".join(one.removeprefix(begun[1]) for one in text), reason)
            begun, reason = None, ""
        else:
            text.append(line)
