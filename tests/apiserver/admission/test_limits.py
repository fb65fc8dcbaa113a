from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

PODS = "/api/v1/namespaces/default/pods"
LIMITS = "/api/v1/namespaces/default/limitranges"


async def limit(api: TestServer, kind: str, **item: Any) -> None:
    code, _ = await api.call(
        "POST", LIMITS, {"metadata": {"name": kind.lower()}, "spec": {"limits": [{"type": kind, **item}]}}
    )
    assert code == 201


async def test_a_limit_range_fills_in_the_very_next_pod(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, "Container", default={"cpu": "500m", "memory": "1Gi"}, defaultRequest={"cpu": "100m"})

    _, made = await api.call("POST", PODS, pod(limits={"memory": "2Gi"}))

    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "2Gi"},
        "limits": {"cpu": "500m", "memory": "2Gi"},
    }
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    )
    assert made["status"]["qosClass"] == "Burstable"


async def test_a_limit_range_that_is_gone_fills_in_nothing(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, "Container", default={"cpu": "1"})
    await api.call("DELETE", f"{LIMITS}/container")

    _, made = await api.call("POST", PODS, pod())

    assert not made["spec"]["containers"][0].get("resources")


@pytest.mark.parametrize(
    ("item", "asked", "told"),
    [
        ({"max": {"cpu": "1"}, "default": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, "maximum cpu usage per Container is 1, but limit is 2"),
        ({"min": {"memory": "1Gi"}, "default": {"memory": "1Gi"}}, {"requests": {"memory": "1Mi"}}, "minimum memory usage per Container is 1Gi, but request is 1Mi"),
        ({"maxLimitRequestRatio": {"cpu": "2"}}, {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}, "cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000"),
        ({"maxLimitRequestRatio": {"cpu": "2"}}, {}, "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0"),
    ],
)  # fmt: skip
async def test_bounds_of_containers(
    api: TestServer, pod: Callable[..., Object], item: Object, asked: Object, told: str
) -> None:
    await limit(api, "Container", **item)

    code, status = await api.call("POST", PODS, pod(**asked))

    assert code == 403
    assert status["message"] == f'pods "web" is forbidden: {told}'


async def test_bounds_of_whole_pods_add_up_containers(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, "Pod", max={"cpu": "1"})
    wanted = pod(limits={"cpu": "600m"})
    wanted["spec"]["containers"].append({**wanted["spec"]["containers"][0], "name": "d"})

    code, status = await api.call("POST", PODS, wanted)

    assert code == 403
    assert status["message"].endswith("maximum cpu usage per Pod is 1, but limit is 1200m")


async def test_several_problems_are_told_together(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, "Pod", max={"cpu": "1"}, min={"memory": "1Gi"})

    _, status = await api.call("POST", PODS, pod())

    assert status["message"] == (
        'pods "web" is forbidden: [minimum memory usage per Pod is 1Gi.  No request is specified, '
        "maximum cpu usage per Pod is 1.  No limit is specified]"
    )


async def test_claims_have_bounds_too(api: TestServer) -> None:
    await limit(api, "PersistentVolumeClaim", max={"storage": "5Gi"})
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
    }

    code, status = await api.call("POST", "/api/v1/namespaces/default/persistentvolumeclaims", claim)

    assert code == 403
    assert status["message"].endswith("maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 10Gi")
