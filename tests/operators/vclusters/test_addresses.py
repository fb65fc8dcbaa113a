"""Nodes of clusters of pods with addresses of a pool: one each, kept through pauses, given back at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from tests.operators.staging import define, running
from tests.operators.vclusters.stage import Stage, staged
from tests.operators.vclusters.test_pods_mode import OPEN, nodes

from fleetplane.controller.metrics import Metrics
from fleetplane.model.builtin.types import STATEFUL_SETS
from fleetplane.model.objects import Object
from fleetplane.operating import prepare_operators
from fleetplane.operators.network import network
from fleetplane.operators.network.kinds import IPClaim, IPPool
from fleetplane.operators.vclusters.kinds import STOPPED, Vk8s
from fleetplane.operators.vclusters.machines import STATIC_ADDRESS


@asynccontextmanager
async def pools(stage: Stage, *ranges: str) -> AsyncIterator[None]:
    """The operator of addresses beside ours, and a pool."""
    operator = network()
    await define(stage.client, operator)
    (manager,) = await prepare_operators(stage.client, [operator], stage.server.client, stage.environment, Metrics())
    async with running(manager.run()):
        spec = {"ranges": list(ranges), "quarantineSeconds": 30}
        await stage.client.create(IPPool, {"metadata": {"name": "vnodes"}, "spec": spec})
        yield


async def given(stage: Stage) -> dict[str, list[str]]:
    """By node, as its StatefulSet says."""
    found = {}
    for one in (await stage.client.list(STATEFUL_SETS, "default")).items:
        notes = one["spec"]["template"]["metadata"].get("annotations") or {}
        found[one["metadata"]["name"]] = orjson.loads(notes.get(STATIC_ADDRESS, "[]"))
    return found


async def claims(stage: Stage) -> dict[str, Object]:
    return {one["spec"]["node"]: one for one in (await stage.client.list(IPClaim, "default")).items}


@staged()
async def test_every_node_has_an_address_of_its_own_and_keeps_it_while_paused(stage: Stage) -> None:
    async with pools(stage, "10.9.0.1-10.9.0.9", "fd00:9::/64"):
        await stage.make("one", annotations=OPEN, nodes=nodes(2), ipPool="vnodes")
        await stage.phase("one", "Running")
        before = await given(stage)

        await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: ""}}}, "default")
        await stage.phase("one", "Paused")

        async def held() -> bool:
            return {one["status"]["phase"] for one in (await claims(stage)).values()} == {"Held"}

        await stage.until(held)
        await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: None}}}, "default")
        await stage.phase("one", "Running")

        assert await given(stage) == before
        addresses = [one for both in before.values() for one in both]
        assert len(addresses) == len(set(addresses)) == 6


@staged()
async def test_a_node_without_an_address_waits_says_why_and_keeps_nobody_waiting(stage: Stage) -> None:
    async with pools(stage, "10.9.0.1-10.9.0.2"):
        await stage.make("one", annotations=OPEN, nodes=nodes(1), ipPool="vnodes")
        await stage.phase("one", "Running")
        await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(2)}}, "default")

        async def told() -> bool:
            conditions = (await stage.status("one")).get("conditions") or ()
            return "w1: pool vnodes: all 2 IPv4 addresses are taken" in [
                one["message"] for one in conditions if one["type"] == "AddressesReady"
            ]

        await stage.until(told)
        assert set(await given(stage)) == {"m", "w0"}
        await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: ""}}}, "default")
        await stage.phase("one", "Paused")
        await stage.client.patch(Vk8s, "one", {"metadata": {"annotations": {STOPPED: None}}}, "default")
        await stage.client.patch(IPPool, "vnodes", {"spec": {"ranges": ["10.9.0.1-10.9.0.3"]}})
        await stage.phase("one", "Running")
        assert set(await given(stage)) == {"m", "w0", "w1"}


@staged()
async def test_a_lost_claim_is_made_again_with_the_same_address(stage: Stage) -> None:
    async with pools(stage, "10.9.0.1-10.9.0.9"):
        await stage.make("one", annotations=OPEN, nodes=nodes(0), ipPool="vnodes")
        await stage.phase("one", "Running")
        before, first = await given(stage), (await claims(stage))["m"]

        await stage.client.delete(IPClaim, first["metadata"]["name"], "default")
        await stage.client.patch(Vk8s, "one", {"metadata": {"labels": {"touch": "1"}}}, "default")

        async def again() -> bool:
            found = (await claims(stage)).get("m", first)
            return found["metadata"]["uid"] != first["metadata"]["uid"] and bool(found["spec"].get("addresses"))

        await stage.until(again, timeout=600)
        assert (await claims(stage))["m"]["spec"]["addresses"] == before["m"] == (await given(stage))["m"]


@staged()
async def test_a_node_that_leaves_and_a_cluster_that_ends_give_back(stage: Stage) -> None:
    async with pools(stage, "10.9.0.1-10.9.0.9"):
        await stage.make("one", annotations=OPEN, nodes=nodes(2), ipPool="vnodes")
        await stage.phase("one", "Running")

        await stage.client.patch(Vk8s, "one", {"spec": {"nodes": nodes(1)}}, "default")

        async def two() -> bool:
            return set(await claims(stage)) == {"m", "w0"}

        await stage.until(two, timeout=600)
        await stage.client.delete(Vk8s, "one", "default")
        await stage.gone(Vk8s, "one")
        await stage.until(lambda: none_left(stage), timeout=600)


async def none_left(stage: Stage) -> bool:
    return not await claims(stage)


@staged()
async def test_a_server_without_pools_is_told_of_in_plain_words(stage: Stage) -> None:
    await stage.make("one", annotations=OPEN, nodes=nodes(0), ipPool="vnodes")
    await asyncio.sleep(5)

    conditions = {one["type"]: one for one in (await stage.status("one"))["conditions"]}

    assert "run the operator network" in conditions["AddressesReady"]["message"]
    assert await given(stage) == {}
