"""``history``, ``diff --revision`` and ``rollback`` of objects that are no workloads: by the versions the server keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def settings(cli: Any, namespace: str, config_map: Callable[..., str]) -> str:
    """A namespace with ConfigMap settings, written three times: a=1, a=2, a=2 with b=1."""
    for data in ({"a": "1"}, {"a": "2"}, {"a": "2", "b": "1"}):
        assert cli("apply", "-n", namespace, "-f", "-", stdin=config_map(**data)).code == 0
    return namespace


def kept(cli: Any, where: str) -> list[dict[str, Any]]:
    return cli("history", "cm/settings", "-n", where, "-o", "json").json["revisions"]  # type: ignore[no-any-return]


def data(cli: Any, where: str) -> Any:
    return cli("get", "cm", "settings", "-n", where, "-o", "json").json["data"]


def test_every_version_tells_what_it_changed_and_who_did_it(cli: Any, settings: str) -> None:
    found = kept(cli, settings)

    assert [one["fields"] for one in found] == [["."], [".data.a"], [".data.b"]]
    assert {one["manager"] for one in found} == {"fleetplane-cli"}
    assert all(one["created"] for one in found)


def test_a_table_for_people(cli: Any, settings: str) -> None:
    shown = cli("history", "cm/settings", "-n", settings).lines

    assert shown[0].split() == ["REVISION", "AGE", "BY", "CHANGED"]
    assert [line.split()[-1] for line in shown[1:]] == ["created", ".data.a", ".data.b"]


def test_what_has_changed_since_a_version(cli: Any, settings: str) -> None:
    first, second, last = (str(one["revision"]) for one in kept(cli, settings))

    assert cli("diff", "cm/settings", "--revision", last, "-n", settings).code == 0
    since = cli("diff", "cm/settings", "--revision", first, "--to", second, "-n", settings)
    assert since.code == 1
    assert [line.split() for line in since.lines if line[:2] in {"- ", "+ "}] == [
        ["-", "a:", "'1'"],
        ["+", "a:", "'2'"],
    ]


def test_rolling_back_to_the_version_before_and_to_a_named_one(cli: Any, settings: str) -> None:
    first = str(kept(cli, settings)[0]["revision"])

    assert cli("rollback", "cm/settings", "--dry-run", "-n", settings).code == 0
    assert data(cli, settings) == {"a": "2", "b": "1"}
    cli("rollback", "cm/settings", "-n", settings)
    assert data(cli, settings) == {"a": "2"}
    done = cli("rollback", "cm/settings", "--revision", first, "-n", settings)
    assert done.out == f"configmap/settings rolled back to revision {first}\n"
    assert data(cli, settings) == {"a": "1"}
    again = cli("rollback", "cm/settings", "--revision", first, "-n", settings)
    assert again.out == f"configmap/settings is at revision {first} already\n"


def test_what_was_deleted_comes_back(cli: Any, settings: str) -> None:
    cli("delete", "cm/settings", "-n", settings)

    assert cli("history", "cm/settings", "-n", settings).lines[-1].split()[-1] == "deleted"
    assert cli("rollback", "cm/settings", "-n", settings).code == 0
    assert data(cli, settings) == {"a": "2", "b": "1"}


def test_a_version_that_is_not_kept(cli: Any, settings: str) -> None:
    known = ", ".join(str(one["revision"]) for one in kept(cli, settings))

    refused = cli("rollback", "cm/settings", "--revision", "1", "-n", settings)

    assert refused.code == 1
    assert refused.err == f"fleetplane: configmap/settings has no revision 1 any more; the latest are: {known}\n"


def test_a_diff_that_could_not_be_made_is_told_apart_from_a_difference(cli: Any, settings: str) -> None:
    assert cli("diff", "cm/settings", "--revision", "1", "-n", settings).code == 2
    assert cli("diff", "cm/nothing", "--revision", "1", "-n", settings).code == 2


def test_a_workload_that_was_deleted_comes_back(cli: Any, namespace: str, deployment: Callable[..., str]) -> None:
    cli("apply", "-n", namespace, "-f", "-", stdin=deployment())
    cli("delete", "deploy/web", "-n", namespace)

    assert cli("rollback", "deploy/web", "-n", namespace).code == 0
    assert cli("wait", "deploy/web", "-n", namespace).code == 0


def test_an_object_that_never_was(cli: Any, namespace: str) -> None:
    missing = cli("history", "cm/nothing", "-n", namespace)

    assert missing.code == 1
    assert 'configmaps "nothing" not found' in missing.err


def test_values_of_secrets_are_not_shown_in_a_diff(cli: Any, namespace: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}}
    for value in ("c2VjcmV0", "aGlkZGVu"):
        cli("apply", "-n", namespace, "-f", "-", stdin=json.dumps({**secret, "data": {"same": "eA==", "word": value}}))
    first = cli("history", "secret/key", "-n", namespace, "-o", "json").json["revisions"][0]["revision"]

    shown = cli("diff", "secret/key", "--revision", str(first), "-n", namespace)

    assert shown.code == 1
    assert "c2VjcmV0" not in shown.out
    assert "aGlkZGVu" not in shown.out
    assert "-  word: '*** (before)'" in shown.lines
    assert "+  word: '*** (after)'" in shown.lines
