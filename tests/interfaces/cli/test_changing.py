"""``label``, ``annotate``, ``scale``, ``rollout`` and ``rollback``: small changes to what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetplane.interfaces.cli.commands.label import split
from fleetplane.interfaces.cli.errors import UsageError


@pytest.fixture
def web(cli: Any, namespace: str, deployment: Callable[..., str]) -> Any:
    """The namespace of a Deployment that has two revisions: web:1 and web:2."""
    for image in ("web:1", "web:2"):
        assert cli("apply", "-n", namespace, "-f", "-", "--wait", stdin=deployment(image=image)).code == 0
    return namespace


def image(cli: Any, namespace: str) -> Any:
    return cli("get", "deploy/web", "-n", namespace, "-o", "jsonpath={.spec.template.spec.containers[0].image}").out


def test_words_with_an_equals_sign_or_a_trailing_dash_are_changes() -> None:
    assert split(["pods", "a", "x=1", "y=", "z-"]) == (["pods", "a"], {"x": "1", "y": "", "z": None})
    with pytest.raises(UsageError):
        split(["pods", "x=1", "a"])
    with pytest.raises(UsageError):
        split(["pods", "x=1", "x-"])


def test_a_label_is_not_overwritten_without_saying_so(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one"))

    set_once = cli("label", "cm/one", "tier=gold", "-n", namespace)
    refused = cli("label", "cm/one", "tier=tin", "-n", namespace)
    overwritten = cli("label", "cm/one", "tier=tin", "--overwrite", "-n", namespace)
    removed = cli("label", "cm/one", "tier-", "-n", namespace)

    assert set_once.out == "configmap/one labelled\n"
    assert (refused.code, "--overwrite" in refused.err) == (1, True)
    assert overwritten.code == removed.code == 0
    assert cli("label", "cm/one", "--list", "-n", namespace).out == "configmap/one\n"


def test_annotations(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one"))

    assert cli("annotate", "cm", "one", "owner=team blue", "-n", namespace).out == "configmap/one annotated\n"
    assert "owner=team blue" in cli("annotate", "cm/one", "--list", "-n", namespace).out


def test_scaling_and_waiting_for_it(cli: Any, web: str) -> None:
    scaled = cli("scale", "deploy/web", "--replicas", "3", "--wait", "-n", web)

    assert scaled.out == "deployment.apps/web scaled to 3\n"
    assert cli("get", "deploy/web", "-n", web, "-o", "jsonpath={.status.availableReplicas}").out == "3"


def test_scaling_only_from_what_one_thinks_there_is(cli: Any, web: str) -> None:
    refused = cli("scale", "deploy/web", "--current-replicas", "5", "--replicas", "3", "-n", web)

    assert refused.code == 1
    assert "has 1 replicas, not 5" in refused.err


def test_what_cannot_be_scaled(cli: Any) -> None:
    refused = cli("scale", "node/sim-0", "--replicas", "2")

    assert refused.err == "fleetplane: node/sim-0 cannot be scaled: its kind has no replicas\n"


def test_the_status_of_a_roll_out(cli: Any, web: str) -> None:
    assert cli("rollout", "status", "deploy/web", "-n", web).out == "deployment.apps/web successfully rolled out\n"
    now = cli("rollout", "status", "deploy/web", "--watch", "false", "-o", "json", "-n", web).json
    assert now["done"] is True


def test_a_roll_out_that_cannot_end_is_an_error(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=deployment())
    cli("rollout", "pause", "deploy/web", "-n", namespace)

    waited = cli("rollout", "status", "deploy/web", "--timeout", "200ms", "-n", namespace)

    assert waited.code == 1
    assert "its roll-out is paused" in waited.err


def test_undoing_goes_back_to_the_revision_before(cli: Any, web: str) -> None:
    undone = cli("rollout", "undo", "deploy/web", "-n", web)

    assert undone.out == "deployment.apps/web rolled back to revision 1\n"
    assert image(cli, web) == "web:1"


def test_rolling_back_to_a_revision(cli: Any, web: str) -> None:
    tried = cli("rollback", "deploy/web", "--revision", "1", "--dry-run", "-n", web)
    assert "-      - image: web:2" in tried.out
    assert image(cli, web) == "web:2"

    cli("rollback", "deploy/web", "--revision", "1", "-n", web)
    assert image(cli, web) == "web:1"


def test_a_revision_that_does_not_exist(cli: Any, web: str) -> None:
    refused = cli("rollback", "deploy/web", "--revision", "9", "-n", web)

    assert refused.err == "fleetplane: deployment/web has no revision 9; it has: 1, 2\n"


def test_the_history_of_a_workload_and_who_changed_it(cli: Any, web: str) -> None:
    cli("scale", "deploy/web", "--replicas", "2", "-n", web)

    shown = cli("history", "deploy/web", "-n", web, "-o", "json").json

    assert [one["revision"] for one in shown["revisions"]] == [1, 2]
    writers = {one["manager"]: one["fields"] for one in shown["changes"]}
    assert ".spec.replicas" in writers["fleetplane-scale"]
    assert ".spec.template.spec.containers[name=main].image" in writers["fleetplane-cli"]


def test_what_has_changed_since_a_revision(cli: Any, web: str) -> None:
    same = cli("diff", "deploy/web", "--revision", "2", "-n", web)
    other = cli("diff", "deploy/web", "--revision", "1", "-n", web)

    assert same.code == 0
    assert other.code == 1
    changed = [line for line in other.lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert changed == ["-  - image: web:1", "+  - image: web:2"]


def test_a_diff_of_files_tells_by_its_exit_code(
    cli: Any, web: str, deployment: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "web.json"
    codes = []
    for text in (deployment(image="web:2"), deployment(image="web:3"), deployment(image=7)):
        path.write_text(text)
        codes.append(cli("diff", "-f", str(path), "-n", web).code)

    assert codes == [0, 1, 2]
    assert image(cli, web) == "web:2"


def test_a_restart_replaces_every_pod(cli: Any, web: str) -> None:
    def pods() -> Any:
        return set(
            cli("get", "pods", "-n", web, "-l", "app=web", "-o", "jsonpath={.items[*].metadata.uid}").out.split()
        )

    before = pods()
    cli("rollout", "restart", "deploy/web", "-n", web)
    assert cli("rollout", "status", "deploy/web", "--timeout", "20s", "-n", web).code == 0

    assert not before & pods()


def test_pausing_twice_says_so(cli: Any, web: str) -> None:
    assert cli("rollout", "pause", "deploy/web", "-n", web).out == "deployment.apps/web paused\n"
    assert cli("rollout", "pause", "deploy/web", "-n", web).out == "deployment.apps/web is paused already\n"
    assert "resume it first" in cli("rollout", "restart", "deploy/web", "-n", web).err
    assert cli("rollout", "resume", "deploy/web", "-n", web).out == "deployment.apps/web resumed\n"


def test_kinds_that_roll_nothing_out(cli: Any) -> None:
    refused = cli("rollout", "restart", "node/sim-0")

    assert refused.err == (
        "fleetplane: node/sim-0 cannot be restarted; that is for: DaemonSet, Deployment, StatefulSet\n"
    )
