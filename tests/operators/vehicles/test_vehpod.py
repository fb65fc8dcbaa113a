"""A VehPod from its manifest to a running pod: the original's samples, and every defect the original had."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from tests.operators.vehicles.stage import (
    DevRes,
    Stage,
    VehContainerConfig,
    VehPod,
    config,
    device,
    pod_spec,
    staged,
    veh_pod,
)

from fleetplane.model.builtin.types import LIMIT_RANGES, NAMESPACES, PODS, RESOURCE_QUOTAS
from fleetplane.model.errors import ApiError
from fleetplane.operators.vehicles import plan

X11 = {
    "piccoloVolumes": [
        {
            "volume": {"name": "x11-unix", "hostPath": {"path": "/tmp/.X11-unix"}},
            "volumeMount": {"name": "x11-unix", "mountPath": "/tmp/.X11-unix"},
        },
        {
            "volume": {"name": "x11-auth", "hostPath": {"path": "/root/.Xauthority"}},
            "volumeMount": {"name": "x11-auth", "mountPath": "/root/.Xauthority"},
        },
    ],
    "piccoloEnv": [{"name": "DISPLAY", "value": "localhost:10.0"}],
}


def camera(**more: Any) -> dict[str, Any]:
    spec = {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "camera-app-pod", "image": "camera:1", "securityContext": {"privileged": True}}],
    }
    return veh_pod(
        "cameratest-app-pod",
        devResInfo=[{"devName": "cam-interior-driver", "devDestPath": "/dev/video0"}],
        devContainerIdx=1,
        vehContainerConfigInfo=["vehicle-x11-window"],
        vehContainerConfigIdx=1,
        podSpec=spec,
        **more,
    )


@staged()
async def test_the_camera_sample_becomes_the_pod_the_original_made(stage: Stage) -> None:
    await stage.client.create(DevRes, device("cam-interior-driver"), "default")
    await stage.client.create(VehContainerConfig, config("vehicle-x11-window", **X11), "default")
    await stage.client.create(VehPod, camera(), "default")
    await stage.running("cameratest-app-pod")

    pod = await stage.pod("cameratest-app-pod")
    assert pod is not None
    assert pod["metadata"]["labels"]["application-type"] == "system"
    volumes = [one["name"] for one in pod["spec"]["volumes"] if not one["name"].startswith("kube-api-access")]
    assert volumes == ["cam-interior-driver-mount-path-0", "x11-unix", "x11-auth"]
    (container,) = pod["spec"]["containers"]
    assert [m["mountPath"] for m in container["volumeMounts"]][:3] == [
        "/dev/video0",
        "/tmp/.X11-unix",
        "/root/.Xauthority",
    ]
    assert container["env"] == [{"name": "DISPLAY", "value": "localhost:10.0"}]
    given = orjson.loads(pod["metadata"]["annotations"][plan.DEVICES])
    assert given == {"camera-app-pod": [{"source": "/dev/video0", "target": "/dev/video0", "permissions": "rwm"}]}


@staged()
async def test_the_dds_sample_gives_each_its_domain(stage: Stage) -> None:
    for letter, domain in (("a", 100), ("b", 101)):
        xml = f'<CycloneDDS><Domain id="{domain}"></Domain></CycloneDDS>'
        spec = {"piccoloEnv": [{"name": "CYCLONEDDS_URI", "value": xml}]}
        await stage.client.create(VehContainerConfig, config(f"dds-domain-id-{letter}", **spec), "default")
    for name, letter in (("ddstest-ping", "a"), ("ddstest-pong", "b")):
        await stage.client.create(VehPod, veh_pod(name, vehContainerConfigInfo=[f"dds-domain-id-{letter}"]), "default")
        await stage.running(name)
    uris = [
        (await stage.pod(n) or {})["spec"]["containers"][0]["env"][0]["value"] for n in ("ddstest-ping", "ddstest-pong")
    ]
    assert 'id="100"' in uris[0]
    assert 'id="101"' in uris[1]


@staged()
async def test_what_is_missing_is_named_and_its_arrival_starts_the_pod(stage: Stage) -> None:
    wanted = camera()
    await stage.client.create(VehPod, wanted, "default")
    told = await stage.says("cameratest-app-pod", "DependenciesResolved", "False")
    assert told["message"] == "missing: DevRes/cam-interior-driver, VehContainerConfig/vehicle-x11-window"

    await stage.client.create(DevRes, device("cam-interior-driver"), "default")
    await stage.client.create(VehContainerConfig, config("vehicle-x11-window", **X11), "default")

    await stage.running("cameratest-app-pod")
    assert (await stage.condition("cameratest-app-pod", "DependenciesResolved"))["status"] == "True"


@staged()
async def test_a_changed_spec_replaces_the_pod(stage: Stage) -> None:
    await stage.client.create(VehPod, veh_pod("a"), "default")
    await stage.running("a")
    before = await stage.pod("a")
    new = pod_spec(containers=[{"name": "main", "image": "app:2"}])
    await stage.client.patch(VehPod, "a", {"spec": {"podSpec": new}}, "default")

    async def replaced() -> bool:
        now = await stage.pod("a")
        return now is not None and before is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    await stage.until(replaced)
    assert ((await stage.pod("a")) or {})["spec"]["containers"][0]["image"] == "app:2"


@staged()
async def test_a_changed_dependency_restarts_or_waits_as_the_field_says(stage: Stage) -> None:
    await stage.client.create(VehContainerConfig, config("env", piccoloEnv=[{"name": "A", "value": "1"}]), "default")
    for name, choice in (("now", "Restart"), ("later", "NextStart")):
        app = veh_pod(name, vehContainerConfigInfo=["env"], onDependencyChange=choice)
        await stage.client.create(VehPod, app, "default")
        await stage.running(name)
    await stage.client.patch(
        VehContainerConfig, "env", {"spec": {"piccoloEnv": [{"name": "A", "value": "2"}]}}, "default"
    )

    async def value(name: str) -> str:
        pod = await stage.pod(name)
        return "" if pod is None else str(pod["spec"]["containers"][0]["env"][0]["value"])

    async def restarted() -> bool:
        return await value("now") == "2"

    await stage.until(restarted)
    assert await value("later") == "1"
    assert (await stage.condition("later", "DependenciesResolved"))["reason"] == "WaitingForNextStart"

    await stage.client.delete(PODS, "later", "system-application")

    async def started_anew() -> bool:
        return await value("later") == "2"

    await stage.until(started_anew)


@staged()
async def test_a_lost_pod_and_a_meddled_one_are_put_right(stage: Stage) -> None:
    await stage.client.create(VehPod, veh_pod("a"), "default")
    await stage.running("a")
    await stage.client.delete(PODS, "a", "system-application", grace_period_seconds=0)

    async def back() -> bool:
        return await stage.pod("a") is not None

    await stage.until(back)
    await stage.running("a")
    meddled = {
        "metadata": {"labels": {"application-type": "x"}},
        "spec": {"containers": [{"name": "main", "image": "bad"}]},
    }
    await stage.client.patch(PODS, "a", meddled, "system-application", type="strategic")

    async def right() -> bool:
        pod = await stage.pod("a")
        return (
            pod is not None
            and pod["spec"]["containers"][0]["image"] == "app:1"
            and (pod["metadata"]["labels"]["application-type"] == "system")
        )

    await stage.until(right)


@staged()
async def test_another_app_type_moves_the_pod(stage: Stage) -> None:
    await stage.client.create(VehPod, veh_pod("a"), "default")
    await stage.running("a")
    await stage.client.patch(VehPod, "a", {"spec": {"appType": "thirdParty"}}, "default")

    async def moved() -> bool:
        return await stage.pod("a") is None and await stage.pod("a", "3rd-party-application") is not None

    await stage.until(moved)
    limits = await stage.client.get(LIMIT_RANGES, "vehicles", "3rd-party-application")
    assert limits["spec"]["limits"][0]["default"] == {"cpu": "100m", "memory": "128Mi"}
    quota = await stage.client.get(RESOURCE_QUOTAS, "vehicles", "3rd-party-application")
    assert quota["spec"]["hard"]["count/pods"] == "5"
    assert (await stage.client.list(LIMIT_RANGES, "system-application")).items == []


@staged()
async def test_deletion_leaves_nothing_and_makes_nothing(stage: Stage) -> None:
    await stage.client.create(VehPod, veh_pod("a"), "default")
    await stage.running("a")
    made = await stage.client.get(VehPod, "a", "default")
    assert made["metadata"]["finalizers"] == ["vehicles.fleetplane.io/cleanup"]
    await stage.client.delete(VehPod, "a", "default")

    async def gone() -> bool:
        return not (await stage.client.list(VehPod, "default")).items

    await stage.until(gone)
    assert await stage.pods() == []


@staged()
async def test_nothing_is_written_back_into_the_spec_and_nothing_at_rest(stage: Stage) -> None:
    await stage.client.create(DevRes, device("cam-interior-driver"), "default")
    await stage.client.create(VehContainerConfig, config("vehicle-x11-window", **X11), "default")
    written = camera()
    await stage.client.create(VehPod, copy.deepcopy(written), "default")
    await stage.running("cameratest-app-pod")
    first = await stage.client.get(VehPod, "cameratest-app-pod", "default")
    space = await stage.client.get(NAMESPACES, "system-application")
    stage.manager.runner("vehpods.crd.piccolo.org").enqueue(next(iter(stage.manager.informer(VehPod))))
    await stage.until(_idle(stage))
    again = await stage.client.get(VehPod, "cameratest-app-pod", "default")
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert (await stage.client.get(NAMESPACES, "system-application"))["metadata"]["resourceVersion"] == (
        space["metadata"]["resourceVersion"]
    )
    assert "volumes" not in again["spec"]["podSpec"]


def _idle(stage: Stage) -> Any:
    async def idle() -> bool:
        return stage.manager.runner("vehpods.crd.piccolo.org").queue.is_idle

    return idle


@staged()
async def test_an_index_outside_is_refused_and_one_past_is_counted_from_one(stage: Stage) -> None:
    await stage.client.create(VehContainerConfig, config("env", piccoloEnv=[{"name": "A", "value": "1"}]), "default")
    two = pod_spec(containers=[{"name": "one", "image": "a"}, {"name": "two", "image": "b"}])
    with pytest.raises(ApiError, match="rule container-index"):
        await stage.client.create(
            VehPod, veh_pod("far", vehContainerConfigInfo=["env"], vehContainerConfigIdx=3, podSpec=two), "default"
        )
    await stage.client.create(
        VehPod, veh_pod("second", vehContainerConfigInfo=["env"], vehContainerConfigIdx=1, podSpec=two), "default"
    )
    await stage.running("second")
    pod = await stage.pod("second")
    assert pod is not None
    assert [one.get("env") for one in pod["spec"]["containers"]] == [None, [{"name": "A", "value": "1"}]]
