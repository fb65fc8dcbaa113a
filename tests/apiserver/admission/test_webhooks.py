from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from tests.apiserver.https import HttpsServer, https_server

from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
ALL = [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps"]}]


def allow(review: Object, **more: Any) -> Object:
    return {
        "apiVersion": review["apiVersion"],
        "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": True, **more},
    }


def deny(review: Object, **status: Any) -> Object:
    answer = allow(review, allowed=False)
    if status:
        answer["response"]["status"] = status
    return answer


def patching(*operations: Object) -> Callable[[Object], Object]:
    patch = base64.b64encode(orjson.dumps(operations)).decode()
    return lambda review: allow(review, patchType="JSONPatch", patch=patch)


async def register(api: TestServer, kind: str, server: HttpsServer | Object, name: str = "a", **webhook: Any) -> Object:
    """Register one webhook; ``kind`` is mutating or validating."""
    client = server.client() if isinstance(server, HttpsServer) else server
    hook = {
        "name": f"{name}.example.com",
        "clientConfig": client,
        "rules": ALL,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **webhook,
    }
    code, made = await api.call(
        "POST", f"{REGISTRATION}/{kind}webhookconfigurations", {"metadata": {"name": name}, "webhooks": [hook]}
    )
    assert code == 201, made
    return made


async def create(api: TestServer, name: str = "m", **more: Any) -> tuple[int, Object]:
    return await api.call("POST", CONFIG_MAPS, {"metadata": {"name": name, **more.pop("metadata", {})}, **more})


# -- validating ------------------------------------------------------------------------------------------------------


