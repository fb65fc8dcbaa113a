"""kubectl, in every version found here, takes the plane for a Kubernetes."""

from __future__ import annotations

import json
import uuid

import pytest

from .conftest import Kubectl

pytestmark = pytest.mark.e2e

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers: [{{name: c, image: busybox}}]
"""


@pytest.fixture
def name() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


def test_a_deployment_applied_becomes_ready_pods(kubectl: Kubectl, name: str) -> None:
    kubectl.run("apply", "-f", "-", stdin=DEPLOYMENT.format(name=name, replicas=2))

    kubectl.run("rollout", "status", f"deployment/{name}", "--timeout=30s")

    pods = json.loads(kubectl.run("get", "pods", "-l", f"app={name}", "-o", "json"))["items"]
    assert [pod["status"]["phase"] for pod in pods] == ["Running", "Running"]


def test_applying_again_changes_nothing(kubectl: Kubectl, name: str) -> None:
    manifest = DEPLOYMENT.format(name=name, replicas=1)
    kubectl.run("apply", "-f", "-", stdin=manifest)

    assert "unchanged" in kubectl.run("apply", "-f", "-", stdin=manifest)


def test_a_rollout_can_be_undone(kubectl: Kubectl, name: str) -> None:
    kubectl.run("apply", "-f", "-", stdin=DEPLOYMENT.format(name=name, replicas=1))
    kubectl.run("set", "image", f"deployment/{name}", "c=other")
    kubectl.run("rollout", "status", f"deployment/{name}", "--timeout=30s")

    kubectl.run("rollout", "undo", f"deployment/{name}")

    kubectl.run("rollout", "status", f"deployment/{name}", "--timeout=30s")
    image = kubectl.run("get", "deployment", name, "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    assert image == "busybox"


def test_typed_creation_and_what_get_prints(kubectl: Kubectl, name: str) -> None:
    kubectl.run("create", "configmap", name, "--from-literal=k=v")

    table = kubectl.run("get", "configmap", name).splitlines()

    assert table[0].split() == ["NAME", "DATA", "AGE"]
    assert table[1].split()[:2] == [name, "1"]


def test_labels_annotations_and_selectors(kubectl: Kubectl, name: str) -> None:
    kubectl.run("create", "configmap", name)
    kubectl.run("label", "configmap", name, f"mark={name}")
    kubectl.run("annotate", "configmap", name, "note=x")

    assert kubectl.run("get", "configmap", "-l", f"mark={name}", "-o", "name").strip() == f"configmap/{name}"


def test_scale_and_delete_take_the_pods_along(kubectl: Kubectl, name: str) -> None:
    kubectl.run("create", "deployment", name, "--image=busybox")
    kubectl.run("scale", f"deployment/{name}", "--replicas=3")
    kubectl.run("rollout", "status", f"deployment/{name}", "--timeout=30s")

    kubectl.run("delete", "deployment", name, "--cascade=foreground", "--timeout=30s")

    assert kubectl.run("get", "replicasets,pods", "-l", f"app={name}", "-o", "name").strip() == ""


def test_explain_knows_built_in_kinds(kubectl: Kubectl) -> None:
    assert "image" in kubectl.run("explain", "pod.spec.containers.image").lower()


def test_errors_are_kubernetes_own(kubectl: Kubectl, name: str) -> None:
    said = kubectl.run("get", "configmap", name, check=False)

    assert said.strip() == f'Error from server (NotFound): configmaps "{name}" not found'


def test_a_custom_kind_is_served_at_once(kubectl: Kubectl, name: str) -> None:
    plural = name.replace("-", "") + "s"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": plural.title()},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {"size": {"type": "integer", "minimum": 1, "default": 3}},
                                }
                            },
                        }
                    },
                }
            ],
        },
    }
    obj = {"apiVersion": "example.com/v1", "kind": plural.title(), "metadata": {"name": "a"}, "spec": {}}
    kubectl.run("create", "-f", "-", stdin=json.dumps(definition))

    kubectl.run("create", "-f", "-", stdin=json.dumps(obj))

    assert kubectl.run("get", plural, "a", "-o", "jsonpath={.spec.size}") == "3"
    refused = json.dumps(obj | {"metadata": {"name": "b"}, "spec": {"size": 0}})
    assert "should be greater than or equal to 1" in kubectl.run("create", "-f", "-", stdin=refused, check=False)
    kubectl.run("delete", "crd", f"{plural}.example.com", "--timeout=30s")
