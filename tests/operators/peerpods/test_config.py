"""PeerPodConfigs on a whole plane: capacity that follows the nodes, and a status that says why not."""

from __future__ import annotations

import asyncio

import pytest
from tests.operators.peerpods.stage import Stage, staged

from fleetplane.model.builtin.types import CONFIG_MAPS, DAEMON_SETS, EVENTS, NODES, RUNTIME_CLASSES, SECRETS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import finalizers
from fleetplane.operators.peerpods.kinds import VM_RESOURCE, PeerPodConfig

ADAPTOR = "peerpodconfig-ctrl-caa-daemon"


@staged()
async def test_ten_on_three_nodes_is_four_three_three(stage: Stage) -> None:
    await stage.config(limit="10")

    await stage.has("4", "3", "3")

    status = (await stage.find(PeerPodConfig, "one"))["status"]
    assert [one["capacity"] for one in status["nodes"]] == [4, 3, 3]
    assert status["capacity"] == 10


@staged()
async def test_capacity_does_not_wait_for_settings_and_their_absence_is_a_condition(stage: Stage) -> None:
    await stage.config(limit="3")

    await stage.has("1", "1", "1")
    said = await stage.says("ConfigurationValid", "False")

    assert said["reason"] == "Missing"
    assert "ConfigMap peer-pods-cm" in said["message"]
    assert "Secret peer-pods-secret" in said["message"]


@staged()
async def test_setup_completes_when_settings_and_adaptor_are_there(stage: Stage) -> None:
    await stage.config(limit="3")
    await stage.says("ConfigurationValid", "False")

    await stage.settings()

    await stage.says("Ready", "True")
    config = await stage.find(PeerPodConfig, "one")
    assert config["status"]["setupCompleted"] is True
    assert config["status"]["adaptor"] == {"name": ADAPTOR, "desired": 3, "ready": 3}
    made = await stage.find(DAEMON_SETS, ADAPTOR)
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [
        {"secretRef": {"name": "peer-pods-secret"}},
        {"configMapRef": {"name": "peer-pods-cm"}},
    ]


@staged()
async def test_a_change_of_settings_replaces_the_adaptor(stage: Stage) -> None:
    await stage.settings()
    await stage.config(limit="3")
    await stage.says("Ready", "True")
    before = (await stage.find(DAEMON_SETS, ADAPTOR))["spec"]["template"]

    await stage.client.patch(CONFIG_MAPS, "peer-pods-cm", {"data": {"VXLAN_PORT": "1"}}, "default")

    async def replaced() -> bool:
        return (await stage.find(DAEMON_SETS, ADAPTOR))["spec"]["template"] != before

    await stage.until(replaced)


@staged()
async def test_per_node_mode_gives_every_node_the_limit(stage: Stage) -> None:
    await stage.config(limit="7", limitMode="PerNode")

    await stage.has("7", "7", "7")


@staged()
async def test_a_node_that_loses_its_label_loses_the_key_and_others_take_over(stage: Stage) -> None:
    for name in ("sim-0", "sim-1"):
        await stage.client.patch(NODES, name, {"metadata": {"labels": {"vm": "yes"}}})
    await stage.config(limit="5", nodeSelector={"vm": "yes"})
    await stage.has("3", "2", "-")

    await stage.client.patch(NODES, "sim-0", {"metadata": {"labels": {"vm": None}}})
    await stage.client.patch(NODES, "sim-2", {"metadata": {"labels": {"vm": "yes"}}})

    await stage.has("-", "3", "2")


@staged()
async def test_a_node_made_anew_gets_its_share_again(stage: Stage) -> None:
    await stage.config(limit="9")
    await stage.has("3", "3", "3")

    await stage.client.delete(NODES, "sim-1")

    await stage.has("3", "3", "3")


@staged()
async def test_deleting_removes_the_key_the_adaptor_and_the_runtime_class(stage: Stage) -> None:
    await stage.settings()
    await stage.config(limit="10")
    await stage.has("4", "3", "3")
    await stage.says("Ready", "True")

    await stage.client.delete(PeerPodConfig, "one", "default")

    await stage.gone(PeerPodConfig, "one")
    await stage.has("-", "-", "-")
    await stage.gone(DAEMON_SETS, ADAPTOR)
    await stage.gone(RUNTIME_CLASSES, "kata-remote", None)


@staged()
async def test_a_runtime_class_of_somebody_else_stays_as_it_is(stage: Stage) -> None:
    theirs = {"metadata": {"name": "kata-remote"}, "handler": "mine"}
    await stage.client.create(RUNTIME_CLASSES, theirs)
    await stage.config(limit="1")
    await stage.has("1", "0", "0")

    await stage.client.delete(PeerPodConfig, "one", "default")

    await stage.gone(PeerPodConfig, "one")
    assert (await stage.find(RUNTIME_CLASSES, "kata-remote", None))["handler"] == "mine"