async def test_a_webhook_sees_the_whole_request(api: TestServer) -> None:
    async with https_server(allow) as server:
        await register(api, "validating", server)

        code, made = await create(api, data={"a": "b"})

    assert code == 201
    (review,) = server.seen
    asked = review["request"]
    assert (review["apiVersion"], review["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert asked["kind"] == asked["requestKind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert asked["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (asked["operation"], asked["name"], asked["namespace"]) == ("CREATE", "m", "default")
    assert asked["object"]["data"] == {"a": "b"}
    assert asked["object"]["metadata"]["uid"] == made["metadata"]["uid"]
    assert asked["oldObject"] is None
    assert asked["dryRun"] is False
    assert asked["options"]["kind"] == "CreateOptions"
    assert asked["userInfo"]["username"] == "admin"
    assert server.requests[0].query["timeout"] == "10s"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ({}, 400, 'admission webhook "a.example.com" denied the request without explanation'),
        ({"message": "no maps today", "code": 403}, 403, 'admission webhook "a.example.com" denied the request: no maps today'),
        ({"reason": "Busy", "code": 200}, 400, 'admission webhook "a.example.com" denied the request: Busy'),
    ],
)  # fmt: skip
async def test_a_refusal_is_told_in_kubernetes_words(api: TestServer, status: Object, code: int, message: str) -> None:
    async with https_server(lambda review: deny(review, **status)) as server:
        await register(api, "validating", server)

        answered, told = await create(api)

    assert (answered, told["message"]) == (code, message)
    assert (await api.call("GET", f"{CONFIG_MAPS}/m"))[0] == 404


async def test_updates_and_deletions_are_asked_about_with_the_old_object(api: TestServer) -> None:
    async with https_server(lambda review: deny(review, message="kept", code=403)) as server:
        await create(api, data={"a": "1"})
        await register(api, "validating", server, rules=[{**ALL[0], "operations": ["UPDATE", "DELETE"]}])

        merge = {"content-type": "application/merge-patch+json"}
        code, _ = await api.call("PATCH", f"{CONFIG_MAPS}/m", {"data": {"a": "2"}}, headers=merge)
        deleted, _ = await api.call("DELETE", f"{CONFIG_MAPS}/m")

    assert (code, deleted) == (403, 403)
    update, delete = (one["request"] for one in server.seen)
    assert (update["oldObject"]["data"], update["object"]["data"]) == ({"a": "1"}, {"a": "2"})
    assert update["options"]["kind"] == "PatchOptions"
    assert (delete["operation"], delete["object"], delete["oldObject"]["data"]) == ("DELETE", None, {"a": "1"})


async def test_warnings_reach_the_client(api: TestServer) -> None:
    async with https_server(lambda review: allow(review, warnings=["think again"])) as server:
        await register(api, "validating", server)

        response = await api.respond("POST", CONFIG_MAPS, {"metadata": {"name": "m"}})

    assert response.headers["Warning"] == '299 - "think again"'


async def test_validating_webhooks_are_asked_at_once(api: TestServer) -> None:
    together = asyncio.Barrier(2)

    async def wait(review: Object) -> Object:
        async with asyncio.timeout(5):
            await together.wait()
        return allow(review)

    async with https_server(wait) as server:
        await register(api, "validating", server, "a")
        await register(api, "validating", server, "b")

        code, _ = await create(api)

    assert code == 201


# -- failures --------------------------------------------------------------------------------------------------------


async def test_a_webhook_that_is_down_is_told_or_ignored_as_its_policy_says(api: TestServer) -> None:
    async with https_server(allow) as server:
        pass
    await register(api, "validating", server)
    code, status = await create(api)
    assert code == 500
    assert status["message"] == (
        'Internal error occurred: failed calling webhook "a.example.com": failed to call webhook: '
        f'Post "{server.url}/?timeout=10s": dial tcp localhost:{server.port}: connect: connection refused'
    )

    await api.call("DELETE", f"{REGISTRATION}/validatingwebhookconfigurations/a")
    await register(api, "validating", server, failurePolicy="Ignore")
    code, _ = await create(api)
    assert code == 201


async def test_a_webhook_that_is_slow_is_cut_off(api: TestServer) -> None:
    never = asyncio.Event()

    async def wait(review: Object) -> Object:
        await never.wait()
        return allow(review)

    async with https_server(wait) as server:
        await register(api, "validating", server, timeoutSeconds=1)

        code, status = await create(api)
        never.set()

    assert code == 500
    assert status["message"].endswith('?timeout=1s": context deadline exceeded')


async def test_a_certificate_of_a_stranger_is_not_believed(api: TestServer) -> None:
    async with https_server(allow) as server, https_server(allow) as stranger:
        await register(api, "validating", {"url": server.url, "caBundle": stranger.bundle})

        _, status = await create(api)

    assert status["message"].endswith(
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda review: web.Response(status=404), "failed to call webhook: the server could not find the requested resource"),
        (lambda review: web.Response(status=500, text="oops"), 'failed to call webhook: an error on the server ("oops") has prevented the request from succeeding'),
        (lambda review: web.Response(text="no json"), "failed to call webhook: couldn't get version/kind; json parse error"),
        (lambda review: {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}, "received invalid webhook response: webhook response was absent"),
        (lambda review: {**allow(review), "apiVersion": "admission.k8s.io/v1beta1"}, "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview"),
        (lambda review: allow(review, uid="x"), 'received invalid webhook response: expected response.uid="'),
        (lambda review: allow(review, patch="e30=", patchType="JSONPatch"), "received invalid webhook response: validating webhook may not return response.patch"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_none_is_a_failure(api: TestServer, answer: Callable[[Object], Any], told: str) -> None:
    async with https_server(answer) as server:
        await register(api, "validating", server)

        code, status = await create(api)

    assert code == 500
    assert f'failed calling webhook "a.example.com": {told}' in status["message"]


# -- which requests --------------------------------------------------------------------------------------------------


async def test_selectors_choose_namespaces_and_objects(api: TestServer) -> None:
    async with https_server(deny) as server:
        await register(
            api,
            "validating",
            server,
            namespaceSelector={"matchLabels": {"strict": "yes"}},
            objectSelector={"matchLabels": {"checked": "yes"}},
        )
        await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "s", "labels": {"strict": "yes"}}})
        checked = {"metadata": {"name": "m", "labels": {"checked": "yes"}}}

        elsewhere, _ = await api.call("POST", CONFIG_MAPS, checked)
        unchecked, _ = await api.call("POST", "/api/v1/namespaces/s/configmaps", {"metadata": {"name": "m"}})
        both, _ = await api.call(
            "POST", "/api/v1/namespaces/s/configmaps", {"metadata": {**checked["metadata"], "name": "n"}}
        )

    assert (elsewhere, unchecked, both) == (201, 201, 400)


async def test_match_conditions_are_cel(api: TestServer) -> None:
    conditions = [
        {"name": "big", "expression": "has(object.data) && size(object.data) > 1"},
        {"name": "not-robots", "expression": "!request.userInfo.username.startsWith('robot')"},
        {"name": "may", "expression": "authorizer.requestResource.check('delete').allowed()"},
    ]
    async with https_server(deny) as server:
        await register(api, "validating", server, matchConditions=conditions)

        small, _ = await create(api, "s", data={"a": "1"})
        big, _ = await create(api, "b", data={"a": "1", "b": "2"})

    assert (small, big) == (201, 400)


