"""The site: the reference holds every kind, field and command; the pictures are true; everything is in the navigation."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.docs.blocks import ROOT, pages

from fleetplane.controller.registration import load_operators
from fleetplane.interfaces.cli.main import COMMANDS
from fleetplane.model.kind import docs_of


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference: Any = tool("reference")
picture: Any = tool("concepts_picture")


def test_every_kind_has_every_field_on_the_page_of_its_group() -> None:
    made = reference.pages()

    for operator in load_operators():
        for declared in operator.kinds:
            for kind in reference.versions_of(declared):
                page = made[f"reference/{kind.resource.group}.md"]
                section = page.partition(f"## {kind.resource.kind}\n")[2].partition("\n## ")[0]
                missing = [one.path for one in docs_of(kind) if f"`{one.path}`" not in section]
                assert section and not missing, f"{kind.resource.kind}: {missing}"


def test_every_command_is_on_its_page_with_its_options() -> None:
    page = reference.pages()["reference/commands.md"]

    assert [name for name in COMMANDS if f"### fleetplane {name}\n" not in page] == []
    assert "### fleetplane rollout status\n" in page
    assert "`--data-dir PATH`" in page


def test_what_kinds_say_cannot_break_a_table() -> None:
    rows = [line for text in reference.pages().values() for line in text.splitlines() if line.startswith("| `")]

    assert all(len(re.findall(r"(?<!\\)\|", row)) in {3, 5} for row in rows)


def test_the_picture_of_the_concepts_page_is_true_and_current() -> None:
    server = ROOT / "src" / "fleetplane" / "apiserver"
    stages = [one for one in picture.STAGES if not (server / f"{one}.py").exists() and not (server / one).is_dir()]

    assert stages == []
    assert all((ROOT / "src" / "fleetplane" / "operators" / one).is_dir() for one in picture.OPERATORS)
    assert picture.TARGET.read_text() == picture.draw(), "run python tools/concepts_picture.py"


def test_the_picture_of_the_demo_shows_its_steps() -> None:
    demo = tool("demo_picture")
    drawn = " ".join(re.findall(r">([^<]+)<", demo.TARGET.read_text())).replace("&#160;", " ")

    assert [step.title for step in demo.STEPS if step.title not in drawn] == [], "run python tools/demo_picture.py"


def test_every_page_is_in_the_navigation_and_every_link_leads_somewhere() -> None:
    listed = set(re.findall(r"[\w./-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    made = set(reference.pages())
    lost = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages()
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
        and str((page.parent / link).resolve().relative_to(ROOT / "docs")) not in made
    ]

    assert lost == []
    assert {str(page.relative_to(ROOT / "docs")) for page in pages() if page.name != "README.md"} - listed == set()


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed; make docs installs it")
def test_the_site_builds_with_the_reference_in_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "spec.devResInfo[].devName" in (tmp_path / "reference" / "crd.piccolo.org" / "index.html").read_text()
