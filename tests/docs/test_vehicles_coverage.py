"""The table of requirements names tests that exist, and says why where there is none."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "vehicles-coverage.md"
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


@cache
def names_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_test_the_table_names_exists() -> None:
    named = _TEST.findall(PAGE.read_text())
    missing = []
    for file, test in named:
        path = ROOT / file if file.startswith("tests/") else ROOT / "tests" / "operators" / "vehicles" / file
        if not path.is_file() or test not in names_in(path):
            missing.append(f"{file}::{test}")
    assert len(named) > 60
    assert missing == []


def test_every_requirement_is_proved_or_said_not_to_be_built() -> None:
    bare = []
    for line in PAGE.read_text().partition("## Install")[0].splitlines():
        cells = [one.strip() for one in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3 or cells[2] in {"proved by", "---"}:
            continue
        if not _TEST.search(cells[2]) and "not built: " not in cells[1] and "under the names" not in cells[1]:
            bare.append(line)
    assert bare == []
