from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from cryptography import x509
from tests.apiserver.aggregation.elsewhere import availability
from tests.apiserver.https import HttpsServer, https_server

from fleetplane.model.objects import Object, condition
from fleetplane.model.user import UserInfo
from fleetplane.testing.plane import TestServer

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
GADGETS = "/apis/gadgets.example.com/v1/namespaces/default/gadgets"
RESOURCES = [
    {"name": "gadgets", "singularName": "gadget", "namespaced": True, "kind": "Gadget", "verbs": ["get", "list"]},
    {"name": "gadgets/status", "singularName": "", "namespaced": True, "kind": "Gadget", "verbs": ["get"]},
]


class Elsewhere:
    """Another API server: it tells what it was asked, and streams on ``watch``."""

    def __init__(self) -> None:
        self.more = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path == "/apis/gadgets.example.com/v1":
            listed = {"kind": "APIResourceList", "groupVersion": "gadgets.example.com/v1", "resources": RESOURCES}
            return web.json_response(listed)
        if path == "/openapi/v3":
            url = "/openapi/v3/apis/gadgets.example.com/v1?hash=ABC"
            return web.json_response({"paths": {"apis/gadgets.example.com/v1": {"serverRelativeURL": url}}})
        if path == "/openapi/v3/apis/gadgets.example.com/v1":
            return web.json_response({"openapi": "3.0.0"})
        if request.query.get("watch"):
            return await self._watch(request)
        if path.endswith("/missing"):
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        body = await request.read()
        told = {
            "path": path,
            "method": request.method,
            "query": dict(request.query),
            "headers": {key: request.headers.getall(key) for key in request.headers},
            "body": body.decode(),
        }
        return web.json_response(told, headers={"X-Special": "yes"})

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json;stream=watch"})
        await answer.prepare(request)
        await answer.write(b'{"type":"ADDED"}\n')
        await self.more.wait()
        await answer.write(b'{"type":"DELETED"}\n')
        await answer.write_eof()
        return answer


@asynccontextmanager
async def elsewhere(api: TestServer) -> AsyncIterator[tuple[HttpsServer, Elsewhere]]:
    """Another server behind a Service, and the APIService that leads there."""
    other = Elsewhere()
    async with https_server(lambda _: {}, names=("gadgets.default.svc",), raw=other) as server:
        await publish(api, server)
        yield server, other


