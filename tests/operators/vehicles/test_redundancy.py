"""Deployment policies: who runs, who takes over, and that two are never active."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operators.vehicles.stage import Stage, VehDeployment, staged, veh_deployment

from fleetplane.model.builtin.types import PODS
from fleetplane.model.errors import ApiError
from fleetplane.node.fleet import FleetSettings
from fleetplane.node.simulated import Behaviour
from fleetplane.operators.vehicles.redundancy import Decision, Seen, decide, policy_of, successor_of
from fleetplane.operators.vehicles.voting import read_output, vote

FOREVER = FleetSettings(behaviour=Behaviour(run_for=float("inf")))


async def status(stage: Stage, name: str) -> dict[str, Any]:
    return (await stage.client.get(VehDeployment, name, "default")).get("status") or {}


def role(found: dict[str, Any], wanted: str) -> list[str]:
    return [one["name"] for one in found.get("instances") or () if one.get("role") == wanted]


@staged(settings=FOREVER)
async def test_a_killed_active_is_followed_by_its_standby(stage: Stage) -> None:
    await stage.client.create(VehDeployment, veh_deployment("brake", "passiveRedundant"), "default")
    await stage.running("brake", VehDeployment)
    before = await status(stage, "brake")
    (active,) = role(before, "active")
    (standby,) = role(before, "passive")
    pod = await stage.pod(active)
    assert pod is not None
    assert stage.runs(pod)
    assert not stage.runs(await stage.pod(standby) or {})

    begun = asyncio.get_running_loop().time()
    stage.crash(pod)

    async def switched() -> bool:
        return stage.runs(await stage.pod(standby) or {})

    await stage.until(switched)
    assert asyncio.get_running_loop().time() - begun < 1.0
    await stage.running("brake", VehDeployment)
    after = await status(stage, "brake")
    assert role(after, "active") == [standby]
    assert role(after, "passive") == [active]
    assert after["switchovers"] == 1
    assert after["lastSwitchMs"] >= 0
    switched_in = {one["name"]: one.get("lastSwitchMs") for one in after["instances"]}
    assert switched_in == {standby: after["lastSwitchMs"], active: None}


@staged(settings=FOREVER)
async def test_an_active_that_is_deleted_has_stopped_before_another_begins(stage: Stage) -> None:
    await stage.client.create(VehDeployment, veh_deployment("brake", "PassiveRedundant"), "default")
    await stage.running("brake", VehDeployment)
    for _ in range(3):
        (active,) = role(await status(stage, "brake"), "active")
        await stage.client.delete(PODS, active, "system-application", grace_period_seconds=1)
        for _ in range(200):
            running = [
                one
                for one in await stage.pods()
                if stage.runs(one) and one["metadata"]["annotations"].get("node.fleetplane.io/paused") is None
            ]
            assert len(running) <= 1
            await asyncio.sleep(0.02)
        await stage.running("brake", VehDeployment)
    assert (await status(stage, "brake"))["switchovers"] >= 3


@staged(settings=FOREVER, nodes=3)
async def test_active_instances_run_on_nodes_of_their_own(stage: Stage) -> None:
    await stage.client.create(VehDeployment, veh_deployment("both", "activeRedundant", replicas=3), "default")
    await stage.running("both", VehDeployment)
    found = await status(stage, "both")
    assert len({one["node"] for one in found["instances"]}) == 3
    stage.crash((await stage.pods())[0])
    await stage.running("both", VehDeployment)


@staged(settings=FOREVER, nodes=1)
async def test_the_watcher_is_there_before_what_it_watches(stage: Stage) -> None:
    block = {
        "primaryContainer": [{"name": "p", "image": "p:1"}, {"name": "q", "image": "q:1"}],
        "watcherContainer": {"name": "w", "image": "w:1"},
    }
    await stage.client.create(
        VehDeployment, veh_deployment("seen", "Monitoring", monitoring=block, podSpec={"containers": []}), "default"
    )
    await stage.running("seen", VehDeployment)
    pods = {one["metadata"]["name"]: int(one["metadata"]["resourceVersion"]) for one in await stage.pods()}
    assert sorted(pods) == ["seen-p0", "seen-p1", "seen-watcher"]
    started = {one["metadata"]["name"]: one["metadata"]["creationTimestamp"] for one in await stage.pods()}
    assert started["seen-watcher"] <= min(started["seen-p0"], started["seen-p1"])


@staged(settings=FOREVER, nodes=1)
async def test_a_dissenter_is_replaced_and_no_majority_is_a_safe_state(stage: Stage) -> None:
    spec = {"voting": {"tolerance": 0.5, "disagreeLimit": 2, "timeoutSeconds": 1}}
    await stage.client.create(VehDeployment, veh_deployment("vote", "NModulerRedundant", **spec), "default")
    await stage.running("vote", VehDeployment)
    wrong = (await stage.pod("vote-c") or {})["metadata"]["uid"]

    async def say(number: int, *values: float) -> None:
        for suffix, value in zip("abc", values, strict=True):
            text = orjson.dumps({"round": number, "value": value}).decode()
            patch = {"metadata": {"annotations": {"vehicles.fleetplane.io/output": text}}}
            await stage.client.patch(PODS, f"vote-{suffix}", patch, "system-application")

        async def counted() -> bool:
            votes = (await status(stage, "vote")).get("votes") or {}
            return votes.get("round") == number and not votes.get("open")

        await stage.until(counted)

    await say(1, 10.0, 10.2, 99.0)
    assert (await status(stage, "vote"))["votes"]["dissenters"] == ["vote-c"]
    await say(2, 10.0, 10.4, 99.0)

    async def replaced() -> bool:
        pod = await stage.pod("vote-c")
        return pod is not None and pod["metadata"]["uid"] != wrong

    await stage.until(replaced)
    await stage.running("vote", VehDeployment)
    await say(3, 1.0, 50.0, 99.0)
    assert await stage.phase("vote", VehDeployment) == "SafeState"


@staged(nodes=1)
async def test_an_impossible_arrangement_is_refused_by_rule(stage: Stage) -> None:
    for rule, app in (
        ("policy", veh_deployment("x", "sometimes")),
        ("policy-structure", veh_deployment("x", "NModularRedundant", replicas=4)),
        ("policy-structure", veh_deployment("x", "PassiveRedundant", replicas=1)),
        ("policy-structure", veh_deployment("x", "Monitoring")),
    ):
        with pytest.raises(ApiError, match=f"rule {rule}"):
            await stage.client.create(VehDeployment, app, "default")


def test_policies_are_known_however_they_are_written() -> None:
    assert policy_of("passiveRedundant") == policy_of("PassiveRedundant") == "PassiveRedundant"
    assert policy_of("NModulerRedundant") == "NModularRedundant"
    assert policy_of("") == ""
    assert policy_of("else") is None


flags = st.booleans()
pods = st.builds(
    Seen, st.just(""), st.sampled_from("abc"), st.just("1"), *[flags] * 6, st.sampled_from(["", "n1", "n2"])
)


@given(
    active=st.sampled_from(["", "a", "b", "z"]),
    seen=st.lists(pods, max_size=3, unique_by=lambda s: s.uid),
    safe=flags,
    successor=st.sampled_from(["", "b", "c", "z"]),
)
def test_no_step_can_make_a_second_active(active: str, seen: list[Seen], safe: bool, successor: str) -> None:
    successor = "" if successor == active else successor
    step = decide(active, seen, gone_is_safe=safe, successor=successor)
    assert isinstance(step, Decision)
    holder = next((one for one in seen if one.uid == active), None)
    heir = next((one for one in seen if one.uid == successor), None)
    taken_over = heir is not None and heir.promoted and not heir.stopped
    others_run = any(one.runs for one in seen if one.uid != active and not (taken_over and one is heir))
    if step.claim is not None:
        assert taken_over or holder is None or holder.stopped
        assert taken_over or holder is not None or not active or safe
        assert not others_run
        if heir is not None and not heir.stopped:
            assert step.claim == successor, "its node may thaw the named successor at any moment"
        if successor and heir is None:
            assert safe
    if step.thaw is not None:
        assert step.thaw == active
        assert not others_run
    assert step.claim is None or step.thaw is None


@given(
    active=st.sampled_from(["", "a", "z"]),
    seen=st.lists(pods, max_size=3, unique_by=lambda s: s.uid),
    successor=st.sampled_from(["", "b", "c", "z"]),
    safe=flags,
)
def test_a_successor_keeps_its_name_until_it_has_stopped(
    active: str, seen: list[Seen], successor: str, safe: bool
) -> None:
    named = successor_of(active, seen, successor, gone_is_safe=safe)
    heir = next((one for one in seen if one.uid == successor), None)
    if heir is not None and not heir.stopped:
        assert named == successor
    if named and named != successor:
        by_uid = {one.uid: one for one in seen}
        assert by_uid[named].paused
        assert by_uid[named].well
        assert by_uid[named].node == by_uid[active].node != ""


def test_votes_agree_within_the_tolerance_or_not_at_all() -> None:
    found = vote({"a": 1.0, "b": 1.1, "c": 9.0}, ["a", "b", "c"], 0.2)
    assert (found.decided, found.dissent, found.value) == (True, ("c",), 1.1)
    assert not vote({"a": 1, "b": 2}, ["a", "b", "c"], 0).decided
    assert not vote({"a": 1}, ["a", "b", "c"], 0).decided
    assert vote({"a": "on", "b": "on"}, ["a", "b", "c"], 0).silent == ("c",)
    assert read_output('{"round": 1}') is None
    assert read_output("[") is None
