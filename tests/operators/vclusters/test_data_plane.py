"""The data plane of logical clusters, row by row as docs/vclusters.md tells it: what goes down, what comes up."""

from __future__ import annotations

import asyncio
import base64

import pytest
from tests.operators.vclusters.stage import Stage, staged

from fleetplane.model.builtin.types import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    LIMIT_RANGES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
)
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, condition
from fleetplane.operators.vclusters.kinds import OWNER_UID, STOPPED, Vk8s


def pod(name: str = "web", **spec: object) -> Object:
    container = {"name": "main", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    return {
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{**container, **spec.pop("container", {})}],
            **spec,
        },  # type: ignore[dict-item]
    }


async def cluster(stage: Stage, name: str = "one") -> None:
    await stage.make(name)
    await stage.phase(name, "Running")

    async def has_account() -> bool:
        _, found = await stage.server.call("GET", f"/clusters/{name}/api/v1/namespaces/default/serviceaccounts/default")
        return "metadata" in found

    await stage.until(has_account)


async def create(stage: Stage, resource: object, obj: Object, name: str = "one") -> Object:
    return await stage.client.in_cluster(name).create(resource, obj, "default")  # type: ignore[arg-type]


async def running(stage: Stage, name: str = "web", where: str = "one") -> Object:
    async def so() -> Object | None:
        found = await stage.find(PODS, name, cluster=where)
        return found if (found.get("status") or {}).get("phase") == "Running" else None

    try:
        found: Object = await stage.until(so)
    except TimeoutError:
        raise AssertionError(await stage.find(PODS, name, cluster=where)) from None
    return found


async def host_pods(stage: Stage) -> list[Object]:
    return (await stage.client.list(PODS, "default", labels=OWNER_UID)).items


async def says(stage: Stage, name: str, reason: str) -> str:
    async def so() -> str | None:
        found = condition(await stage.find(PODS, name, cluster="one"), "PodScheduled") or {}
        return found.get("message") if found.get("reason") == reason else None

    return str(await stage.until(so))


@staged()
async def test_a_guests_pod_runs_on_a_node_of_the_host(stage: Stage) -> None:
    await cluster(stage)

    await create(stage, PODS, pod())

    found = await running(stage)
    (copy,) = await host_pods(stage)
    assert copy["metadata"]["name"] == "web-x-default-x-one"
    assert found["spec"]["nodeName"] == copy["spec"]["nodeName"]
    assert found["status"]["podIP"] == copy["status"]["podIP"]
    assert found["status"]["containerStatuses"][0]["ready"] is True


@staged()
async def test_deleting_a_guests_pod_removes_both(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, PODS, pod())
    await running(stage)

    await stage.client.in_cluster("one").delete(PODS, "web", "default")

    async def gone() -> bool:
        return not await stage.find(PODS, "web", cluster="one") and not await host_pods(stage)

    await stage.until(gone)


@staged()
async def test_a_deployment_of_a_guest_gets_its_pods_back_when_the_host_evicts_one(stage: Stage) -> None:
    await cluster(stage)
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod()["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    await create(stage, DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec})

    async def two() -> list[Object] | None:
        found = [one for one in await host_pods(stage) if (one.get("status") or {}).get("phase") == "Running"]
        return found if len(found) == 2 else None

    before = await stage.until(two)
    await stage.client.delete(PODS, before[0]["metadata"]["name"], "default")

    async def replaced() -> bool:
        after = await two()
        return after is not None and {one["metadata"]["uid"] for one in after} != {
            one["metadata"]["uid"] for one in before
        }

    await stage.until(replaced)


@staged()
async def test_config_maps_and_secrets_that_a_pod_names_go_down_and_go_again(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, CONFIG_MAPS, {"metadata": {"name": "settings"}, "data": {"a": "1"}})
    await create(stage, CONFIG_MAPS, {"metadata": {"name": "private"}, "data": {"b": "2"}})
    await create(stage, SECRETS, {"metadata": {"name": "key"}, "stringData": {"k": "v"}})
    sources = [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "key"}}]
    await create(stage, PODS, pod(container={"envFrom": sources}))
    await running(stage)

    copy = await stage.find(CONFIG_MAPS, "settings-x-default-x-one")
    assert copy["data"] == {"a": "1"}
    assert (await stage.find(SECRETS, "key-x-default-x-one"))["data"] == {"k": base64.b64encode(b"v").decode()}
    assert not await stage.find(CONFIG_MAPS, "private-x-default-x-one")

    await stage.client.in_cluster("one").patch(CONFIG_MAPS, "settings", {"data": {"a": None, "c": "3"}}, "default")

    async def followed() -> bool:
        return (await stage.find(CONFIG_MAPS, "settings-x-default-x-one"))["data"] == {"c": "3"}

    await stage.until(followed, timeout=150)
    await stage.client.in_cluster("one").delete(PODS, "web", "default")
    await stage.gone(CONFIG_MAPS, "settings-x-default-x-one")
    await stage.gone(SECRETS, "key-x-default-x-one")


