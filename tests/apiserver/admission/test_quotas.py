from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from fleetplane.model.objects import Object
from fleetplane.store.protocol import Change, Record, Store
from fleetplane.store.sqlite import SqliteStore
from fleetplane.testing.plane import TestServer, running_server

PODS = "/api/v1/namespaces/default/pods"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"
SERVICES = "/api/v1/namespaces/default/services"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = {"content-type": "application/merge-patch+json"}


class Held:
    """A store whose commits of pods are told late: ``gate`` holds their answers, or with ``early`` what they write."""

    def __init__(self, inner: Store, *, shared: bool = False) -> None:
        self._inner = inner
        self.is_shared = shared
        self.early = False
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, changes: Sequence[Change], *, durable: bool = True) -> list[Record]:
        concerned = any(one.key.resource == "pods" for one in changes)
        if concerned and self.early:
            await self.gate.wait()
        records = await self._inner.commit(changes, durable=durable)
        if concerned:
            await self.gate.wait()
        return list(records)


async def limit(api: TestServer, hard: Object, name: str = "q", **spec: Any) -> None:
    code, _ = await api.call("POST", QUOTAS, {"metadata": {"name": name}, "spec": {"hard": hard, **spec}})
    assert code == 201


async def used(api: TestServer, wanted: Object | None = None, name: str = "q") -> Object:
    """What the quota says; where something is wanted, once it says so."""
    found: Object = {}
    for _ in range(200):
        _, quota = await api.call("GET", f"{QUOTAS}/{name}")
        found = quota["status"].get("used") or {}
        if found == wanted or (wanted is None and found):
            break
        await asyncio.sleep(0.01)
    return found


async def test_a_quota_knows_at_once_what_is_used_already(api: TestServer, pod: Callable[..., Object]) -> None:
    await api.call("POST", PODS, pod("a", requests={"cpu": "1"}))
    await api.call("POST", PODS, pod("b", requests={"cpu": "500m"}))

    await limit(api, {"pods": "5", "requests.cpu": "2", "count/configmaps": "7"})

    assert await used(api) == {"count/configmaps": "0", "pods": "2", "requests.cpu": "1500m"}


async def test_what_does_not_fit_is_refused_in_kubernetes_words(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, {"pods": "2", "cpu": "10"})
    for name in ("a", "b"):
        code, _ = await api.call("POST", PODS, pod(name, requests={"cpu": "1"}))
        assert code == 201

    code, status = await api.call("POST", PODS, pod("c", requests={"cpu": "1"}))

    assert code == 403
    assert status["message"] == (
        'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    )


async def test_containers_must_tell_what_is_limited(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, {"limits.memory": "1Gi", "requests.cpu": "1"})

    _, status = await api.call("POST", PODS, pod())

    assert status["message"].endswith("failed quota: q: must specify limits.memory for: c; requests.cpu for: c")


async def test_a_quota_holds_when_many_come_at_once(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, {"pods": "7", "count/pods": "100"})

    answers = await asyncio.gather(*(api.call("POST", PODS, pod("p-")) for _ in range(40)))

    assert sorted(code for code, _ in answers) == [201] * 7 + [403] * 33
    _, stored = await api.call("GET", PODS)
    assert len(stored["items"]) == 7
    assert await used(api) == {"count/pods": "7", "pods": "7"}


async def test_what_is_deleted_may_be_made_again_at_once(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, {"pods": "1"})
    for _ in range(3):
        code, _ = await api.call("POST", PODS, pod("a"))
        assert code == 201
        await api.call("DELETE", f"{PODS}/a")

    assert await used(api, {"pods": "0"}) == {"pods": "0"}


async def test_a_pod_that_has_ended_uses_nothing(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, {"pods": "1", "count/pods": "9"})
    await api.call("POST", PODS, pod("a"))

    await api.call("PATCH", f"{PODS}/a/status", {"status": {"phase": "Succeeded"}}, headers=MERGE)

    code, _ = await api.call("POST", PODS, pod("b"))
    assert code == 201
    assert await used(api, {"count/pods": "2", "pods": "1"}) == {"count/pods": "2", "pods": "1"}


async def test_a_write_that_fails_uses_nothing(api: TestServer) -> None:
    await limit(api, {"count/configmaps": "2"})
    for _ in range(5):
        await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "same"}})

    code, _ = await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "other"}})

    assert code == 201
    assert await used(api, {"count/configmaps": "2"}) == {"count/configmaps": "2"}


async def test_a_dry_run_is_checked_and_uses_nothing(api: TestServer) -> None:
    await limit(api, {"count/configmaps": "1"})
    for _ in range(3):
        code, _ = await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "a"}}, query={"dryRun": "All"})
        assert code == 201
    await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})

    code, _ = await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "b"}}, query={"dryRun": "All"})

    assert code == 403


