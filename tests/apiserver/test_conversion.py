from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from tests.apiserver.https import HttpsServer, https_server

from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
V1 = "/apis/example.com/v1/namespaces/default/widgets"
V2 = "/apis/example.com/v2/namespaces/default/widgets"
MERGE = {"content-type": "application/merge-patch+json"}


def convert(review: Object, change: Callable[[Object], Object] | None = None) -> Object:
    """``spec.size`` of v1 is ``spec.volume`` of v2."""
    wanted = review["request"]["desiredAPIVersion"]
    made = []
    for obj in review["request"]["objects"]:
        old, new = ("volume", "size") if wanted.endswith("v1") else ("size", "volume")
        spec = {new: obj["spec"][old]} if old in obj.get("spec", {}) else {}
        converted = {**obj, "apiVersion": wanted, "spec": spec}
        made.append(change(converted) if change is not None else converted)
    return answer(review, made)


def answer(review: Object, objects: list[Any], **result: Any) -> Object:
    return {
        "kind": "ConversionReview",
        "apiVersion": review["apiVersion"],
        "response": {
            "uid": review["request"]["uid"],
            "convertedObjects": objects,
            "result": result or {"status": "Success"},
        },
    }


def schema(field: str) -> Object:
    return {
        "openAPIV3Schema": {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {field: {"type": "integer"}, "color": {"type": "string", "default": "red"}},
                }
            },
        }
    }


async def define(api: TestServer, server: HttpsServer | None, storage: str = "v1") -> None:
    conversion: Object = {"strategy": "None"}
    if server is not None:
        webhook = {"clientConfig": server.client("/convert"), "conversionReviewVersions": ["v1"]}
        conversion = {"strategy": "Webhook", "webhook": webhook}
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "conversion": conversion,
        "versions": [
            {"name": "v1", "served": True, "storage": storage == "v1", "schema": schema("size")},
            {"name": "v2", "served": True, "storage": storage == "v2", "schema": schema("volume")},
        ],
    }
    code, made = await api.call("POST", DEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    assert code == 201, made


async def test_an_object_is_seen_in_every_version(api: TestServer) -> None:
    async with https_server(convert) as server:
        await define(api, server)
        await api.call("POST", V1, {"metadata": {"name": "a"}, "spec": {"size": 3}})

        code, seen = await api.call("GET", f"{V2}/a")
        await api.call("PATCH", f"{V2}/a", {"spec": {"volume": 5}}, headers=MERGE)
        _, back = await api.call("GET", f"{V1}/a")

    assert code == 200
    assert (seen["apiVersion"], seen["spec"]) == ("example.com/v2", {"volume": 3, "color": "red"})
    assert back["spec"]["size"] == 5
    assert server.seen[0]["request"]["desiredAPIVersion"] == "example.com/v2"
    assert server.requests[0].path == "/convert"


async def test_a_list_is_converted_in_one_request(api: TestServer) -> None:
    async with https_server(convert) as server:
        await define(api, server)
        for index in range(5):
            await api.call("POST", V1, {"metadata": {"name": f"w{index}"}, "spec": {"size": index}})

        _, listed = await api.call("GET", V2)

    assert [one["spec"]["volume"] for one in listed["items"]] == [0, 1, 2, 3, 4]
    assert len(server.seen) == 1


async def test_watchers_see_their_own_version(api: TestServer) -> None:
    async with https_server(convert) as server:
        await define(api, server)
        await api.call("POST", V1, {"metadata": {"name": "a"}, "spec": {"size": 3}})

        response = await api.respond("GET", V2, query={"watch": "true", "timeoutSeconds": "5"})
        assert response.stream is not None
        line = next(one for one in [chunk async for chunk in _some(response.stream)] if one)

    event = orjson.loads(line.splitlines()[0])
    assert (event["type"], event["object"]["spec"]["volume"]) == ("ADDED", 3)


async def _some(stream: Any) -> Any:
    """Chunks up to the first that says something."""
    async for chunk in stream:
        yield chunk
        if chunk:
            await stream.aclose()
            return


async def test_identity_and_most_metadata_are_not_the_converters_business(api: TestServer) -> None:
    def meddle(obj: Object) -> Object:
        metadata = {**obj["metadata"], "labels": {"from": "webhook"}, "finalizers": ["a.b/c"], "generation": 99}
        return {**obj, "metadata": metadata}

    async with https_server(lambda review: convert(review, meddle)) as server:
        await define(api, server)
        await api.call("POST", V1, {"metadata": {"name": "a"}, "spec": {"size": 3}})

        _, seen = await api.call("GET", f"{V2}/a")

    assert seen["metadata"]["labels"] == {"from": "webhook"}
    assert "finalizers" not in seen["metadata"]
    assert seen["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (lambda review: answer(review, [], status="Failed", message="not today"), "failed: not today"),
        (lambda review: answer(review, [], status="Failed"), "failed: response.result.status was 'Failed', not 'Success'"),
        (lambda review: answer(review, []), "returned 0 objects, expected 1"),
        (lambda review: {"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1"}, "failed: no response provided"),
        (lambda review: convert(review, lambda obj: {**obj, "kind": "Other"}), "returned invalid converted object at index 0: invalid kind (expected Widget, received Other)"),
        (lambda review: convert(review, lambda obj: {**obj, "apiVersion": "example.com/v9"}), "returned invalid converted object at index 0: invalid groupVersion (expected example.com/v2, received example.com/v9)"),
        (lambda review: convert(review, lambda obj: {**obj, "metadata": {**obj["metadata"], "name": "b"}}), "returned invalid converted object at index 0: must have the same name: a != b"),
        (lambda review: convert(review, lambda obj: {**obj, "metadata": 5}), "returned invalid metadata in object at index 0"),
    ],
)  # fmt: skip
async def test_a_conversion_that_fails_is_told_in_kubernetes_words(
    api: TestServer, reply: Callable[[Object], Object], told: str
) -> None:
    async with https_server(reply) as server:
        await define(api, server)
        await api.call("POST", V1, {"metadata": {"name": "a"}, "spec": {"size": 3}})

        code, status = await api.call("GET", f"{V2}/a")
        stored, _ = await api.call("GET", f"{V1}/a")

    assert (code, stored) == (500, 200)
    assert status["message"].startswith(f"conversion webhook for example.com/v1, Kind=Widget {told}")
    assert "reason" not in status


