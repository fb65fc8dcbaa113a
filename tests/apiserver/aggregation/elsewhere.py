"""Another server behind an APIService of a group ``gadgets.example.com``, with an OpenAPI v2 document to play with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from tests.apiserver.aggregation.documents import BASE, GROUP, VERSION, swagger
from tests.apiserver.https import HttpsServer, https_server

from fleetplane.model.objects import Object, condition
from fleetplane.testing.plane import TestServer

API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = f"{VERSION}.{GROUP}"
RESOURCES = [
    {"name": "gadgets", "singularName": "gadget", "namespaced": True, "kind": "Gadget", "verbs": ["get", "list"]}
]


class Elsewhere:
    """``document`` None means there is no OpenAPI v2; bytes are sent as they are. ``serve`` answers everything else."""

    def __init__(self) -> None:
        self.document: Any = swagger()
        self.tag = '"1"'
        self.asked: list[str] = []
        """The ``If-None-Match`` of every request for the document."""
        self.stall = False
        self.serve: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == BASE:
            listed = {"kind": "APIResourceList", "groupVersion": f"{GROUP}/{VERSION}", "resources": RESOURCES}
            return web.json_response(listed)
        if request.path == "/openapi/v2":
            return await self._openapi(request)
        if self.serve is not None and request.path.startswith(BASE):
            return await self.serve(request)
        return web.json_response({"kind": "Status", "code": 404}, status=404)

    async def _openapi(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.headers.get("If-None-Match", ""))
        while self.stall:
            await asyncio.sleep(0.02)
        if self.document is None:
            return web.Response(status=404)
        headers = {"ETag": self.tag} if self.tag else {}
        if self.tag and self.asked[-1] == self.tag:
            return web.Response(status=304, headers=headers)
        body = self.document if isinstance(self.document, bytes) else orjson.dumps(self.document)
        return web.Response(body=body, content_type="application/json", headers=headers)


@asynccontextmanager
async def elsewhere(api: TestServer, prefix: str = "") -> AsyncIterator[tuple[HttpsServer, Elsewhere]]:
    """The server, with the Service and the APIService that lead there in place (in the cluster of ``prefix``)."""
    other = Elsewhere()
    async with https_server(lambda _: {}, names=("gadgets.default.svc",), raw=other) as server:
        await publish(api, server, prefix)
        try:
            yield server, other
        finally:
            other.stall = False


async def publish(api: TestServer, server: HttpsServer, prefix: str = "", address: str = "127.0.0.1") -> None:
    """A Service that leads to the server, and the APIService that names it."""
    paths = (
        "/api/v1/namespaces/default/services",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        API_SERVICES,
    )
    for path, made in zip(paths, manifests(server, address), strict=True):
        code, answer = await api.call("POST", prefix + path, made)
        assert code == 201, answer


def manifests(server: HttpsServer, address: str = "127.0.0.1") -> list[Object]:
    """The Service, its EndpointSlice and the APIService."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "gadgets", "namespace": "default"},
            "spec": {"ports": [{"port": 443}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "gadgets-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "gadgets"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "", "port": server.port}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": NAME},
            "spec": {
                "group": GROUP,
                "version": VERSION,
                "groupPriorityMinimum": 1000,
                "versionPriority": 15,
                "service": {"namespace": "default", "name": "gadgets"},
                "caBundle": server.bundle,
            },
        },
    ]


async def availability(api: TestServer, wanted: str, prefix: str = "") -> Object:
    """The condition, once it says what is wanted (or as it is after ten seconds)."""
    found: Object = {}
    for _ in range(1000):
        _, service = await api.call("GET", f"{prefix}{API_SERVICES}/{NAME}")
        found = condition(service, "Available") or {}
        if found.get("status") == wanted:
            break
        await asyncio.sleep(0.01)
    return found
