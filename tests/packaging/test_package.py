"""What pip gets: built from this tree, installed where nothing else is, and a plane runs from it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.soak
@pytest.mark.timeout(280)
def test_a_plane_runs_from_the_wheel_alone(tmp_path: Path) -> None:
    if importlib.util.find_spec("build") is None:
        pytest.skip("the package `build` is not installed; `make package package-check` does the same")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if built.returncode and "Could not find a version" in built.stdout + built.stderr:
        pytest.skip("the packages needed to build cannot be had here")
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]

    checked = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_package.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
    assert "a Deployment became available" in checked.stdout
