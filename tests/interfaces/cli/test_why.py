"""``why``: from an object that is not ready down to what somebody can do something about."""

from __future__ import annotations

import json
import time
from typing import Any

from fleetplane.interfaces.cli.needs import claims_of_pod, needed_by_pod


def deployed(cli: Any, namespace: str, name: str, **container: Any) -> Any:
    labels = {"app": name}
    volumes = container.pop("volumes", [])
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "app:1", **container}], "volumes": volumes},
            },
        },
    }
    assert cli("apply", "-n", namespace, "-f", "-", stdin=json.dumps(made)).code == 0


def until(cli: Any, *words: str) -> None:
    """``wait``, also for pods that nobody has made yet."""
    for _ in range(100):
        if cli("wait", *words, "--timeout", "15s").code == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"never happened: {' '.join(words)}")


def deepest(finding: Any) -> Any:
    while finding.get("causes"):
        finding = finding["causes"][0]
    return finding


def test_a_ready_object_is_said_to_be_ready(cli: Any) -> None:
    shown = cli("why", "node/sim-0")

    assert (shown.code, shown.out) == (0, "node/sim-0 is ready\n")


def test_pods_that_fit_nowhere(cli: Any, namespace: str) -> None:
    deployed(cli, namespace, "big", resources={"requests": {"cpu": "1000"}})
    until(cli, "pods", "-l", "app=big", "-n", namespace, "--for", "condition=PodScheduled=False")

    found = cli("why", "deploy/big", "-n", namespace, "-o", "json").json

    assert found["ready"] is False
    cause = deepest(found)
    assert cause["object"].startswith("pod/big-")
    assert "cannot be placed on a node" in cause["why"]
    assert "Insufficient cpu" in cause["why"]
    assert cause["others"] == 1
    assert "add a node" in cause["advice"]


def test_a_container_that_keeps_failing_and_its_last_words(cli: Any, namespace: str) -> None:
    deployed(cli, namespace, "crash", command=["sh", "-c", "echo no database; exit 7"])
    path = "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}=7"
    until(cli, "pods", "-l", "app=crash", "-n", namespace, "--for", path)

    shown = cli("why", "crash", "-n", namespace)

    assert shown.lines[0].startswith("deployment.apps/crash is not ready: 0 of 2")
    assert "exit code 7" in shown.out
    assert "it said: no database" in shown.out
    assert "what to do: read what it wrote before: fleetplane logs crash-" in shown.out


def test_owners_are_named_when_one_asks_from_below(cli: Any, namespace: str) -> None:
    deployed(cli, namespace, "web")
    assert cli("wait", "deploy/web", "-n", namespace, "--timeout", "20s").code == 0
    pod = cli("get", "pods", "-l", "app=web", "-n", namespace, "-o", "name").lines[0]

    shown = cli("why", pod, "-n", namespace)

    assert "belongs to replicaset.apps/web-" in shown.out
    assert "which belongs to deployment.apps/web" in shown.out


def test_a_custom_object_is_judged_by_what_names_it_as_owner(cli: Any, namespace: str) -> None:
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "crews.why.example.org"},
        "spec": {
            "group": "why.example.org",
            "scope": "Namespaced",
            "names": {"plural": "crews", "kind": "Crew"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            ],
        },
    }
    conditions = [{"type": "Ready", "status": "False", "reason": "Waiting", "message": "waits for its pods"}]
    crew = {
        "apiVersion": "why.example.org/v1",
        "kind": "Crew",
        "metadata": {"name": "a"},
        "status": {"conditions": conditions},
    }
    made = cli("apply", "-n", namespace, "-f", "-", stdin=json.dumps(definition) + "\n---\n" + json.dumps(crew))
    assert made.code == 0, made.err
    uid = cli("get", "crew/a", "-n", namespace, "-o", "jsonpath={.metadata.uid}").out
    owner = {"apiVersion": "why.example.org/v1", "kind": "Crew", "name": "a", "uid": uid}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hand", "ownerReferences": [owner]},
        "spec": {"containers": [{"name": "a", "image": "a", "resources": {"requests": {"cpu": "1000"}}}]},
    }
    cli("apply", "-n", namespace, "-f", "-", stdin=json.dumps(pod))

    found = cli("why", "a", "-n", namespace, "-o", "json").json

    assert found["why"] == "is not ready: waits for its pods"
    assert deepest(found)["object"] == "pod/hand"


def test_a_name_that_nothing_has(cli: Any, namespace: str) -> None:
    shown = cli("why", "nothing", "-n", namespace)

    assert shown.code == 1
    assert shown.err.startswith(f"fleetplane: nothing is called 'nothing' in namespace {namespace}")


def test_what_a_pod_needs_is_read_from_all_places_that_name_it() -> None:
    pod = {
        "metadata": {"name": "p"},
        "spec": {
            "volumes": [
                {"name": "a", "configMap": {"name": "files"}},
                {"name": "b", "secret": {"secretName": "maybe", "optional": True}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}},
                {"name": "d", "ephemeral": {}},
                {"name": "e", "projected": {"sources": [{"secret": {"name": "key"}}]}},
            ],
            "initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "password"}}}]}],
            "containers": [{"envFrom": [{"configMapRef": {"name": "settings"}}]}],
        },
    }

    assert [(kind.kind, called) for kind, called in needed_by_pod(pod)] == [
        ("ConfigMap", "files"),
        ("PersistentVolumeClaim", "disk"),
        ("Secret", "key"),
        ("Secret", "password"),
        ("ConfigMap", "settings"),
    ]
    assert claims_of_pod(pod) == ["disk", "p-d"]


def test_what_is_missing_is_named(cli: Any, namespace: str) -> None:
    """The pod can be placed nowhere and names a ConfigMap that nobody made: both are said."""
    big = {"requests": {"cpu": "1000"}}
    deployed(cli, namespace, "lost", resources=big, envFrom=[{"configMapRef": {"name": "nosuch"}}])
    until(cli, "pods", "-l", "app=lost", "-n", namespace, "--for", "condition=PodScheduled=False")

    found = deepest(cli("why", "deploy/lost", "-n", namespace, "-o", "json").json)

    assert (found["object"], found["why"]) == ("configmap/nosuch", "does not exist")