async def test_a_condition_that_fails_is_a_failure(api: TestServer) -> None:
    async with https_server(allow) as server:
        await register(api, "validating", server, matchConditions=[{"name": "x", "expression": "object.nothing == 1"}])

        code, status = await create(api)

    assert code == 403
    assert status["message"].startswith(
        "configmaps \"m\" is forbidden: expression 'object.nothing == 1' resulted in error: no such key"
    )
    assert server.seen == []


async def test_an_equivalent_version_is_shown_in_the_version_that_was_asked_for(api: TestServer) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [
        {"name": "v1", "served": True, "storage": True, "schema": schema},
        {"name": "v2", "served": True, "storage": False, "schema": schema},
    ]
    definition = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": versions,
        },
    }
    await api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    rules = [{"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]}]
    path = "/apis/example.com/v2/namespaces/default/widgets"
    async with https_server(patching({"op": "add", "path": "/size", "value": 3})) as server:
        await register(api, "mutating", server, "same", rules=rules)
        await register(api, "mutating", server, "exact", rules=rules, matchPolicy="Exact")

        code, made = await api.call("POST", path, {"metadata": {"name": "w"}})

    assert (code, made["apiVersion"], made["size"]) == (201, "example.com/v2", 3)
    (review,) = server.seen
    assert review["request"]["resource"]["version"] == "v1"
    assert review["request"]["requestResource"]["version"] == "v2"
    assert review["request"]["object"]["apiVersion"] == "example.com/v1"


async def test_configurations_of_webhooks_are_never_asked_about(api: TestServer) -> None:
    everything = [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]
    async with https_server(deny) as server:
        await register(api, "validating", server, rules=everything)

        refused, _ = await create(api)
        removed, _ = await api.call("DELETE", f"{REGISTRATION}/validatingwebhookconfigurations/a")

    assert (refused, removed) == (400, 200)


async def test_a_webhook_with_side_effects_does_not_see_dry_runs(api: TestServer) -> None:
    async with https_server(allow) as server:
        await register(api, "validating", server, sideEffects="NoneOnDryRun")
        await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "m"}}, query={"dryRun": "All"})

    assert server.seen[0]["request"]["dryRun"] is True
    assert server.seen[0]["request"]["options"]["dryRun"] == ["All"]


# -- mutating --------------------------------------------------------------------------------------------------------


async def test_patches_are_applied_in_turn(api: TestServer) -> None:
    async with (
        https_server(patching({"op": "add", "path": "/data", "value": {"a": "1"}})) as first,
        https_server(patching({"op": "add", "path": "/data/b", "value": "2"})) as second,
    ):
        await register(api, "mutating", first, "a")
        await register(api, "mutating", second, "b")

        code, made = await create(api)

    assert (code, made["data"]) == (201, {"a": "1", "b": "2"})
    assert second.seen[0]["request"]["object"]["data"] == {"a": "1"}


async def test_what_the_server_owns_cannot_be_patched(api: TestServer) -> None:
    patch = patching(
        {"op": "replace", "path": "/metadata/uid", "value": "mine"},
        {"op": "add", "path": "/metadata/labels", "value": {"ok": "yes"}},
        {"op": "add", "path": "/nonsense", "value": 1},
    )
    async with https_server(patch) as server:
        await register(api, "mutating", server)

        code, made = await create(api)

    assert code == 201
    assert made["metadata"]["labels"] == {"ok": "yes"}
    assert made["metadata"]["uid"] == server.seen[0]["request"]["object"]["metadata"]["uid"]
    assert "nonsense" not in made


async def test_an_object_cannot_be_moved_to_another_namespace(api: TestServer) -> None:
    move = patching({"op": "replace", "path": "/metadata/namespace", "value": "kube-system"})
    async with https_server(move) as server:
        await register(api, "mutating", server)

        code, status = await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "m"}})

    assert code == 400
    assert status["message"].startswith("the namespace of the provided object does not match")


async def test_a_patch_that_does_not_apply_ends_the_request(api: TestServer) -> None:
    async with https_server(patching({"op": "add", "path": "/no/where", "value": 1})) as server:
        await register(api, "mutating", server)

        code, status = await create(api)

    assert code == 500
    assert status["message"].startswith("Internal error occurred: ")


