"""Another machine joins with a token, runs pods under its own identity that are reached through its own connection, and
may touch nothing else.
"""

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
from tests.node import image

from fleetplane.node.podman import look_at_host

from .conftest import kubectls, start_plane

pytestmark = [pytest.mark.e2e, pytest.mark.podman]
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


def _output(command: list[str], stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _text(*arguments: str, kubeconfig: Path) -> str:
    command, *rest = arguments
    return _output([*CLI, command, "--kubeconfig", str(kubeconfig), *rest])


def _run_pod(kubeconfig: Path, tmp_path: Path) -> None:
    """A pod that says hello and stays, running."""
    _output(["podman", "import", "--quiet", str(image.write_root(tmp_path / "root.tar")), image.NAME])
    command = ["sh", "-c", "echo hello; sleep 1000"]
    main = {"name": "main", "image": image.NAME, "imagePullPolicy": "Never", "command": command}
    spec = {"containers": [main], "terminationGracePeriodSeconds": 0}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
    path = tmp_path / "web.json"
    path.write_text(json.dumps(manifest))
    _text("apply", "-f", str(path), kubeconfig=kubeconfig)
    pod: Any = {}
    for _ in range(150):
        pod = cli("get", "pods", "web", kubeconfig=kubeconfig)
        if pod.get("status", {}).get("phase") == "Running":
            return
        time.sleep(0.2)
    pytest.fail(f"the pod does not run: {pod.get('status')}")


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
        _run_pod(plane.kubeconfig, tmp_path)
        assert _text("logs", "web", kubeconfig=plane.kubeconfig) == "hello\n"
        assert _text("exec", "web", "--", "echo", "inside", kubeconfig=plane.kubeconfig) == "inside\n"
        for kubectl in filter(None, kubectls()):
            access = [kubectl, "--kubeconfig", str(plane.kubeconfig)]
            assert _output([*access, "logs", "web"]) == "hello\n"
            piped = _output([*access, "exec", "-i", "web", "--", "cat"], "through the tunnel\n")
            assert piped == "through the tunnel\n"
    finally:
        subprocess.run(
            [*CLI, "delete", "pod", "web", "--kubeconfig", str(plane.kubeconfig)],
            capture_output=True,
            timeout=60,
            check=False,
        )
        time.sleep(2)  # the node removes the container before it leaves
        joined.send_signal(signal.SIGTERM)
        joined.wait(30)
        plane.stop()
