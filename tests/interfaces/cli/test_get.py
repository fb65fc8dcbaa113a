"""``get``: what exists, in every form people and programs ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest


def test_a_list_is_the_servers_table(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one", a="1", b="2"))

    found = cli("get", "configmaps", "one", "-n", namespace)

    assert found.code == 0
    heading, row = found.lines
    assert heading.split() == ["NAME", "DATA", "AGE"]
    assert row.split()[:2] == ["one", "2"]


def test_several_kinds_name_the_kind_of_each_object(cli: Any) -> None:
    found = cli("get", "nodes,namespaces")

    assert "node/sim-0" in found.out
    assert "namespace/default" in found.out


def test_nothing_found_is_said_on_stderr_and_is_no_error(cli: Any, namespace: str) -> None:
    found = cli("get", "pods", "-n", namespace)

    assert (found.code, found.out) == (0, "")
    assert found.err == f"There are no pods in namespace {namespace}.\n"


def test_json_of_one_object_is_the_object_and_of_a_list_a_list(
    cli: Any, namespace: str, config_map: Callable[..., str]
) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one", a="1"))

    one = cli("get", "cm/one", "-n", namespace, "-o", "json").json
    many = cli("get", "cm", "-n", namespace, "-o", "json").json

    assert one["data"] == {"a": "1"}
    assert many["kind"] == "List"
    assert one in many["items"]


def test_whole_objects_do_not_show_who_owns_which_field(
    cli: Any, namespace: str, config_map: Callable[..., str]
) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one"))

    assert "managedFields" not in cli("get", "cm/one", "-n", namespace, "-o", "yaml").out


def test_names_can_be_given_back_to_any_command(cli: Any) -> None:
    name = cli("get", "nodes", "-o", "name").out.strip()

    assert name == "node/sim-0"
    assert cli("get", name).code == 0


def test_jsonpath_over_a_list(cli: Any) -> None:
    found = cli("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")

    assert found.out == "sim-0"


def test_columns_of_ones_own(cli: Any) -> None:
    found = cli("get", "nodes", "-o", "custom-columns=WHO:.metadata.name,NONE:.no.such")

    assert [line.split() for line in found.lines] == [["WHO", "NONE"], ["sim-0", "<none>"]]


def test_sorted_by_a_field(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    for name, size in (("a", "3"), ("b", "1"), ("c", "20")):
        cli("apply", "-n", namespace, "-f", "-", stdin=config_map(name, size=size, kind="sorted"))

    found = cli(
        "get",
        "cm",
        "-n",
        namespace,
        "--sort-by",
        ".data.size",
        "--no-headers",
        "--field-selector",
        "metadata.name!=kube-root-ca.crt",
    )

    assert [line.split()[0] for line in found.lines] == ["b", "a", "c"]


def test_labels_as_columns(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one", labels={"tier": "gold"}))

    found = cli("get", "cm", "-n", namespace, "-l", "tier", "-L", "tier", "--show-labels")

    assert found.lines[0].split()[-2:] == ["TIER", "LABELS"]
    assert found.lines[1].split()[-2:] == ["gold", "tier=gold"]


def test_an_unknown_kind_says_what_was_perhaps_meant(cli: Any) -> None:
    found = cli("get", "deploymnets")

    assert (found.code, found.out) == (1, "")
    assert found.err == "fleetplane: the server has no kind 'deploymnets'; did you mean 'deployments'?\n"


def test_what_is_missing_is_said_and_the_rest_is_shown(cli: Any) -> None:
    found = cli("get", "node/sim-0", "node/nope")

    assert found.code == 1
    assert "sim-0" in found.out
    assert found.err == 'fleetplane: nodes "nope" not found\n'


def test_a_bad_format_is_a_usage_error_and_asks_no_server(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")

    found = cli("get", "pods", "-o", "go-template={{.}}", "--kubeconfig", "/nowhere")

    assert found.code in {1, 2}
    assert found.err.count("\n") == 1


def test_what_the_server_answers_to_a_path(cli: Any) -> None:
    assert cli("get", "--raw", "/api/v1/nodes?limit=1").json["kind"] == "NodeList"
    assert cli("get", "--raw", "nodes").code == 2


def test_over_all_logical_clusters_each_row_says_which(cli: Any) -> None:
    made = {"apiVersion": "fleetplane.io/v1alpha1", "kind": "LogicalCluster", "metadata": {"name": "car-1"}}
    assert cli("apply", "-f", "-", stdin=json.dumps(made)).code == 0
    assert cli("wait", "logicalcluster/car-1", "--for", "jsonpath={.status.phase}=Ready").code == 0

    inside = cli("get", "namespaces", "--cluster", "car-1")
    everywhere = cli("get", "namespaces", "--cluster", "*")
    unknown = cli("get", "namespaces", "--cluster", "car-2")

    assert "CLUSTER" not in inside.out
    assert ["car-1", "default", "Active"] in [line.split()[:3] for line in everywhere.lines]
    assert ["root", "default", "Active"] in [line.split()[:3] for line in everywhere.lines]
    assert unknown.code == 1


def test_watching_shows_what_is_there_and_then_each_change(
    cli: Any, namespace: str, config_map: Callable[..., str], plane: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one"))
    command = [sys.executable, "-m", "fleetplane.interfaces.cli", "get", "cm", "-n", namespace, "-w", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            seen = set()
            while "one" not in seen:
                seen.add(json.loads(watching.stdout.readline())["metadata"]["name"])
            cli("apply", "-n", namespace, "-f", "-", stdin=config_map("two"))
            assert json.loads(watching.stdout.readline())["metadata"]["name"] == "two"
        finally:
            watching.terminate()
