"""What the original got wrong and no other test names: each as the behaviour that is right."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tests.operators.peerpods.stage import Stage, staged

from fleetplane.model.builtin.types import (
    CONFIG_MAPS,
    NODES,
    SECRETS,
    VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS,
)
from fleetplane.operators.peerpods import OPERATOR
from fleetplane.operators.peerpods.kinds import PeerPod
from fleetplane.operators.peerpods.providers.simulated import SimulatedCloud


async def forbid(stage: Stage, resource: str, group: str, expression: str, message: str) -> None:
    """A policy of the cluster that this operator meets like everybody else."""
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
    spec: dict[str, Any] = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": expression, "message": message}],
    }
    await stage.client.create(VALIDATING_ADMISSION_POLICIES, {"metadata": {"name": "never"}, "spec": spec})
    binding = {"policyName": "never", "validationActions": ["Deny"]}
    await stage.client.create(VALIDATING_ADMISSION_POLICY_BINDINGS, {"metadata": {"name": "never"}, "spec": binding})


@staged(nodes=3)
async def test_a_node_that_cannot_be_written_is_named_and_the_others_have_theirs(stage: Stage) -> None:
    second = sorted(one["metadata"]["name"] for one in (await stage.client.list(NODES)).items)[1]
    await forbid(stage, "nodes/status", "", f"object.metadata.name != '{second}'", "this node is mine")

    await stage.config(limit="9")

    said = await stage.says("CapacityAdvertised", "False")
    assert said["reason"] == "NodePatchFailed"
    assert second in said["message"] and "this node is mine" in said["message"]
    assert await stage.capacity() == ["3", "-", "3"]
    await stage.client.delete(VALIDATING_ADMISSION_POLICY_BINDINGS, "never")
    await stage.has("3", "3", "3")


@staged(nodes=1)
async def test_a_daemon_set_that_is_refused_is_said_and_tried_again(stage: Stage) -> None:
    await forbid(stage, "daemonsets", "apps", "false", "no daemons here")
    await stage.settings()
    await stage.config(limit="1")

    said = await stage.says("AdaptorReady", "False")
    while said["reason"] != "Refused":
        await asyncio.sleep(0.5)
        said = await stage.says("AdaptorReady", "False")
    assert "no daemons here" in said["message"]
    await stage.has("1")
    await stage.client.delete(VALIDATING_ADMISSION_POLICY_BINDINGS, "never")

    await stage.says("AdaptorReady", "True")


@staged(nodes=1)
async def test_the_instance_type_of_a_config_is_that_of_records_which_ask_for_nothing(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.config(limit="1", instanceType="large")
    spec = {"cloudProvider": "simulated", "vm": {}}
    await stage.client.create(PeerPod, {"metadata": {"name": "one"}, "spec": spec}, "default")

    await stage.phase("one", "Running")

    (vm,) = stage.cloud.vms.values()
    assert vm.size.instance_type == "large"


def test_new_credentials_are_taken_up_without_a_restart_and_never_become_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def remember(self: SimulatedCloud, settings: Any, _surroundings: Any) -> SimulatedCloud:
        seen.append(settings.get("TOKEN", ""))
        return self

    monkeypatch.setattr(SimulatedCloud, "factory", remember)

    @staged(nodes=1)
    async def story(stage: Stage) -> None:
        data = {"CLOUD_PROVIDER": "simulated", "PATH": "/evil"}
        await stage.client.create(CONFIG_MAPS, {"metadata": {"name": "peer-pods-cm"}, "data": data}, "default")
        secret = {"metadata": {"name": "peer-pods-secret"}, "stringData": {"TOKEN": "old"}}
        await stage.client.create(SECRETS, secret, "default")
        for name in ("one", "two", "three"):
            await stage.record(name)
            await stage.phase(name, "Running")
        await stage.client.patch(SECRETS, "peer-pods-secret", {"stringData": {"TOKEN": "new"}}, "default")
        await asyncio.sleep(11)
        for name in ("four", "five"):
            await stage.record(name)
            await stage.phase(name, "Running")

    story()

    assert seen == ["old", "new"]
    assert os.environ.get("PATH") != "/evil"
    assert "TOKEN" not in os.environ


def test_no_right_to_create_is_bound_to_names_which_nobody_could_enforce() -> None:
    assert not [rule for rule in OPERATOR.rules if "create" in rule["verbs"] and rule.get("resourceNames")]