@staged()
async def test_two_configs_do_not_fight_and_the_second_takes_over(stage: Stage) -> None:
    await stage.config("one", limit="3")
    await stage.has("1", "1", "1")
    await asyncio.sleep(2)
    await stage.config("two", namespace="kube-public", limit="6")

    said = await stage.says("Conflict", "True", name="two", namespace="kube-public")
    assert "default/one" in said["message"]
    version = (await stage.find(NODES, "sim-0", None))["status"]["capacity"][VM_RESOURCE]
    await asyncio.sleep(60)
    assert (await stage.find(NODES, "sim-0", None))["status"]["capacity"][VM_RESOURCE] == version == "1"

    await stage.client.delete(PeerPodConfig, "one", "default")

    await stage.has("2", "2", "2")
    await stage.says("Conflict", "False", name="two", namespace="kube-public")


@staged()
async def test_what_others_put_on_nodes_stays(stage: Stage) -> None:
    await stage.client.patch(NODES, "sim-0", {"status": {"capacity": {"other.io/x": "5"}}}, subresource="status")
    await stage.config(limit="3")
    await stage.has("1", "1", "1")

    await stage.client.delete(PeerPodConfig, "one", "default")
    await stage.gone(PeerPodConfig, "one")

    status = (await stage.find(NODES, "sim-0", None))["status"]
    assert status["capacity"]["other.io/x"] == "5"
    assert VM_RESOURCE not in status["capacity"]


@staged()
async def test_in_steady_state_nothing_is_written(stage: Stage) -> None:
    await stage.settings()
    await stage.config(limit="10")
    await stage.says("Ready", "True")
    await asyncio.sleep(5)
    before = (await stage.find(PeerPodConfig, "one"))["metadata"]["resourceVersion"]
    nodes = {one["metadata"]["name"]: one["status"]["capacity"] for one in (await stage.client.list(NODES)).items}

    await stage.client.patch(NODES, "sim-0", {"metadata": {"annotations": {"a": "b"}}})
    await asyncio.sleep(900)

    assert (await stage.find(PeerPodConfig, "one"))["metadata"]["resourceVersion"] == before
    assert {
        one["metadata"]["name"]: one["status"]["capacity"] for one in (await stage.client.list(NODES)).items
    } == nodes


@staged()
async def test_no_node_is_said_plainly(stage: Stage) -> None:
    await stage.config(limit="3", nodeSelector={"no": "where"})

    said = await stage.says("CapacityAdvertised", "False")

    assert said["reason"] == "NoNodes"


@staged()
async def test_what_cannot_work_is_refused_at_once(stage: Stage) -> None:
    for spec, word in (
        ({"limit": "abc"}, "whole number"),
        ({"limit": "-1"}, "whole number"),
        ({"limitMode": "Node"}, "limitMode"),
        ({"nodeSelector": {"a b": "c"}}, "nodeSelector"),
        ({"nodeSelector": {"matchLabels": {"a": "b"}}}, "nodeSelector"),
        ({"cloudSecretName": "A_B"}, "cloudSecretName"),
    ):
        with pytest.raises(ApiError, match=word) as raised:
            await stage.config(**spec)
        assert raised.value.code == 422, spec


@staged()
async def test_the_wire_format_is_the_originals(stage: Stage) -> None:
    made = await stage.config(limit="3")

    assert made["spec"]["cloudSecretName"] == "peer-pods-secret"
    assert made["spec"]["configMapName"] == "peer-pods-cm"
    assert made["apiVersion"] == "confidentialcontainers.org/v1alpha1"
    await stage.has("1", "1", "1")
    assert finalizers(await stage.find(PeerPodConfig, "one"))


@staged()
async def test_contradicting_providers_are_named_and_events_say_it_once(stage: Stage) -> None:
    await stage.settings(provider="aws", PODVM_AMI_ID="ami-1")
    secret = {"stringData": {"CLOUD_PROVIDER": "azure"}}
    await stage.client.patch(SECRETS, "peer-pods-secret", secret, "default")
    await stage.config(limit="3")

    said = await stage.says("ConfigurationValid", "False")
    await asyncio.sleep(60)

    assert said["reason"] == "Contradiction"
    events = [one for one in (await stage.client.list(EVENTS, "default")).items if one["reason"] == "Contradiction"]
    assert sum(one.get("count") or 1 for one in events) == 1


@staged(nodes=2)
async def test_where_nodes_make_their_vms_themselves_no_adaptor_is_deployed(stage: Stage) -> None:
    await stage.settings(provider="qemu")
    await stage.config(limit="4")

    said = await stage.says("Ready", "True")

    assert said["reason"] == "SetupCompleted"
    assert (await stage.client.list(DAEMON_SETS, "default")).items == []
