from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workloads import made
from tests.workloads.deployment.test_reconcile import is_complete, web
from tests.workloads.made import NOW, Object, later
from tests.workloads.stage import Stage, play

from fleetplane.model.builtin.types import DEPLOYMENTS, POD_DISRUPTION_BUDGETS
from fleetplane.model.environment import timestamp
from fleetplane.workloads.disruption.plan import Expected, recheck_after, status
from fleetplane.workloads.shared.pods import Pod


def budget(**spec: Any) -> Object:
    selector = {"matchLabels": {"app": "web"}}
    return {
        "metadata": {"name": "b", "namespace": "default", "generation": 1},
        "spec": {"selector": selector, **spec},
        "status": {},
    }


def pods(ready: int, unready: int = 0) -> list[Pod]:
    return [Pod.of(made.pod(f"p{n}", ready=n < ready)) for n in range(ready + unready)]


@pytest.mark.parametrize(
    ("spec", "ready", "expected", "allowed"),
    [
        ({"minAvailable": 2}, 3, 3, 1),
        ({"minAvailable": "50%"}, 3, 3, 1),
        ({"maxUnavailable": 1}, 3, 3, 1),
        ({"maxUnavailable": 1}, 2, 3, 0),
        ({"maxUnavailable": "33%"}, 3, 3, 1),
        ({"minAvailable": 5}, 3, 3, 0),
        ({"maxUnavailable": 0}, 3, 3, 0),
    ],
)
def test_what_may_go(spec, ready, expected, allowed):
    assert status(budget(**spec), pods(ready), Expected(expected), NOW)["disruptionsAllowed"] == allowed


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_granting_all_that_is_allowed_never_breaks_the_budget(ready, unready, minimum):
    found = status(budget(minAvailable=minimum), pods(ready, unready), Expected(ready + unready), NOW)
    if found["disruptionsAllowed"]:
        assert ready - found["disruptionsAllowed"] >= minimum


def test_an_evicted_pod_counts_as_gone_until_it_is_or_two_minutes_passed():
    one = budget(minAvailable=1)
    one["status"] = {"disruptedPods": {"p0": timestamp(NOW), "gone": timestamp(NOW)}}
    found = status(one, pods(3), Expected(3), NOW)
    assert (found["currentHealthy"], found["disruptedPods"]) == (2, {"p0": timestamp(NOW)})
    assert recheck_after(found, NOW) == 120.1
    assert status(one, pods(3), Expected(3), NOW + timedelta(minutes=3))["currentHealthy"] == 3


def test_when_nobody_knows_how_many_there_should_be_nothing_may_go():
    found = status(budget(maxUnavailable=1), pods(3), Expected(problem='found no controllers for pod "p0"'), NOW)
    assert found["disruptionsAllowed"] == 0
    assert found["conditions"][0]["reason"] == "SyncFailed"


def test_a_status_computed_twice_is_the_same():
    one = budget(minAvailable=1)
    one["status"] = status(one, pods(3), Expected(3), NOW)
    assert status(one, pods(3), Expected(3), later(60)) == one["status"]


def test_the_deployment_decides_how_many_pods_are_expected():
    async def story(stage: Stage) -> None:
        await stage.create(DEPLOYMENTS, web(4))
        await stage.until(lambda: is_complete(stage, 4))
        await stage.create(POD_DISRUPTION_BUDGETS, budget(maxUnavailable="50%"))
        await stage.until(
            lambda: stage.one(POD_DISRUPTION_BUDGETS, "b").get("status", {}).get("disruptionsAllowed") == 2
        )
        await stage.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 6}}, "default")
        await stage.until(lambda: stage.one(POD_DISRUPTION_BUDGETS, "b")["status"]["expectedPods"] == 6)

    play(story)
