"""The samples of every kind, with ``kubectl apply -k``, on a plane with all operators."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Kubectl, RunningPlane, newest_kubectl

pytestmark = pytest.mark.e2e

SAMPLES = Path(__file__).parents[2] / "config" / "samples"


def test_every_sample_is_taken_works_and_goes(plane: RunningPlane) -> None:
    minor, path = newest_kubectl()
    if minor < 21:
        pytest.skip("there is no kubectl, or only one before 1.21, whose kustomize takes no folders as resources")
    kubectl = Kubectl(path, plane)

    kubectl.run("apply", "-k", str(SAMPLES))

    for wanted in (
        ("vehpod/sample-camera-app", "{.status.phase}", "Running"),
        ("vehdeployment/sample-brake-monitor", "{.status.phase}", "Running"),
        ("vehapplication/sample-cockpit", "{.status.phase}", "Running"),
        ("vk8s/sample-logical", "{.status.phase}", "Running"),
        ("vk8s/sample-pods", "{.status.phase}", "Installing"),
        ("peerpod/sample-vm", "{.status.phase}", "Recorded"),
        ("ipclaim/sample-claim", "{.status.phase}", "Reserved"),
        ("logicalcluster/sample-cluster", "{.status.phase}", "Ready"),
    ):
        what, path, value = wanted
        kubectl.run("wait", what, f"--for=jsonpath={path}={value}", "--timeout=40s")

    kubectl.run("delete", "-k", str(SAMPLES), "--timeout=45s")
    left = kubectl.run(
        "get",
        "vehpod,vehdeployment,vehapplication,vk8s,peerpod,peerpodconfig,ippool,logicalcluster",
        "-o",
        "name",
    )
    assert left.split() == []
