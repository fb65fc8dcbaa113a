"""The container image: built without a registry, and run as it is meant to be: nobody in particular, a root never written.

Takes minutes, so it is a soak. ``FLEETPLANE_IMAGE`` names an image that is there already; otherwise it is built here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetplane.node.podman.host import look_at_host

from .conftest import newest_kubectl, start_plane
from .differential.peers import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.podman, pytest.mark.soak]

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "deploy" / "images" / "product" / "build.sh"
STRICT = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]


def told(*command: str, check: bool = True, seconds: int = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout + ("" if check else done.stderr)


def until(holds: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"it never came true: {what}"
        time.sleep(0.3)


def limits() -> list[str]:
    """Where we may not raise limits, a container must be given ours."""
    host = look_at_host()
    return [] if host.may_raise_limits else [f"--ulimit={name}={most}:{most}" for name, most in host.rlimits.items()]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("podman") is None:
        pytest.skip("Podman is not installed")
    if given := os.environ.get("FLEETPLANE_IMAGE"):
        yield given
        return
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    dist = tmp_path_factory.mktemp("dist")
    told(sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT), seconds=180)
    (wheel,) = dist.glob("*.whl")
    name = f"localhost/fleetplane:test-{os.getpid()}"
    told(str(BUILD), "-t", name, str(wheel), seconds=280)
    yield name
    told("podman", "image", "rm", "--force", name, check=False)


@pytest.mark.timeout(600)
def test_a_server_and_operators_run_in_containers(image: str, tmp_path: Path) -> None:
    port, health, name = free_port(), free_port(), f"fleetplane-image-{os.getpid()}"
    run = ["podman", "run", "--detach", *STRICT, *limits(), "--network=host", f"--volume={name}:/var/lib/fleetplane"]
    kubeconfig = "--kubeconfig=/var/lib/fleetplane/admin.kubeconfig"
    try:
        told(*run, f"--name={name}", image, "server", "--host=127.0.0.1", f"--port={port}")
        until(lambda: "ready https://" in told("podman", "logs", name, check=False), "the server is ready")
        told(*run, f"--name={name}-operators", image, "operators", "--install", kubeconfig, f"--health-port={health}")
        inside = ["podman", "exec", f"{name}-operators", "python3", "-c"]
        ask = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{health}/readyz').read())"
        until(lambda: "ok" in told(*inside, ask, check=False), "the operators are ready")

        who = told("podman", "exec", name, "python3", "-c", "import os; print(os.getuid(), os.getgid())")
        written = told("podman", "exec", name, "python3", "-c", "open('/usr/a', 'w')", check=False)
        kinds = told("podman", "exec", name, "fleetplane", "api-resources")
        told("podman", "stop", "--time=30", f"{name}-operators", name)
        codes = [
            told("podman", "inspect", one, "--format={{.State.ExitCode}}").strip()
            for one in (name, f"{name}-operators")
        ]
    finally:
        told("podman", "rm", "--force", f"{name}-operators", name, check=False)
        told("podman", "volume", "rm", "--force", name, check=False)

    assert who.split() == ["65532", "65532"]
    assert "Read-only file system" in written
    assert "vehpods" in kinds
    assert codes == ["0", "0"]


@pytest.mark.timeout(600)
def test_the_operators_run_as_a_pod_with_their_webhooks_behind_a_service(image: str, tmp_path: Path) -> None:
    minor, kubectl_path = newest_kubectl()
    if minor < 21 or os.geteuid() != 0:
        pytest.skip("a kubectl from 1.21 on, and root for the network of pods, are needed")
    plane = start_plane(tmp_path / "data", "--operators", "none", runtime="podman")

    def kubectl(*arguments: str, check: bool = True, stdin: str = "") -> str:
        done = subprocess.run(
            [kubectl_path, "--kubeconfig", str(plane.kubeconfig), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + ("" if check else done.stderr)

    try:
        made = told(sys.executable, "-m", "fleetplane.interfaces.cli", "manifests", "--image", image, "-o", "json")
        kubectl("apply", "-f", "-", stdin=made)
        kubectl("-n", "fleetplane-system", "rollout", "status", "deployment/fleetplane-operators", "--timeout=100s")
        bad = {
            "apiVersion": "crd.piccolo.org/v1alpha1",
            "kind": "VehPod",
            "metadata": {"name": "bad"},
            "spec": {"appType": "nonsense", "podSpec": {"containers": [{"name": "a", "image": "a"}]}},
        }
        refused = kubectl("create", "-f", "-", stdin=json.dumps(bad), check=False)
        kubectl("apply", "-k", str(ROOT / "config" / "samples" / "network"))
        kubectl("wait", "ipclaim/sample-claim", "--for=jsonpath={.status.phase}=Reserved", "--timeout=30s")
        kubectl("delete", "-k", str(ROOT / "config" / "samples" / "network"), "--timeout=60s")
    finally:
        kubectl("delete", "deployment", "fleetplane-operators", "-n", "fleetplane-system", "--timeout=60s", check=False)
        until(lambda: "No resources" in kubectl("get", "pods", "-A", check=False), "no pod is left")
        plane.stop()

    assert "there is no AppType 'nonsense'" in refused
