"""One suite for every way a client reaches a server: what operators rely on is the same in-process, over TLS, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleetplane.client.http import connect_to
from fleetplane.client.informer import Informer
from fleetplane.client.kubeconfig import load
from fleetplane.client.protocol import Client, ClientChange, cluster_of
from fleetplane.model.builtin.types import CONFIG_MAPS, CONTROLLER_REVISIONS, DEPLOYMENTS, NAMESPACES, NODES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.plane import Plane
from fleetplane.settings import Settings
from fleetplane.testing import MemoryServer, running_server

ENVIRONMENT = SystemEnvironment()


@pytest.fixture(params=["memory", "in-process", "network"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    if request.param == "memory":
        yield MemoryServer(ENVIRONMENT).client()
    elif request.param == "in-process":
        async with running_server() as server:
            yield server.client()
    else:
        settings = Settings(data_dir=tmp_path, port=0, runtime="none", operators="none")
        async with Plane(settings) as plane:
            made = await connect_to(load([plane.kubeconfig]).access())
            yield made
            await made.close()


@pytest.fixture
def is_toy(request: pytest.FixtureRequest) -> bool:
    return "memory" in request.node.name


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def code_of(error: pytest.ExceptionInfo[ApiError]) -> tuple[int, str]:
    return error.value.code, error.value.reason


async def test_what_is_created_can_be_read_changed_and_deleted(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")
    made["data"]["k"] = "2"
    updated = await client.update(CONFIG_MAPS, made, "default")
    patched = await client.patch(CONFIG_MAPS, "a", {"data": {"x": "y"}}, "default")
    read = await client.get(CONFIG_MAPS, "a", "default")
    await client.delete(CONFIG_MAPS, "a", "default", uid=made["metadata"]["uid"])

    assert updated["data"] == {"k": "2"}
    assert read == patched
    assert read["data"] == {"k": "2", "x": "y"}
    with pytest.raises(ApiError) as caught:
        await client.get(CONFIG_MAPS, "a", "default")
    assert code_of(caught) == (404, "NotFound")


async def test_refusals_say_why(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("a"), "default")
    await client.patch(CONFIG_MAPS, "a", {"data": {"k": "v"}}, "default")

    with pytest.raises(ApiError) as exists:
        await client.create(CONFIG_MAPS, config_map("a"), "default")
    with pytest.raises(ApiError) as stale:
        await client.update(CONFIG_MAPS, made, "default")
    with pytest.raises(ApiError) as another:
        await client.delete(CONFIG_MAPS, "a", "default", uid="00000000-0000-0000-0000-000000000000")

    assert code_of(exists) == (409, "AlreadyExists")
    assert code_of(stale) == (409, "Conflict")
    assert code_of(another) == (409, "Conflict")


async def test_an_apply_creates_changes_and_takes_back(client: Client) -> None:
    await client.apply(CONFIG_MAPS, config_map("a", k="1", gone="x"), "default", field_manager="me")
    await client.patch(CONFIG_MAPS, "a", {"data": {"theirs": "y"}}, "default", field_manager="them")
    again = await client.apply(CONFIG_MAPS, config_map("a", k="2"), "default", field_manager="me")
    same = await client.apply(CONFIG_MAPS, config_map("a", k="2"), "default", field_manager="me")

    assert again["data"] == {"k": "2", "theirs": "y"}
    assert same["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]
    (entry,) = [one for one in same["metadata"]["managedFields"] if one["manager"] == "me"]
    assert (entry["operation"], entry["fieldsV1"]) == ("Apply", {"f:data": {"f:k": {}}})


async def test_status_is_a_door_of_its_own(client: Client) -> None:
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    await client.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, "default")
    patch = {"status": {"observedGeneration": 1}, "spec": {"replicas": 5}}
    patched = await client.patch(DEPLOYMENTS, "d", patch, "default", subresource="status")

    assert patched["spec"]["replicas"] == 1
    assert patched["status"]["observedGeneration"] == 1
    assert patched["metadata"]["generation"] == 1


async def test_a_dry_run_changes_nothing(client: Client) -> None:
    would = await client.create(CONFIG_MAPS, config_map("a"), "default", dry_run=True)

    assert would["metadata"]["name"] == "a"
    with pytest.raises(ApiError):
        await client.get(CONFIG_MAPS, "a", "default")


async def test_lists_are_narrowed_and_come_in_pages(client: Client) -> None:
    for n in range(7):
        labels = {"parity": "odd" if n % 2 else "even"}
        await client.create(
            CONTROLLER_REVISIONS,
            {"metadata": {"name": f"r{n}", "labels": labels}, "revision": n, "data": {}},
            "default",
        )

    odd = [
        one["metadata"]["name"]
        async for one in client.iterate(CONTROLLER_REVISIONS, "default", labels="parity=odd", chunk=2)
    ]
    named = await client.list(CONTROLLER_REVISIONS, "default", fields="metadata.name=r3")
    page = await client.list(CONTROLLER_REVISIONS, "default", limit=3)

    assert odd == ["r1", "r3", "r5"]
    assert [one["metadata"]["name"] for one in named.items] == ["r3"]
    assert (len(page.items), bool(page.continue_), page.remaining) == (3, True, 4)


async def test_a_watch_tells_what_came_after(client: Client) -> None:
    listed = await client.list(CONFIG_MAPS, "default")
    await client.create(CONFIG_MAPS, config_map("a"), "default")
    await client.patch(CONFIG_MAPS, "a", {"data": {"k": "v"}}, "default")
    await client.delete(CONFIG_MAPS, "a", "default")

    seen = []
    events = client.watch(CONFIG_MAPS, "default", resource_version=listed.resource_version, timeout_seconds=20)
    async for event in events:
        if event.object["metadata"].get("name") == "a":
            seen.append(event.type)
        if event.type == "DELETED":
            break
    await events.aclose()

    assert seen == ["ADDED", "MODIFIED", "DELETED"]


async def test_a_watch_may_begin_with_what_is_there(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("a"), "default")

    seen = []
    events = client.watch(CONFIG_MAPS, "default", send_initial_events=True, timeout_seconds=20)
    async for event in events:
        seen.append(event.type)
        if event.type == "BOOKMARK":
            break
    await events.aclose()

    assert set(seen[:-1]) == {"ADDED"}
    assert seen[-1] == "BOOKMARK"


async def test_logical_clusters_are_apart_and_can_be_read_at_once(client: Client, is_toy: bool) -> None:
    cluster = "root" if not is_toy else "car-7"
    here = client.in_cluster(cluster)
    await here.create(CONFIG_MAPS, config_map("a"), "default")

    everywhere = await client.in_cluster(None).list(CONFIG_MAPS, "default", fields="metadata.name=a")

    assert [cluster_of(one) for one in everywhere.items] == [cluster]


async def test_acting_as_somebody_is_being_refused_as_them(client: Client, is_toy: bool) -> None:
    if is_toy:
        pytest.skip("the toy refuses nobody")
    with pytest.raises(ApiError) as caught:
        await client.acting_as("eve", ["people", "others"]).list(NODES)

    assert code_of(caught) == (403, "Forbidden")
    assert 'User "eve" cannot list' in caught.value.message
    assert await client.acting_as("eve", ["people", "system:masters"]).list(NODES)


async def test_a_commit_is_all_or_nothing(client: Client, is_toy: bool) -> None:
    if is_toy:
        pytest.skip("the toy has no commits")
    both = [
        ClientChange("create", CONFIG_MAPS, {**config_map(name), "metadata": {"name": name, "namespace": "default"}})
        for name in ("a", "b")
    ]
    await client.commit(both[:1])

    with pytest.raises(ApiError):
        await client.commit([both[1], both[0]])

    with pytest.raises(ApiError):
        await client.get(CONFIG_MAPS, "b", "default")
    assert await client.get(CONFIG_MAPS, "a", "default")


async def test_an_informer_follows(client: Client) -> None:
    informer = Informer(client.in_cluster(None), CONFIG_MAPS, ENVIRONMENT, namespace="default")
    running = asyncio.ensure_future(informer.run())
    await asyncio.wait_for(informer.wait_synced(), 10)
    await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")
    async with asyncio.timeout(10):
        while informer.get("a", "default") is None:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])

    found = informer.get("a", "default")
    assert found is not None
    assert (found["kind"], found["data"]) == ("ConfigMap", {"k": "1"})


async def test_a_namespace_is_created_by_its_name(client: Client) -> None:
    made = await client.create(NAMESPACES, {"metadata": {"name": "fleet"}})

    assert made["metadata"]["name"] == "fleet"
    assert "namespace" not in made["metadata"]
