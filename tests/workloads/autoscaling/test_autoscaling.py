from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workloads.deployment.test_reconcile import web
from tests.workloads.stage import Object, Stage, play

from fleetplane.model.builtin.types import DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS
from fleetplane.workloads.autoscaling.behavior import History, limit
from fleetplane.workloads.autoscaling.metrics import Measured, propose

CPU_AT_50 = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
}


def pods(*usages: int | None, request: int | None = 100, unready: int = 0) -> list[Measured]:
    return [Measured(f"p{n}", n >= unready, request, usage) for n, usage in enumerate(usages)]


@pytest.mark.parametrize(
    ("measured", "current", "expected"),
    [
        (pods(100, 100), 2, 4),
        (pods(25, 25, 25, 25), 4, 2),
        (pods(52, 50), 2, 2),
        (pods(100, 100, 100, unready=1), 3, 4),
        (pods(10, None, None), 3, 3),
        (pods(100, None), 2, 2),
    ],
)
def test_how_many_pods_a_utilization_asks_for(measured, current, expected):
    assert propose(CPU_AT_50, measured, current).replicas == expected


def test_an_average_value_is_shared_out():
    metric = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "100Mi"}},
    }
    mebi = 1024 * 1024 * 1000
    found = propose(metric, pods(200 * mebi, 200 * mebi), 2)
    assert found.replicas == 4
    assert found.current == {
        "type": "Resource",
        "resource": {"name": "memory", "current": {"averageValue": "209715200"}},
    }


def test_a_pod_without_a_request_has_no_utilization():
    problem = propose(CPU_AT_50, pods(10, request=None), 1).problem
    assert problem == ("FailedGetResourceMetric", "failed to get cpu utilization: missing request for cpu in pod p0")


def test_without_measurements_nothing_is_proposed():
    assert propose(CPU_AT_50, pods(None), 1).problem is not None


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (
            {"type": "Pods", "pods": {"metric": {"name": "requests"}}},
            (
                "FailedGetPodsMetric",
                "unable to get metric requests: unable to fetch metrics from custom metrics API: "
                "no custom metrics API (custom.metrics.k8s.io) registered",
            ),
        ),
        (
            {
                "type": "Object",
                "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Ingress", "name": "i"}},
            },
            (
                "FailedGetObjectMetric",
                "unable to get metric hits: Ingress i: unable to fetch metrics from custom metrics API: "
                "no custom metrics API (custom.metrics.k8s.io) registered",
            ),
        ),
        (
            {"type": "External", "external": {"metric": {"name": "queue"}}},
            (
                "FailedGetExternalMetric",
                "unable to get external metric queue: unable to fetch metrics from external metrics API: "
                "no external metrics API (external.metrics.k8s.io) registered",
            ),
        ),
    ],
)
def test_metrics_of_apis_nobody_serves_are_told_by_name(metric, told):
    assert propose(metric, pods(10), 1).problem == told


SPEC: Object = {"minReplicas": 2, "maxReplicas": 10}


@pytest.mark.parametrize(
    ("current", "proposed", "expected", "reason"),
    [
        (3, 5, 5, "DesiredWithinRange"),
        (3, 50, 7, "ScaleUpLimit"),
        (8, 50, 10, "TooManyReplicas"),
        (3, 1, 2, "TooFewReplicas"),
    ],
)
def test_sizes_are_kept_within_bounds_and_rates(current, proposed, expected, reason):
    found = limit(SPEC, current, proposed, History(), 1000.0)
    assert (found.replicas, found.reason) == (expected, reason)


def test_shrinking_waits_for_the_window():
    history = History(recommended=[(1000.0, 6)])
    assert limit(SPEC, 6, 3, history, 1100.0).stabilized == "ScaleDownStabilized"
    assert limit(SPEC, 6, 3, history, 1100.0).replicas == 6
    assert limit(SPEC, 6, 3, history, 1301.0).replicas == 3


def test_a_policy_may_forbid_shrinking():
    spec = {**SPEC, "behavior": {"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}}}
    assert limit(spec, 6, 3, History(), 0.0).replicas == 6


@given(st.lists(st.integers(0, 40), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_the_size_never_leaves_its_bounds_nor_grows_too_fast(proposals):
    history, current, now = History(), 2, 0.0
    sizes = [(now, current)]
    for proposed in proposals:
        now += 15
        found = limit(SPEC, current, proposed, history, now)
        history.recommended.append((now, proposed))
        if found.replicas != current:
            history.changes.append((now, found.replicas - current))
        assert 2 <= found.replicas <= 10
        assert found.replicas <= max(current * 2, current + 4)
        current = found.replicas
        sizes.append((now, current))


def test_a_deployment_follows_its_load():
    async def story(stage: Stage) -> None:
        usage = {"cpu": "200m"}

        def scale(method: str, path: str, body: bytes) -> Object | None:
            if not path.endswith("/deployments/web/scale"):
                return None
            found = stage.one(DEPLOYMENTS, "web")
            if method == "PUT":
                key = next(one for one in stage.server.objects if one.resource == "deployments")
                wanted = {**found, "spec": {**found["spec"], "replicas": orjson.loads(body)["spec"]["replicas"]}}
                stage.server._update(key, found, wanted, "", False)
                found = stage.one(DEPLOYMENTS, "web")
            status = {"replicas": (found.get("status") or {}).get("replicas", 0), "selector": "app=web"}
            return {
                "kind": "Scale",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"replicas": found["spec"]["replicas"]},
                "status": status,
            }

        def metrics(method: str, path: str, body: bytes) -> Object | None:
            if "/apis/metrics.k8s.io/v1beta1" not in path:
                return None
            items = [
                {"metadata": {"name": one["metadata"]["name"]}, "containers": [{"name": "main", "usage": usage}]}
                for one in stage.pods()
            ]
            return {"kind": "PodMetricsList", "metadata": {}, "items": items}

        stage.transport.extras += [scale, metrics]
        deployment = web(2)
        deployment["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"}}
        await stage.create(DEPLOYMENTS, deployment)
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
        spec: Any = {"scaleTargetRef": reference, "minReplicas": 1, "maxReplicas": 6, "metrics": [CPU_AT_50]}
        await stage.create(
            HORIZONTAL_POD_AUTOSCALERS, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}
        )

        def size() -> int:
            return int(stage.one(DEPLOYMENTS, "web")["spec"]["replicas"])

        await stage.until(lambda: size() == 6, seconds=120)
        usage["cpu"] = "5m"
        await stage.until(lambda: size() == 1, seconds=900)
        found = stage.one(HORIZONTAL_POD_AUTOSCALERS, "web")["status"]
        conditions = {one["type"]: one["status"] for one in found["conditions"]}
        assert conditions["AbleToScale"] == conditions["ScalingActive"] == "True"
        assert "SuccessfulRescale" in stage.reasons()

    play(story)