@staged()
async def test_a_pod_waits_for_a_config_map_that_its_guest_makes_later(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, PODS, pod(container={"envFrom": [{"configMapRef": {"name": "later"}}]}))
    await asyncio.sleep(10)
    assert (await stage.find(PODS, "web", cluster="one"))["status"]["phase"] == "Pending"

    await create(stage, CONFIG_MAPS, {"metadata": {"name": "later"}, "data": {"a": "1"}})

    async with asyncio.timeout(10):
        await running(stage)


@staged()
async def test_the_token_in_a_pod_is_good_for_the_guests_api_only(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, PODS, pod())
    await running(stage)
    (copy,) = await host_pods(stage)
    sources = [source for volume in copy["spec"]["volumes"] for source in (volume.get("projected") or {})["sources"]]
    held = next(source["secret"] for source in sources if source.get("secret"))
    secret = await stage.find(SECRETS, held["name"])
    token = base64.b64decode(secret["data"][held["items"][0]["key"]]).decode()

    review = {"spec": {"token": token}}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    _, inside = await stage.server.call("POST", f"/clusters/one{path}", review)
    _, outside = await stage.server.call("POST", path, review)

    assert inside["status"]["user"]["username"] == "system:serviceaccount:default:default"
    assert not outside["status"].get("authenticated")
    headers = {"authorization": f"Bearer {token}"}
    code, _ = await stage.server.call("GET", "/api", user=None, headers=headers)
    assert code == 200


@staged()
async def test_tokens_are_renewed_before_they_end(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, PODS, pod())
    await running(stage)
    (secret,) = [
        one for one in (await stage.client.list(SECRETS, "default", labels=OWNER_UID)).items if "tokens" in str(one)
    ]

    async def renewed() -> bool:
        return (await stage.find(SECRETS, secret["metadata"]["name"]))["data"] != secret["data"]

    await stage.until(renewed, timeout=3600)


@staged()
async def test_the_hosts_quota_counts_and_the_guest_is_told(stage: Stage) -> None:
    quota = {"metadata": {"name": "limit"}, "spec": {"hard": {"pods": "1"}}}
    await stage.client.create(RESOURCE_QUOTAS, quota, "default")
    await cluster(stage)

    await create(stage, PODS, pod("first"))
    await running(stage, "first")
    await create(stage, PODS, pod("second"))

    assert "exceeded quota" in await says(stage, "second", "HostRefused")
    await stage.client.in_cluster("one").delete(PODS, "first", "default")
    await running(stage, "second")


@staged()
async def test_the_hosts_limit_range_fills_in_what_a_guest_left_open(stage: Stage) -> None:
    limits = {"limits": [{"type": "Container", "default": {"cpu": "250m"}, "defaultRequest": {"cpu": "50m"}}]}
    await stage.client.create(LIMIT_RANGES, {"metadata": {"name": "defaults"}, "spec": limits}, "default")
    await cluster(stage)

    await create(stage, PODS, pod(container={"resources": {}}))

    await running(stage)
    (copy,) = await host_pods(stage)
    assert copy["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "250m"


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
        {"container": {"securityContext": {"privileged": True}}},
        {"container": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}},
        {"container": {"ports": [{"containerPort": 80, "hostPort": 80}]}},
    ],
)
def test_what_reaches_around_a_pod_does_not_run_on_the_host(spec: Object) -> None:
    @staged()
    async def story(stage: Stage) -> None:
        await cluster(stage)

        await create(stage, PODS, pod(**spec))

        assert await says(stage, "web", "NotAllowedOnHost")
        assert await host_pods(stage) == []

    story()


