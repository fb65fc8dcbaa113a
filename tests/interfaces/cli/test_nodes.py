"""``cordon`` and ``drain``: a node is emptied gently, or left alone altogether."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def cordoned(cli: Any) -> Any:
    """The plane's only node, given back to the other tests in the end."""
    yield "sim-0"
    assert cli("uncordon", "sim-0").code == 0


def test_a_cordoned_node_takes_no_pods(cli: Any, cordoned: str) -> None:
    assert cli("cordon", cordoned).out == "node/sim-0 cordoned\n"
    assert cli("cordon", cordoned).out == "node/sim-0 cordoned already\n"
    assert "SchedulingDisabled" in cli("get", "node", cordoned).out


def test_nodes_must_be_named(cli: Any) -> None:
    assert cli("cordon").code == 2


def test_a_pod_that_nobody_would_make_again_stops_the_drain_before_it_begins(
    cli: Any, cordoned: str, namespace: str
) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone"},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    cli("apply", "-n", namespace, "-f", "-", "--wait", stdin=json.dumps(pod))

    refused = cli("drain", cordoned)

    assert refused.code == 1
    assert f"{namespace}/alone" in refused.err or "and" in refused.err
    assert "--force" in refused.err
    assert "SchedulingDisabled" not in cli("get", "node", cordoned).out
    cli("delete", "pod", "alone", "-n", namespace, "--now")


def test_what_a_dry_run_would_move(cli: Any, cordoned: str, namespace: str, deployment: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", "--wait", stdin=deployment())

    tried = cli("drain", cordoned, "--dry-run", "--force", "--delete-emptydir-data", "--ignore-daemonsets")

    assert tried.code == 0, tried.err
    assert tried.lines[-1] == "node/sim-0 drained (dry run)"
    assert cli("get", "deploy/web", "-n", namespace, "-o", "jsonpath={.status.availableReplicas}").out == "1"
