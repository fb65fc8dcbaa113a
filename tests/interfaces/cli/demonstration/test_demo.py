"""The demo as a person or a script runs it, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetplane.interfaces.cli.demonstration.place import began

STEPS = ["ready", "refused", "camera", "switchover", "crash", "vclusters", "deployed", "peerpods"]


def fleetplane(*words: str, cwd: Path, seconds: int = 200) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleetplane.interfaces.cli", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False)


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a person pastes, line by line, with an editor that changes nothing."""
    programs = cwd / "programs"
    programs.mkdir(exist_ok=True)
    launcher = programs / "fleetplane"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m fleetplane.interfaces.cli "$@"\n')
    launcher.chmod(0o755)
    own = {"PATH": f"{programs}:{os.environ['PATH']}", "EDITOR": "true"}
    command = ["bash", "-e", "-c", script]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | own, capture_output=True, text=True, timeout=200, check=False
    )


def by_step(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"], told
    assert [one["step"] for one in told["steps"]] == STEPS
    assert all(one["seconds"] > 0 and one["command"] for one in told["steps"])
    return {one["step"]: one for one in told["steps"]}


def test_a_kept_demo_can_be_used_and_then_leaves_nothing(tmp_path: Path) -> None:
    done = fleetplane("demo", "--runtime", "simulated", "--keep", "--output", "json", cwd=tmp_path)

    told = by_step(done)
    kept = json.loads(done.stdout)
    assert began(kept["pid"]), "the plane should go on"
    assert told["refused"]["facts"]["rule"] == "no-privileged"
    assert told["crash"]["facts"]["acknowledgedWrites"] > 100
    assert sorted(told["peerpods"]["facts"]["shares"].values()) == [3, 3, 4]
    assert "as asked" in told["camera"]["why"], "what was simulated is said, and why"

    place = tmp_path / ".fleetplane-demo"
    again = fleetplane("demo", "--keep", cwd=tmp_path)
    typed = {name: told[name]["command"] for name in ("camera", "switchover", "deployed", "peerpods", "vclusters")}
    repeated = shell("\n".join([*kept["paste"], *typed.values()]), cwd=tmp_path)
    refused = shell("\n".join([kept["paste"][0], told["refused"]["command"]]), cwd=tmp_path)
    stopped = fleetplane("demo", "--stop", cwd=tmp_path)

    assert (again.returncode, "fleetplane demo --stop" in again.stderr) == (1, True)
    assert repeated.returncode == 0, repeated.stderr
    assert "vehpod.crd.piccolo.org/camera unchanged" in repeated.stdout, "after the editor changed nothing"
    assert (refused.returncode, "rule no-privileged" in refused.stderr) == (1, True)
    assert stopped.returncode == 0, stopped.stderr
    assert not began(kept["pid"])
    assert not place.exists()


def test_there_must_be_a_demo_to_stop(tmp_path: Path) -> None:
    done = fleetplane("demo", "--stop", cwd=tmp_path)

    assert done.returncode == 1
    assert "there is no demo in .fleetplane-demo" in done.stderr


@pytest.mark.podman
@pytest.mark.skipif(not shutil.which("podman"), reason="Podman is not installed")
def test_with_podman_the_containers_and_the_device_are_real(tmp_path: Path) -> None:
    # A folder named from here, as people do: the runtime is another process and must find it all the same.
    done = fleetplane("demo", "--runtime", "podman", "--data-dir", "here", "--output", "json", cwd=tmp_path)

    told = by_step(done)

    assert told["camera"]["facts"]["container"]
    assert told["switchover"]["simulated"] == ""
    assert told["crash"]["facts"]["containersKept"] >= 2
    assert list(tmp_path.iterdir()) == []