@staged()
async def test_a_guests_labels_select_nothing_of_the_host(stage: Stage) -> None:
    await cluster(stage)

    await create(stage, PODS, pod())
    await running(stage)

    assert (await stage.client.list(PODS, "default", labels="app=web")).items == []


@staged()
async def test_services_go_down_with_their_selectors_and_their_address_comes_up(stage: Stage) -> None:
    await cluster(stage)
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    await create(stage, SERVICES, {"metadata": {"name": "front"}, "spec": spec})

    async def copied() -> Object:
        return await stage.find(SERVICES, "front-x-default-x-one")

    copy = await stage.until(copied)
    await create(stage, PODS, pod())
    await running(stage)
    (down,) = await host_pods(stage)
    assert copy["spec"]["selector"].items() <= down["metadata"]["labels"].items()
    hosts = {one["ip"]: one["hostnames"] for one in down["spec"]["hostAliases"]}
    assert "front.default.svc.cluster.local" in hosts[copy["spec"]["clusterIP"]]

    async def told() -> bool:
        found = await stage.find(SERVICES, "front", cluster="one")
        return copy["spec"]["clusterIP"] in (found["metadata"].get("annotations") or {}).values()

    await stage.until(told)
    await stage.client.in_cluster("one").delete(SERVICES, "front", "default")
    await stage.gone(SERVICES, "front-x-default-x-one")


@staged()
async def test_claims_go_down_and_their_state_comes_up(stage: Stage) -> None:
    await cluster(stage)
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    await create(stage, PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "data"}, "spec": spec})

    async def copied() -> Object:
        return await stage.find(PERSISTENT_VOLUME_CLAIMS, "data-x-default-x-one")

    await stage.until(copied)
    volume = {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "example.com", "volumeHandle": "disk-1"},
    }
    await stage.client.create(PERSISTENT_VOLUMES, {"metadata": {"name": "disk"}, "spec": volume})

    async def told() -> Object | None:
        found = await stage.find(PERSISTENT_VOLUME_CLAIMS, "data", cluster="one")
        return found if (found.get("status") or {}).get("phase") == "Bound" else None

    claim = await stage.until(told)
    assert claim["status"]["capacity"] == {"storage": "2Gi"}
    await create(stage, PODS, pod(volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]))
    await running(stage)
    (copy,) = await host_pods(stage)
    assert {"claimName": "data-x-default-x-one"} in [
        one.get("persistentVolumeClaim") for one in copy["spec"]["volumes"]
    ]
    await stage.client.in_cluster("one").delete(PODS, "web", "default")
    await stage.client.in_cluster("one").delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    await stage.gone(PERSISTENT_VOLUME_CLAIMS, "data-x-default-x-one")
    await stage.until(lambda: no_volumes(stage))


async def no_volumes(stage: Stage) -> bool:
    return (await stage.client.in_cluster("one").list(PERSISTENT_VOLUMES)).items == []


@staged()
async def test_the_hosts_events_about_a_pod_come_up_under_the_guests_names(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, PODS, pod())
    found = await running(stage)

    async def told() -> list[Object]:
        events = (await stage.client.in_cluster("one").list(EVENTS, "default")).items
        return [one for one in events if one["involvedObject"].get("uid") == found["metadata"]["uid"]]

    events = await stage.until(told)
    assert all("-x-" not in one["message"] for one in events)


@staged()
async def test_a_guest_sees_the_nodes_its_pods_run_on_and_only_those(stage: Stage) -> None:
    await cluster(stage)
    assert (await stage.client.in_cluster("one").list(NODES)).items == []

    await create(stage, PODS, pod())
    found = await running(stage)

    (node,) = (await stage.client.in_cluster("one").list(NODES)).items
    assert node["metadata"]["name"] == found["spec"]["nodeName"]
    assert (condition(node, "Ready") or {})["status"] == "True"
    await stage.client.in_cluster("one").delete(PODS, "web", "default")
    await stage.until(lambda: no_nodes(stage))


