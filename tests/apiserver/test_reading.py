"""Get, list, watch: what is read is what was written, at one revision, in order."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"k": name}}


async def make(api: TestServer, *names: str, **labels: str) -> list[Object]:
    made = []
    for name in names:
        code, obj = await api.call("POST", MAPS, config_map(name, **labels))
        assert code == 201, obj
        made.append(obj)
    return made


async def events(api: TestServer, count: int, **query: str) -> list[Any]:
    response = await api.respond("GET", MAPS, query={"watch": "true", **query})
    assert response.stream is not None
    found: list[Any] = []
    async with asyncio.timeout(5):
        async for chunk in response.stream:
            found += [orjson.loads(line) for line in chunk.splitlines()]
            if len(found) >= count:
                break
    await response.stream.aclose()  # type: ignore[attr-defined]
    return found


async def test_get_answers_what_create_did(api: TestServer) -> None:
    (made,) = await make(api, "a")

    code, found = await api.call("GET", f"{MAPS}/a")

    assert code == 200
    assert found == made


async def test_get_of_nothing_is_404_in_kubernetes_words(api: TestServer) -> None:
    code, status = await api.call("GET", f"{MAPS}/a")

    assert code == 404
    assert status["reason"] == "NotFound"
    assert status["message"] == 'configmaps "a" not found'


async def test_pages_of_a_list_show_the_state_of_the_first(api: TestServer) -> None:
    await make(api, "a", "b", "c")
    _, first = await api.call("GET", MAPS, query={"limit": "2"})
    await api.call("DELETE", f"{MAPS}/c")
    await make(api, "d")

    _, second = await api.call("GET", MAPS, query={"limit": "2", "continue": first["metadata"]["continue"]})

    assert [one["metadata"]["name"] for one in second["items"]] == ["c"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in second["metadata"]


async def test_a_list_can_be_narrowed_by_labels_of_every_kind(api: TestServer) -> None:
    await make(api, "a", "b", app="x")
    await make(api, "c", app="y")
    await make(api, "d")

    async def names(selector: str) -> list[str]:
        code, found = await api.call("GET", MAPS, query={"labelSelector": selector})
        assert code == 200, found
        return [one["metadata"]["name"] for one in found["items"]]

    assert await names("app=x") == ["a", "b"]
    assert await names("app in (x,y)") == ["a", "b", "c"]
    assert await names("app,app!=x") == ["c"]
    assert await names("!app") == ["d"]


async def test_a_bad_selector_is_400(api: TestServer) -> None:
    code, status = await api.call("GET", MAPS, query={"labelSelector": "a b"})

    assert code == 400
    assert status["reason"] == "BadRequest"


async def test_fields_that_cannot_be_selected_on_are_refused(api: TestServer) -> None:
    code, status = await api.call("GET", MAPS, query={"fieldSelector": "data.k=a"})

    message = '"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"'
    assert (code, status["message"]) == (400, message)


async def test_a_watch_without_a_version_begins_with_what_exists(api: TestServer) -> None:
    await make(api, "a")

    (event,) = await events(api, 1)

    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")


async def test_a_watch_resumes_after_the_version_it_saw(api: TestServer) -> None:
    first, second = await make(api, "a", "b")
    await api.call("DELETE", f"{MAPS}/a")

    found = await events(api, 2, resourceVersion=first["metadata"]["resourceVersion"])

    assert [(one["type"], one["object"]["metadata"]["name"]) for one in found] == [("ADDED", "b"), ("DELETED", "a")]
    assert int(found[1]["object"]["metadata"]["resourceVersion"]) > int(second["metadata"]["resourceVersion"])


async def test_an_object_that_stops_matching_is_deleted_for_the_watcher(api: TestServer) -> None:
    (made,) = await make(api, "a", app="x")
    patch = {"metadata": {"labels": {"app": "y"}}}
    await api.call("PATCH", f"{MAPS}/a", patch, headers={"content-type": "application/merge-patch+json"})

    (event,) = await events(api, 1, labelSelector="app=x", resourceVersion=made["metadata"]["resourceVersion"])

    assert event["type"] == "DELETED"
    assert event["object"]["metadata"]["labels"] == {"app": "x"}


async def test_initial_events_end_with_a_marked_bookmark(api: TestServer) -> None:
    await make(api, "a")

    found = await events(
        api, 2, sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true"
    )

    assert [one["type"] for one in found] == ["ADDED", "BOOKMARK"]
    assert found[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_version_from_the_future_is_told_as_kubernetes_does(api: TestServer) -> None:
    code, status = await api.call("GET", MAPS, query={"resourceVersion": "999999", "resourceVersionMatch": "Exact"})

    assert code == 504
    assert status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_a_table_has_the_kind_s_columns(api: TestServer) -> None:
    await make(api, "a")
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

    _, table = await api.call("GET", MAPS, headers={"accept": accept})

    assert table["kind"] == "Table"
    assert [one["name"] for one in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["rows"][0]["cells"][:2] == ["a", 1]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_a_list_over_all_clusters_names_the_cluster_of_each_object(api: TestServer) -> None:
    await make(api, "a")

    code, found = await api.call("GET", "/clusters/*/api/v1/configmaps")

    assert code == 200
    assert [one["metadata"]["annotations"]["fleetplane.io/cluster"] for one in found["items"]] == ["root"]


async def test_nothing_is_written_over_all_clusters(api: TestServer) -> None:
    code, _ = await api.call("POST", "/clusters/*/api/v1/namespaces/default/configmaps", config_map("a"))

    assert code == 405


async def test_the_history_of_an_object_is_kept_also_when_it_is_gone(api: TestServer) -> None:
    (made,) = await make(api, "a")
    await api.call("PUT", f"{MAPS}/a", made | {"data": {"k": "changed"}})
    await api.call("DELETE", f"{MAPS}/a")

    code, history = await api.call("GET", f"{MAPS}/a", query={"history": "true"})

    assert code == 200
    told = [(one["deleted"], one["object"]["data"]["k"]) for one in history["items"]]
    assert told == [(True, "changed"), (False, "changed"), (False, "a")]
    assert history["items"][2]["object"] == made


async def test_nothing_has_no_history(api: TestServer) -> None:
    assert (await api.call("GET", f"{MAPS}/a", query={"history": "true"}))[0] == 404
