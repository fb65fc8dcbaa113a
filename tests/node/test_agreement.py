"""Which pod networks nodes get: no two the same, however close together they join."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import NODES
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.model.networks import Network
from fleetplane.model.pod_networks import OWN, refused
from fleetplane.model.user import UserInfo
from fleetplane.node.agreement import agreement
from fleetplane.node.network import Choose, choose_networks
from fleetplane.node.nodekeeper import NodeKeeper
from fleetplane.node.registration import NodeDescription, node_object
from fleetplane.testing import TestServer, running_server

RANGES = ["10.88.0.0/20", "fd00:10:88::/72"]


def description(name: str, *networks: str) -> NodeDescription:
    return NodeDescription(name, {}, annotations={OWN: "own"}, pod_networks=networks)


def node_client(server: TestServer, name: str) -> Client:
    return server.client(UserInfo(f"system:node:{name}", groups=("system:nodes", "system:authenticated")))


def lowest(own: Sequence[Network], others: Sequence[Network]) -> tuple[Network, ...]:
    """All choose the same as long as they know the same."""
    return tuple(own) or choose_networks(RANGES, others)


class AtOnce:
    """A client that has an answer to its first list only when everybody has."""

    def __init__(self, client: Client, all_listed: asyncio.Barrier) -> None:
        self._client, self._all_listed, self._first = client, all_listed, True

    async def list(self, *args: Any, **more: Any) -> Any:
        found = await self._client.list(*args, **more)
        if self._first:
            self._first = False
            await self._all_listed.wait()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


async def agreed(client: Any, name: str, choose: Choose = lowest) -> list[str]:
    return [str(one) for one in await agreement(client, SystemEnvironment(), description(name))(choose)]


async def test_nodes_that_join_at_the_same_moment_get_networks_of_their_own() -> None:
    async with running_server() as server:
        names = [f"node-{number}" for number in range(6)]
        barrier = asyncio.Barrier(len(names))

        found = await asyncio.gather(*(agreed(AtOnce(node_client(server, name), barrier), name) for name in names))

        assert sorted(four for four, _ in found) == [f"10.88.{number}.0/24" for number in range(6)]
        assert len({six for _, six in found}) == 6
        nodes = (await server.client().list(NODES)).items
        assert {one["metadata"]["name"]: one["spec"]["podCIDRs"] for one in nodes} == dict(
            zip(names, found, strict=True)
        )


async def test_a_node_that_only_proposed_is_not_ready() -> None:
    async with running_server() as server:
        await agreed(node_client(server, "a"), "a")

        node = await server.client().get(NODES, "a")
        ready = next(one for one in node["status"]["conditions"] if one["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
        assert [one["key"] for one in node["spec"]["taints"]] == ["node.kubernetes.io/not-ready"]


async def test_a_node_that_lost_its_memory_has_the_networks_of_its_node_object() -> None:
    async with running_server() as server:
        first = [await agreed(node_client(server, name), name) for name in "ab"]

        assert [await agreed(node_client(server, name), name) for name in "ba"] == [first[1], first[0]]


async def test_networks_of_nodes_that_claim_none_are_avoided_too() -> None:
    async with running_server() as server:
        other = node_object(NodeDescription("other", {}, pod_networks=("10.88.0.0/23",)), SystemEnvironment().now())
        await server.client().create(NODES, other)

        assert (await agreed(node_client(server, "a"), "a"))[0] == "10.88.2.0/24"


async def test_a_node_that_is_deleted_frees_its_networks() -> None:
    async with running_server() as server:
        first = await agreed(node_client(server, "a"), "a")
        await server.client().delete(NODES, "a")

        assert await agreed(node_client(server, "b"), "b") == first


async def test_without_an_answer_a_node_chooses_alone() -> None:
    class Silent:
        async def list(self, *args: Any) -> Any:
            raise ApiError(503, "nobody answers")

    assert (await agreed(Silent(), "a"))[0] == "10.88.0.0/24"


async def test_who_chose_alone_and_came_second_is_refused_and_told() -> None:
    """Its runner then begins anew with other networks; told that way, it is registered."""
    async with running_server() as server:
        first = await agreed(node_client(server, "a"), "a")
        told: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

        keeper = NodeKeeper(
            node_client(server, "b"),
            SystemEnvironment(),
            lambda: description("b", *first),
            on_refused=lambda networks: None if told.done() else told.set_result(networks),
        )
        running = asyncio.ensure_future(keeper.run())
        try:
            assert await asyncio.wait_for(told, 10) == first[:1]
        finally:
            running.cancel()

        assert not keeper.registered.is_set()
        assert (await agreed(node_client(server, "b"), "b"))[0] == "10.88.1.0/24"


async def test_a_node_that_proposed_becomes_whole_when_it_registers() -> None:
    async with running_server() as server:
        client = node_client(server, "a")
        networks = await agreed(client, "a")
        whole = NodeDescription(
            "a", {"cpu": "2"}, annotations={OWN: "own", "example.org/more": "yes"}, pod_networks=tuple(networks)
        )

        keeper = NodeKeeper(client, SystemEnvironment(), lambda: whole)
        running = asyncio.ensure_future(keeper.run())
        try:
            await asyncio.wait_for(keeper.registered.wait(), 10)
        finally:
            running.cancel()

        node = await server.client().get(NODES, "a")
        assert node["metadata"]["annotations"]["example.org/more"] == "yes"
        assert node["status"]["capacity"] == {"cpu": "2"}
        assert {one["type"]: one["status"] for one in node["status"]["conditions"]}["Ready"] == "True"


async def test_nodes_that_do_not_say_so_may_share_a_network() -> None:
    """As in Kubernetes, where whoever made the cluster sees to it."""
    async with running_server() as server:
        for name in ("a", "b"):
            made = NodeDescription(name, {}, pod_networks=("10.1.0.0/24",))
            await server.client().create(NODES, node_object(made, SystemEnvironment().now()))

        claimed = node_object(description("c", "10.1.0.0/24"), SystemEnvironment().now())
        await server.client().create(NODES, claimed)
        with pytest.raises(ApiError) as error:
            await server.client().create(NODES, {**claimed, "metadata": {**claimed["metadata"], "name": "d"}})
        assert refused(error.value) == ["10.1.0.0/24"]
        assert [ipaddress.ip_network(one).prefixlen for one in refused(error.value)] == [24]
