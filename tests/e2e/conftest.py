"""A real plane in its own process, on a free port, for clients that are not ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 60


@dataclass(slots=True)
class RunningPlane:
    """``kubeconfig`` is the administrator's; ``process`` serves it."""

    url: str
    kubeconfig: Path
    data_dir: Path
    process: subprocess.Popen[str]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def start_plane(data_dir: Path, *options: str, runtime: str = "simulated") -> RunningPlane:
    """Start ``fleetplane up`` and wait for its ready line."""
    command = [
        sys.executable,
        "-m",
        "fleetplane.interfaces.cli",
        "up",
        "--data-dir",
        str(data_dir),
    ]
    command += ["--port", "0", "--runtime", runtime, *options]
    log = (data_dir.parent / f"{data_dir.name}.log").open("a")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("ready "):
        process.wait(30)
        pytest.fail(f"the plane did not start: {Path(log.name).read_text()[-2000:]}")
    _, url, kubeconfig = line.split()
    return RunningPlane(url, Path(kubeconfig.partition("=")[2]), data_dir, process)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlane]:
    running = start_plane(tmp_path_factory.mktemp("plane") / "data")
    yield running
    assert running.stop() == 0


def kubectls() -> list[str]:
    """Every kubectl on this machine, by its path; at least an empty marker so that the skip is shown."""
    found = {os.path.realpath(path) for path in Path("/usr/lib/google-cloud-sdk/bin").glob("kubectl.1.*")}
    if not found:
        path = shutil.which("kubectl")
        found = {os.path.realpath(path)} if path else set()
    debian = Path(__file__).parents[2] / ".venv" / "debian" / "usr" / "bin" / "kubectl"
    if debian.exists():
        found.add(str(debian))
    return sorted(found)


def newest_kubectl() -> tuple[int, str]:
    """Its minor version and its path; 0 where there is none."""
    found = [(0, "")]
    for path in kubectls():
        told = subprocess.run(
            [path, "version", "--client", "-o", "json"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        found.append(
            (
                int(re.sub(r"\D", "", json.loads(told.stdout)["clientVersion"]["minor"])),
                path,
            )
        )
    return max(found)


@dataclass(slots=True)
class Kubectl:
    path: str
    plane: RunningPlane

    def run(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Standard output; with ``check`` a failure fails the test with what kubectl said."""
        done = subprocess.run(
            [self.path, "--kubeconfig", str(self.plane.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout + ("" if check else done.stderr)


@pytest.fixture(params=kubectls() or [pytest.param("", marks=pytest.mark.skip(reason="there is no kubectl here"))])
def kubectl(request: pytest.FixtureRequest, plane: RunningPlane) -> Kubectl:
    return Kubectl(request.param, plane)