async def no_nodes(stage: Stage) -> bool:
    return (await stage.client.in_cluster("one").list(NODES)).items == []


@staged()
async def test_a_virtual_node_stays_ready_for_as_long_as_the_hosts_node_is(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, PODS, pod())
    await running(stage)

    await asyncio.sleep(400)

    (node,) = (await stage.client.in_cluster("one").list(NODES)).items
    assert (condition(node, "Ready") or {})["status"] == "True"
    assert await running(stage)


@staged()
async def test_a_daemon_set_runs_on_the_nodes_the_guest_sees(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, PODS, pod())
    found = await running(stage)
    template = {"metadata": {"labels": {"app": "agent"}}, "spec": pod()["spec"]}
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template}
    await create(stage, DAEMON_SETS, {"metadata": {"name": "agent"}, "spec": spec})

    async def agents() -> list[Object]:
        pods = (await stage.client.in_cluster("one").list(PODS, "default", labels="app=agent")).items
        return [one for one in pods if (one.get("status") or {}).get("phase") == "Running"]

    (agent,) = await stage.until(agents)
    assert agent["spec"]["nodeName"] == found["spec"]["nodeName"]


@staged()
async def test_eviction_in_the_guest_obeys_the_guests_budget(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, PODS, pod())
    await running(stage)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web", "namespace": "default"}}

    await stage.client.in_cluster("one").create(PODS, eviction, "default", subresource="eviction", name="web")

    async def gone() -> bool:
        return not await stage.find(PODS, "web", cluster="one") and not await host_pods(stage)

    await stage.until(gone)


@staged()
async def test_a_paused_cluster_runs_nothing_and_resumes_what_its_controllers_want(stage: Stage) -> None:
    await cluster(stage)
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod()["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    await create(stage, DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec})

    async def one_runs() -> bool:
        return [one["status"]["phase"] for one in await host_pods(stage)] == ["Running"]

    await stage.until(one_runs)
    await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: ""}}}, "default")

    async def nothing_runs() -> bool:
        return not await host_pods(stage)

    await stage.until(nothing_runs)
    await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: None}}}, "default")
    await stage.until(one_runs)


@staged()
async def test_deleting_the_cluster_removes_all_it_had_on_the_host(stage: Stage) -> None:
    await cluster(stage)
    await create(stage, CONFIG_MAPS, {"metadata": {"name": "settings"}, "data": {"a": "1"}})
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    await create(stage, SERVICES, {"metadata": {"name": "front"}, "spec": spec})
    await create(stage, PODS, pod(container={"envFrom": [{"configMapRef": {"name": "settings"}}]}))
    await running(stage)

    await stage.client.delete(Vk8s, "one", "default")
    await stage.gone(Vk8s, "one")

    for resource in (PODS, CONFIG_MAPS, SECRETS, SERVICES, PERSISTENT_VOLUME_CLAIMS):
        assert (await stage.client.list(resource, "default", labels=OWNER_UID)).items == [], resource


@staged()
async def test_a_pod_cannot_claim_the_hosts_pod_of_somebody_else(stage: Stage) -> None:
    """The annotation that leads streams to the host's pod is checked against what the host's pod says."""
    await cluster(stage)
    victim = await stage.client.create(PODS, pod("victim"), "default")
    lie = {"fleetplane.io/host-pod": f"default/{victim['metadata']['name']}"}
    await create(stage, PODS, {**pod("thief"), "metadata": {"name": "thief", "annotations": lie}})
    await running(stage, "thief")
    patch = {"metadata": {"annotations": lie}}
    await stage.client.in_cluster("one").patch(PODS, "thief", patch, "default")

    with pytest.raises(ApiError) as refused:
        await stage.client.in_cluster("one").raw("GET", "/api/v1/namespaces/default/pods/thief/log")

    assert "victim" not in refused.value.message
