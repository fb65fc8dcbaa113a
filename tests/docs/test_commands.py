"""Every command of the README and the documentation is run, page by page, on a plane with simulated nodes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.blocks import COMMANDS, ROOT, Block, blocks, pages

PAGE_SECONDS = 150
_PROGRAMS = re.compile(r"^\s*(?:\$ )?(?:fleetplane|kubectl|make|pip|helm|podman|curl|export|python|git) ", re.MULTILINE)

PREAMBLE = r"""
set -eu
count=0 running=""
fleetplane() {
  case "${1:-}" in up|server|operators) ;; *) command fleetplane "$@"; return ;; esac
  count=$((count + 1))
  command fleetplane "$@" > "said.$count" 2>&1 &
  running="$running $!"
  for _ in $(seq 600); do
    grep -q '^ready \|^running ' "said.$count" && return 0
    kill -0 $! 2>/dev/null || break
    sleep 0.1
  done
  cat "said.$count" >&2
  return 1
}
trap 'kill $running 2>/dev/null || true; wait' EXIT
"""
"""What keeps running goes to the background, and the next command begins when it says that it is ready."""


def test_commands_stand_in_fences_that_are_run() -> None:
    """Other blocks hold files, output or Python; a command in one of them would never be tried."""
    astray = [
        f"{block.page.relative_to(ROOT)}:{block.line}"
        for page in pages()
        for block in blocks(page)
        if block.language not in COMMANDS and _PROGRAMS.search(block.text) and block.language in {"", "text"}
    ]

    assert astray == []


def test_what_is_not_run_has_a_reason_of_some_words() -> None:
    short = [block for page in pages() for block in blocks(page) if block.not_run and len(block.not_run.split()) < 2]

    assert short == []


def to_run(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in COMMANDS and not block.not_run]


PAGES = [page for page in pages() if any(block.commands for block in to_run(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_work(page: Path, tmp_path: Path) -> None:
    script, places = [PREAMBLE], []
    for block in to_run(page):
        for command in block.commands:
            places.append(f"{page.relative_to(ROOT)}:{block.line}: {command}")
            served = re.match(r"\s*(KUBECONFIG=\S+ )?fleetplane (up|server|operators)\b", command)
            script.append(f"echo '::{len(places) - 1}' >&2")
            script.append(command.rstrip().removesuffix("&") if served else command)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for name in ("config", "charts", "tools", "bench"):
        if (ROOT / name).is_dir():
            (tmp_path / name).symlink_to(ROOT / name)

    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS,
        check=False,
    )

    if done.returncode:
        last = re.findall(r"^::(\d+)$", done.stderr, re.MULTILINE)
        where = places[int(last[-1])] if last else "the beginning"
        pytest.fail(f"{where}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")


def environment(place: Path) -> dict[str, str]:
    """A shell of a newcomer: our programs, simulated nodes, a free port, no kubeconfig of anybody's."""
    programs = place / "bin"
    programs.mkdir()
    launcher = programs / "fleetplane"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m fleetplane.interfaces.cli "$@"\n')
    launcher.chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    (programs / "kubectl").symlink_to(kubectl() or launcher)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLEETPLANE", "KUBE"))}
    own = {
        "PATH": f"{programs}:{kept['PATH']}",
        "HOME": str(place),
        "FLEETPLANE_RUNTIME": "simulated",
        "FLEETPLANE_PORT": "0",
        "EDITOR": "true",
    }
    return kept | own


def kubectl() -> str:
    """Debian's or whatever is installed; without one our own commands stand in, which take the same words."""
    found = shutil.which("kubectl") or "/usr/libexec/kubernetes/kubectl"
    return found if Path(found).exists() else ""
