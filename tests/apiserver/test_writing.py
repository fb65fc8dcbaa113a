"""Create, update, patch, delete: what is acknowledged is kept, what is refused changes nothing."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from fleetplane.model.objects import Object
from fleetplane.testing.environment import SimulatedEnvironment
from fleetplane.testing.plane import TestServer, running_server

MAPS = "/api/v1/namespaces/default/configmaps"
JSON_PATCH = {"content-type": "application/json-patch+json"}
MERGE_PATCH = {"content-type": "application/merge-patch+json"}


def config_map(name: str = "a") -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}}


async def made(api: TestServer, name: str = "a") -> Object:
    code, obj = await api.call("POST", MAPS, config_map(name))
    assert code == 201, obj
    return obj


async def test_create_fills_in_what_the_server_owns(api: TestServer) -> None:
    obj = await made(api)

    assert obj["metadata"]["uid"]
    assert obj["metadata"]["creationTimestamp"].endswith("Z")
    assert int(obj["metadata"]["resourceVersion"]) > 0
    assert obj["metadata"]["namespace"] == "default"


async def test_create_twice_is_a_conflict(api: TestServer) -> None:
    await made(api)

    code, status = await api.call("POST", MAPS, config_map())

    assert (code, status["reason"]) == (409, "AlreadyExists")
    assert status["message"] == 'configmaps "a" already exists'


async def test_generate_name_makes_a_new_name_each_time(api: TestServer) -> None:
    wanted = {"metadata": {"generateName": "x-"}}

    _, one = await api.call("POST", MAPS, wanted)
    _, other = await api.call("POST", MAPS, wanted)

    assert one["metadata"]["name"].startswith("x-")
    assert one["metadata"]["name"] != other["metadata"]["name"]


async def test_a_dry_run_keeps_nothing(api: TestServer) -> None:
    code, obj = await api.call("POST", MAPS, config_map(), query={"dryRun": "All"})

    assert (code, obj["data"]) == (201, {"k": "v"})
    assert (await api.call("GET", f"{MAPS}/a"))[0] == 404


async def test_update_with_an_old_version_is_refused(api: TestServer) -> None:
    old = await made(api)
    await api.call("PUT", f"{MAPS}/a", old | {"data": {"k": "new"}})

    code, status = await api.call("PUT", f"{MAPS}/a", old | {"data": {"k": "other"}})

    assert (code, status["reason"]) == (409, "Conflict")
    assert (await api.call("GET", f"{MAPS}/a"))[1]["data"] == {"k": "new"}


async def test_an_update_that_changes_nothing_writes_nothing(api: TestServer) -> None:
    old = await made(api)

    _, same = await api.call("PUT", f"{MAPS}/a", old)

    assert same["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]


async def test_a_json_patch_that_fails_half_way_changes_nothing(api: TestServer) -> None:
    old = await made(api)
    patch = [{"op": "add", "path": "/data/x", "value": "y"}, {"op": "test", "path": "/data/k", "value": "wrong"}]

    code, _ = await api.call("PATCH", f"{MAPS}/a", patch, headers=JSON_PATCH)

    assert code == 422
    assert (await api.call("GET", f"{MAPS}/a"))[1] == old


async def test_a_merge_patch_with_null_removes_a_field(api: TestServer) -> None:
    await made(api)

    code, obj = await api.call("PATCH", f"{MAPS}/a", {"data": {"k": None, "x": "y"}}, headers=MERGE_PATCH)

    assert (code, obj["data"]) == (200, {"x": "y"})


async def test_delete_answers_a_status_and_the_object_is_gone(api: TestServer) -> None:
    old = await made(api)

    code, status = await api.call("DELETE", f"{MAPS}/a")

    assert (code, status["status"]) == (200, "Success")
    assert status["details"]["uid"] == old["metadata"]["uid"]
    assert (await api.call("GET", f"{MAPS}/a"))[0] == 404


async def test_a_finalizer_holds_an_object_until_it_is_removed(api: TestServer) -> None:
    held = config_map()
    held["metadata"]["finalizers"] = ["example.com/wait"]
    await api.call("POST", MAPS, held)

    await api.call("DELETE", f"{MAPS}/a")
    _, waiting = await api.call("GET", f"{MAPS}/a")
    await api.call("PATCH", f"{MAPS}/a", {"metadata": {"finalizers": None}}, headers=MERGE_PATCH)

    assert waiting["metadata"]["deletionTimestamp"]
    assert (await api.call("GET", f"{MAPS}/a"))[0] == 404


async def test_delete_with_another_uid_is_refused(api: TestServer) -> None:
    await made(api)

    code, _ = await api.call("DELETE", f"{MAPS}/a", {"preconditions": {"uid": "other"}})

    assert code == 409
    assert (await api.call("GET", f"{MAPS}/a"))[0] == 200


@pytest.mark.parametrize("policy, finalizer", [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_propagation_becomes_a_finalizer(api: TestServer, policy: str, finalizer: str) -> None:
    await made(api)

    await api.call("DELETE", f"{MAPS}/a", {"propagationPolicy": policy})

    assert (await api.call("GET", f"{MAPS}/a"))[1]["metadata"]["finalizers"] == [finalizer]


async def test_delete_collection_takes_what_the_selector_names(api: TestServer) -> None:
    await made(api, "a")
    labelled = config_map("b")
    labelled["metadata"]["labels"] = {"x": "y"}
    await api.call("POST", MAPS, labelled)

    code, _ = await api.call("DELETE", MAPS, query={"labelSelector": "x=y"})

    assert code == 200
    _, left = await api.call("GET", MAPS)
    assert [one["metadata"]["name"] for one in left["items"]] == ["a"]


async def test_strict_validation_names_every_unknown_field(api: TestServer) -> None:
    wrong = config_map() | {"dat": {}, "metadata": {"name": "a", "lables": {}}}

    code, status = await api.call("POST", MAPS, wrong, query={"fieldValidation": "Strict"})

    assert code == 400
    assert 'unknown field "dat"' in status["message"]
    assert 'unknown field "metadata.lables"' in status["message"]


async def test_unknown_fields_are_warned_about_and_dropped(api: TestServer) -> None:
    response = await api.respond("POST", MAPS, config_map() | {"dat": {}})

    assert response.headers["Warning"] == '299 - "unknown field \\"dat\\""'
    assert "dat" not in orjson.loads(response.body)


async def test_a_duplicate_field_is_not_silently_dropped(api: TestServer) -> None:
    body = b'{"metadata":{"name":"a"},"data":{"k":"1"},"data":{"k":"2"}}'

    code, status = await api.call("POST", MAPS, body, query={"fieldValidation": "Strict"})

    assert code == 400
    assert 'duplicate field "data"' in status["message"]


@pytest.mark.parametrize(
    "body, code",
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"metadata":{"name":"a\\u0000"}}', 422),
        (b'{"metadata":{"name":"A B"}}', 422),
        (b'{"metadata":"x"}', 422),
        (b'{"metadata":{"name":"a"},"data":{"k":1}}', 422),
        (b'{"metadata":{"name":"a"},"data":' + b'{"k":' * 5000 + b"1" + b"}" * 5000 + b"}", 400),
        (b'{"metadata":{"name":"a"},"data":{"k":' + b"9" * 5000 + b"}}", 400),
    ],
)
async def test_bad_bodies_are_refused_with_a_reason(api: TestServer, body: bytes, code: int) -> None:
    found, status = await api.call("POST", MAPS, body)

    assert found == code
    assert status["message"]


async def test_a_body_over_three_mebibytes_is_413(api: TestServer) -> None:
    code, _ = await api.call("POST", MAPS, b"{" + b" " * (3 * 1024 * 1024 + 1) + b"}")

    assert code == 413


async def test_the_namespace_must_exist(api: TestServer) -> None:
    code, status = await api.call("POST", "/api/v1/namespaces/nowhere/configmaps", config_map())

    assert (code, status["message"]) == (404, 'namespaces "nowhere" not found')


async def test_schema_errors_are_told_one_cause_per_field(api: TestServer) -> None:
    pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}, {"image": "i"}]}}

    code, status = await api.call("POST", "/api/v1/namespaces/default/pods", pod)

    assert code == 422
    fields = {one["field"] for one in status["details"]["causes"]}
    assert {"spec.containers[0].image", "spec.containers[1].name"} <= fields


async def test_applying_an_empty_map_again_writes_nothing() -> None:
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}}
    query = {"fieldManager": "m", "force": "true"}
    headers = {"content-type": "application/apply-patch+yaml"}
    environment = SimulatedEnvironment()
    async with running_server(environment=environment) as api:
        _, first = await api.call("PATCH", f"{MAPS}/a", wanted, query=query, headers=headers)
        await asyncio.sleep(1.1)

        _, again = await api.call("PATCH", f"{MAPS}/a", wanted, query=query, headers=headers)

    assert again == first
