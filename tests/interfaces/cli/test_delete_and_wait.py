"""``delete`` and ``wait``: gone means gone, ready means ready, and time-outs say what was missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_deleting_waits_until_it_is_gone(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", "--wait", stdin=deployment())

    deleted = cli("delete", "deploy", "web", "-n", namespace, "--cascade", "foreground", "--timeout", "20s")

    assert (deleted.code, deleted.out) == (0, "deployment.apps/web deleted\n")
    assert cli("get", "deploy/web", "-n", namespace).code == 1


def test_deleting_a_whole_kind_must_be_said(cli: Any, namespace: str) -> None:
    refused = cli("delete", "cm", "-n", namespace)

    assert refused.code == 2
    assert "by name, with -l or with --all" in refused.err


def test_deleting_by_label_leaves_the_others(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    both = config_map("one", labels={"keep": "no"}) + "\n---\n" + config_map("two", labels={"keep": "yes"})
    cli("apply", "-n", namespace, "-f", "-", stdin=both)

    deleted = cli("delete", "cm", "-l", "keep=no", "-n", namespace)

    assert deleted.out == "configmap/one deleted\n"
    assert cli("get", "cm/two", "-n", namespace).code == 0


def test_deleting_what_a_file_names(cli: Any, namespace: str, config_map: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(config_map("one"))
    cli("apply", "-n", namespace, "-f", str(path))

    assert cli("delete", "-n", namespace, "-f", str(path), "-o", "name").out == "configmap/one\n"


def test_many_objects_are_waited_for_together(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    names = [f"c-{number}" for number in range(8)]
    made = "\n---\n".join(config_map(name, labels={"set": "many"}) for name in names)
    cli("apply", "-n", namespace, "-f", "-", stdin=made)

    ready = cli("wait", "cm", "-l", "set=many", "-n", namespace)
    deleted = cli("delete", "cm", "-l", "set=many", "-n", namespace, "--timeout", "20s")

    assert sorted(ready.lines) == [f"configmap/{name} ready" for name in names]
    assert (deleted.code, len(deleted.lines)) == (0, 8)
    assert cli("get", "cm", "-l", "set=many", "-n", namespace).out == ""


def test_an_object_that_is_not_there(cli: Any, namespace: str) -> None:
    refused = cli("delete", "cm/nope", "-n", namespace)
    tolerated = cli("delete", "cm/nope", "-n", namespace, "--ignore-not-found")

    assert (refused.code, refused.err) == (1, 'fleetplane: configmaps "nope" not found\n')
    assert tolerated.code == 0


def test_waiting_for_a_deployment(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=deployment())

    waited = cli("wait", "deploy/web", "-n", namespace, "--timeout", "20s")

    assert (waited.code, waited.out) == (0, "deployment.apps/web ready\n")


def test_waiting_for_a_value_of_a_field(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=deployment())

    waited = cli(
        "wait", "deploy/web", "-n", namespace, "--for", "jsonpath={.status.readyReplicas}=1", "--timeout", "20s"
    )

    assert waited.code == 0, waited.err


def test_a_time_out_says_what_was_missing(cli: Any, namespace: str, config_map: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=config_map("one"))

    waited = cli("wait", "cm/one", "-n", namespace, "--for", "delete", "--timeout", "200ms")

    assert waited.code == 1
    assert waited.err == (
        "fleetplane: 0.2 seconds were not enough for configmap/one (nobody has deleted it yet) to be gone; "
        "wait longer with --timeout\n"
    )


def test_waiting_for_what_does_not_exist_yet(cli: Any, namespace: str) -> None:
    waited = cli("wait", "cm/later", "-n", namespace, "--for", "create", "--timeout", "200ms")
    refused = cli("wait", "cm/later", "-n", namespace)

    assert "it is not there" in waited.err
    assert refused.err == 'fleetplane: configmaps "later" not found\n'


def test_waiting_for_the_end_of_what_is_gone_already(cli: Any, namespace: str) -> None:
    assert cli("wait", "cm/nope", "-n", namespace, "--for", "delete").code == 0


def test_a_goal_that_is_not_known_is_a_usage_error(cli: Any) -> None:
    found = cli("wait", "node/sim-0", "--for", "happiness")

    assert found.code == 2
    assert "condition=NAME" in found.err