async def test_a_converter_that_is_down_leaves_the_stored_version_usable(api: TestServer) -> None:
    async with https_server(convert) as server:
        pass
    await define(api, server)

    code, _ = await api.call("POST", V1, {"metadata": {"name": "a"}, "spec": {"size": 3}})
    other, status = await api.call("POST", V2, {"metadata": {"name": "b"}, "spec": {"volume": 3}})

    assert (code, other) == (201, 500)
    assert status["message"].endswith("connect: connection refused")
    assert status["message"].startswith("conversion webhook for example.com/v2, Kind=Widget failed: Post ")


async def test_without_a_webhook_only_the_name_of_the_version_changes(api: TestServer) -> None:
    await define(api, None)
    await api.call("POST", V1, {"metadata": {"name": "a"}, "spec": {"size": 3}})

    _, seen = await api.call("GET", f"{V2}/a")

    assert (seen["apiVersion"], seen["spec"]) == ("example.com/v2", {"color": "red"})


async def test_the_stored_version_may_change(api: TestServer) -> None:
    async with https_server(convert) as server:
        await define(api, server)
        await api.call("POST", V1, {"metadata": {"name": "old"}, "spec": {"size": 3}})
        _, definition = await api.call("GET", f"{DEFINITIONS}/widgets.example.com")
        for version in definition["spec"]["versions"]:
            version["storage"] = version["name"] == "v2"
        code, changed = await api.call("PUT", f"{DEFINITIONS}/widgets.example.com", definition)

        await api.call("POST", V1, {"metadata": {"name": "new"}, "spec": {"size": 4}})
        _, listed = await api.call("GET", V2)

    assert code == 200
    assert changed["status"]["storedVersions"] == ["v1", "v2"]
    assert {one["metadata"]["name"]: one["spec"]["volume"] for one in listed["items"]} == {"old": 3, "new": 4}


async def test_what_was_stored_under_an_older_schema_comes_out_as_the_new_one_says(api: TestServer) -> None:
    await define(api, None)
    await api.call("POST", V1, {"metadata": {"name": "a"}, "spec": {"size": 3}})
    _, definition = await api.call("GET", f"{DEFINITIONS}/widgets.example.com")
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del spec["size"]
    spec["shape"] = {"type": "string", "default": "round"}
    await api.call("PUT", f"{DEFINITIONS}/widgets.example.com", definition)

    _, seen = await api.call("GET", f"{V1}/a")

    assert seen["spec"] == {"color": "red", "shape": "round"}
