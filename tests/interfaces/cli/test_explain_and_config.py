"""``explain``, ``api-resources`` and ``config``: what there is, and which server is meant."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any


def test_a_kind_and_its_fields(cli: Any) -> None:
    shown = cli("explain", "deployments")

    assert shown.lines[:2] == ["KIND:    Deployment", "VERSION: apps/v1"]
    assert any(line.startswith("  spec <DeploymentSpec>") for line in shown.lines)


def test_a_field_deep_inside(cli: Any) -> None:
    shown = cli("explain", "pods.spec.containers.ports")

    assert "FIELD:   spec.containers.ports <[]ContainerPort>" in shown.lines
    assert "  containerPort <integer> (required)" in shown.lines


def test_a_group_has_dots_as_fields_do(cli: Any) -> None:
    assert "VERSION: apps/v1" in cli("explain", "deployments.apps.spec.replicas").out


def test_a_field_that_does_not_exist(cli: Any) -> None:
    shown = cli("explain", "pods.spec.container")

    assert shown.err == "fleetplane: there is no field 'container' at spec; did you mean 'containers'?\n"


def test_all_fields_of_a_schema_that_refers_to_itself(cli: Any) -> None:
    shown = cli("explain", "crd.spec.versions.schema.openAPIV3Schema", "--recursive")

    assert shown.code == 0
    assert 10 < len(shown.lines) < 5000


def test_the_kinds_of_one_group(cli: Any) -> None:
    assert cli("api-resources", "--api-group", "batch", "-o", "name").lines == ["cronjobs.batch", "jobs.batch"]


def test_the_kubeconfig_without_its_secrets(cli: Any) -> None:
    shown = cli("config", "view", "-o", "json").json

    user = shown["users"][0]["user"]
    assert set(user.values()) == {"REDACTED"}
    assert cli("config", "view", "--raw", "-o", "json").json["users"][0]["user"] != user


def test_choosing_a_context_changes_one_line_and_keeps_the_rest(cli: Any, plane: Any, tmp_path: Path) -> None:
    path = tmp_path / "config"
    text = plane.kubeconfig.read_text()
    path.write_text(f"# mine\n{text}")
    path.chmod(0o600)
    current = cli("config", "current-context", "--kubeconfig", str(path)).out.strip()

    refused = cli("config", "use-context", "nope", "--kubeconfig", str(path))
    chosen = cli("config", "use-context", current, "--kubeconfig", str(path))

    assert refused.err == f"fleetplane: the kubeconfig has no context 'nope'; it has: {current}\n"
    assert chosen.code == 0
    assert path.read_text().startswith("# mine\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cli("get", "nodes", "--kubeconfig", str(path)).code == 0


def test_no_metrics_is_said_in_words(cli: Any) -> None:
    shown = cli("top", "nodes")

    assert shown.code in {0, 1}
    assert "Traceback" not in shown.err
    assert shown.out or "does not measure" in shown.err or "Nothing has been measured" in shown.err
