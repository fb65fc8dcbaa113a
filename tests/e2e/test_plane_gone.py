"""A node whose plane is gone for a while: what crashes meanwhile is started again there, and told afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_container_runtime import why_not_podman
from tests.e2e.conftest import start_plane
from tests.e2e.test_two_nodes import Cluster, load_image, pod, until

from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.local import remove_local_node

from .test_join import CLI

pytestmark = [pytest.mark.e2e, pytest.mark.podman]


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def containers(uid: str) -> list[str]:
    """Containers of this pod that run now, as Podman says."""
    label = f"label=io.fleetplane.pod.uid={uid}"
    words = ["podman", "ps", "--filter", label, "--format", "{{.ID}}"]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout.split()


def test_crashes_without_a_plane_are_mended_and_told_later(tmp_path: Path) -> None:
    if reason := why_not_podman():
        pytest.skip(reason)
    load_image(tmp_path)
    options = ("--port", free_port(), "--operators", "none")
    plane = start_plane(tmp_path / "plane", *options, runtime="none")
    cluster = Cluster(plane, tmp_path)
    token = subprocess.run(
        [*CLI, "token", "-o", "json", "--kubeconfig", str(plane.kubeconfig)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    joining = ["--server", plane.url, "--ca-file", str(plane.data_dir / "pki" / "ca.crt"), "--name", "edge"]
    node = subprocess.Popen(
        [*CLI, "node", *joining, "--data-dir", str(tmp_path / "node")],
        env=os.environ | {"FLEETPLANE_TOKEN": json.loads(token.stdout)["token"]},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: cluster.cli("get", "nodes").get("items"), "a node")
        cluster.apply(pod("steady", "edge", "sleep", "1000"), pod("crashing", "edge", "sleep", "1000"))

        def status(name: str) -> Any:
            found = cluster.cli("get", "pods", name)
            (one,) = found.get("status", {}).get("containerStatuses") or [{}]
            return {"uid": found.get("metadata", {}).get("uid"), **one} if one.get("ready") else None

        before = {name: until(lambda name=name: status(name), name) for name in ("steady", "crashing")}
        plane.process.kill()
        plane.process.wait(30)

        (running,) = containers(before["crashing"]["uid"])
        subprocess.run(["podman", "kill", running], check=True, capture_output=True, timeout=60)

        def again() -> Any:
            return [one for one in containers(before["crashing"]["uid"]) if one != running]

        until(again, "a restart without a plane")
        plane = start_plane(tmp_path / "plane", *options, runtime="none")

        found = until(lambda: (one := status("crashing")) and one["restartCount"] and one, "the report of it")
        assert found["restartCount"] == 1
        assert found["lastState"]["terminated"]["exitCode"] == 137
        steady = until(lambda: status("steady"), "the other pod")
        assert (steady["restartCount"], steady["containerID"]) == (0, before["steady"]["containerID"])
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(30)
        plane.stop()
        asyncio.run(remove_local_node(tmp_path / "node/nodes/edge", SystemEnvironment()))
