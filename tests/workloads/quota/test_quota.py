from __future__ import annotations

from typing import Any

import pytest
from tests.workloads.stage import WIDGETS, Object, Stage, play

from fleetplane.model.builtin.types import CONFIG_MAPS, PODS, RESOURCE_QUOTAS, SERVICES
from fleetplane.workloads.quota import usage


def quota(hard: Object, **spec: Any) -> Object:
    return {"metadata": {"name": "limits", "namespace": "default"}, "spec": {"hard": hard, **spec}}


def pod(name: str = "p", **spec: Any) -> Object:
    resources = {"requests": {"cpu": "250m", "memory": "64Mi", "example.com/gpu": "1"}, "limits": {"cpu": "1"}}
    containers = [{"name": "c", "image": "i", "resources": resources}]
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": containers, **spec},
        "status": {},
    }


def test_a_pod_counts_as_what_it_asks_for():
    assert usage.pod_use(pod()) == {
        "pods": 1,
        "count/pods": 1,
        "cpu": 250,
        "requests.cpu": 250,
        "memory": 64 << 20,
        "requests.memory": 64 << 20,
        "requests.example.com/gpu": 1,
        "limits.cpu": 1000,
    }


def test_a_pod_that_ended_counts_as_nothing():
    assert usage.pod_use({**pod(), "status": {"phase": "Succeeded"}}) == {}


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        ("requests.cpu", 1500, "1500m"),
        ("cpu", 2000, "2"),
        ("memory", 3 << 30, "3Gi"),
        ("pods", 12, "12"),
        ("gold.storageclass.storage.k8s.io/requests.storage", 1 << 30, "1Gi"),
    ],
)
def test_amounts_are_written_as_people_expect(resource, amount, text):
    assert usage.written(resource, amount) == text


@pytest.mark.parametrize(
    ("scopes", "one", "inside"),
    [
        (["BestEffort"], pod(), False),
        (["NotBestEffort"], pod(), True),
        (["BestEffort"], pod(containers=[{"name": "c"}]), True),
        (["Terminating"], pod(activeDeadlineSeconds=5), True),
        (["NotTerminating"], pod(activeDeadlineSeconds=5), False),
        (["NotBestEffort", "NotTerminating"], pod(), True),
    ],
)
def test_scopes_choose_pods(scopes, one, inside):
    assert usage.counts_for(quota({}, scopes=scopes), one) is inside


@pytest.mark.parametrize(
    ("operator", "values", "inside"), [("In", ["high"], True), ("NotIn", ["high"], False), ("Exists", [], True)]
)
def test_priority_classes_choose_pods(operator, values, inside):
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}
    assert usage.counts_for(quota({}, scopeSelector=selector), pod(priorityClassName="high")) is inside


def test_services_count_by_their_type():
    balancer = {"spec": {"type": "LoadBalancer", "ports": [{}, {}]}}
    assert usage.service_use(balancer) == {
        "services": 1,
        "count/services": 1,
        "services.loadbalancers": 1,
        "services.nodeports": 2,
    }


def test_used_follows_what_comes_and_goes():
    async def story(stage: Stage) -> None:
        hard = {"pods": "4", "requests.cpu": "2", "services": "3", "configmaps": "9", "count/widgets.example.com": "5"}
        await stage.create(RESOURCE_QUOTAS, quota(hard))

        def used() -> Object:
            return (stage.one(RESOURCE_QUOTAS, "limits").get("status") or {}).get("used") or {}

        await stage.until(lambda: used() == dict.fromkeys(hard, "0"), seconds=10)
        await stage.create(PODS, pod("a"))
        await stage.create(PODS, pod("b"))
        await stage.create(SERVICES, {"metadata": {"name": "s", "namespace": "default"}, "spec": {"type": "ClusterIP"}})
        await stage.create(CONFIG_MAPS, {"metadata": {"name": "c", "namespace": "default"}})
        await stage.create(WIDGETS, {"metadata": {"name": "w", "namespace": "default"}})
        expected = {
            "pods": "2",
            "requests.cpu": "500m",
            "services": "1",
            "configmaps": "1",
            "count/widgets.example.com": "1",
        }
        await stage.until(lambda: used() == expected, seconds=5)
        await stage.client.delete(PODS, "a", "default")
        await stage.until(lambda: used()["requests.cpu"] == "250m", seconds=5)
        await stage.quiet()
        before = stage.write_count()
        await stage.quiet(600)
        assert stage.write_count() == before

    play(story)