async def test_a_service_that_changes_its_type_needs_room(api: TestServer) -> None:
    await limit(api, {"services.nodeports": "1", "services": "2"})
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    await api.call("POST", SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": ports}})

    code, status = await api.call("PATCH", f"{SERVICES}/s", {"spec": {"type": "NodePort"}}, headers=MERGE)
    assert code == 403
    assert status["message"].endswith(
        "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1"
    )

    fewer = {"spec": {"type": "NodePort", "ports": ports[:1]}}
    code, _ = await api.call("PATCH", f"{SERVICES}/s", fewer, headers=MERGE)
    assert code == 200
    await api.call("PATCH", f"{SERVICES}/s", {"spec": {"type": "ClusterIP"}}, headers=MERGE)
    left = {"services": "2", "services.nodeports": "0"}  # it, and the one that leads to the server
    assert await used(api, left) == left


async def test_only_what_is_in_scope_counts(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, {"pods": "0"}, scopes=["BestEffort"])

    refused, _ = await api.call("POST", PODS, pod("a"))
    allowed, _ = await api.call("POST", PODS, pod("b", requests={"cpu": "1"}))

    assert (refused, allowed) == (403, 201)


async def test_custom_resources_are_counted_by_number(api: TestServer) -> None:
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
    await api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    await limit(api, {"count/widgets.example.com": "1"})
    path = "/apis/example.com/v1/namespaces/default/widgets"

    first, _ = await api.call("POST", path, {"metadata": {"name": "a"}})
    second, status = await api.call("POST", path, {"metadata": {"name": "b"}})

    assert (first, second) == (201, 403)
    assert status["message"].startswith('widgets.example.com "b" is forbidden: exceeded quota: q, ')


async def test_every_quota_must_agree_and_none_is_charged_when_one_does_not(
    api: TestServer, pod: Callable[..., Object]
) -> None:
    await limit(api, {"pods": "5"}, "wide")
    await limit(api, {"pods": "0"}, "zero")

    code, _ = await api.call("POST", PODS, pod("a"))

    assert code == 403
    assert await used(api, name="wide") == {"pods": "0"}


async def test_a_limit_that_is_changed_holds_for_the_next_request(api: TestServer, pod: Callable[..., Object]) -> None:
    await limit(api, {"pods": "1"})
    await api.call("POST", PODS, pod("a"))

    await api.call("PATCH", f"{QUOTAS}/q", {"spec": {"hard": {"pods": "2", "count/pods": "3"}}}, headers=MERGE)

    code, _ = await api.call("POST", PODS, pod("b"))
    assert code == 201
    assert await used(api, {"count/pods": "2", "pods": "2"}) == {"count/pods": "2", "pods": "2"}


async def test_nobody_else_writes_what_is_used(api: TestServer) -> None:
    await limit(api, {"count/configmaps": "1"})
    await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "a"}})

    forged = {"status": {"used": {"count/configmaps": "0"}}}
    code, answer = await api.call("PATCH", f"{QUOTAS}/q/status", forged, headers=MERGE)

    assert (code, answer["status"]["used"]) == (200, {"count/configmaps": "1"})
    refused, _ = await api.call("POST", CONFIG_MAPS, {"metadata": {"name": "b"}})
    assert refused == 403


async def test_a_quota_is_never_exceeded_and_never_loses_count(api: TestServer) -> None:
    """Given many writers that create, collide and delete, the usage stays true."""
    await limit(api, {"count/configmaps": "5"})
    chance = random.Random(7)
    most = 0

    async def write(number: int) -> None:
        nonlocal most
        for _ in range(40):
            name = f"m{chance.randrange(9)}"
            if chance.random() < 0.55:
                await api.call("POST", CONFIG_MAPS, {"metadata": {"name": name}})
            else:
                await api.call("DELETE", f"{CONFIG_MAPS}/{name}")
            _, listed = await api.call("GET", CONFIG_MAPS)
            most = max(most, len(listed["items"]))

    await asyncio.gather(*(write(number) for number in range(6)))

    assert most == 5
    _, listed = await api.call("GET", CONFIG_MAPS)
    left = {"count/configmaps": str(len(listed["items"]))}
    assert await used(api, left) == left


async def test_a_release_that_a_recount_has_seen_is_not_taken_off_again(pod: Callable[..., Object]) -> None:
    store = Held(await SqliteStore.open(":memory:"))
    async with running_server(store=store) as api:
        await account(api)
        await limit(api, {"pods": "5"})
        for name in ("a", "b"):
            assert (await api.call("POST", PODS, pod(name)))[0] == 201
        store.gate.clear()
        deleting = asyncio.ensure_future(api.call("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0}))
        while (await api.call("GET", f"{PODS}/a"))[0] != 404:
            await asyncio.sleep(0)

        await api.call("PATCH", f"{QUOTAS}/q", {"spec": {"hard": {"pods": "6"}}}, headers=MERGE)
        assert await used(api, {"pods": "1"}) == {"pods": "1"}
        store.gate.set()
        await deleting
        await asyncio.sleep(0.1)

        assert await used(api) == {"pods": "1"}


async def test_a_recount_leaves_what_another_server_has_claimed(pod: Callable[..., Object]) -> None:
    inner = await SqliteStore.open(":memory:")
    store = Held(inner, shared=True)
    async with running_server(store=store) as one, running_server(store=Held(inner, shared=True)) as other:
        await account(one)
        await limit(one, {"pods": "5"})
        await used(one, {"pods": "0"})
        store.gate.clear()
        store.early = True
        making = asyncio.ensure_future(one.call("POST", PODS, pod("a")))
        assert await used(other, {"pods": "1"}) == {"pods": "1"}

        await other.call("PATCH", f"{QUOTAS}/q", {"spec": {"hard": {"pods": "6"}}}, headers=MERGE)
        await asyncio.sleep(0.3)  # both servers have counted by now

        assert await used(other) == {"pods": "1"}
        store.gate.set()
        assert (await making)[0] == 201
        assert await used(other) == {"pods": "1"}


async def account(api: TestServer) -> None:
    """There are no controllers here to make it."""
    await api.call("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
