"""Informers: a local copy that never goes back, and handlers that hear of each difference once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest

from fleetplane.client.index import by_controller, by_field, by_label, by_owner
from fleetplane.client.informer import Change, Informer
from fleetplane.client.protocol import Capabilities
from fleetplane.client.rest import RestClient
from fleetplane.client.snapshot import DecodedPool, ObjectKey, Snapshot
from fleetplane.model.builtin.types import CONFIG_MAPS, PODS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.testing.memory import MemoryServer
from fleetplane.testing.plane import running_server

ENVIRONMENT = SystemEnvironment()


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer(ENVIRONMENT)


@pytest.fixture(params=[True, False], ids=["watch-list", "list-then-watch"])
def client(server: MemoryServer, request: pytest.FixtureRequest) -> RestClient:
    return RestClient(server, capabilities=Capabilities(logical_clusters=True, watch_list=request.param))


@asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.wait_synced(), 5)
        yield informer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def config_map(name: str, value: str = "1", **labels: str) -> Object:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}, "data": {"v": value}}


def told(changes: list[Change]) -> list[str]:
    return [f"{change.event} {change.new.key.name}" for change in changes]


async def test_what_exists_is_there_once_synced(client: RestClient) -> None:
    await client.create(CONFIG_MAPS, config_map("a"), "default")

    async with running(Informer(client, CONFIG_MAPS, ENVIRONMENT)) as informer:
        found = informer.get("a", "default")

    assert found is not None
    assert found["data"] == {"v": "1"}
    assert informer.get("b", "default") is None


async def test_before_it_has_synced_it_says_so(client: RestClient) -> None:
    assert not Informer(client, CONFIG_MAPS, ENVIRONMENT).has_synced


async def test_what_a_server_does_not_serve_is_empty_where_that_is_allowed_and_waited_for_elsewhere() -> None:
    async with running_server() as plane:
        unknown = ResourceType("example.org", "v1", "Thing", "things", True)
        allowed, waited = (Informer(plane.client(), unknown, ENVIRONMENT) for _ in range(2))
        allowed.may_be_absent()
        tasks = [asyncio.ensure_future(one.run()) for one in (allowed, waited)]
        async with asyncio.timeout(5):
            await allowed.wait_synced()
            while not waited.last_error:
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    assert (len(allowed), waited.has_synced) == (0, False)


async def test_large_lists_come_in_pages(server: MemoryServer) -> None:
    server.page_size = 2
    client = RestClient(server)
    for n in range(5):
        await client.create(CONFIG_MAPS, config_map(f"c{n}"), "default")

    async with running(Informer(client, CONFIG_MAPS, ENVIRONMENT)) as informer:
        assert len(informer) == 5


async def test_handlers_hear_every_difference_in_order(client: RestClient) -> None:
    await client.create(CONFIG_MAPS, config_map("a"), "default")
    changes: list[Change] = []
    informer = Informer(client, CONFIG_MAPS, ENVIRONMENT)
    informer.add_handler(changes.append)

    async with running(informer):
        await client.create(CONFIG_MAPS, config_map("b"), "default")
        await client.patch(CONFIG_MAPS, "a", {"data": {"v": "2"}}, "default")
        await client.delete(CONFIG_MAPS, "b", "default")
        await until(lambda: len(changes) == 4)

    assert told(changes) == ["ADDED a", "ADDED b", "MODIFIED a", "DELETED b"]
    assert [change.initial for change in changes] == [True, False, False, False]
    modified = changes[2]
    assert modified.old is not None
    assert (modified.old.object["data"]["v"], modified.new.object["data"]["v"]) == ("1", "2")


async def test_a_late_handler_begins_with_what_is_there(client: RestClient) -> None:
    await client.create(CONFIG_MAPS, config_map("a"), "default")
    changes: list[Change] = []

    async with running(Informer(client, CONFIG_MAPS, ENVIRONMENT)) as informer:
        remove = informer.add_handler(changes.append)
        remove()
        await client.create(CONFIG_MAPS, config_map("b"), "default")
        await until(lambda: len(informer) == 2)

    assert told(changes) == ["ADDED a"]


async def test_a_failing_handler_costs_only_itself(client: RestClient) -> None:
    changes: list[Change] = []
    informer = Informer(client, CONFIG_MAPS, ENVIRONMENT)
    informer.add_handler(lambda _: 1 / 0)  # type: ignore[arg-type]
    informer.add_handler(changes.append)

    async with running(informer):
        await client.create(CONFIG_MAPS, config_map("a"), "default")
        await until(lambda: bool(changes))


async def test_it_is_scoped_by_namespace_labels_and_fields(client: RestClient) -> None:
    await client.create(CONFIG_MAPS, config_map("a", app="x"), "one")
    await client.create(CONFIG_MAPS, config_map("b", app="x"), "two")
    await client.create(CONFIG_MAPS, config_map("c", app="y"), "one")

    async with (
        running(Informer(client, CONFIG_MAPS, ENVIRONMENT, namespace="one", labels="app=x")) as narrow,
        running(Informer(client, CONFIG_MAPS, ENVIRONMENT, fields="metadata.name=c")) as named,
    ):
        await client.patch(CONFIG_MAPS, "a", {"metadata": {"labels": {"app": "z"}}}, "one")
        await client.patch(CONFIG_MAPS, "c", {"metadata": {"labels": {"app": "x"}}}, "one")
        await until(lambda: [key.name for key in narrow] == ["c"])
        assert [key.name for key in named] == ["c"]


async def test_an_expired_watch_lists_again_and_tells_only_differences(server: MemoryServer) -> None:
    client = RestClient(server)
    for name in ("kept", "changed", "gone", "remade"):
        await client.create(CONFIG_MAPS, config_map(name), "default")
    changes: list[Change] = []
    informer = Informer(client, CONFIG_MAPS, ENVIRONMENT)
    async with running(informer):
        pass  # connection lost
    informer.add_handler(lambda change: None if change.initial and change.event == "ADDED" else changes.append(change))

    await client.patch(CONFIG_MAPS, "changed", {"data": {"v": "2"}}, "default")
    await client.delete(CONFIG_MAPS, "gone", "default")
    await client.delete(CONFIG_MAPS, "remade", "default")
    await client.create(CONFIG_MAPS, config_map("remade"), "default")
    server.compact()
    async with running(informer):
        await until(lambda: len(changes) >= 3)

    assert sorted(told(changes)) == ["DELETED gone", "DELETED remade", "MODIFIED changed"]
    assert sorted(key.name for key in informer) == ["changed", "kept", "remade"]


async def test_a_broken_watch_resumes_without_listing(server: MemoryServer) -> None:
    client = RestClient(server)
    informer = Informer(client, CONFIG_MAPS, ENVIRONMENT)
    async with running(informer):
        pass
    await client.create(CONFIG_MAPS, config_map("a"), "default")

    async with running(informer):
        await until(lambda: len(informer) == 1)

    lists = [one for one in server.requests if one.method == "GET"]
    assert len(lists) == 1


async def test_all_clusters_are_kept_apart(server: MemoryServer) -> None:
    for cluster in ("one", "two"):
        await server.client(cluster).create(CONFIG_MAPS, config_map("a", cluster), "default")

    async with running(Informer(server.client(None), CONFIG_MAPS, ENVIRONMENT)) as informer:
        assert sorted(informer) == [ObjectKey("one", "default", "a"), ObjectKey("two", "default", "a")]
        found = informer.get("a", "default", cluster="two")

    assert found is not None
    assert found["data"]["v"] == "two"


async def test_our_own_write_is_seen_at_once_and_only_once(client: RestClient) -> None:
    changes: list[Change] = []
    informer = Informer(client, CONFIG_MAPS, ENVIRONMENT)
    informer.add_handler(changes.append)
    async with running(informer):
        writer = client.observed_by(lambda _, cluster, __, encoded: informer.observe(encoded, cluster))
        await writer.create(CONFIG_MAPS, config_map("a"), "default")
        seen_at_once = informer.get("a", "default") is not None
        await client.create(CONFIG_MAPS, config_map("marker"), "default")
        await until(lambda: len(informer) == 2)

    assert seen_at_once
    assert told(changes) == ["ADDED a", "ADDED marker"]


async def test_the_answer_to_an_old_write_never_brings_an_object_back(client: RestClient) -> None:
    informer = Informer(client, CONFIG_MAPS, ENVIRONMENT)
    async with running(informer):
        answer = await client.create(CONFIG_MAPS, config_map("a"), "default")
        await client.delete(CONFIG_MAPS, "a", "default")
        await client.create(CONFIG_MAPS, config_map("marker"), "default")
        await until(lambda: [key.name for key in informer] == ["marker"])

        informer.observe(orjson.dumps(answer), "root")

        assert informer.get("a", "default") is None


async def test_indexes_follow_their_objects(client: RestClient) -> None:
    pod = {"metadata": {"name": "p", "labels": {"app": "x"}}, "spec": {"nodeName": "n1"}}
    await client.create(PODS, pod, "default")
    indexes = {"node": by_field("spec.nodeName"), "app": by_label("app")}

    async with running(Informer(client, PODS, ENVIRONMENT, indexes=indexes)) as informer:
        assert [one.key.name for one in informer.snapshots_by_index("node", "n1")] == ["p"]
        await client.patch(PODS, "p", {"spec": {"nodeName": "n2"}, "metadata": {"labels": None}}, "default")
        await until(lambda: list(informer.index_values("node")) == ["n2"])
        assert list(informer.index_values("app")) == []
        await client.delete(PODS, "p", "default")
        await until(lambda: list(informer.index_values("node")) == [])


def test_owners_are_indexed_by_uid() -> None:
    owners = [{"uid": "1", "kind": "A", "controller": True}, {"uid": "2", "kind": "B"}]
    snapshot = snapshot_of({"metadata": {"name": "a", "ownerReferences": owners}})

    assert list(by_owner(snapshot)) == ["1", "2"]
    assert list(by_controller(snapshot)) == ["1"]


def test_decoded_objects_are_shared_and_eventually_forgotten() -> None:
    pool = DecodedPool(limit=3)
    first = snapshot_of({"metadata": {"name": "a"}}, pool)

    shared = first.object is first.object
    before = first.object
    for _ in range(3):
        snapshot_of({"metadata": {"name": "b"}}, pool)

    assert shared
    assert first.object is not before
    assert first.object == before


def snapshot_of(obj: Object, pool: DecodedPool | None = None) -> Snapshot:
    return Snapshot(orjson.dumps(obj), CONFIG_MAPS, pool or DecodedPool(10))


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_the_copy_becomes_what_a_list_says(server: MemoryServer, seed: int) -> None:
    chance = random.Random(seed)
    client = RestClient(server, capabilities=Capabilities(watch_list=chance.random() < 0.5))
    replayed: dict[ObjectKey, str] = {}

    def replay(change: Change) -> None:
        if change.event == "DELETED":
            del replayed[change.new.key]
            return
        assert (change.new.key in replayed) == (change.event == "MODIFIED")
        replayed[change.new.key] = change.new.resource_version

    informer = Informer(client, CONFIG_MAPS, ENVIRONMENT)
    informer.add_handler(replay)
    writer = client.observed_by(lambda _, cluster, __, encoded: informer.observe(encoded, cluster))
    for _ in range(4):
        async with running(informer):
            await disturb(server, writer, chance)
        if chance.random() < 0.5:
            await disturb(server, client, chance)
        if chance.random() < 0.5:
            server.compact()
    async with running(informer):
        final = {key.name: obj["metadata"]["resourceVersion"] for key, obj in server.objects.items()}
        await until(lambda: {key.name: version for key, version in replayed.items()} == final)

    assert {key.name: one.resource_version for key in informer if (one := informer.snapshot(key))} == final


async def disturb(server: MemoryServer, client: RestClient, chance: random.Random) -> None:
    for _ in range(12):
        name = chance.choice("abcde")
        exists = any(key.name == name for key in server.objects)
        if not exists:
            await client.create(CONFIG_MAPS, config_map(name), "default")
        elif chance.random() < 0.5:
            await client.patch(CONFIG_MAPS, name, {"data": {"v": str(chance.random())}}, "default")
        else:
            await client.delete(CONFIG_MAPS, name, "default")
        if chance.random() < 0.3:
            await asyncio.sleep(0)


async def test_managed_fields_are_kept_only_where_wanted(server: MemoryServer) -> None:
    client = server.client()
    await client.apply(CONFIG_MAPS, config_map("a"), "default", field_manager="me")

    async with (
        running(Informer(client, CONFIG_MAPS, ENVIRONMENT, managed_fields=False)) as small,
        running(Informer(client, CONFIG_MAPS, ENVIRONMENT)) as whole,
    ):
        without, with_them = small.get("a", "default"), whole.get("a", "default")

    assert without is not None
    assert with_them is not None
    assert "managedFields" in with_them["metadata"]
    assert without == {
        **with_them,
        "metadata": {key: value for key, value in with_them["metadata"].items() if key != "managedFields"},
    }


async def test_only_what_is_read_may_be_kept(client: RestClient) -> None:
    await client.create(CONFIG_MAPS, {**config_map("a"), "data": {"large": "x" * 1000}}, "default")
    informer = Informer(client, CONFIG_MAPS, ENVIRONMENT)
    informer.transform(lambda encoded: orjson.dumps({"metadata": orjson.loads(encoded)["metadata"]}))

    async with running(informer):
        await client.create(CONFIG_MAPS, config_map("b"), "default")
        await until(lambda: len(informer) == 2)

    assert "data" not in (informer.get("a", "default") or {})
    assert "data" not in (informer.get("b", "default") or {})
