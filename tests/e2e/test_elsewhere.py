"""The operators on a Kubernetes, installed by kustomize or Helm, working with exactly the rights that are shipped.

Once on our own server and once on a real control plane, where one has been built (``$REAL_KUBE``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import newest_kubectl
from .differential.peers import free_port
from .elsewhere.places import (
    NAME,
    NAMESPACE,
    Place,
    fleetplane,
    kubernetes,
    kubernetes_missing,
    refuses_empty_text,
)
from .test_helm import helm_path

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "charts" / "fleetplane-operators"

HELM = """
import asyncio, json, sys
from helm_sdkpy import Configuration, Install, Lint, List, Uninstall, Upgrade

async def story(verb, kubeconfig, chart, namespace, values):
    config = Configuration(namespace=namespace, kubeconfig=kubeconfig)
    if verb == "install":
        await Lint(config).run(chart)
        await Install(config).run("fleet", chart, values=values, create_namespace=True, wait=False, timeout=60)
    elif verb == "upgrade":
        await Upgrade(config).run("fleet", chart, values=values, wait=False, timeout=60)
    else:
        await Uninstall(config).run("fleet", wait=False, timeout=60)
    print(len(await List(config).run() or []))

asyncio.run(story(*sys.argv[1:5], json.loads(sys.argv[5])))
"""


@pytest.fixture(params=["fleetplane", "kubernetes"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    minor, path = newest_kubectl()
    if minor < 21:
        pytest.skip("there is no kubectl from 1.21 on")
    if request.param == "kubernetes":
        if why := kubernetes_missing():
            pytest.skip(why)
        with kubernetes(tmp_path / "there", path) as made:
            if refuses_empty_text(made):
                pytest.skip("this kube-apiserver takes empty texts in custom objects for null; see refuses_empty_text")
            yield made
    else:
        with fleetplane(tmp_path / "there", path) as made:
            yield made


def helm(place: Place, verb: str, **values: object) -> int:
    """How many releases there are afterwards."""
    path = helm_path()
    if path is None:
        pytest.skip("helm-sdkpy cannot be loaded here")
    command = [
        sys.executable,
        "-c",
        HELM,
        verb,
        str(place.kubeconfig),
        str(CHART),
        NAMESPACE,
        json.dumps(values),
    ]
    environment = os.environ | {"PYTHONPATH": path, "HOME": str(place.folder)}
    told = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    return int(told.stdout.splitlines()[-1])


def every_operator_works(place: Place, webhooks: int) -> None:
    """Refusals, defaults and a sample of each operator, reconciled under the shipped account."""
    with place.operators(place.arguments(), webhooks):
        bad = {
            "apiVersion": "crd.piccolo.org/v1alpha1",
            "kind": "VehPod",
            "metadata": {"name": "bad"},
            "spec": {
                "appType": "nonsense",
                "podSpec": {"containers": [{"name": "a", "image": "a"}]},
            },
        }
        said = place.kubectl("create", "-f", "-", stdin=json.dumps(bad), check=False)
        assert "there is no AppType 'nonsense'" in said
        for folder in ("network", "peerpods", "vclusters", "vehicles"):
            place.kubectl("apply", "-k", str(ROOT / "config" / "samples" / folder))

        place.until_is("vehpod/sample-camera-app", ".status.observedGeneration", "1")
        place.until_is(
            "pod/sample-camera-app",
            ".spec.containers[0].name",
            "camera",
            "system-application",
        )
        place.until_is("vehdeployment/sample-brake-monitor", ".status.observedGeneration", "1")
        place.until_is(
            "pod/sample-brake-monitor-b",
            ".spec.containers[0].name",
            "monitor",
            "system-application",
        )
        place.until_is("lifecyclemanagingrule/sample-reversing", ".status.phase", "Watching")
        place.until_is("vehsignalsource/sample-drive", ".status.samples", "2")
        place.until_is("peerpodconfig/sample-capacity", ".status.capacity", "10")
        place.until_is("peerpod/sample-vm", ".status.phase", "Recorded")
        place.until_is("ipclaim/sample-claim", ".status.phase", "Reserved")
        place.until_is("vk8s/sample-pods", ".status.mode", "pods")
        place.until_is(
            "statefulset/sample-pods-master",
            ".metadata.ownerReferences[0].kind",
            "Vk8s",
        )
        shares = sorted(int(node["status"]["capacity"]["kata.peerpods.io/vm"]) for node in place.get("nodes")["items"])
        assert shares == [5, 5]

        for folder in ("vehicles", "vclusters", "peerpods", "network"):
            place.kubectl(
                "delete",
                "-k",
                str(ROOT / "config" / "samples" / folder),
                "--timeout=60s",
            )
        ours = (
            "vehpods,vehdeployments,vehapplications,vk8s,peerpods,peerpodconfigs"  # parts of the samples go after them
        )
        place.until(lambda: place.kubectl("get", ours, "-A", "-o", "name") == "", "the operators have cleaned up")
    forbidden = [line for line in place.log().splitlines() if "forbidden" in line.lower()]
    assert forbidden == []


def test_by_kustomize(place: Place) -> None:
    webhooks = free_port()
    place.kubectl("apply", "-k", str(ROOT / "config" / "default"))
    place.lead_webhooks_to(webhooks)

    every_operator_works(place, webhooks)

    place.kubectl("delete", "-k", str(ROOT / "config" / "default"), "--timeout=60s", "--ignore-not-found")
    left = place.kubectl("get", "crd", "-l", "app.kubernetes.io/part-of=fleetplane", "-o", "name")
    assert left == ""


def test_by_helm(place: Place) -> None:
    webhooks = free_port()
    there = {"url": f"https://127.0.0.1:{webhooks}"}
    assert helm(place, "install", webhooks=there) == 1

    every_operator_works(place, webhooks)

    assert helm(place, "upgrade", operators=["vehicles"], replicas=2, webhooks=there) == 1
    assert "--only=vehicles" in place.arguments()
    roles = place.kubectl("get", "clusterroles", "-l", f"app.kubernetes.io/name={NAME}", "-o", "name").split()
    assert [one.partition("/")[2] for one in roles] == [
        f"{NAME}-vehicles",
        f"{NAME}-webhooks",
    ]
    assert helm(place, "uninstall") == 0
    kept = place.kubectl("get", "crd", "-l", "app.kubernetes.io/part-of=fleetplane", "-o", "name").split()
    assert len(kept) > 10  # what people wrote stays unless they say otherwise
