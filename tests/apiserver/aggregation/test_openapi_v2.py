"""An aggregated server's OpenAPI v2 in ours, through the whole server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.apiserver.aggregation.documents import BASE, GADGET, META, swagger
from tests.apiserver.aggregation.elsewhere import API_SERVICES, NAME, availability, elsewhere

from fleetplane.apiserver.aggregation import fetching, watching
from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other servers are looked at again and again, and not waited for."""
    monkeypatch.setattr(watching, "_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(fetching, "_SECONDS", 0.2)


async def document(api: TestServer, until: Callable[[Object], Any] = lambda _: True) -> Object:
    """Our OpenAPI v2, once it is as wanted (or as it is after ten seconds)."""
    found: Object = {}
    for _ in range(200):
        _, found = await api.call("GET", "/openapi/v2")
        if until(found):
            break
        await asyncio.sleep(0.05)
    return found


def has_gadgets(found: Object) -> bool:
    return GADGET in found["definitions"]


async def test_its_paths_and_definitions_are_in_ours(api: TestServer) -> None:
    async with elsewhere(api):
        found = await document(api, has_gadgets)

    assert [path for path in found["paths"] if path.startswith(BASE)] == [
        f"{BASE}/namespaces/{{namespace}}/gadgets/{{name}}"
    ]
    assert found["definitions"][GADGET]["properties"]["metadata"] == {"$ref": f"#/definitions/{META}_v2"}
    assert found["definitions"][META]["description"]
    assert found["definitions"]["io.k8s.api.apps.v1.Deployment"]


async def test_old_clients_are_given_it_as_protobuf(api: TestServer) -> None:
    async with elsewhere(api):
        await document(api, has_gadgets)
        answer = await api.respond("GET", "/openapi/v2", headers={"accept": PROTOBUF})

    assert answer.status == 200
    assert GADGET.encode() in answer.body


async def test_it_is_downloaded_again_when_its_tag_changes(api: TestServer) -> None:
    async with elsewhere(api) as (_, other):
        await document(api, has_gadgets)
        while other.asked[-1] != '"1"':
            await asyncio.sleep(0.01)

        other.document = swagger(paths={})
        unchanged = await document(api)
        other.tag = '"2"'

        changed = await document(api, lambda one: not has_gadgets(one))
    assert has_gadgets(unchanged)
    assert not has_gadgets(changed)


async def test_what_has_not_changed_makes_nothing_anew(api: TestServer) -> None:
    async with elsewhere(api) as (_, other):
        other.tag = ""
        await document(api, has_gadgets)
        before = api.server.registry.generation

        seen = len(other.asked)
        while len(other.asked) < seen + 3:
            await asyncio.sleep(0.01)

    assert api.server.registry.generation == before


async def test_it_goes_with_its_apiservice(api: TestServer) -> None:
    async with elsewhere(api):
        await document(api, has_gadgets)

        await api.call("DELETE", f"{API_SERVICES}/{NAME}")

        assert not has_gadgets(await document(api, lambda one: not has_gadgets(one)))


async def test_what_is_known_stays_while_the_server_is_away(api: TestServer) -> None:
    async with elsewhere(api):
        await document(api, has_gadgets)

    await availability(api, "False")
    assert has_gadgets(await document(api))


@pytest.mark.parametrize(
    "broken",
    [
        None,
        b"{",
        b"[" * 100_000,
        b'{"swagger": "2.0", "paths": 7, "definitions": []}',
        b" " * (fetching.MAX_DOCUMENT + 1),
        swagger(definitions={}),
    ],
    ids=["none", "cut", "deep", "types", "large", "dangling"],
)
async def test_a_broken_document_does_not_break_ours(api: TestServer, broken: Any) -> None:
    _, before = await api.call("GET", "/openapi/v2")
    async with elsewhere(api) as (_, other):
        other.document = broken
        while len(other.asked) < 3:
            await asyncio.sleep(0.01)
        available = await availability(api, "True")

        answer = await api.respond("GET", "/openapi/v2", headers={"accept": PROTOBUF})
        found = await document(api)

    assert available["status"] == "True"
    assert answer.status == 200
    assert found == before


async def test_a_server_that_never_answers_is_available_all_the_same(api: TestServer) -> None:
    async with elsewhere(api) as (_, other):
        other.stall = True

        available = await availability(api, "True")
        while len(other.asked) < 2:
            await asyncio.sleep(0.01)

        assert available["status"] == "True"
        assert not has_gadgets(await document(api))


async def test_all_together_add_only_so_much_at_a_time(api: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_CLUSTER", 100)
    async with elsewhere(api) as (_, other):
        while len(other.asked) < 3:
            await asyncio.sleep(0.01)

        assert not has_gadgets(await document(api))
        assert other.asked[-1] == '"1"'

        monkeypatch.setattr(fetching, "MAX_CLUSTER", 100_000)

        assert has_gadgets(await document(api, has_gadgets))
