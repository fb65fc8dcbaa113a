"""What is kept for a workload makes sense, and is kept only for whom its class says."""

from __future__ import annotations

from typing import Any

import pytest
from tests.operators.vehicles.stage import Stage, VehPod, staged, veh_pod

from fleetplane.model.errors import ApiError
from fleetplane.operators.vehicles.kinds import AppType
from fleetplane.operators.vehicles.limits import profile_of
from fleetplane.operators.vehicles.reservations import cpus_of, reservation_violations

DEADLINE = {"schedulingPolicy": "SCHED_DEADLINE", "runtimeMicroseconds": 1000, "deadlineMicroseconds": 5000}
SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"cpuSet": "5-1"}, "no list of CPUs"),
    ({"affinity": "0,,1"}, "no list of CPUs"),
    ({"memoryMin": "plenty"}, "no amount"),
    ({"runtimeMicroseconds": 5}, "no realtime schedulingPolicy"),
    ({"schedulingPolicy": "SCHED_DEADLINE", "runtimeMicroseconds": 5}, "needs runtimeMicroseconds and a deadline"),
    ({**DEADLINE, "runtimeMicroseconds": 5001}, "needs 5001 microseconds of the 5000 it has"),
    ({**DEADLINE, "periodMicroseconds": 4000}, "after the next period has begun"),
    ({"schedulingPolicy": "SCHED_FIFO", "periodMicroseconds": 5}, "needs runtimeMicroseconds too"),
    ({"schedulingPolicy": "SCHED_RR", "runtimeMicroseconds": 5}, "needs a deadline or period too"),
]


def system() -> Any:
    found = profile_of("system", None)
    assert found is not None
    return found


@pytest.mark.parametrize(("reservation", "says"), SENSELESS)
def test_a_reservation_that_means_nothing_is_refused(reservation: dict[str, Any], says: str) -> None:
    (broken,) = reservation_violations(system(), reservation)
    assert broken.rule == "reservation"
    assert says in broken.message


def test_cpus_are_read_as_cpuset_writes_them() -> None:
    assert cpus_of("0-2,5") == {0, 1, 2, 5}
    assert [cpus_of(one) for one in ("", "x", "1-", "9999999999", "3-2")] == [frozenset()] * 5
    assert list(reservation_violations(system(), DEADLINE)) == []


@staged(nodes=1)
async def test_realtime_and_cpus_are_for_whom_the_integrator_lists(stage: Stage) -> None:
    asked = {"schedulingPolicy": "SCHED_FIFO", "schedulingPriority": 99, "cpuSet": "0-31"}
    with pytest.raises(ApiError, match="rule reservation-permission") as refused:
        await stage.client.create(VehPod, veh_pod("loud", "3rd-party", reservation=asked), "default")
    assert "spec.reservation.cpuSet" in refused.value.message
    assert "may not have SCHED_FIFO" in refused.value.message

    await stage.client.create(VehPod, veh_pod("brake", "system", reservation=asked), "default")
    lists = {"metadata": {"name": "3rd-party"}, "spec": {"reservations": ["cpuSet", "SCHED_FIFO"]}}
    await stage.client.create(AppType, lists)
    await stage.client.create(VehPod, veh_pod("loud", "3rd-party", reservation=asked), "default")
    await stage.running("loud")
