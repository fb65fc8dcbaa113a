"""What a tenant may have, and how long: quotas, time to live, sleeping when idle and waking on request."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from tests.operators.vclusters.stage import Stage, staged
from tests.operators.vclusters.test_pods_mode import OPEN, nodes

from fleetplane.model.builtin.types import PODS
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.operators.vclusters import lifetimes, policy
from fleetplane.operators.vclusters.kinds import USED_AT, Lifetime, Vk8s, Vk8sPolicy
from fleetplane.operators.vclusters.lifetimes import Limits, Rest, Seen

HOUR = 3600.0


def cluster(name: str, created: int, **spec: object) -> Object:
    return {"metadata": {"name": name, "uid": name, "creationTimestamp": f"2026-01-0{created}T00:00:00Z"}, "spec": spec}


async def limit(stage: Stage, **spec: object) -> None:
    await stage.client.create(Vk8sPolicy, {"metadata": {"name": "all"}, "spec": spec}, "default")


# -- quotas


def test_what_a_cluster_has_is_counted_from_its_limits() -> None:
    resources = {"limits": {"cpu": "1500m", "nvidia.com/gpu": "2"}, "requests": {"cpu": "1", "memory": "1Gi"}}
    node = {"name": "a", "role": "master", "resources": resources}
    found = policy.usage_of(
        {"nodes": [node, node], "ports": [{"port": 1}], "accessPodImage": "a", "accessPodPort": 30022}
    )
    shown = {name: policy.shown(name, amount) for name, amount in found.items()}
    assert shown == {"clusters": "1", "nodes": "2", "cpu": "3", "memory": "2048Mi", "gpu": "4", "ports": "2"}


@staged()
async def test_a_cluster_too_many_is_refused_with_what_is_used(stage: Stage) -> None:
    await limit(stage, hard={"clusters": 1, "cpu": "4"})
    await stage.make("one", mode="logical")

    with pytest.raises(ApiError, match="exceeded quota: clusters: 1 asked for, 1 of 1 used by others") as refused:
        await stage.make("two", mode="logical")
    assert refused.value.code == 403

    async def counted() -> bool:
        found = await stage.find(Vk8sPolicy, "all")
        return (found.get("status") or {}).get("used") == {"clusters": "1", "cpu": "0"}

    await stage.until(counted)


@staged()
async def test_growing_over_the_quota_is_refused_and_shrinking_never(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(workers=2))
    await limit(stage, hard={"nodes": 2})

    with pytest.raises(ApiError, match="nodes: 4 asked for, 0 of 2 used by others"):
        await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(workers=3)}}, "default")
    await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(workers=1)}}, "default")


def test_of_two_let_in_at_once_the_younger_waits_for_room() -> None:
    policies = [{"spec": {"hard": {"clusters": 1}}}]
    both = [cluster("young", 2), cluster("old", 1)]
    assert policy.beyond(policies, both, "old") == ""
    assert policy.beyond(policies, both, "young").startswith("clusters: 1 asked for")


@staged()
async def test_modes_and_lives_that_the_policy_does_not_allow_are_refused(stage: Stage) -> None:
    await limit(stage, modes=["logical"], maxTtlSeconds=600)
    with pytest.raises(ApiError, match="mode pods are not allowed here, only logical"):
        await stage.make("one", nodes=nodes(0))
    with pytest.raises(ApiError, match="ttlSeconds must be at most 600 here"):
        await stage.make("one", mode="logical", lifetime={"ttlSeconds": 601})


# -- lifetimes


def test_policies_fill_in_what_a_cluster_does_not_say_and_cap_what_it_says() -> None:
    policies = [{"spec": {"maxTtlSeconds": 100, "sleepAfterSeconds": 50}}, {"spec": {"maxTtlSeconds": 80}}]
    assert lifetimes.limits_of(Lifetime.view({}), policies) == Limits(80, 50)
    assert lifetimes.limits_of(Lifetime.view({"ttlSeconds": 10, "sleepAfterSeconds": 70}), policies) == Limits(10, 70)


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (Seen(10, 0, 5, 5, None), Rest(False, False, HOUR - 5)),
        (Seen(5 + HOUR, 0, 5, 5, None), Rest(False, True, None)),
        (Seen(5 + HOUR, 0, 5, 300, None), Rest(False, False, 295)),
        (Seen(9 * HOUR, 0, None, 5, None), Rest(False, False, None)),
        (Seen(9 * HOUR, 0, 5, None, None), Rest(False, False, None)),
        (Seen(9 * HOUR, 0, 5, None, 8 * HOUR), Rest(False, True, None)),
        (Seen(9 * HOUR, 0, 8.5 * HOUR, None, 8 * HOUR), Rest(False, False, None)),
    ],
)
def test_it_sleeps_when_nobody_has_used_it_and_wakes_when_somebody_does(seen: Seen, wanted: Rest) -> None:
    assert lifetimes.rest(Limits(None, HOUR), seen) == wanted


@staged()
async def test_a_cluster_ends_when_its_time_is_over(stage: Stage) -> None:
    await stage.make("one", mode="logical", lifetime={"ttlSeconds": 300})
    await stage.phase("one", "Running")
    await asyncio.sleep(250)
    assert (await stage.status("one"))["phase"] == "Running"

    await asyncio.sleep(60)

    await stage.gone(Vk8s, "one")


@staged()
async def test_a_logical_cluster_sleeps_when_idle_and_a_request_wakes_it(stage: Stage) -> None:
    await stage.make("one", mode="logical", lifetime={"sleepAfterSeconds": 120})
    config = await stage.kubeconfig("one")
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "app"}]}}
    deployment = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    }
    path = "/apis/apps/v1/namespaces/default/deployments"
    assert (await stage.with_kubeconfig(config, "POST", path, orjson.dumps(deployment))).status == 201

    async def copies() -> list[str]:
        found = (await stage.client.list(PODS, "default")).items
        return [one["metadata"]["name"] for one in found if not one["metadata"].get("deletionTimestamp")]

    await stage.until(copies)
    status = await stage.phase("one", "Paused", timeout=600)
    assert status["message"] == "one is asleep"

    async def stopped() -> bool:
        return not await copies()

    await stage.until(stopped)
    await asyncio.sleep(300)
    assert (await stage.status("one"))["phase"] == "Paused", "its own parts do not wake it"

    assert (await stage.with_kubeconfig(config, "GET", path)).status == 200

    await stage.phase("one", "Running", timeout=60)
    await stage.until(copies)
    assert not (await stage.status("one")).get("asleepSince")


@staged()
async def test_a_cluster_of_pods_sleeps_when_its_image_can_tell_and_wakes_by_annotation(stage: Stage) -> None:
    stage.machines.last_used = str(int(stage.environment.now().timestamp()))
    await stage.make("one", annotations=OPEN, nodes=nodes(0), lifetime={"sleepAfterSeconds": 600})
    await stage.phase("one", "Running")
    await stage.phase("one", "Paused", timeout=1200)
    await stage.gone(PODS, "m-0")

    used = {"metadata": {"annotations": {USED_AT: timestamp(stage.environment.now())}}}
    await stage.client.patch(Vk8s, "one", used, "default")

    await stage.phase("one", "Running", timeout=300)
    assert stage.machines.inits == {"m-0": 1}


@staged()
async def test_a_cluster_of_pods_that_cannot_tell_never_sleeps(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(0), lifetime={"sleepAfterSeconds": 60})
    await stage.phase("one", "Running")
    await asyncio.sleep(3600)
    assert (await stage.status("one"))["phase"] == "Running"
