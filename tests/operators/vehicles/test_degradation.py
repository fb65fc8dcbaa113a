"""Lower levels go before higher ones suffer, and come back with care; what could disturb a workload is shown on it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operators.vehicles.stage import Stage, VehPod, pod_spec, staged, veh_pod

from fleetplane.model.builtin.types import NODES
from fleetplane.model.errors import ApiError
from fleetplane.node.fleet import FleetSettings
from fleetplane.operators.vehicles.degradation import (
    Seen,
    State,
    decide,
    degradation_violations,
    modes_of,
    shed_here,
    use_of,
    victims,
)
from fleetplane.operators.vehicles.interference import findings
from fleetplane.operators.vehicles.kinds import VehDegradation

SPEC = {
    "modes": [
        {"name": "comfort-off", "shed": ["QM"], "enterAbove": {"memory": 80}, "leaveBelow": {"memory": 60}},
        {"name": "limp", "shed": ["QM", "A"], "enterAbove": {"memory": 95}, "leaveBelow": {"memory": 80}},
    ]
}
MODES = modes_of(SPEC)


def after(*uses: float, enter: float = 2, leave: float = 5) -> list[int]:
    """The mode's index after each second with this use of memory."""
    state, found = State(), []
    for second, use in enumerate(uses):
        state = decide(MODES, state, Seen({"memory": use}), float(second), enter, leave)
        found.append(state.mode)
    return found


def test_a_mode_is_entered_when_its_limit_is_passed_for_long_enough() -> None:
    assert after(85, 85, 85) == [-1, -1, 0]
    assert after(85, 70, 85, 85) == [-1, -1, -1, -1], "it did not last"
    assert after(99, 99, 99) == [-1, -1, 1], "the most severe that holds, at once"


def test_between_the_limits_nothing_changes_and_it_is_left_step_by_step() -> None:
    assert after(85, 85, 85, *[70] * 20)[-1] == 0
    left = after(99, 99, 99, *[10] * 12)
    assert left[2] == 1
    assert left[8] == 0, "one step after five seconds below"
    assert left[-1] == -1


def test_what_is_not_known_changes_nothing() -> None:
    assert decide(MODES, State(), Seen({}), 100, 0, 0) == State()
    assert decide(MODES, State(1), Seen({}), 100, 0, 0).mode == 1


@given(st.lists(st.floats(61, 79), max_size=60), st.integers(-1, 0))
def test_a_use_between_the_limits_never_makes_it_flap(uses: list[float], begun: int) -> None:
    state = State(begun)
    for second, use in enumerate(uses):
        state = decide(MODES, state, Seen({"memory": use}), float(second), 0, 0)
        assert state.mode == begun


@pytest.mark.parametrize(
    ("rule", "modes"),
    [
        ("degradation-order", [{"name": "x", "shed": ["A"], "conditions": ["MemoryPressure"]}]),
        ("degradation-order", [{"name": "x", "shed": ["QM", "A", "B", "C", "D"], "conditions": ["MemoryPressure"]}]),
        ("degradation-order", [{**SPEC["modes"][1]}, {**SPEC["modes"][0]}]),
        (
            "degradation-hysteresis",
            [{"name": "x", "shed": ["QM"], "enterAbove": {"cpu": 80}, "leaveBelow": {"cpu": 80}}],
        ),
        ("degradation-hysteresis", [{"name": "x", "shed": ["QM"], "enterAbove": {"cpu": 80}}]),
        ("degradation-limits", [{"name": "x", "shed": ["QM"]}]),
        ("degradation-limits", [{"name": "x", "shed": ["QM"], "enterAbove": {"disk": 80}}]),
    ],
)
def test_modes_that_would_harm_are_refused_by_rule(rule: str, modes: list[Any]) -> None:
    assert rule in {one.rule for one in degradation_violations({"modes": modes})}
    assert not list(degradation_violations(SPEC))


def made(name: str, level: str, **spec: Any) -> dict[str, Any]:
    limits = {"limits": {"cpu": "1", "memory": "1Mi"}}
    container = {"name": "main", "image": "a:1", "resources": limits, **spec.pop("container", {})}
    notes = {"vehicles.fleetplane.io/criticality": level, **spec.pop("notes", {})}
    return {
        "metadata": {"name": name, "uid": name, "annotations": notes},
        "spec": {"containers": [container], **spec},
    }


def test_the_lowest_levels_go_first_and_what_claims_no_level_is_left_alone() -> None:
    pods = [made("a", "A"), made("q", "QM"), made("d", "D"), {"metadata": {"name": "other", "uid": "o"}}]
    assert [one["metadata"]["name"] for one in victims(frozenset({"QM", "A"}), pods)] == ["q", "a"]


def test_an_annotation_nobody_can_read_sheds_what_may_be_shed() -> None:
    assert shed_here("{") == {"QM", "A", "B", "C"}
    assert shed_here(None) == frozenset()


