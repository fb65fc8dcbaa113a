"""Logical clusters: an API of its own for the price of its objects, and nothing of it left afterwards."""

from __future__ import annotations

import asyncio

from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

CLUSTERS = "/apis/fleetplane.io/v1alpha1/logicalclusters"


async def opened(api: TestServer, name: str) -> Object:
    code, made = await api.call("POST", CLUSTERS, {"metadata": {"name": name}})
    assert code == 201, made
    async with asyncio.timeout(5):
        while True:
            _, found = await api.call("GET", f"{CLUSTERS}/{name}")
            if (found.get("status") or {}).get("phase") == "Ready":
                return found
            await asyncio.sleep(0.001)


async def closed(api: TestServer, name: str) -> None:
    await api.call("DELETE", f"{CLUSTERS}/{name}")
    async with asyncio.timeout(5):
        while (await api.call("GET", f"{CLUSTERS}/{name}"))[0] != 404:
            await asyncio.sleep(0.001)


async def names(api: TestServer, path: str) -> list[str]:
    _, found = await api.call("GET", path)
    return [one["metadata"]["name"] for one in found["items"]]


async def test_a_new_cluster_has_its_default_namespaces(api: TestServer) -> None:
    cluster = await opened(api, "one")

    assert cluster["status"]["path"] == "/clusters/one"
    assert await names(api, "/clusters/one/api/v1/namespaces") == ["default", "kube-public", "kube-system"]


async def test_objects_of_one_cluster_are_not_seen_in_another(api: TestServer) -> None:
    await opened(api, "one")
    await opened(api, "two")
    body = {"metadata": {"name": "a"}}

    await api.call("POST", "/clusters/one/api/v1/namespaces/default/configmaps", body)

    assert await names(api, "/clusters/one/api/v1/configmaps") == ["a"]
    assert await names(api, "/clusters/two/api/v1/configmaps") == []
    assert await names(api, "/api/v1/configmaps") == []


async def test_a_cluster_that_does_not_exist_is_404(api: TestServer) -> None:
    code, status = await api.call("GET", "/clusters/none/api/v1/namespaces")

    assert (code, status["message"]) == (404, 'logicalclusters.fleetplane.io "none" not found')


async def test_a_deleted_cluster_takes_its_objects_along(api: TestServer) -> None:
    await opened(api, "one")
    await api.call("POST", "/clusters/one/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})

    await closed(api, "one")

    assert (await api.call("GET", "/clusters/one/api/v1/configmaps"))[0] == 404
    assert await names(api, "/clusters/*/api/v1/configmaps") == []


async def test_a_name_used_again_brings_nothing_back(api: TestServer) -> None:
    await opened(api, "one")
    await api.call("POST", "/clusters/one/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})
    await closed(api, "one")

    await opened(api, "one")

    assert await names(api, "/clusters/one/api/v1/configmaps") == []


async def test_only_the_root_cluster_makes_clusters(api: TestServer) -> None:
    await opened(api, "one")

    code, _ = await api.call("POST", f"/clusters/one{CLUSTERS}", {"metadata": {"name": "two"}})

    assert code == 403


async def test_custom_kinds_belong_to_the_cluster_that_defines_them(api: TestServer) -> None:
    await opened(api, "one")
    definition = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }

    code, _ = await api.call("POST", "/clusters/one/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)

    assert code == 201
    assert (await api.call("GET", "/clusters/one/apis/example.com/v1/widgets"))[0] == 200
    assert (await api.call("GET", "/apis/example.com/v1/widgets"))[0] == 404
