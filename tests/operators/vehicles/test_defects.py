"""Every defect of the original operator, by its number in the fact sheet, has a test of how it is here.

``PROVED_BY`` says where; those that no other story tells are told below. The operator's requests are seen, and refused, on
their way to the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.operators.staging import running
from tests.operators.vehicles import test_lifecycles, test_limits, test_plan, test_vehpod
from tests.operators.vehicles.stage import DevRes, Stage, VehPod, device, pod_spec, staged, veh_pod
from tests.operators.vehicles.world import Line, World, world_of

from fleetplane.client.protocol import Client, Pairs
from fleetplane.client.rest import RestClient
from fleetplane.model.builtin.types import EVENTS, PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.user import UserInfo
from fleetplane.operating import prepare_operators
from fleetplane.operators.vehicles import OPERATOR
from fleetplane.plane import InProcessTransport
from fleetplane.testing import run_virtually

VEHPODS = "/apis/crd.piccolo.org/v1alpha1/namespaces/default/vehpods"
SYSTEM_PODS = "/api/v1/namespaces/system-application/pods"
Judge = Callable[[str, str], bool]
"""(method, path) to whether the request is refused."""


class Seen(Line):
    """The operator's requests in their order; some are refused."""

    def __init__(self, world: World, user: UserInfo, refuses: Judge, log: list[tuple[str, str]]) -> None:
        super().__init__(InProcessTransport(world.server.server, user), world.chance)
        self._refuses = refuses
        self._log = log

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        refused = self._refuses(method, path)
        self._log.append((f"{method} refused" if refused else method, path))
        if refused:
            raise ApiError(500, "the server has a bad day")
        return await super().request(method, path, query, headers, body)


@asynccontextmanager
async def seen(refuses: Judge = lambda method, path: False) -> AsyncIterator[tuple[World, list[tuple[str, str]], Any]]:
    """A world, what the operator asks of it, and the operator, which does not run yet."""
    log: list[tuple[str, str]] = []
    async with world_of(1) as world:

        def client_of(user: UserInfo) -> Client:
            usual = world.server.client(user)
            assert isinstance(usual, RestClient)
            return RestClient(Seen(world, user, refuses, log), capabilities=usual._capabilities, cluster="root")

        (manager,) = await prepare_operators(
            world.client, [OPERATOR], client_of, world.environment, world.built_in.metrics
        )
        yield world, log, manager