def test_use_is_compared_with_what_the_node_can_give() -> None:
    node = {"status": {"allocatable": {"cpu": "4", "memory": "1Gi"}}}
    assert use_of({"usage": {"cpu": "1000m", "memory": "512Mi"}}, node) == {"cpu": 25.0, "memory": 50.0}
    assert use_of({}, node) == {}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (made("music", "QM", container={"resources": {"limits": {"cpu": "1"}}}), "no memory limit"),
        (made("music", "QM", container={"resources": {"limits": {"memory": "1Mi"}}}), "no CPU limit on shared CPUs"),
        (made("music", "QM", container={"securityContext": {"privileged": True}}), "is privileged"),
        (made("music", "QM", hostPID=True), "host's processes"),
        (
            made("music", "QM", notes={"node.fleetplane.io/reservation": '{"schedulingPolicy": "SCHED_FIFO"}'}),
            "realtime priority",
        ),
        (
            made("music", "QM", notes={"node.fleetplane.io/devices": '{"main": [{"source": "/dev/can0"}]}'}),
            "device /dev/can0",
        ),
    ],
)
def test_what_could_disturb_a_higher_level_is_found(other: dict[str, Any], says: str) -> None:
    brake = made("brake", "D", notes={"node.fleetplane.io/devices": '{"main": [{"source": "/dev/can0"}]}'})
    (found,) = findings(brake, [brake, other])
    assert found.startswith("music (QM) ")
    assert says in found
    assert findings(other, [brake, other]) == [], "a higher level does not count as a disturbance"


def test_cpus_of_ones_own_are_not_disturbed() -> None:
    def on(name: str, level: str, cpus: str) -> dict[str, Any]:
        notes = {"node.fleetplane.io/reservation": f'{{"cpuSet": "{cpus}"}}'}
        return made(name, level, notes=notes, container={"resources": {"limits": {"memory": "1Mi"}}})

    assert findings(on("brake", "D", "0-1"), [on("music", "QM", "2")]) == []
    assert findings(on("brake", "D", "0-1"), [on("music", "QM", "1-2")]) != []


def limited(name: str, level: str, *, memory: bool = True) -> dict[str, Any]:
    limits = {"cpu": "100m", **({"memory": "16Mi"} if memory else {})}
    container = {"name": "main", "image": "app:1", "resources": {"limits": limits}}
    return veh_pod(name, criticality=level, podSpec=pod_spec(containers=[container]))


@staged(nodes=1, settings=FleetSettings(cpu="4"))
async def test_pressure_sheds_lower_levels_and_they_come_back_when_it_is_over(stage: Stage) -> None:
    mode = {"name": "limp", "shed": ["QM"], "conditions": ["Overheated"]}
    policy = {"metadata": {"name": "car"}, "spec": {"modes": [mode], "enterSeconds": 1, "leaveSeconds": 20}}
    await stage.client.create(VehDegradation, policy)
    for one in (limited("music", "QM"), limited("brake", "D")):
        await stage.client.create(VehPod, one, "default")
    await stage.running("music")
    await stage.running("brake")

    async def press(status: str) -> None:
        condition = {"type": "Overheated", "status": status}
        patch = {"status": {"conditions": [condition]}}
        await stage.client.patch(NODES, "sim-0", patch, type="strategic", subresource="status")

    await press("True")

    async def shed() -> bool:
        why = (await stage.condition("music", "Scheduled")).get("message", "")
        return await stage.phase("music") == "Admitted" and "shed criticality QM" in why

    await stage.until(shed)
    assert await stage.phase("brake") == "Running"
    status = (await stage.client.get(VehDegradation, "car"))["status"]
    assert status["nodes"][0]["mode"] == "limp"
    assert status["nodes"][0]["shed"] == ["QM"]

    await press("False")
    await asyncio.sleep(10)
    assert await stage.phase("music") == "Admitted", "it comes back with care"
    await stage.running("music")

    await press("True")
    await stage.until(shed)
    await stage.client.delete(VehDegradation, "car")
    await stage.running("music")


@staged(nodes=1)
async def test_freedom_from_interference_is_checked_and_shown(stage: Stage) -> None:
    await stage.client.create(VehPod, limited("brake", "D"), "default")
    await stage.running("brake")
    await stage.says("brake", "FreedomFromInterference", "True")
    await stage.client.create(VehPod, limited("music", "QM", memory=False), "default")
    found = await stage.says("brake", "FreedomFromInterference", "False")
    assert found["message"] == "music (QM) has no memory limit"
    await stage.client.delete(VehPod, "music", "default")
    await stage.says("brake", "FreedomFromInterference", "True")


@staged(nodes=1)
async def test_modes_are_checked_when_they_are_written(stage: Stage) -> None:
    mode = {"name": "x", "shed": ["A"], "conditions": ["MemoryPressure"]}
    with pytest.raises(ApiError, match="rule degradation-order"):
        await stage.client.create(VehDegradation, {"metadata": {"name": "x"}, "spec": {"modes": [mode]}})