async def test_the_servers_own_plugins_see_what_a_webhook_made(api: TestServer, pod: Callable[..., Object]) -> None:
    limits = {"limits": [{"type": "Container", "defaultRequest": {"cpu": "1"}}]}
    await api.call("POST", "/api/v1/namespaces/default/limitranges", {"metadata": {"name": "l"}, "spec": limits})
    sidecar = patching({"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "i"}})
    async with https_server(sidecar) as server:
        await register(api, "mutating", server, rules=[{**ALL[0], "resources": ["pods"]}])

        code, made = await api.call("POST", "/api/v1/namespaces/default/pods", pod())

    assert code == 201
    side = made["spec"]["containers"][1]
    assert side["resources"]["requests"] == {"cpu": "1"}
    assert side["imagePullPolicy"] == "Always"
    assert [one["name"] for one in side["volumeMounts"]] == [made["spec"]["volumes"][0]["name"]]


async def test_a_webhook_is_asked_again_when_others_changed_the_object_and_it_wants_to(api: TestServer) -> None:
    def count(review: Object) -> Object:
        seen = (review["request"]["object"].get("data") or {}).get("seen", "")
        return patching({"op": "add", "path": "/data", "value": {"seen": seen + "a"}})(review)

    append = patching({"op": "add", "path": "/data/later", "value": "b"})
    async with https_server(count) as first, https_server(append) as second:
        await register(api, "mutating", first, "a", reinvocationPolicy="IfNeeded")
        await register(api, "mutating", second, "b")

        _, made = await create(api)

    assert (len(first.seen), len(second.seen)) == (2, 1)
    assert made["data"] == {"seen": "aa"}


# -- services --------------------------------------------------------------------------------------------------------


async def test_a_service_is_reached_at_a_ready_endpoint_under_its_own_name(api: TestServer) -> None:
    async with https_server(deny, names=("hooks.default.svc",)) as server:
        service = {"metadata": {"name": "hooks"}, "spec": {"ports": [{"name": "https", "port": 443}]}}
        await api.call("POST", "/api/v1/namespaces/default/services", service)
        client = {"service": {"namespace": "default", "name": "hooks", "path": "/check"}, "caBundle": server.bundle}
        await register(api, "validating", client)
        _, nobody = await create(api)
        slices = {
            "metadata": {"name": "hooks-1", "labels": {"kubernetes.io/service-name": "hooks"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["127.0.0.1"], "conditions": {"ready": True}},
                {"addresses": ["127.0.0.99"], "conditions": {"ready": False}},
            ],
            "ports": [{"name": "https", "port": server.port}],
        }
        await api.call("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slices)

        code, _ = await create(api)

    assert nobody["message"].endswith(
        'failed to call webhook: Post "https://hooks.default.svc:443/check?timeout=10s": '
        'no endpoints available for service "hooks"'
    )
    assert code == 400
    assert (server.requests[0].path, server.requests[0].host) == ("/check", "hooks.default.svc")


async def test_a_service_that_is_missing_is_told_by_name(api: TestServer) -> None:
    await register(api, "validating", {"service": {"namespace": "default", "name": "none"}})

    _, status = await create(api)

    assert status["message"].endswith('Post "https://none.default.svc:443/?timeout=10s": service "none" not found')


# -- requests without an object of their own -------------------------------------------------------------------------


async def test_a_connection_into_a_pod_is_asked_about(api: TestServer, pod: Callable[..., Object]) -> None:
    await api.call("POST", "/api/v1/namespaces/default/pods", pod())
    rules = [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]
    async with https_server(lambda review: deny(review, message="no shells", code=403)) as server:
        await register(api, "validating", server, rules=rules)

        query = {"command": "sh", "stdin": "true", "container": "c"}
        code, status = await api.call("POST", "/api/v1/namespaces/default/pods/web/exec", query=query)

    assert (code, status["message"]) == (403, 'admission webhook "a.example.com" denied the request: no shells')
    asked = server.seen[0]["request"]
    assert (asked["operation"], asked["subResource"], asked["name"]) == ("CONNECT", "exec", "web")
    assert asked["kind"]["kind"] == "PodExecOptions"
    assert asked["object"] == {
        "kind": "PodExecOptions",
        "apiVersion": "v1",
        "stdin": True,
        "container": "c",
        "command": ["sh"],
    }


async def test_an_eviction_is_asked_about(api: TestServer, pod: Callable[..., Object]) -> None:
    await api.call("POST", "/api/v1/namespaces/default/pods", pod())
    rules = [{"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods/eviction"]}]
    async with https_server(lambda review: deny(review, message="it stays", code=403)) as server:
        await register(api, "validating", server, rules=rules)

        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
        code, _ = await api.call("POST", "/api/v1/namespaces/default/pods/web/eviction", eviction)

    assert code == 403
    assert server.seen[0]["request"]["kind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