async def until(what: Callable[[], Any], seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not await what():
            await asyncio.sleep(0.05)


def phase(world: World, name: str, wanted: str) -> Callable[[], Any]:
    async def so() -> bool:
        found = await world.client.get(VehPod, name, "default")
        return (found.get("status") or {}).get("phase") == wanted

    return so


def test_defect_5_a_pod_that_is_missing_is_not_made_again_while_its_owner_is_deleted() -> None:
    async def story() -> None:
        async with seen() as (world, log, manager):
            async with running(manager.run()):
                await world.client.create(VehPod, veh_pod("a"), "default")
                await until(phase(world, "a", "Running"))
            await world.client.delete(PODS, "a", "system-application", grace_period_seconds=0)
            await world.client.delete(VehPod, "a", "default")
            log.clear()
            (again,) = await prepare_operators(
                world.client, [OPERATOR], world._operators_client, world.environment, world.built_in.metrics
            )
            created: list[str] = []
            world.pods.add_handler(lambda change: created.append(change.event))
            created.clear()
            async with running(again.run()):

                async def gone() -> bool:
                    return not (await world.client.list(VehPod, "default")).items

                await until(gone)
            assert "ADDED" not in created

    run_virtually(story())


def test_defect_6_a_deletion_that_fails_is_tried_again() -> None:
    failures = 3

    def refuses(method: str, path: str) -> bool:
        nonlocal failures
        if method == "DELETE" and path.startswith(SYSTEM_PODS) and failures:
            failures -= 1
            return True
        return False

    async def story() -> None:
        async with seen(refuses) as (world, log, manager), running(manager.run()):
            await world.client.create(VehPod, veh_pod("a"), "default")
            await until(phase(world, "a", "Running"))
            await world.client.delete(VehPod, "a", "default")

            async def gone() -> bool:
                left = (await world.client.list(VehPod, "default")).items
                return not left and not (await world.client.list(PODS, "system-application")).items

            await until(gone)
            assert sum(what == "DELETE refused" for what, _ in log) == 3

    run_virtually(story())


def test_defect_7_nothing_is_made_before_the_finalizer_is_there() -> None:
    failures = 2

    def refuses(method: str, path: str) -> bool:
        nonlocal failures
        if method in {"PATCH", "PUT"} and path == f"{VEHPODS}/a" and failures:
            failures -= 1
            return True
        return False

    async def story() -> None:
        async with seen(refuses) as (world, log, manager), running(manager.run()):
            await world.client.create(VehPod, veh_pod("a"), "default")
            await until(phase(world, "a", "Running"))
            marked = next(
                number
                for number, (what, path) in enumerate(log)
                if path == f"{VEHPODS}/a" and "refused" not in what and what != "GET"
            )
            made = next(
                number for number, (what, path) in enumerate(log) if path.startswith(SYSTEM_PODS) and what != "GET"
            )
            assert marked < made
            assert sum("refused" in what for what, _ in log) == 2

    run_virtually(story())


def test_defect_13_the_most_critical_is_looked_at_first() -> None:
    async def story() -> None:
        async with seen() as (world, _log, manager):
            for number in range(12):
                await world.client.create(VehPod, veh_pod(f"a{number:02d}", criticality="QM"), "default")
            await world.client.create(VehPod, veh_pod("z-brake", criticality="D"), "default")
            async with running(manager.run()):

                async def all_run() -> bool:
                    found = (await world.client.list(VehPod, "default")).items
                    return all((one.get("status") or {}).get("phase") == "Running" for one in found)

                await until(all_run)
            made = [one for one in _log if one[0] in {"PATCH", "POST"} and one[1].startswith(SYSTEM_PODS)]
            assert made[0][1].endswith("/z-brake"), made[:3]

    run_virtually(story())


@staged(nodes=1)
async def test_defect_13_what_cannot_start_does_not_hold_up_everything_below_it(stage: Stage) -> None:
    wanted = [{"devName": "missing", "devDestPath": "/dev/x"}]
    await stage.client.create(VehPod, veh_pod("brake", criticality="D", devResInfo=wanted), "default")
    await stage.client.create(VehPod, veh_pod("music", criticality="QM"), "default")
    await stage.running("music")


@staged(nodes=1)
async def test_defect_1_a_pod_without_containers_is_refused_and_breaks_nothing(stage: Stage) -> None:
    await stage.client.create(DevRes, device("cam"), "default")
    wanted = [{"devName": "cam", "devDestPath": "/dev/x"}]
    with pytest.raises(ApiError, match="rule container"):
        await stage.client.create(VehPod, veh_pod("a", devResInfo=wanted, podSpec={"containers": []}), "default")
    await stage.client.create(VehPod, veh_pod("b", devResInfo=wanted, podSpec=pod_spec()), "default")
    await stage.running("b")


@staged(nodes=1)
async def test_defect_9_what_happens_is_told_in_status_and_events(stage: Stage) -> None:
    wanted = [{"devName": "cam", "devDestPath": "/dev/x"}]
    await stage.client.create(VehPod, veh_pod("a", "3rd-party", devResInfo=wanted), "default")
    missing = await stage.says("a", "DependenciesResolved", "False")
    assert missing["message"] == "missing: DevRes/cam"
    await stage.client.create(DevRes, device("cam"), "default")
    refused = await stage.says("a", "Admitted", "False")
    assert "rule device-permission" in refused["message"]

    async def told() -> bool:
        events = (await stage.client.list(EVENTS, "default")).items
        return any(one["reason"] == "Refused" and "device-permission" in one["message"] for one in events)

    await stage.until(told)
    await stage.client.patch(DevRes, "cam", {"spec": {"allowedAppTypes": ["3rd-party"]}}, "default")
    await stage.running("a")
    found = (await stage.client.get(VehPod, "a", "default"))["status"]
    assert found["instances"][0]["node"] == "sim-0"
    assert {one["type"] for one in found["conditions"]} >= {
        "DependenciesResolved",
        "Admitted",
        "Scheduled",
        "DevicesBound",
        "Ready",
    }


PROVED_BY: Mapping[int, tuple[object, ...]] = {
    1: (
        test_vehpod.test_an_index_outside_is_refused_and_one_past_is_counted_from_one,
        test_plan.test_container_indices,
        test_defect_1_a_pod_without_containers_is_refused_and_breaks_nothing,
    ),
    2: (test_vehpod.test_what_is_missing_is_named_and_its_arrival_starts_the_pod,),
    3: (
        test_vehpod.test_a_changed_spec_replaces_the_pod,
        test_vehpod.test_a_lost_pod_and_a_meddled_one_are_put_right,
    ),
    4: (test_vehpod.test_a_changed_dependency_restarts_or_waits_as_the_field_says,),
    5: (
        test_vehpod.test_deletion_leaves_nothing_and_makes_nothing,
        test_defect_5_a_pod_that_is_missing_is_not_made_again_while_its_owner_is_deleted,
    ),
    6: (test_defect_6_a_deletion_that_fails_is_tried_again,),
    7: (test_defect_7_nothing_is_made_before_the_finalizer_is_there,),
    8: (
        test_vehpod.test_nothing_is_written_back_into_the_spec_and_nothing_at_rest,
        test_plan.test_expansion_is_pure_and_repeatable,
    ),
    9: (test_defect_9_what_happens_is_told_in_status_and_events,),
    10: (
        test_limits.test_the_device_matrix_says_who_may_use_which_device,
        test_limits.test_a_device_that_arrives_late_is_held_against_the_rules_too,
    ),
    11: (test_vehpod.test_another_app_type_moves_the_pod,),
    12: (test_lifecycles.test_the_finalizer_is_ours_and_always_the_same,),
    13: (
        test_defect_13_the_most_critical_is_looked_at_first,
        test_defect_13_what_cannot_start_does_not_hold_up_everything_below_it,
    ),
}


def test_every_defect_of_the_original_is_proved_gone() -> None:
    assert sorted(PROVED_BY) == list(range(1, 14))
    assert all(callable(one) for some in PROVED_BY.values() for one in some)
