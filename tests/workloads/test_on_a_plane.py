"""The built-in controllers on a whole plane: the real server, the real scheduler, simulated nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PRIORITY_CLASSES,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
)
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import is_condition_true
from fleetplane.model.resources import ResourceType
from fleetplane.plane import Plane
from fleetplane.settings import Settings

Object = dict[str, Any]


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    settings = Settings(data_dir=tmp_path, port=0, runtime="simulated", nodes=3, operators="none")
    async with Plane(settings) as running:
        yield running


@pytest.fixture
def client(plane: Plane) -> Client:
    return plane.client().in_cluster("root")


async def until(holds: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.05)


def template(app: str, image: str = "web:1", **spec: Any) -> Object:
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "main", "image": image}], **spec}}


def workload(name: str, **spec: Any) -> Object:
    selector = {"matchLabels": {"app": name}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": selector, "template": template(name), **spec},
    }


async def ready(client: Client, app: str) -> int:
    found = (await client.list(PODS, "default", labels=f"app={app}")).items
    return sum(is_condition_true(one, "Ready") and not one["metadata"].get("deletionTimestamp") for one in found)


async def revision_of(client: Client) -> dict[str, str]:
    """Versions of everything that must not change by itself."""
    found = {}
    kinds = (
        DEPLOYMENTS,
        REPLICA_SETS,
        STATEFUL_SETS,
        DAEMON_SETS,
        JOBS,
        PODS,
        SERVICES,
        ENDPOINT_SLICES,
        NODES,
        NAMESPACES,
    )
    for kind in kinds:
        for one in (await client.list(kind)).items:
            found[f"{kind.plural}/{one['metadata']['name']}"] = one["metadata"]["resourceVersion"]
    return found


async def test_every_kind_comes_up_and_then_nothing_is_written(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", replicas=3))
    await client.create(STATEFUL_SETS, workload("db", replicas=2, serviceName="db"))
    await client.create(DAEMON_SETS, workload("agent"))
    job = {
        "metadata": {"name": "pi", "namespace": "default"},
        "spec": {"completions": 3, "parallelism": 2, "template": template("pi", restartPolicy="Never")},
    }
    await client.create(JOBS, job)
    service = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    await client.create(SERVICES, service)

    async def all_up() -> bool:
        up = [await ready(client, app) for app in ("web", "db", "agent")]
        return up == [3, 2, 3] and is_condition_true(await client.get(JOBS, "pi", "default"), "Complete")

    await until(all_up)
    assert (await client.get(JOBS, "pi", "default"))["status"]["succeeded"] == 3
    await asyncio.sleep(1)
    deployment = await client.get(DEPLOYMENTS, "web", "default")
    assert is_condition_true(deployment, "Available")
    assert deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    (slice_,) = (await client.list(ENDPOINT_SLICES, "default", labels="kubernetes.io/service-name=web")).items
    assert sum(one["conditions"]["ready"] for one in slice_["endpoints"]) == 3
    before = await revision_of(client)
    await asyncio.sleep(2)
    assert await revision_of(client) == before


async def test_a_roll_out_ends_with_the_new_image_everywhere(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", replicas=4))
    await until(lambda: _complete(client, 4))
    patch = {"spec": {"template": template("web", "web:2")}}
    await client.patch(DEPLOYMENTS, "web", patch, "default", type="strategic")
    await until(lambda: _complete(client, 4))
    pods = (await client.list(PODS, "default", labels="app=web")).items
    running = [one for one in pods if not one["metadata"].get("deletionTimestamp")]
    assert {one["spec"]["containers"][0]["image"] for one in running} == {"web:2"}


async def _complete(client: Client, total: int) -> bool:
    found = await client.get(DEPLOYMENTS, "web", "default")
    status = found.get("status") or {}
    counts = [status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return counts == [total] * 3 and status["observedGeneration"] == found["metadata"]["generation"]


async def test_a_namespace_is_made_whole_and_goes_whole(client: Client) -> None:
    await client.create(NAMESPACES, {"metadata": {"name": "team"}})
    await until(lambda: _exists(client, SERVICE_ACCOUNTS, "default", "team"))
    in_team = workload("web", replicas=2)
    in_team["metadata"]["namespace"] = "team"
    await client.create(DEPLOYMENTS, in_team)
    await client.create(CONFIG_MAPS, {"metadata": {"name": "c", "namespace": "team"}})

    async def has_pods() -> bool:
        return len((await client.list(PODS, "team")).items) == 2

    await until(has_pods)
    await client.delete(NAMESPACES, "team")

    async def gone() -> bool:
        return not await _exists(client, NAMESPACES, "team", None)

    await until(gone)


async def _exists(client: Client, kind: Any, name: str, namespace: str | None) -> bool:
    try:
        await client.get(kind, name, namespace)
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    return True


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
async def test_deleting_a_deployment_treats_its_children_as_asked(client: Client, propagation: Any) -> None:
    await client.create(DEPLOYMENTS, workload("web", replicas=2))
    await until(lambda: _complete(client, 2))
    await client.delete(DEPLOYMENTS, "web", "default", propagation=propagation)

    async def settled() -> bool:
        if await _exists(client, DEPLOYMENTS, "web", "default"):
            return False
        sets = (await client.list(REPLICA_SETS, "default")).items
        pods = (await client.list(PODS, "default", labels="app=web")).items
        if propagation == "Orphan":
            return len(sets) == 1 and len(pods) == 2 and not sets[0]["metadata"].get("ownerReferences")
        return not sets and not pods

    await until(settled)


WIDGETS = ResourceType("example.com", "v1", "Widget", "widgets")


async def _define_widgets(client: Client) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    definition = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)

    async def established() -> bool:
        found = await client.get(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.com")
        return is_condition_true(found, "Established")

    await until(established)


async def test_custom_resources_own_and_are_owned(client: Client) -> None:
    await _define_widgets(client)
    typed = {"apiVersion": "example.com/v1", "kind": "Widget"}
    parent = await client.create(WIDGETS, {**typed, "metadata": {"name": "parent", "namespace": "default"}}, "default")
    reference = {**typed, "name": "parent", "uid": parent["metadata"]["uid"]}
    child = {"metadata": {"name": "child", "namespace": "default", "ownerReferences": [reference]}}
    await client.create(CONFIG_MAPS, child, "default")
    grandparent = {"apiVersion": "v1", "kind": "ConfigMap", "name": "child", "uid": ""}
    grandparent["uid"] = (await client.get(CONFIG_MAPS, "child", "default"))["metadata"]["uid"]
    meta = {"name": "grandchild", "namespace": "default", "ownerReferences": [grandparent]}
    await client.create(WIDGETS, {**typed, "metadata": meta}, "default")
    await asyncio.sleep(1)
    assert await _exists(client, WIDGETS, "grandchild", "default")
    await client.delete(WIDGETS, "parent", "default")

    async def gone() -> bool:
        return not await _exists(client, CONFIG_MAPS, "child", "default") and not await _exists(
            client, WIDGETS, "grandchild", "default"
        )

    await until(gone)


async def test_an_important_pod_takes_the_place_of_a_lesser_one(client: Client) -> None:
    await client.create(PRIORITY_CLASSES, {"metadata": {"name": "high"}, "value": 1000})

    def pod(name: str, **spec: Any) -> Object:
        resources = {"requests": {"cpu": "20"}}
        containers = [{"name": "c", "image": "i", "resources": resources}]
        return {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": containers, **spec}}

    for number in range(3):
        await client.create(PODS, pod(f"low-{number}"))

    async def running(name: str) -> bool:
        return is_condition_true(await client.get(PODS, name, "default"), "Ready")

    for number in range(3):
        await until(lambda number=number: running(f"low-{number}"))
    await client.create(PODS, pod("late"))

    async def refused() -> bool:
        found = next(iter((await client.get(PODS, "late", "default"))["status"].get("conditions") or ()), {})
        return found.get("reason") == "Unschedulable" and "3 Insufficient cpu" in found["message"]

    await until(refused)
    await client.create(PODS, pod("important", priorityClassName="high"))
    await until(lambda: running("important"))
    left = [one["metadata"]["name"] for one in (await client.list(PODS, "default")).items]
    assert sum(name.startswith("low-") for name in left) == 2


async def test_claims_are_bound_on_the_way_to_a_node(client: Client) -> None:
    storage = {
        "metadata": {"name": "local"},
        "provisioner": "fleetplane.io/host-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": {"path": "/nowhere"},
    }
    await client.create(STORAGE_CLASSES, storage)
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    await client.create(STATEFUL_SETS, workload("db", replicas=2, serviceName="db", volumeClaimTemplates=[claim]))
    await until(lambda: _is_ready(client, "db", 2))
    claims = (await client.list(PERSISTENT_VOLUME_CLAIMS, "default")).items
    assert {one["metadata"]["name"]: one["status"]["phase"] for one in claims} == {
        "data-db-0": "Bound",
        "data-db-1": "Bound",
    }
    await client.delete(STATEFUL_SETS, "db", "default")
    await client.delete_collection(PERSISTENT_VOLUME_CLAIMS, "default")

    async def gone() -> bool:
        return not (await client.list(PERSISTENT_VOLUMES)).items

    await until(gone)


async def _is_ready(client: Client, app: str, total: int) -> bool:
    return await ready(client, app) == total


async def test_a_budget_guards_evictions(client: Client) -> None:
    await client.create(DEPLOYMENTS, workload("web", replicas=3))
    budget = {
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }
    await client.create(POD_DISRUPTION_BUDGETS, budget)
    await until(lambda: _complete(client, 3))

    async def allows_one() -> bool:
        return (await client.get(POD_DISRUPTION_BUDGETS, "b", "default")).get("status", {}).get(
            "disruptionsAllowed"
        ) == 1

    await until(allows_one)
    names = [one["metadata"]["name"] for one in (await client.list(PODS, "default", labels="app=web")).items]

    async def evict(name: str) -> None:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
        await client.create(PODS, eviction, "default", subresource="eviction", name=name)

    await evict(names[0])
    with pytest.raises(ApiError) as refused:
        await evict(names[1])
    assert refused.value.code == 429
    await until(lambda: _complete(client, 3))
    await until(allows_one)


LOGICAL_CLUSTERS = ResourceType("fleetplane.io", "v1alpha1", "LogicalCluster", "logicalclusters", namespaced=False)


async def test_one_set_of_controllers_serves_every_logical_cluster(plane: Plane, client: Client) -> None:
    await client.create(LOGICAL_CLUSTERS, {"metadata": {"name": "tenant"}})
    tenant = plane.client().in_cluster("tenant")
    await until(lambda: _exists(tenant, SERVICE_ACCOUNTS, "default", "default"))
    await tenant.create(NODES, {"metadata": {"name": "theirs"}})
    status = {
        "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "9"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    await tenant.patch(NODES, "theirs", {"status": status}, subresource="status")
    await tenant.create(DEPLOYMENTS, workload("web", replicas=2))

    async def placed() -> bool:
        pods = (await tenant.list(PODS, "default")).items
        return [one["spec"].get("nodeName") for one in pods] == ["theirs", "theirs"]

    await until(placed)
    assert (await client.list(PODS, "default")).items == []
    await tenant.delete(DEPLOYMENTS, "web", "default")

    async def gone() -> bool:
        return not (await tenant.list(REPLICA_SETS, "default")).items

    await until(gone)
