"""Helm 4 installs, upgrades and uninstalls a chart, waiting for what it made.

The engine comes with helm-sdkpy, which loads on x86-64 Linux only; elsewhere this is skipped. It is asked for by
``FLEETPLANE_HELM_SDK``, a folder that holds the package, where pip would refuse it for the version of Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import RunningPlane

pytestmark = pytest.mark.e2e

CHART = "apiVersion: v2\nname: hello\nversion: 0.1.0\n"
VALUES = "replicas: 1\nserverSide: false\n"
TEMPLATE = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers: [{name: c, image: busybox}]
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}
spec:
  selector: {app: {{ .Release.Name }}}
  ports: [{port: 80}]
"""
STORY = """
import asyncio, json, sys
from helm_sdkpy import Configuration, History, Install, List, Uninstall, Upgrade

async def story(kubeconfig, chart, server_side):
    config = Configuration(namespace="default", kubeconfig=kubeconfig)
    name = "hello-ssa" if server_side else "hello"
    await Install(config).run(name, chart, wait=True, timeout=60, server_side_apply=server_side)
    await Upgrade(config).run(name, chart, values={"replicas": 2}, wait=True, timeout=60)
    releases = await List(config).run()
    history = await History(config).run(name)
    await Uninstall(config).run(name, wait=True, timeout=60)
    left = await List(config).run()
    def names(found): return [one.get("name") or one.get("Name") for one in found or []]
    print(json.dumps({"releases": names(releases), "revisions": len(history), "left": names(left)}))

asyncio.run(story(sys.argv[1], sys.argv[2], sys.argv[3] == "server-side"))
"""


def helm_path() -> str | None:
    """What must be on the path for helm_sdkpy to be importable, None where it is not to be had."""
    given = os.environ.get("FLEETPLANE_HELM_SDK", "")
    environment = os.environ | {"PYTHONPATH": given}
    found = subprocess.run(
        [sys.executable, "-c", "import helm_sdkpy"], env=environment, capture_output=True, check=False
    )
    return given if found.returncode == 0 else None


@pytest.mark.parametrize("way", ["client-side", "server-side"])
def test_a_release_comes_changes_and_goes(plane: RunningPlane, tmp_path: Path, way: str) -> None:
    path = helm_path()
    if path is None:
        pytest.skip("helm-sdkpy cannot be loaded here")
    chart = tmp_path / "hello"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(CHART)
    (chart / "values.yaml").write_text(VALUES)
    (chart / "templates" / "all.yaml").write_text(TEMPLATE)

    told = subprocess.run(
        [sys.executable, "-c", STORY, str(plane.kubeconfig), str(chart), way],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert told.returncode == 0, told.stderr[-2000:]
    name = "hello-ssa" if way == "server-side" else "hello"
    assert json.loads(told.stdout.splitlines()[-1]) == {"releases": [name], "revisions": 2, "left": []}
