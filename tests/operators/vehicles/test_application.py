"""Several microservices as one application; and levels of criticality on one node."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from tests.operators.vehicles.stage import Stage, VehPod, pod_spec, staged, veh_pod

from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.errors import ApiError
from fleetplane.node.fleet import FleetSettings
from fleetplane.operators.vehicles.application import application_violations, digest_of
from fleetplane.operators.vehicles.kinds import VehApplication


def service(name: str, image: str = "app:1", *needs: str) -> dict[str, Any]:
    spec = {"appType": "system", "podSpec": pod_spec(containers=[{"name": "main", "image": image}])}
    return {"name": name, "kind": "VehPod", "dependsOn": list(needs), "spec": spec}


def application(*services: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "car"}, "spec": {"microservices": list(services), **more}}


async def images(stage: Stage) -> dict[str, str]:
    return {one["metadata"]["name"]: one["spec"]["containers"][0]["image"] for one in await stage.pods()}


@staged(nodes=1)
async def test_microservices_start_in_the_order_of_their_dependencies(stage: Stage) -> None:
    app = application(service("view", "app:1", "camera", "bus"), service("camera", "app:1", "bus"), service("bus"))
    await stage.client.create(VehApplication, app, "default")
    await stage.running("car", VehApplication)
    created = {one["metadata"]["name"]: _first_seen(one) for one in await stage.pods()}
    assert list(dict(sorted(created.items(), key=lambda one: one[1]))) == ["car-bus", "car-camera", "car-view"]
    assert (await stage.client.get(VehApplication, "car", "default"))["status"]["ready"] == "3/3"


def _first_seen(pod: dict[str, Any]) -> int:
    """Revisions only grow, and a simulated pod that runs is not written again."""
    return int(pod["metadata"]["resourceVersion"])


@staged(nodes=1)
async def test_an_update_that_does_not_run_goes_back_by_itself(stage: Stage) -> None:
    await stage.client.create(
        VehApplication, application(service("a"), service("b"), progressDeadlineSeconds=20), "default"
    )
    await stage.running("car", VehApplication)

    async def outcome(expected: str) -> None:
        async def so() -> bool:
            status = (await stage.client.get(VehApplication, "car", "default"))["status"]
            return [one["outcome"] for one in status.get("history") or ()][-1:] == [expected]

        await stage.until(so)

    await stage.client.patch(
        VehApplication, "car", {"spec": {"microservices": [service("a", "app:2"), service("b")]}}, "default"
    )
    await outcome("Updated")
    assert await images(stage) == {"car-a": "app:2", "car-b": "app:1"}

    bad = {"spec": {"microservices": [service("a", "app:missing"), service("b")]}}
    await stage.client.patch(VehApplication, "car", bad, "default")
    await outcome("RolledBack")
    await stage.running("car", VehApplication)
    assert await images(stage) == {"car-a": "app:2", "car-b": "app:1"}


@staged(nodes=1)
async def test_an_application_stops_and_starts_as_one(stage: Stage) -> None:
    await stage.client.create(VehApplication, application(service("a", "app:1", "b"), service("b")), "default")
    await stage.running("car", VehApplication)
    await stage.client.patch(VehApplication, "car", {"spec": {"state": "Stopped"}}, "default")

    async def stopped() -> bool:
        return await stage.phase("car", VehApplication) == "Stopped" and not await stage.pods()

    await stage.until(stopped)
    await stage.client.patch(VehApplication, "car", {"spec": {"state": "Running"}}, "default")
    await stage.running("car", VehApplication)
    await stage.client.delete(VehApplication, "car", "default")

    async def gone() -> bool:
        return not (await stage.client.list(VehPod, "default")).items and not await stage.pods()

    await stage.until(gone)


def test_packages_that_were_changed_or_cannot_start_are_refused() -> None:
    services = [service("a", "app:1", "b"), service("b")]
    good = {"microservices": services, "digest": digest_of(services)}
    assert not list(application_violations(good))
    assert [v.rule for v in application_violations({**good, "microservices": [services[1]]})] == ["package-digest"]
    circle = {"microservices": [service("a", "x", "b"), service("b", "x", "a")]}
    assert [v.rule for v in application_violations(circle)] == ["dependencies"]
    assert [v.rule for v in application_violations({"microservices": [service("a", "x", "z")]})] == ["dependencies"]


def heavy(name: str, cpu: str, level: str, **more: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "app:1", "resources": {"requests": {"cpu": cpu}}, **more}
    return veh_pod(name, criticality=level, podSpec=pod_spec(containers=[container]))


@staged(nodes=1, settings=FleetSettings(cpu="4"))
async def test_a_lower_level_makes_room_for_a_higher_one(stage: Stage) -> None:
    await stage.client.create(VehPod, heavy("music", "3", "QM"), "default")
    await stage.running("music")
    await stage.client.create(VehPod, heavy("brake", "3", "D"), "default")
    await stage.running("brake")

    async def waits() -> bool:
        return await stage.phase("music") == "Admitted"

    await stage.until(waits)
    assert await stage.phase("brake") == "Running"
    await stage.client.delete(VehPod, "brake", "default")
    await stage.running("music")


@staged(nodes=1)
async def test_a_level_keeps_to_its_budget_on_a_node(stage: Stage) -> None:
    notes = {"vehicles.fleetplane.io/budget": orjson.dumps({"QM": {"cpu": "2"}}).decode()}
    await stage.client.patch(NODES, "sim-0", {"metadata": {"annotations": notes}})
    await stage.client.create(VehPod, heavy("one", "1500m", "QM"), "default")
    await stage.running("one")
    await stage.client.create(VehPod, heavy("two", "1", "QM"), "default")
    await stage.client.create(VehPod, heavy("brake", "4", "D"), "default")
    await stage.running("brake")
    told = await stage.says("two", "Scheduled", "False")

    async def explained() -> bool:
        return "budget left for QM" in (await stage.condition("two", "Scheduled")).get("message", "")

    await stage.until(explained)
    assert told["status"] == "False"


@staged(nodes=1)
async def test_a_third_party_cannot_claim_a_level(stage: Stage) -> None:
    with pytest.raises(ApiError, match="rule max-level"):
        await stage.client.create(VehPod, veh_pod("x", "3rd-party", criticality="A"), "default")
    assert (await stage.client.list(PODS)).items == []


@staged(nodes=1)
async def test_levels_do_not_share_what_both_may_write(stage: Stage) -> None:
    def sharing(name: str, level: str, **mount: Any) -> dict[str, Any]:
        container = {"name": "main", "image": "app:1", "volumeMounts": [{"name": "v", "mountPath": "/v", **mount}]}
        spec = pod_spec(containers=[container], volumes=[{"name": "v", "hostPath": {"path": "/run/shared"}}])
        return veh_pod(name, criticality=level, podSpec=spec)

    await stage.client.create(VehPod, sharing("high", "D"), "default")
    await stage.running("high")
    await stage.client.create(VehPod, sharing("reader", "QM", readOnly=True), "default")
    await stage.running("reader")
    await stage.client.create(VehPod, sharing("writer", "QM"), "default")

    async def kept_apart() -> bool:
        return "host path in use by criticality D" in (await stage.condition("writer", "Scheduled")).get("message", "")

    await stage.until(kept_apart)
