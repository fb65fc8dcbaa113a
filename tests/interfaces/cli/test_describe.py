"""``describe`` and ``events``: what a person wants to know at once, and never a secret."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any


def applied(cli: Any, namespace: str, *manifests: str) -> Any:
    made = cli("apply", "-n", namespace, "-f", "-", "--wait", stdin="\n---\n".join(manifests))
    assert made.code == 0, made.err


def test_a_deployment_with_its_pods_and_events(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    applied(cli, namespace, deployment(replicas=2))

    shown = cli("describe", "deploy/web", "-n", namespace)

    assert shown.code == 0
    assert "Ready:" in shown.out
    assert "yes, 2 of 2 replicas are available" in shown.out
    assert shown.out.count("sim-0") == 2
    assert "ScalingReplicaSet" in shown.out


def test_a_pod_with_its_containers(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    applied(cli, namespace, deployment(image="shop:3"))

    shown = cli("describe", "pods", "-l", "app=web", "-n", namespace)

    assert "Container main:" in shown.out
    assert "image: shop:3" in shown.out
    assert "running for" in shown.out


def test_a_node_with_what_is_promised(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    applied(cli, namespace, deployment())

    shown = cli("describe", "node", "sim-0")

    assert "RESOURCE" in shown.out
    assert namespace in shown.out


def test_a_secrets_values_are_never_shown(cli: Any, namespace: str) -> None:
    secret: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "key"},
        "data": {"password": base64.b64encode(b"hunter2").decode()},
    }
    applied(cli, namespace, json.dumps(secret))

    for output in ("text", "json", "yaml"):
        shown = cli("describe", "secret/key", "-n", namespace, "-o", output).out
        assert "password" in shown
        assert secret["data"]["password"] not in shown
    assert "7 bytes" in cli("describe", "secret/key", "-n", namespace).out


def test_any_object_shows_its_fields(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    applied(cli, namespace, config_map("one", colour="blue"))

    assert "colour: blue" in cli("describe", "cm/one", "-n", namespace).out


def test_as_json_there_are_the_object_and_its_events(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    applied(cli, namespace, deployment())

    shown = cli("describe", "deploy/web", "-n", namespace, "-o", "json").json

    assert shown["object"]["kind"] == "Deployment"
    assert shown["events"][0]["reason"] == "ScalingReplicaSet"


def test_events_of_one_object_oldest_first(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    applied(cli, namespace, deployment())
    cli("scale", "deploy/web", "-n", namespace, "--replicas", "2", "--wait")

    shown = cli("events", "deploy/web", "-n", namespace)

    heading, *rows = shown.lines
    assert heading.split()[:2] == ["LAST", "SEEN"]
    assert len(rows) == 2
    assert "from 0 to 1" in rows[0]
    assert "from 1 to 2" in rows[1]


def test_events_by_type(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    applied(cli, namespace, deployment())

    assert "Scaled" in cli("events", "-n", namespace, "--types", "normal").out
    assert cli("events", "-n", namespace, "--types", "Warning").out == ""
