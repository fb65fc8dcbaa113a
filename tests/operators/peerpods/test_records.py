"""PeerPods on a whole plane: one wish is one VM, and when the record is gone so is the VM."""

from __future__ import annotations

import asyncio

import pytest
from tests.operators.peerpods.stage import Stage, staged

from fleetplane.controller import Manager
from fleetplane.model.builtin.types import EVENTS, PODS
from fleetplane.model.errors import ApiError
from fleetplane.operators.peerpods import peer_pods
from fleetplane.operators.peerpods.kinds import FINALIZER, PeerPod, PeerPodConfig
from fleetplane.operators.peerpods.providers.protocol import CLUSTER_TAG, RECORD_TAG, Failure, VmSpec
from fleetplane.testing import SimulatedEnvironment, running_server


@staged(nodes=1)
async def test_a_wish_becomes_a_vm_and_its_record_knows_it(stage: Stage) -> None:
    await stage.settings(provider="simulated")

    made = await stage.record()
    found = await stage.phase("one", "Running")

    assert made["metadata"]["finalizers"] == [FINALIZER]
    (vm,) = stage.cloud.vms.values()
    assert found["spec"]["instanceID"] == vm.id
    assert found["status"]["addresses"] == list(vm.addresses)
    assert vm.tags[RECORD_TAG] == made["metadata"]["uid"]
    assert (vm.size.vcpus, vm.size.memory_mib) == (2, 512)


