"""A cluster of pods whose nodes are real containers that run Fleetplane: applied, used with kubectl, deleted.

The node image is made from this machine first. The whole story takes about half a minute on a quiet machine; pausing,
scaling and what survives them is told in the soak runs.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.node import image

from fleetplane.node.podman import look_at_host

from .conftest import RunningPlane, kubectls, start_plane

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.podman,
    pytest.mark.timeout(900),
    pytest.mark.soak,  # half a minute of three nodes in containers
    pytest.mark.skipif(not look_at_host().podman, reason="Podman is not installed"),
]
CLI = [sys.executable, "-m", "fleetplane.interfaces.cli"]
BUILD = Path(__file__).parents[2] / "deploy" / "images" / "fleetplane" / "build.py"
VNODE = "localhost/fleetplane-vnode:test"
OPEN = "cluster-network-connection-status"
STOPPED = "vk8s-resource-stopped"


def run(command: list[str], *, timeout: float = 120, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def node_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = image.write_root(tmp_path_factory.mktemp("image") / "root.tar")
    run(["podman", "import", "--quiet", str(root), image.NAME])
    built = subprocess.run(
        [sys.executable, str(BUILD), "--name", VNODE, "--preload", image.NAME],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if "this machine lacks" in built.stderr:
        pytest.skip(built.stderr.strip())
    assert built.returncode == 0, built.stderr
    return VNODE


class Story:
    """A plane with one cluster of pods, seen from outside."""

    def __init__(self, plane: RunningPlane, directory: Path, node_image: str) -> None:
        self.plane, self.directory, self.image = plane, directory, node_image
        self.kubeconfig = directory / "one.kubeconfig"

    def cli(self, command: str, *arguments: str, check: bool = True) -> str:
        return run([*CLI, command, "--kubeconfig", str(self.plane.kubeconfig), *arguments], check=check)

    def object(self, kind: str, name: str) -> Any:
        return json.loads(self.cli("get", kind, name, "-o", "json", check=False) or "{}")

    def make(self, workers: int, **more: Any) -> None:
        limits = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "50m", "memory": "100Mi"}}
        roles = [("m", "master"), *((f"w{number}", "worker") for number in range(workers))]
        nodes = [{"name": name, "image": self.image, "role": role, "resources": limits} for name, role in roles]
        volumes = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local-path"},
            "provisioner": "fleetplane.io/host-path",
            "parameters": {"path": str(self.directory / "volumes")},
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        vcluster = {
            "apiVersion": "vk8s.sktelecom.com/v1alpha1",
            "kind": "Vk8s",
            "metadata": {"name": "one", "annotations": {OPEN: "true"}},
            "spec": {"nodes": nodes, **more},
        }
        file = self.directory / "one.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [volumes, vcluster]}))
        self.cli("apply", "-f", str(file))

    def until(self, phase: str, seconds: float = 300) -> Any:
        """The cluster, once it is in a phase that speaks of what is wanted now."""
        end = time.monotonic() + seconds
        found: Any = {}
        while time.monotonic() < end:
            found = self.object("vk8s", "one")
            status = found.get("status") or {}
            settled = status.get("observedGeneration") == found.get("metadata", {}).get("generation")
            if settled and status.get("phase") == phase:
                return found
            assert status.get("phase") != "Fail", json.dumps(status, indent=1)
            time.sleep(0.3)
        pytest.fail(f"it does not become {phase}: {json.dumps(found.get('status'), indent=1)}")

    def tenant(self, *arguments: str, check: bool = True) -> str:
        """A command of Fleetplane's with the cluster's own kubeconfig, read anew: its address may have changed."""
        secret = self.object("secret", "one-kubeconfig")
        self.kubeconfig.write_bytes(base64.b64decode(secret["data"]["value"]))
        command, *rest = arguments
        return run([*CLI, command, "--kubeconfig", str(self.kubeconfig), *rest], check=check)

    def gone(self) -> None:
        self.cli("delete", "vk8s", "one", "--timeout", "100s", check=False)
        end = time.monotonic() + 60
        while self.object("vk8s", "one") and time.monotonic() < end:
            time.sleep(0.3)


@pytest.fixture
def story(tmp_path: Path, node_image: str) -> Iterator[Story]:
    plane = start_plane(tmp_path / "plane", "--operators", "vclusters", runtime="podman")
    told = Story(plane, tmp_path, node_image)
    try:
        yield told
    finally:
        told.gone()
        plane.stop()


def hello(story: Story) -> str:
    """A pod inside, and what it wrote."""
    main = {
        "name": "web",
        "image": image.NAME,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo hi; sleep 999"],
    }
    spec = {"containers": [main], "terminationGracePeriodSeconds": 0}
    file = story.directory / "web.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}))
    story.tenant("apply", "-f", str(file))
    story.tenant("wait", "pod/web", "--for", "condition=Ready", "--timeout", "60s")
    return story.tenant("logs", "web")


def test_three_nodes_run_and_are_used_with_kubectl(story: Story) -> None:
    story.make(workers=2)

    story.until("Running")

    nodes = json.loads(story.tenant("get", "nodes", "-o", "json"))["items"]
    assert sorted(one["metadata"]["name"] for one in nodes) == ["m-0", "w0-0", "w1-0"]
    assert all(one["status"]["allocatable"]["cpu"] == "1" for one in nodes), "they offer their limits, not the host"
    assert hello(story) == "hi\n"
    for kubectl in kubectls()[:1]:
        told = run([kubectl, "--kubeconfig", str(story.kubeconfig), "get", "nodes", "--no-headers"])
        assert told.count(" Ready ") == 3
    story.gone()
    assert not story.object("vk8s", "one")
    for kind in ("pods", "statefulsets", "pvc", "services"):
        left = json.loads(story.cli("get", kind, "-o", "json"))["items"]
        assert [one["metadata"]["name"] for one in left] in ([], ["kubernetes"]), kind


@pytest.mark.soak
def test_what_is_inside_survives_pausing_scaling_and_restarting(story: Story) -> None:
    story.make(workers=1)
    story.until("Running")
    assert hello(story) == "hi\n"
    story.tenant("label", "namespace", "default", "kept=yes")

    story.cli("annotate", "vk8s", "one", f"{STOPPED}=true")
    story.until("Paused")
    story.cli("annotate", "vk8s", "one", f"{STOPPED}-")
    story.until("Running")
    assert "kept=yes" in story.tenant("get", "namespace", "default", "--show-labels")

    story.make(workers=2)
    story.until("Running")
    story.tenant("wait", "node/w1-0", "--for", "condition=Ready", "--timeout", "60s")
    story.make(workers=1)
    story.until("Running")
    assert "w1-0" not in story.tenant("get", "nodes")

    before = {name: story.object("pod", name)["metadata"]["uid"] for name in ("m-0", "w0-0")}
    story.cli("annotate", "vk8s", "one", "vk8s.sktelecom.com/restarted-at=now")
    end = time.monotonic() + 180
    while any(
        (story.object("pod", name).get("metadata") or {}).get("uid") in {None, uid} for name, uid in before.items()
    ):
        assert time.monotonic() < end
        time.sleep(0.5)
    story.until("Running")
    assert "kept=yes" in story.tenant("get", "namespace", "default", "--show-labels")


@pytest.mark.soak
def test_a_new_cluster_begins_with_the_state_of_one_that_is_gone(story: Story) -> None:
    story.make(workers=1)
    story.until("Running")
    story.tenant("label", "namespace", "default", "kept=yes")
    old = json.loads(story.tenant("get", "nodes", "-o", "json"))["items"]
    authority = base64.b64decode(story.object("secret", "one-kubeconfig")["data"]["value"])
    access = ["--kubeconfig", str(story.plane.kubeconfig)]
    run([*CLI, "vcluster", "snapshot", *access, "one", "--name", "before"])
    taken = story.object("vk8ssnapshot", "before")["status"]
    assert (taken["phase"], taken["mode"]) == ("Done", "pods"), taken
    left = ["podman", "ps", "--quiet", "--filter", "label=io.kubernetes.pod.name=m-0"]
    for container in run(left).split():
        assert (
            run(["podman", "exec", container, "sh", "-c", "ls /vk8s-backup | grep -c snapshot || true"]).strip() == "0"
        )
    story.gone()

    story.make(workers=1, restoreFrom="before")
    found = story.until("Running")

    assert found["status"]["restoredFrom"] == "before"
    assert "kept=yes" in story.tenant("get", "namespace", "default", "--show-labels")
    nodes = json.loads(story.tenant("get", "nodes", "-o", "json"))["items"]
    assert sorted(one["metadata"]["name"] for one in nodes) == ["m-0", "w0-0"]
    uids = [{one["metadata"]["uid"] for one in some} for some in (old, nodes)]
    assert not uids[0] & uids[1], "the nodes are others"
    assert hello(story) == "hi\n"
    ours = base64.b64decode(story.object("secret", "one-kubeconfig")["data"]["value"])
    line = next(one for one in ours.splitlines() if b"certificate-authority-data" in one)
    assert line in authority.splitlines(), "whoever had access to the old one trusts the new one"
