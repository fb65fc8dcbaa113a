"""Another machine joins with a token, runs a pod under its own identity, and may touch nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fleetplane.node.podman import look_at_host

from .conftest import start_plane

pytestmark = [pytest.mark.e2e, pytest.mark.podman, pytest.mark.xdist_group("podman")]
CLI = [sys.executable, "-m", "fleetplane.interfaces.cli"]


def cli(*arguments: str, kubeconfig: Path) -> Any:
    done = subprocess.run(
        [*CLI, *arguments, "--kubeconfig", str(kubeconfig), "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not look_at_host().podman, reason="Podman is not installed")
def test_a_machine_joins_with_a_token(tmp_path: Path) -> None:
    plane = start_plane(tmp_path / "plane", runtime="none")
    token = cli("token", kubeconfig=plane.kubeconfig)["token"]
    authority = plane.data_dir / "pki" / "ca.crt"
    command = [*CLI, "node", "--server", plane.url, "--ca-file", str(authority), "--name", "edge-1"]
    joined = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path / "node")],
        env=os.environ | {"FLEETPLANE_TOKEN": token},
        stderr=subprocess.DEVNULL,
    )
    try:
        nodes: list[Any] = []
        for _ in range(150):
            nodes = cli("get", "nodes", kubeconfig=plane.kubeconfig).get("items", [])
            if nodes:
                break
            time.sleep(0.2)
        assert [node["metadata"]["name"] for node in nodes] == ["edge-1"]
        identity = tmp_path / "node" / "node.kubeconfig"
        assert identity.stat().st_mode & 0o777 == 0o600
        refused = subprocess.run(
            [*CLI, "get", "secrets", "-A", "--kubeconfig", str(identity)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert refused.returncode == 1
        assert "forbidden" in refused.stderr
    finally:
        joined.send_signal(signal.SIGTERM)
        joined.wait(30)
        plane.stop()