@staged(nodes=1)
async def test_the_record_goes_when_the_vm_has_gone(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.record()
    await stage.phase("one", "Running")

    await stage.client.delete(PeerPod, "one", "default")
    await stage.phase("one", "Deleting")
    assert stage.cloud.vms
    await stage.gone(PeerPod, "one")

    assert not stage.cloud.vms


@staged(nodes=1)
async def test_a_vm_that_is_gone_already_does_not_hold_its_record(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.record()
    await stage.phase("one", "Running")
    stage.cloud.vms.clear()

    await stage.client.delete(PeerPod, "one", "default")

    await stage.gone(PeerPod, "one")


@staged(nodes=1)
async def test_a_record_of_the_adaptor_is_deleted_with_its_vm_but_never_makes_one(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    vm = await stage.cloud.create(VmSpec("theirs", "theirs", {}))
    spec = {"cloudProvider": "simulated", "instanceID": vm.id}
    await stage.client.create(PeerPod, {"metadata": {"name": "one"}, "spec": spec}, "default")
    await stage.phase("one", "Recorded")
    assert stage.cloud.made == 1

    await stage.client.delete(PeerPod, "one", "default")

    await stage.gone(PeerPod, "one")
    assert not stage.cloud.vms


@staged(nodes=1)
async def test_a_record_without_vm_provider_or_owner_goes_at_once(stage: Stage) -> None:
    await stage.client.create(PeerPod, {"metadata": {"name": "one"}, "spec": {}}, "default")
    await stage.phase("one", "Recorded")

    await stage.client.delete(PeerPod, "one", "default")

    await stage.gone(PeerPod, "one")


@staged(nodes=1)
async def test_a_record_that_names_the_vm_of_another_does_not_take_it_along(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.record()
    victim = (await stage.phase("one", "Running"))["spec"]["instanceID"]
    spec = {"cloudProvider": "simulated", "instanceID": victim}
    await stage.client.create(PeerPod, {"metadata": {"name": "thief"}, "spec": spec}, "default")
    await stage.phase("thief", "Recorded")

    await stage.client.delete(PeerPod, "thief", "default")

    await stage.gone(PeerPod, "thief")
    assert stage.cloud.vms[victim].state == "running"


@staged(nodes=1)
async def test_of_twins_made_in_one_second_one_is_left(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    spec = {"containers": [{"name": "a", "image": "x"}], "terminationGracePeriodSeconds": 0}
    pod = await stage.client.create(PODS, {"metadata": {"name": "p"}, "spec": spec}, "default")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"], "controller": True}
    twins = [await stage.record(name, ownerReferences=[owner]) for name in ("a", "b", "c")]

    last = max(twins, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["uid"]))["metadata"][
        "name"
    ]
    for name in {"a", "b", "c"} - {last}:
        await stage.gone(PeerPod, name)

    await stage.phase(last, "Running")
    assert len(stage.cloud.vms) == 1


@pytest.mark.parametrize("failure", list(Failure))
def test_a_provider_that_fails_is_said_plainly_and_not_asked_all_the_time(failure: Failure) -> None:
    @staged(nodes=1)
    async def story(stage: Stage) -> None:
        await stage.settings(provider="simulated")
        stage.cloud.broken = failure
        await stage.record()

        said = await stage.says("ProviderAnswers", "False", kind=PeerPod)
        await asyncio.sleep(600)

        assert said["reason"] == failure.value
        assert stage.cloud.calls < 40
        events = [one for one in (await stage.client.list(EVENTS, "default")).items if one["reason"] == failure.value]
        assert sum(one.get("count") or 1 for one in events) == 1
        stage.cloud.broken = None
        await asyncio.sleep(720)
        await stage.phase("one", "Running")
        assert len(stage.cloud.vms) == stage.cloud.made == 1

    story()


@staged(nodes=1)
async def test_deletion_is_retried_until_the_provider_confirms(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.record()
    await stage.phase("one", "Running")
    stage.cloud.broken = Failure.TIMED_OUT

    await stage.client.delete(PeerPod, "one", "default")
    await stage.says("ProviderAnswers", "False", kind=PeerPod)
    await asyncio.sleep(60)
    assert await stage.find(PeerPod, "one")
    stage.cloud.broken = None

    await stage.gone(PeerPod, "one", timeout=300)
    assert not stage.cloud.vms


@staged(nodes=1)
async def test_a_vm_without_record_is_deleted_after_its_grace_and_others_never(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.config(limit="1")
    await stage.record("kept")
    await stage.phase("kept", "Running")
    (kept,) = stage.cloud.vms
    tags = {CLUSTER_TAG: stage.cloud.vms[kept].tags[CLUSTER_TAG], RECORD_TAG: "nobody"}
    orphan = await stage.cloud.create(VmSpec("t1", "orphan", tags))
    stranger = await stage.cloud.create(VmSpec("t2", "stranger", {**tags, CLUSTER_TAG: "another"}))

    await asyncio.sleep(100)
    assert orphan.id in stage.cloud.vms
    await asyncio.sleep(300)

    assert set(stage.cloud.vms) == {kept, stranger.id}
    assert [one["reason"] for one in (await stage.client.list(EVENTS, "default")).items].count("OrphanDeleted") == 1


@staged(nodes=1)
async def test_a_vm_can_be_made_larger(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.record()
    await stage.phase("one", "Running")

    await stage.client.patch(PeerPod, "one", {"spec": {"vm": {"vcpus": 4}}}, "default")

    async def larger() -> bool:
        return next(iter(stage.cloud.vms.values())).size.vcpus == 4

    await stage.until(larger)


@staged(nodes=1)
async def test_a_record_cannot_come_to_speak_of_another_vm(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.record()
    await stage.phase("one", "Running")

    for spec in ({"instanceID": "other"}, {"instanceID": ""}, {"cloudProvider": "aws"}, {"vm": {"image": "x"}}):
        with pytest.raises(ApiError, match="spec"):
            await stage.client.patch(PeerPod, "one", {"spec": spec}, "default")


@staged(nodes=1)
async def test_calls_are_counted(stage: Stage) -> None:
    await stage.settings(provider="simulated")
    await stage.record()
    await stage.phase("one", "Running")

    labels = {"provider": "simulated", "operation": "create", "outcome": "ok"}
    value = stage.manager.metrics.registry.get_sample_value("fleetplane_peerpods_provider_calls_total", labels)

    assert value == 1


async def test_another_operator_embeds_it_in_five_lines() -> None:
    async with running_server() as server:
        manager = Manager(server.client(), environment=SimulatedEnvironment(0), name="mine")
        peer_pods({}).install(manager)

        assert {one.name for one in manager.controllers} == {"peerpodconfigs", "peerpods", "peerpod-orphans"}
        assert {one.resource for one in manager.controllers} == {PeerPod, PeerPodConfig}
