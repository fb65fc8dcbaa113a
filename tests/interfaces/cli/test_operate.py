"""``fleetplane operators`` and ``manifests``."""

from __future__ import annotations

import json

from click.testing import CliRunner

from fleetplane.interfaces.cli.main import app


def test_manifests_hold_kinds_rights_and_a_deployment() -> None:
    done = CliRunner().invoke(app, ["manifests", "--only", "vehicles", "-o", "json"])

    items = json.loads(done.stdout)["items"]
    kinds = [one["kind"] for one in items]
    assert kinds.count("Deployment") == 1
    assert "CustomResourceDefinition" in kinds
    (role,) = [one for one in items if one["kind"] == "ClusterRole"]
    assert all("*" not in rule.get("verbs", []) for rule in role["rules"])


def test_an_unknown_operator_is_named_with_what_there_is() -> None:
    done = CliRunner().invoke(app, ["manifests", "--only", "nobody"], standalone_mode=False)

    assert "no operator 'nobody'" in str(done.exception)
