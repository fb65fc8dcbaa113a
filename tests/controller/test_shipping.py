"""Health and metrics, webhooks, dry runs: how operators meet the world."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest
import trustme

from fleetplane.controller import Controller, Manager
from fleetplane.controller.dryrun import DryRunTransport, Intent, differences_between
from fleetplane.controller.serving import serving
from fleetplane.controller.webhooks import serving_webhooks, webhook_configurations
from fleetplane.model.admission import (
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
    denied,
)
from fleetplane.model.admission_review import json_patch_between, request_of
from fleetplane.model.builtin.types import CONFIG_MAPS, DEPLOYMENTS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.patch.json_patch import json_patch
from fleetplane.testing.memory import MemoryServer

ENVIRONMENT = SystemEnvironment()


# -- health and metrics


async def test_a_manager_tells_whether_it_is_ready_and_what_it_counted() -> None:
    server = MemoryServer(ENVIRONMENT)

    async def reconcile(request: object) -> None: ...

    manager = Manager(server.client(), environment=ENVIRONMENT)
    manager.add(Controller("c", CONFIG_MAPS, reconcile))
    await server.client().create(CONFIG_MAPS, {"metadata": {"name": "a"}}, "n")
    async with serving(manager, port=0) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        early = await session.get("/readyz")
        running = asyncio.ensure_future(manager.run())
        async with asyncio.timeout(5):
            while not (manager.is_ready and manager.is_idle):
                await asyncio.sleep(0.01)
        ready, healthy = await session.get("/readyz"), await session.get("/healthz")
        metrics = await (await session.get("/metrics")).text()
        manager.stop()
        await running
        assert (await session.get("/readyz")).status == 503

    assert (early.status, ready.status, healthy.status) == (503, 200, 200)
    assert 'controller_runtime_reconcile_total{controller="c",result="success"} 1.0' in metrics
    assert 'workqueue_depth{name="c"} 0.0' in metrics


# -- webhooks


async def label(request: AdmissionRequest, reader: Reader) -> Decision:
    labels = {**(request.object["metadata"].get("labels") or {}), "a/b": "c"}
    return changed({**request.object, "metadata": {**request.object["metadata"], "labels": labels}}, "labelled")


async def only_if_there_is_one(request: AdmissionRequest, reader: Reader) -> Decision | None:
    if await reader.get(CONFIG_MAPS, "permit", "n") is None:
        return denied("there is no permit")
    return None


LABELS = AdmissionPlugin("label.example.org", "mutate", [AdmissionRule([CONFIG_MAPS])], label)
PERMITS = AdmissionPlugin(
    "permit.example.org",
    "validate",
    [AdmissionRule(["deployments.apps", CONFIG_MAPS], ["*"], ["", "scale"])],
    only_if_there_is_one,
    failure_policy="Ignore",
    timeout=90,
)


def review(plural: str = "configmaps", operation: str = "CREATE") -> Object:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "7",
            "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
            "resource": {"group": "", "version": "v1", "resource": plural},
            "operation": operation,
            "namespace": "n",
            "name": "a",
            "userInfo": {"username": "eve", "groups": ["g"]},
            "object": {"metadata": {"name": "a"}},
            "dryRun": True,
        },
    }


@asynccontextmanager
async def webhooks(server: MemoryServer) -> AsyncIterator[aiohttp.ClientSession]:
    authority = trustme.CA()
    tls, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.configure_trust(trusting)
    connector = aiohttp.TCPConnector(ssl=trusting)
    async with (
        serving_webhooks([LABELS, PERMITS], server.client(), tls, "127.0.0.1", 0) as port,
        aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=connector) as session,
    ):
        yield session


async def ask(session: aiohttp.ClientSession, name: str, body: Any) -> tuple[int, Object]:
    async with session.post(f"/admit/{name}", data=orjson.dumps(body)) as response:
        found: Object = orjson.loads(await response.read())
        return response.status, found


async def test_a_plugin_answers_as_a_webhook() -> None:
    server = MemoryServer(ENVIRONMENT)
    async with webhooks(server) as session:
        _, mutated = await ask(session, "label.example.org", review())
        _, refused = await ask(session, "permit.example.org", review())
        await server.client().create(CONFIG_MAPS, {"metadata": {"name": "permit"}}, "n")
        _, permitted = await ask(session, "permit.example.org", review())
        _, unconcerned = await ask(session, "label.example.org", review("secrets"))

    response = mutated["response"]
    patch = orjson.loads(base64.b64decode(response["patch"]))
    assert (response["uid"], response["allowed"], response["warnings"]) == ("7", True, ["labelled"])
    assert json_patch({"metadata": {"name": "a"}}, patch)["metadata"]["labels"] == {"a/b": "c"}
    assert (refused["response"]["allowed"], refused["response"]["status"]["message"]) == (False, "there is no permit")
    assert permitted["response"] == {"uid": "7", "allowed": True}
    assert unconcerned["response"] == {"uid": "7", "allowed": True}


async def test_what_is_no_review_is_refused() -> None:
    async with webhooks(MemoryServer(ENVIRONMENT)) as session:
        bodies: list[Any] = [[], {}, {**review(), "apiVersion": "admission.k8s.io/v1beta1"}, review(operation="STEAL")]
        statuses = [(await ask(session, "label.example.org", body))[0] for body in bodies]
        unknown, _ = await ask(session, "nobody.example.org", review())

    assert statuses == [400, 400, 400, 400]
    assert unknown == 404


def test_a_review_says_all_that_plugins_may_ask() -> None:
    request = request_of(review())

    assert (request.user.name, request.user.groups, request.dry_run) == ("eve", ("g",), True)
    assert (request.resource.qualified, request.resource.kind) == ("configmaps", "ConfigMap")


def test_configurations_lead_to_the_plugins() -> None:
    where = {"service": {"name": "operators", "namespace": "fleet"}}
    mutating, validating = webhook_configurations("fleet", [PERMITS, LABELS], where, b"CA")
    (webhook,) = validating["webhooks"]

    assert (mutating["kind"], mutating["webhooks"][0]["reinvocationPolicy"]) == (
        "MutatingWebhookConfiguration",
        "IfNeeded",
    )
    assert webhook["clientConfig"] == {
        "service": {"name": "operators", "namespace": "fleet", "path": "/admit/permit.example.org"},
        "caBundle": "Q0E=",
    }
    assert webhook["rules"] == [
        {
            "apiGroups": ["apps", ""],
            "apiVersions": ["*"],
            "resources": ["deployments", "deployments/scale", "configmaps", "configmaps/scale"],
            "operations": ["*"],
            "scope": "*",
        }
    ]
    assert (webhook["failurePolicy"], webhook["timeoutSeconds"]) == ("Ignore", 30)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": 1}, {"a": 1, "b": {"c": []}}),
        ({"a": {"b/c": 1, "d~e": 2}}, {"a": {"d~e": 3}}),
        ({"a": [1, 2]}, {"a": [2]}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {"a": {}}),
    ],
)
def test_a_patch_between_two_objects_makes_one_of_the_other(old: Object, new: Object) -> None:
    assert orjson.dumps(json_patch(old, json_patch_between(old, new))) == orjson.dumps(new)
    assert json_patch_between(new, new) == []


# -- dry runs


async def test_a_dry_run_tells_what_would_change_and_changes_nothing() -> None:
    server = MemoryServer(ENVIRONMENT)
    await server.client().create(DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": {"replicas": 1}}, "n")
    told: list[Intent] = []
    client = server.client().over(DryRunTransport(server, told.append))
    writes = len(server.writes)

    await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}}, "n")
    await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 1}}, "n")
    await client.create(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}}, "n")
    await client.delete(DEPLOYMENTS, "web", "n")
    with pytest.raises(ApiError):
        await client.delete(DEPLOYMENTS, "nothing", "n")

    assert [intent.verb for intent in told] == ["change", "create", "delete"]
    assert told[0].differences == ("spec.replicas: 1 -> 3",)
    assert 'data.k: (none) -> "v"' in str(told[1])
    assert len(server.writes) == writes


def test_long_values_are_cut() -> None:
    (line,) = differences_between({}, {"a": "x" * 1000})

    assert len(line) < 250
