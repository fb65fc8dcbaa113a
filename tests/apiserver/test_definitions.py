from __future__ import annotations

import asyncio

from fleetplane.model.objects import Object, condition
from fleetplane.testing.plane import TestServer

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def definition(plural: str, kind: str, *short: str) -> Object:
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]
    names = {"plural": plural, "kind": kind, "shortNames": list(short)}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions}
    return {"metadata": {"name": f"{plural}.example.com"}, "spec": spec}


async def accepted(api: TestServer, name: str, wanted: str) -> Object:
    """The NamesAccepted condition, once it says what is wanted (or as it is after two seconds)."""
    found: Object = {}
    for _ in range(200):
        _, made = await api.call("GET", f"{DEFINITIONS}/{name}")
        found = condition(made, "NamesAccepted") or {}
        if found.get("status") == wanted:
            break
        await asyncio.sleep(0.01)
    return found


async def test_a_name_that_is_taken_is_refused_until_it_is_free(api: TestServer) -> None:
    await api.call("POST", DEFINITIONS, definition("widgets", "Widget", "w"))
    _, second = await api.call("POST", DEFINITIONS, definition("wheels", "Wheel", "w"))
    conflict = condition(second, "NamesAccepted") or {}
    assert (conflict["status"], conflict["reason"], conflict["message"]) == (
        "False",
        "NamesConflict",
        '"w" is already in use',
    )
    path = "/apis/example.com/v1/namespaces/default/wheels"
    assert (await api.call("GET", path))[0] == 404

    await api.call("DELETE", f"{DEFINITIONS}/widgets.example.com")

    assert (await accepted(api, "wheels.example.com", "True"))["status"] == "True"
    assert (await api.call("GET", path))[0] == 200


async def test_a_name_is_free_too_when_its_holder_gives_it_up(api: TestServer) -> None:
    await api.call("POST", DEFINITIONS, definition("widgets", "Widget", "w"))
    await api.call("POST", DEFINITIONS, definition("wheels", "Wheel", "w"))

    patch = {"spec": {"names": {"shortNames": ["wi"]}}}
    merge = {"content-type": "application/merge-patch+json"}
    await api.call("PATCH", f"{DEFINITIONS}/widgets.example.com", patch, headers=merge)

    assert (await accepted(api, "wheels.example.com", "True"))["status"] == "True"


async def test_nonsense_is_told_field_by_field(api: TestServer) -> None:
    for spec in ({}, {"names": 5, "versions": "x"}, {"group": "a.b", "names": {"kind": 3}, "versions": [1]}, None):
        code, status = await api.call("POST", DEFINITIONS, {"metadata": {"name": "x.a.b"}, "spec": spec})
        assert code == 422, status
        assert status["details"]["causes"]