async def publish(api: TestServer, server: HttpsServer) -> None:
    """A Service that leads to the server, and the APIService that names it."""
    service = {"metadata": {"name": "gadgets"}, "spec": {"ports": [{"port": 443}]}}
    await api.call("POST", "/api/v1/namespaces/default/services", service)
    slices = {
        "metadata": {"name": "gadgets-1", "labels": {"kubernetes.io/service-name": "gadgets"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": server.port}],
    }
    await api.call("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slices)
    code, made = await api.call("POST", SERVICES, api_service(server))
    assert code == 201, made


def api_service(server: HttpsServer | None, **spec: Any) -> Object:
    return {
        "metadata": {"name": "v1.gadgets.example.com"},
        "spec": {
            "group": "gadgets.example.com",
            "version": "v1",
            "groupPriorityMinimum": 1000,
            "versionPriority": 15,
            "service": {"namespace": "default", "name": "gadgets"},
            **({"caBundle": server.bundle} if server is not None else {}),
            **spec,
        },
    }


async def test_a_request_goes_on_as_the_user_who_sent_it(api: TestServer) -> None:
    user = UserInfo("ann", "u1", ("system:masters", "dev"), {"scopes/x": ("a", "b")})
    async with elsewhere(api):
        code, told = await api.call(
            "POST",
            GADGETS,
            {"size": 3},
            query={"dryRun": "All"},
            user=user,
            headers={"Authorization": "Bearer secret", "X-Remote-User": "root", "X-Custom": "kept"},
        )

    assert code == 200
    assert (told["method"], told["path"], told["query"]) == ("POST", GADGETS, {"dryRun": "All"})
    assert orjson.loads(told["body"]) == {"size": 3}
    headers = {key.lower(): value for key, value in told["headers"].items()}
    assert headers["x-remote-user"] == ["ann"]
    assert headers["x-remote-uid"] == ["u1"]
    assert headers["x-remote-group"] == ["system:masters", "dev"]
    assert headers["x-remote-extra-scopes%2fx"] == ["a", "b"]
    assert headers["x-custom"] == ["kept"]
    assert "authorization" not in headers


async def test_the_other_server_sees_our_front_proxy_certificate(api: TestServer) -> None:
    shown: list[bytes | None] = []

    async def look(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        shown.append(transport.get_extra_info("ssl_object").getpeercert(True))
        return web.json_response({})

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_verify_locations(cadata=api.pki.front_proxy_authority.certificate_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    async with https_server(lambda _: {}, names=("gadgets.default.svc",), raw=look, context=context) as server:
        await publish(api, server)

        code, answer = await api.call("GET", GADGETS)

    assert code == 200, answer["message"]
    assert shown[-1] is not None
    subject = x509.load_der_x509_certificate(shown[-1]).subject.rfc4514_string()
    assert subject == "CN=front-proxy-client"


async def test_who_may_not_is_refused_here(api: TestServer) -> None:
    async with elsewhere(api) as (server, _):
        await availability(api, "True")
        before = len(server.requests)

        code, _ = await api.call("GET", GADGETS, user=UserInfo("bob", groups=("system:authenticated",)))

    assert code == 403
    assert not [one for one in server.requests[before:] if one.path == GADGETS]


async def test_a_watch_is_streamed(api: TestServer) -> None:
    async with elsewhere(api) as (_, other):
        response = await api.respond("GET", GADGETS, query={"watch": "true"})
        assert response.stream is not None
        stream = aiter(response.stream)
        first = await anext(stream)
        other.more.set()
        rest = b"".join([chunk async for chunk in stream])

    assert (response.status, response.content_type) == (200, "application/json;stream=watch")
    assert (first, rest) == (b'{"type":"ADDED"}\n', b'{"type":"DELETED"}\n')


async def test_answers_come_back_as_they_are(api: TestServer) -> None:
    async with elsewhere(api):
        missing = await api.respond("GET", f"{GADGETS}/missing")
        found = await api.respond("GET", GADGETS)

    assert (missing.status, found.headers["X-Special"]) == (404, "yes")


async def test_a_server_that_answers_is_available_and_part_of_discovery(api: TestServer) -> None:
    async with elsewhere(api):
        passed = await availability(api, "True")
        _, groups = await api.call("GET", "/apis")
        _, group = await api.call("GET", "/apis/gadgets.example.com")
        _, plain = await api.call("GET", "/apis/gadgets.example.com/v1")
        accept = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
        _, whole = await api.call("GET", "/apis", headers=accept)
        _, index = await api.call("GET", "/openapi/v3")
        _, schema = await api.call("GET", "/openapi/v3/apis/gadgets.example.com/v1", query={"hash": "ABC"})

    assert (passed["reason"], passed["message"]) == ("Passed", "all checks passed")
    assert "gadgets.example.com" in [one["name"] for one in groups["groups"]]
    assert group["preferredVersion"]["groupVersion"] == "gadgets.example.com/v1"
    assert plain["resources"] == RESOURCES
    item = next(one for one in whole["items"] if one["metadata"]["name"] == "gadgets.example.com")
    assert item["versions"] == [
        {
            "version": "v1",
            "freshness": "Current",
            "resources": [
                {
                    "resource": "gadgets",
                    "responseKind": {"group": "gadgets.example.com", "version": "v1", "kind": "Gadget"},
                    "scope": "Namespaced",
                    "singularResource": "gadget",
                    "verbs": ["get", "list"],
                    "subresources": [
                        {
                            "subresource": "status",
                            "responseKind": {"group": "gadgets.example.com", "version": "v1", "kind": "Gadget"},
                            "verbs": ["get"],
                        }
                    ],
                }
            ],
        }
    ]
    url = index["paths"]["apis/gadgets.example.com/v1"]["serverRelativeURL"]
    assert url == "/openapi/v3/apis/gadgets.example.com/v1?hash=ABC"
    assert schema == {"openapi": "3.0.0"}


async def test_other_servers_learn_whom_to_believe(api: TestServer) -> None:
    async with elsewhere(api):
        await availability(api, "True")
        code, published = await api.call(
            "GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
        )

    assert code == 200
    assert published["data"]["requestheader-allowed-names"] == '["front-proxy-client"]'
    assert published["data"]["requestheader-client-ca-file"] == api.pki.front_proxy_authority.certificate_pem.decode()


async def test_what_is_missing_is_told_in_the_condition(api: TestServer) -> None:
    await api.call("POST", SERVICES, api_service(None, insecureSkipTLSVerify=True))
    nobody = await availability(api, "False")
    code, status = await api.call("GET", GADGETS)
    assert (nobody["reason"], nobody["message"]) == ("ServiceNotFound", 'service/gadgets in "default" is not present')
    assert code == 503
    assert status["message"] == 'error trying to reach service: service "gadgets" not found'

    service = {"metadata": {"name": "gadgets"}, "spec": {"ports": [{"port": 443}]}}
    await api.call("POST", "/api/v1/namespaces/default/services", service)
    for _ in range(400):
        now = await availability(api, "False")
        if now["reason"] != "ServiceNotFound":
            break
        await asyncio.sleep(0.01)
    assert now["reason"] == "MissingEndpoints"


async def test_it_ends_with_its_apiservice(api: TestServer) -> None:
    async with elsewhere(api):
        await availability(api, "True")

        await api.call("DELETE", f"{SERVICES}/v1.gadgets.example.com")

        code, _ = await api.call("GET", GADGETS)
        _, groups = await api.call("GET", "/apis")
    assert code == 404
    assert "gadgets.example.com" not in [one["name"] for one in groups["groups"]]


async def test_what_kubernetes_serves_is_not_redirected(api: TestServer) -> None:
    merge = {"content-type": "application/merge-patch+json"}
    patch = {"spec": {"service": {"namespace": "default", "name": "evil", "port": 443}, "insecureSkipTLSVerify": True}}

    await api.call("PATCH", f"{SERVICES}/v1.apps", patch, headers=merge)

    code, _ = await api.call("GET", "/apis/apps/v1/deployments")
    assert code == 200


async def test_our_own_groups_have_apiservices_too(api: TestServer) -> None:
    _, listed = await api.call("GET", SERVICES)
    _, apps = await api.call("GET", f"{SERVICES}/v1.apps")

    assert "v1." in [one["metadata"]["name"] for one in listed["items"]]
    assert (condition(apps, "Available") or {})["reason"] == "Local"
