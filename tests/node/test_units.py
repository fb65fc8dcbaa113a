"""The systemd units we ship are what systemd understands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("name", ["fleetplane-node.service", "fleetplane-server.service"])
def test_a_unit_is_understood(name: str, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / name
    # The program need not be installed where the tests run.
    unit.write_text(
        (DEPLOY / name)
        .read_text()
        .replace("/usr/bin/fleetplane", "/bin/true")
        .replace("/usr/local/bin/fleetplane", "/bin/true")
    )

    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(unit)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    said = [line for line in done.stderr.splitlines() if name in line]
    assert (done.returncode, said) == (0, [])


def test_a_node_that_is_stopped_leaves_its_containers_alone() -> None:
    assert "KillMode=process" in (DEPLOY / "fleetplane-node.service").read_text()
