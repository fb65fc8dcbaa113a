"""The Python clients people use take the plane for a Kubernetes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import pytest

from .conftest import RunningPlane

pytestmark = pytest.mark.e2e


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


def test_the_official_client(plane: RunningPlane, name: str) -> None:
    kubernetes: Any = pytest.importorskip("kubernetes")
    api_client = kubernetes.config.new_client_from_config(str(plane.kubeconfig))
    core = kubernetes.client.CoreV1Api(api_client)
    body = kubernetes.client.V1ConfigMap(metadata=kubernetes.client.V1ObjectMeta(name=name), data={"a": "b"})

    core.create_namespaced_config_map("default", body)
    patched = core.patch_namespaced_config_map(name, "default", {"data": {"x": "y"}})
    seen = [
        event["object"].metadata.name
        for event in kubernetes.watch.Watch().stream(core.list_namespaced_config_map, "default", timeout_seconds=1)
    ]
    core.delete_namespaced_config_map(name, "default")

    assert patched.data == {"a": "b", "x": "y"}
    assert name in seen


def test_the_official_dynamic_client_applies(plane: RunningPlane, name: str) -> None:
    kubernetes: Any = pytest.importorskip("kubernetes")
    dynamic: Any = pytest.importorskip("kubernetes.dynamic")
    client = dynamic.DynamicClient(kubernetes.config.new_client_from_config(str(plane.kubeconfig)))
    maps = client.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"q": "1"}}

    maps.server_side_apply(body=body, namespace="default", field_manager="me")

    assert maps.get(name=name, namespace="default").data.q == "1"


def test_lightkube(plane: RunningPlane, name: str) -> None:
    lightkube: Any = pytest.importorskip("lightkube")
    core: Any = pytest.importorskip("lightkube.resources.core_v1")
    meta: Any = pytest.importorskip("lightkube.models.meta_v1")
    client = lightkube.Client(config=lightkube.KubeConfig.from_file(str(plane.kubeconfig)), field_manager="test")

    client.apply(core.ConfigMap(metadata=meta.ObjectMeta(name=name, namespace="default"), data={"a": "b"}))

    assert client.get(core.ConfigMap, name, namespace="default").data == {"a": "b"}
    assert [node.metadata.name for node in client.list(core.Node)] == ["sim-0"]


def test_kr8s(plane: RunningPlane, name: str) -> None:
    kr8s: Any = pytest.importorskip("kr8s.asyncio")
    objects: Any = pytest.importorskip("kr8s.asyncio.objects")

    async def story() -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            api = await kr8s.api(kubeconfig=str(plane.kubeconfig))
        pod = await objects.Pod(
            {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}, api=api
        )
        await pod.create()
        await pod.wait("condition=Ready", timeout=20)
        await pod.refresh()
        phase: str = pod.status.phase
        await pod.delete()
        return phase

    assert asyncio.run(story()) == "Running"


OPERATOR = """
import kopf

@kopf.on.create("configmaps", labels={"kopf": "yes"})
def created(name, patch, **_):
    patch.metadata.labels["seen"] = name
"""


def test_a_kopf_operator(plane: RunningPlane, name: str, tmp_path: Path) -> None:
    pytest.importorskip("kopf")
    kubernetes: Any = pytest.importorskip("kubernetes")
    operator = tmp_path / "operator.py"
    operator.write_text(OPERATOR)
    environment = {"KUBECONFIG": str(plane.kubeconfig), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [sys.executable, "-m", "kopf", "run", "--standalone", "-n", "default", str(operator)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(plane.kubeconfig)))
        meta = kubernetes.client.V1ObjectMeta(name=name, labels={"kopf": "yes"})
        core.create_namespaced_config_map("default", kubernetes.client.V1ConfigMap(metadata=meta))
        for _ in range(150):
            labels = core.read_namespaced_config_map(name, "default").metadata.labels
            if labels.get("seen") == name:
                break
            time.sleep(0.2)
        assert labels.get("seen") == name
    finally:
        process.terminate()
        process.wait(20)
