"""Every deadline is kept: the tests for it agree with the schedule played out, and are asked before a pod is placed."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.operators.vehicles.stage import Stage, VehPod, staged, veh_deployment, veh_pod

from fleetplane.operators.vehicles.kinds import VehDeployment
from fleetplane.operators.vehicles.schedulability import Task, missed, task_of

BY_DEADLINE = 100


def played(tasks: list[Task], cpus: int, offsets: list[int], until: int) -> bool:
    """Whether every job of a schedule is done in time, when all of them run for as long as they may."""
    left: dict[int, tuple[int, int]] = {}
    for now in range(until):
        if any(now >= due for _, due in left.values()):
            return False
        for number, one in enumerate(tasks):
            if now >= offsets[number] and (now - offsets[number]) % one.period == 0:
                left[number] = (one.runtime, now + one.deadline)
        order = sorted(left, key=lambda n: (-tasks[n].priority, left[n][1] if tasks[n].by_deadline else 0, n))
        for number in order[:cpus]:
            work, due = left.pop(number)
            if work > 1:
                left[number] = (work - 1, due)
    return True


@st.composite
def task_sets(draw: st.DrawFn, kinds: str) -> list[Task]:
    made = []
    for number in range(draw(st.integers(1, 4))):
        period = draw(st.sampled_from([4, 5, 6, 8, 10, 12]))
        deadline = draw(st.integers(2, period))
        runtime = draw(st.integers(1, max(1, deadline // 2)))
        by_deadline = kinds == "deadline" or (kinds == "both" and draw(st.booleans()))
        made.append(Task(f"t{number}", BY_DEADLINE if by_deadline else 50 - number, runtime, deadline, period))
    return made


def kept(tasks: list[Task], cpus: int) -> bool:
    return all(not missed(one, [other for other in tasks if other is not one], cpus) for one in tasks)


@pytest.mark.parametrize("kinds", ["priority", "deadline"])
@given(data=st.data())
@settings(max_examples=60)
def test_on_one_cpu_the_answer_is_exact(kinds: str, data: st.DataObject) -> None:
    tasks = data.draw(task_sets(kinds))
    assume(sum(one.runtime / one.period for one in tasks) <= 0.95)
    assert kept(tasks, 1) == played(tasks, 1, [0] * len(tasks), 240)


@pytest.mark.parametrize("cpus", [1, 2, 3])
@given(data=st.data())
@settings(max_examples=60)
def test_what_is_let_in_never_misses_whenever_it_begins(cpus: int, data: st.DataObject) -> None:
    tasks = data.draw(task_sets("both"))
    offsets = [data.draw(st.integers(0, 12)) for _ in tasks]
    assume(kept(tasks, cpus))
    assert played(tasks, cpus, offsets, 260)


def fifo(name: str, priority: int, runtime: int, period: int, cpus: str = "") -> Task:
    asked: dict[str, Any] = {"schedulingPolicy": "SCHED_FIFO", "schedulingPriority": priority, "cpuSet": cpus}
    asked |= {"runtimeMicroseconds": runtime, "periodMicroseconds": period} if runtime else {}
    found = task_of(name, orjson.dumps(asked).decode())
    assert found is not None
    return found


def test_what_is_kept_apart_does_not_disturb() -> None:
    brake = fifo("brake", 10, 600, 1000, "0")
    assert missed(fifo("radar", 20, 600, 1000, "1"), [brake], 2) == ""
    assert "realtime would take 120 percent" in missed(fifo("radar", 20, 600, 1000, "0"), [brake], 2)
    assert missed(fifo("radar", 20, 300, 1000, "0"), [brake], 2) == ""
    late = missed(fifo("radar", 20, 300, 700, "0"), [brake._replace(runtime=500, deadline=700)], 2)
    assert late == "brake could miss its deadline of 700 microseconds"


def test_a_promise_is_not_made_where_nobody_says_how_long_others_run() -> None:
    brake, loud, quiet = fifo("brake", 10, 600, 1000), fifo("loud", 20, 0, 0), fifo("quiet", 5, 0, 0)
    assert missed(brake, [loud], 1) == "nobody says how long loud runs, which comes before brake"
    assert missed(loud, [brake], 1) == "nobody says how long loud runs, which comes before brake"
    assert missed(quiet, [brake], 1) == ""
    assert missed(brake, [quiet], 1) == ""


def test_deadlines_come_before_every_priority() -> None:
    deadline = Task("radar", BY_DEADLINE, 500, 1000, 1000)
    assert missed(fifo("brake", 99, 400, 1000), [deadline], 1) == "brake could miss its deadline of 1000 microseconds"
    assert missed(fifo("brake", 99, 400, 5000), [deadline], 1) == ""


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"schedulingPolicy": "SCHED_OTHER"}'])
def test_what_is_not_realtime_is_no_task(text: str) -> None:
    assert task_of("a", text) is None


def test_times_nobody_would_write_take_no_time_to_look_at() -> None:
    short = Task("short", BY_DEADLINE, 1, 2, 3)
    long = Task("long", BY_DEADLINE, 6 * 10**8, 10**9 - 1, 10**9)
    assert missed(short, [long], 1) == ""
    there = [Task(f"t{n}", BY_DEADLINE, 10**8 + n, 10**9 - 7 * n, 10**9 + n) for n in range(9)]
    begun = time.process_time()
    missed(there[0], there[1:], 1)
    missed(Task("x", 5, 1, 10**9, 10**9), [Task("y", 6, 9, 10, 10), Task("z", 7, 1, 10**9, 10**9)], 1)
    assert time.process_time() - begun < 5


def realtime(runtime: int) -> dict[str, Any]:
    return {
        "schedulingPolicy": "SCHED_DEADLINE",
        "runtimeMicroseconds": runtime,
        "periodMicroseconds": 1000,
        "cpuSet": "0",
    }


@staged(nodes=1)
async def test_a_pod_waits_where_a_deadline_could_be_missed_and_comes_when_there_is_time(stage: Stage) -> None:
    await stage.client.create(VehPod, veh_pod("brake", reservation=realtime(600)), "default")
    await stage.running("brake")
    await stage.client.create(VehPod, veh_pod("radar", reservation=realtime(500)), "default")
    told = await stage.says("radar", "Scheduled", "False")
    assert "could not keep every deadline: realtime would take 110 percent" in told["message"]
    await stage.client.delete(VehPod, "brake", "default")
    await stage.running("radar")


@staged(nodes=1)
async def test_a_standby_takes_no_time_beside_its_active(stage: Stage) -> None:
    app = veh_deployment("brake", "PassiveRedundant", reservation=realtime(600), placement="SameNode")
    await stage.client.create(VehDeployment, app, "default")
    await stage.running("brake", VehDeployment)
