"""Finding a resource by the names people and owner references use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from fleetplane.client.discovery import Catalogue, Discovered, Discovery, discover
from fleetplane.client.protocol import Pairs
from fleetplane.client.rest import RestClient
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.resources import ResourceType


def discovered(group: str, version: str, kind: str, plural: str, *short: str, category: str = "") -> Discovered:
    categories = (category,) if category else ()
    return Discovered(
        ResourceType(group, version, kind, plural, True, kind.lower(), short, categories), frozenset({"get"})
    )


CATALOGUE = Catalogue(
    [
        discovered("", "v1", "Pod", "pods", "po", category="all"),
        discovered("", "v1", "Event", "events", "ev"),
        discovered("apps", "v1", "Deployment", "deployments", "deploy", category="all"),
        discovered("apps", "v1beta1", "Deployment", "deployments", "deploy", category="all"),
        discovered("events.k8s.io", "v1", "Event", "events"),
        discovered("rbac.authorization.k8s.io", "v1", "Role", "roles"),
        discovered("example.org", "v1", "Po", "pos"),
        discovered("metrics.k8s.io", "v1", "PodMetrics", "pods"),
    ]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pods", "v1 Pod"),
        ("POD", "v1 Pod"),
        ("deploy", "apps/v1 Deployment"),
        ("deploy.apps", "apps/v1 Deployment"),
        ("deployments.v1beta1.apps", "apps/v1beta1 Deployment"),
        ("Deployment.v1beta1.apps", "apps/v1beta1 Deployment"),
        ("events", "v1 Event"),
        ("events.events.k8s.io", "events.k8s.io/v1 Event"),
        ("roles.rbac", "rbac.authorization.k8s.io/v1 Role"),
        ("pods.metrics.k8s.io", "metrics.k8s.io/v1 PodMetrics"),
        ("po", "example.org/v1 Po"),
        ("pods.apps", None),
        ("nothing", None),
    ],
)
def test_names_are_resolved_as_kubectl_does(text: str, expected: str | None) -> None:
    found = CATALOGUE.find(text)

    assert (found and f"{found.type.api_version} {found.type.kind}") == expected


def test_a_category_has_each_resource_once() -> None:
    assert [one.type.api_version for one in CATALOGUE.in_category("all")] == ["v1", "apps/v1"]


class Site:
    """A transport with canned documents by path."""

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self.documents = documents
        self.asked: list[str] = []

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.asked.append(path)
        found = self.documents.get(path)
        return (200, {}, orjson.dumps(found)) if found is not None else (404, {}, b"")

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        async def none() -> AsyncIterator[bytes]:
            yield b""

        yield 404, none()

    async def close(self) -> None:
        pass


PODS = {
    "name": "pods",
    "singularName": "pod",
    "kind": "Pod",
    "namespaced": True,
    "verbs": ["get"],
    "shortNames": ["po"],
}
PLAIN = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"groupVersion": "v1", "resources": [PODS, {"name": "pods/status", "kind": "Pod"}]},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [
            {
                "name": "x.org",
                "versions": [
                    {"groupVersion": "x.org/v1"},
                    {"groupVersion": "x.org/v2"},
                    {"groupVersion": "x.org/down"},
                ],
                "preferredVersion": {"groupVersion": "x.org/v2"},
            }
        ],
    },
    "/apis/x.org/v1": {"groupVersion": "x.org/v1", "resources": [{"name": "xs", "kind": "X", "verbs": ["get"]}]},
    "/apis/x.org/v2": {"groupVersion": "x.org/v2", "resources": [{"name": "xs", "kind": "X", "verbs": ["get"]}]},
}
AGGREGATED = {
    "/api": {
        "kind": "APIGroupDiscoveryList",
        "items": [
            {
                "metadata": {},
                "versions": [
                    {
                        "version": "v1",
                        "resources": [
                            {
                                "resource": "pods",
                                "responseKind": {"kind": "Pod"},
                                "scope": "Namespaced",
                                "singularResource": "pod",
                                "shortNames": ["po"],
                                "verbs": ["get"],
                                "subresources": [{"subresource": "status"}],
                            }
                        ],
                    }
                ],
            }
        ],
    },
    "/apis": {"kind": "APIGroupDiscoveryList", "items": []},
}


@pytest.mark.parametrize("documents", [PLAIN, AGGREGATED])
async def test_both_forms_of_discovery_say_the_same(documents: Mapping[str, Any]) -> None:
    catalogue = await discover(RestClient(Site(documents)))

    found = catalogue.find("po")

    assert found is not None
    assert found.type == ResourceType("", "v1", "Pod", "pods", True, "pod", ("po",))
    assert (found.verbs, found.subresources) == (frozenset({"get"}), frozenset({"status"}))


async def test_the_preferred_version_comes_first_and_a_broken_group_is_left_out() -> None:
    catalogue = await discover(RestClient(Site(PLAIN)))

    assert [one.type.version for one in catalogue.resources if one.type.kind == "X"] == ["v2", "v1"]


async def test_a_version_that_is_gone_falls_back_to_the_preferred_one() -> None:
    discovery = Discovery(RestClient(Site(PLAIN)), SystemEnvironment())

    assert (await discovery.by_kind("x.org/v1alpha1", "X")).type.version == "v2"


async def test_what_is_not_known_is_asked_for_again_but_not_all_the_time() -> None:
    site = Site(AGGREGATED)
    discovery = Discovery(RestClient(site), SystemEnvironment())

    for _ in range(3):
        with pytest.raises(ApiError, match="doesn't have a resource type"):
            await discovery.find("nothing")

    assert site.asked == ["/api", "/apis"]
