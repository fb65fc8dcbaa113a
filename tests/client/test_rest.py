"""The REST client: what is asked of the server, and what its answers become."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import orjson
import pytest

from fleetplane.client.protocol import CLUSTER_ANNOTATION, Capabilities, Pairs, cluster_of
from fleetplane.client.rest import RestClient, connect
from fleetplane.model.builtin.types import CONFIG_MAPS, DEPLOYMENTS, NODES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError, not_found, too_many_requests
from fleetplane.model.objects import Object
from fleetplane.testing.memory import MemoryServer


class Canned:
    """Answers what it was told to, and remembers what it was asked."""

    def __init__(self, *answers: tuple[int, Mapping[str, str], bytes], chunks: tuple[bytes, ...] = ()) -> None:
        self.answers = list(answers)
        self.chunks = chunks
        self.asked: list[tuple[str, str, Pairs, Pairs, bytes]] = []

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.asked.append((method, path, query, headers, body))
        return self.answers.pop(0)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        self.asked.append((method, path, query, headers, body))

        async def chunks() -> AsyncIterator[bytes]:
            for chunk in self.chunks:
                yield chunk

        yield 200, chunks()

    async def close(self) -> None:
        pass


def answer(obj: Object, status: int = 200) -> tuple[int, Mapping[str, str], bytes]:
    return status, {}, orjson.dumps(obj)


OURS = Capabilities(logical_clusters=True, commit=True)


def config_map(name: str, **data: str) -> Object:
    return {"metadata": {"name": name}, "data": data}


async def test_paths_name_group_namespace_and_object() -> None:
    transport = Canned(answer({}), answer({}), answer({}))
    client = RestClient(transport)

    await client.get(DEPLOYMENTS, "web", "shop")
    await client.get(NODES, "n1")
    await client.get_subresource(DEPLOYMENTS, "web", "scale", "shop")

    assert [asked[1] for asked in transport.asked] == [
        "/apis/apps/v1/namespaces/shop/deployments/web",
        "/api/v1/nodes/n1",
        "/apis/apps/v1/namespaces/shop/deployments/web/scale",
    ]


@pytest.mark.parametrize(("cluster", "prefix"), [("root", ""), ("car-7", "/clusters/car-7"), (None, "/clusters/*")])
async def test_a_logical_cluster_is_a_path_prefix(cluster: str | None, prefix: str) -> None:
    transport = Canned(answer({"items": []}))

    await RestClient(transport, cluster=cluster, capabilities=OURS).list(NODES)

    assert transport.asked[0][1] == prefix + "/api/v1/nodes"


async def test_a_plain_kubernetes_has_only_the_root_cluster() -> None:
    transport = Canned(answer({"items": []}))
    client = RestClient(transport)

    await client.in_cluster(None).list(NODES)

    assert transport.asked[0][1] == "/api/v1/nodes"
    with pytest.raises(ValueError, match="no logical clusters"):
        client.in_cluster("car-7")


@pytest.mark.parametrize("name", ["a/b", "..", "a%2fb"])
async def test_a_name_cannot_leave_its_path(name: str) -> None:
    with pytest.raises(ApiError, match="cannot be the name"):
        await RestClient(Canned()).get(CONFIG_MAPS, name, "default")


async def test_a_status_becomes_the_error_it_describes() -> None:
    client = RestClient(Canned(answer(not_found("configmaps", "a").to_status(), 404)))

    with pytest.raises(ApiError) as caught:
        await client.get(CONFIG_MAPS, "a", "default")

    assert (caught.value.code, caught.value.reason, caught.value.name) == (404, "NotFound", "a")


async def test_a_refusal_that_is_no_status_keeps_its_code_and_text() -> None:
    client = RestClient(Canned((502, {}, b"<html>bad gateway</html>")))

    with pytest.raises(ApiError, match="bad gateway") as caught:
        await client.get(CONFIG_MAPS, "a", "default")

    assert caught.value.code == 502


async def test_a_put_off_request_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    busy = orjson.dumps(too_many_requests("busy").to_status())
    client = RestClient(Canned((429, {"retry-after": "3"}, busy), answer({"kind": "ConfigMap"})))

    assert await client.get(CONFIG_MAPS, "a", "default") == {"kind": "ConfigMap"}
    assert waits == [3.0]


async def test_an_eviction_that_a_budget_forbids_is_an_answer() -> None:
    busy = orjson.dumps(too_many_requests("budget").to_status())
    transport = Canned((429, {"retry-after": "10"}, busy))

    with pytest.raises(ApiError, match="budget"):
        await RestClient(transport).create(CONFIG_MAPS, {}, "default", subresource="eviction", name="p")


async def test_pages_are_followed_to_the_end() -> None:
    server = MemoryServer(SystemEnvironment())
    client = server.client()
    for n in range(5):
        await client.create(CONFIG_MAPS, config_map(f"c{n}"), "default")

    found = [obj["metadata"]["name"] async for obj in client.iterate(CONFIG_MAPS, chunk=2)]

    assert found == ["c0", "c1", "c2", "c3", "c4"]


async def test_items_of_a_list_say_what_they_are() -> None:
    client = RestClient(Canned(answer({"kind": "ConfigMapList", "items": [config_map("a")]})))

    (item,) = (await client.list(CONFIG_MAPS)).items

    assert (item["apiVersion"], item["kind"]) == ("v1", "ConfigMap")


async def test_watch_events_survive_any_chunking() -> None:
    lines = b"".join(orjson.dumps({"type": "ADDED", "object": config_map(name)}) + b"\n" for name in ("a", "b", "c"))
    transport = Canned(chunks=tuple(lines[i : i + 7] for i in range(0, len(lines), 7)))

    events = [event async for event in RestClient(transport).watch(CONFIG_MAPS)]

    assert [event.object["metadata"]["name"] for event in events] == ["a", "b", "c"]


async def test_an_error_in_a_watch_is_raised() -> None:
    gone = ApiError(410, "too old resource version").to_status()
    transport = Canned(chunks=(orjson.dumps({"type": "ERROR", "object": gone}) + b"\n",))

    with pytest.raises(ApiError) as caught:
        [event async for event in RestClient(transport).watch(CONFIG_MAPS)]

    assert caught.value.code == 410


async def test_a_watch_over_all_clusters_says_where_each_object_is() -> None:
    server = MemoryServer(SystemEnvironment())
    await server.client("car-7").create(CONFIG_MAPS, config_map("a"), "default")

    events = server.client(None).watch(CONFIG_MAPS, send_initial_events=True)
    event = await anext(events)
    await events.aclose()

    assert event.cluster == "car-7"
    assert cluster_of(event.object) == "car-7"


async def test_the_cluster_annotation_is_never_written() -> None:
    transport = Canned(answer({}))
    obj = {"metadata": {"name": "a", "annotations": {CLUSTER_ANNOTATION: "x", "kept": "y"}}}

    await RestClient(transport).update(CONFIG_MAPS, obj, "default")

    assert orjson.loads(transport.asked[0][4])["metadata"]["annotations"] == {"kept": "y"}
    assert obj["metadata"]["annotations"][CLUSTER_ANNOTATION] == "x"  # type: ignore[index]


async def test_apply_names_its_manager_and_type() -> None:
    transport = Canned(answer({}))

    await RestClient(transport).apply(CONFIG_MAPS, config_map("a"), "default", field_manager="me")

    method, _, query, headers, body = transport.asked[0]
    assert method == "PATCH"
    assert set(query) == {("fieldManager", "me"), ("force", "true")}
    assert ("content-type", "application/apply-patch+yaml") in headers
    assert orjson.loads(body)["kind"] == "ConfigMap"


async def test_impersonation_repeats_the_group_header() -> None:
    transport = Canned(answer({}))

    await RestClient(transport).acting_as("eve", ["a", "b"]).get(NODES, "n")

    assert [value for name, value in transport.asked[0][3] if name == "impersonate-group"] == ["a", "b"]


async def test_writes_are_told_to_the_observer_but_not_dry_runs_or_deletions() -> None:
    told: list[tuple[str, str]] = []
    server = MemoryServer(SystemEnvironment())
    client = server.client("car-7").observed_by(lambda _, cluster, obj, __: told.append((cluster, obj["data"]["k"])))

    await client.create(CONFIG_MAPS, {"kind": "ConfigMap", **config_map("a", k="1")}, "default")
    await client.patch(CONFIG_MAPS, "a", {"data": {"k": "2"}}, "default", dry_run=True)
    await client.patch(CONFIG_MAPS, "a", {"data": {"k": "3"}}, "default")
    await client.delete(CONFIG_MAPS, "a", "default")

    assert told == [("car-7", "1"), ("car-7", "3")]


async def test_connecting_finds_out_what_the_server_can_do() -> None:
    client = await connect(MemoryServer(SystemEnvironment()))
    plain = await connect(Canned(answer({"major": "1", "minor": "20+", "gitVersion": "v1.20.2"})))

    assert client.capabilities.logical_clusters
    assert plain.capabilities == Capabilities()


async def test_a_commit_where_there_is_none_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        await RestClient(Canned()).commit([])

    assert caught.value.code == 405
