from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.workloads.stage import Object, Stage, play

from fleetplane.model.builtin.types import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from fleetplane.workloads.volumes import matching


def claim(name: str = "data", size: str = "1Gi", storage_class: str | None = "local", **meta: Any) -> Object:
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {"metadata": {"name": name, "namespace": "default", **meta}, "spec": spec}


def volume(name: str, size: str = "1Gi", storage_class: str = "local", **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/data"},
            **spec,
        },
    }


def on_node(node: str) -> Object:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}


async def use_provisioner(stage: Stage, provisioner: str) -> None:
    await stage.client.patch(STORAGE_CLASSES, "local", {"provisioner": provisioner})


def user(name: str = "user", claim_name: str = "data") -> Object:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": volumes},
    }


def phase(stage: Stage, resource: Any, name: str) -> str:
    return str((stage.one(resource, name).get("status") or {}).get("phase"))


@pytest.mark.parametrize(
    ("one", "fits"),
    [
        (volume("v"), True),
        (volume("v", size="500Mi"), False),
        (volume("v", size="2Gi"), True),
        (volume("v", storage_class="other"), False),
        (volume("v", accessModes=["ReadOnlyMany"]), False),
        (volume("v", volumeMode="Block"), False),
    ],
)
def test_which_volume_fits(one, fits):
    assert matching.fits(one, claim()) is fits


def test_the_smallest_free_volume_is_taken_and_a_reserved_one_before_it():
    reserved = volume("mine", size="9Gi", claimRef={"namespace": "default", "name": "data"})
    taken = volume("taken", claimRef={"namespace": "default", "name": "other"})
    plain = [volume("large", size="5Gi"), volume("small", size="2Gi"), taken]
    assert matching.best(plain, claim()) == plain[1]
    assert matching.best([*plain, reserved], claim()) == reserved


def test_a_claim_without_delay_is_bound_at_once():
    async def story(stage: Stage) -> None:
        await stage.client.delete(STORAGE_CLASSES, "local")
        await stage.create(PERSISTENT_VOLUMES, volume("v"))
        await stage.create(PERSISTENT_VOLUME_CLAIMS, claim())
        await stage.until(lambda: phase(stage, PERSISTENT_VOLUME_CLAIMS, "data") == "Bound", seconds=10)
        assert phase(stage, PERSISTENT_VOLUMES, "v") == "Bound"
        assert stage.one(PERSISTENT_VOLUME_CLAIMS, "data")["spec"]["volumeName"] == "v"
        await stage.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
        await stage.until(lambda: phase(stage, PERSISTENT_VOLUMES, "v") == "Released", seconds=10)

    play(story)


def test_a_delayed_claim_gets_a_directory_on_the_node_of_its_pod_and_gives_it_back():
    async def story(stage: Stage) -> None:
        await stage.create(PERSISTENT_VOLUME_CLAIMS, claim())
        await stage.quiet()
        assert phase(stage, PERSISTENT_VOLUME_CLAIMS, "data") == "Pending"
        assert stage.all(PERSISTENT_VOLUMES) == []
        await stage.create(PODS, user())
        await stage.until(lambda: bool(stage.one(PODS, "user")["spec"].get("nodeName")), seconds=30)
        (made,) = stage.all(PERSISTENT_VOLUMES)
        node = stage.one(PODS, "user")["spec"]["nodeName"]
        assert matching.reachable_from(made, node, {"kubernetes.io/hostname": node})
        assert not matching.reachable_from(made, "else", {"kubernetes.io/hostname": "else"})
        await stage.client.delete(PODS, "user", "default")
        await stage.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
        await stage.until(lambda: not stage.all(PERSISTENT_VOLUMES), seconds=30)

    play(story)


def test_a_pod_goes_where_its_volume_is():
    async def story(stage: Stage) -> None:
        await use_provisioner(stage, "kubernetes.io/no-provisioner")
        await stage.create(PERSISTENT_VOLUMES, volume("v", **on_node("node-2")))
        await stage.create(PERSISTENT_VOLUME_CLAIMS, claim())
        await stage.create(PODS, user())
        await stage.until(lambda: stage.one(PODS, "user")["spec"].get("nodeName") == "node-2", seconds=30)

    play(story)


def test_a_pod_waits_for_its_claim_and_says_so():
    async def story(stage: Stage) -> None:
        await stage.create(PODS, user())
        await stage.until(lambda: "FailedScheduling" in stage.reasons(), seconds=10)
        message = next(one["message"] for one in stage.all_events() if one["reason"] == "FailedScheduling")
        assert message == '0/3 nodes are available: persistentvolumeclaim "data" not found.'
        await stage.create(PERSISTENT_VOLUMES, volume("v"))
        await stage.create(PERSISTENT_VOLUME_CLAIMS, claim())
        await stage.until(lambda: bool(stage.one(PODS, "user")["spec"].get("nodeName")), seconds=30)

    play(story)


def test_a_claim_in_use_is_not_let_go():
    async def story(stage: Stage) -> None:
        await stage.create(PERSISTENT_VOLUMES, volume("v"))
        await stage.create(PERSISTENT_VOLUME_CLAIMS, claim(finalizers=["kubernetes.io/pvc-protection"]))
        await stage.create(PODS, user())
        await stage.until(lambda: bool(stage.one(PODS, "user")["spec"].get("nodeName")), seconds=30)
        await stage.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
        await asyncio.sleep(60)
        assert stage.all(PERSISTENT_VOLUME_CLAIMS)
        await stage.client.delete(PODS, "user", "default")
        await stage.until(lambda: not stage.all(PERSISTENT_VOLUME_CLAIMS), seconds=10)

    play(story)


def test_an_ephemeral_volume_has_a_claim_that_goes_with_the_pod():
    async def story(stage: Stage) -> None:
        pod = user()
        template = {"spec": claim()["spec"]}
        pod["spec"]["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]
        await stage.create(PODS, pod)
        await stage.until(lambda: bool(stage.one(PODS, "user")["spec"].get("nodeName")), seconds=60)
        assert phase(stage, PERSISTENT_VOLUME_CLAIMS, "user-scratch") == "Bound"
        await stage.client.delete(PODS, "user", "default")
        await stage.until(
            lambda: not stage.all(PERSISTENT_VOLUME_CLAIMS) and not stage.all(PERSISTENT_VOLUMES), seconds=60
        )

    play(story)
