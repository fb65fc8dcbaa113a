"""Children become what they should be, others' fields stay, and steady state sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fleetplane.client.rest import RestClient
from fleetplane.controller.children import OWNER_UID_LABEL, Children, Owner
from fleetplane.controller.errors import Permanent
from fleetplane.controller.informers import Informers
from fleetplane.model.builtin.types import CONFIG_MAPS, NAMESPACES, SECRETS
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.testing.clock import virtually
from fleetplane.testing.environment import SimulatedEnvironment
from fleetplane.testing.memory import MemoryServer

THINGS = ResourceType("example.org", "v1", "Thing", "things")


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


class World:
    def __init__(self) -> None:
        self.environment = SimulatedEnvironment()
        self.server = MemoryServer(self.environment)
        self.informers = Informers(self.server.client(), self.environment)
        self.client: RestClient = self.server.client().observed_by(self.informers.observe)
        self.children = self.make_children()

    def make_children(self) -> Children:
        kinds = (CONFIG_MAPS, SECRETS, NAMESPACES)
        return Children([self.informers.get(kind) for kind in kinds], manager="greeter")

    async def owner(self, name: str = "boss") -> Owner:
        thing = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": name}}
        return Owner.of(await self.client.create(THINGS, thing, "n"), "root")

    def requests(self) -> int:
        return len(self.server.requests)

    def names(self) -> list[str]:
        return sorted(key.name for key in self.server.objects if key.resource == "configmaps")


@asynccontextmanager
async def world_running() -> AsyncIterator[tuple[World, Owner]]:
    world = World()
    async with asyncio.TaskGroup() as group:
        world.informers.start(group)
        await asyncio.sleep(0.1)
        yield world, await world.owner()
        world.informers.stop()


@virtually
async def test_children_are_made_with_their_owner_and_namespace() -> None:
    async with world_running() as (world, owner):
        result = await world.children.apply(world.client, owner, [config_map("a", k="1"), config_map("b")])
        made = await world.client.get(CONFIG_MAPS, "a", "n")

    assert result.applied == ("a", "b")
    assert made["metadata"]["ownerReferences"] == [owner.reference()]
    assert world.names() == ["a", "b"]


@virtually
async def test_steady_state_sends_nothing_also_after_a_restart() -> None:
    async with world_running() as (world, owner):
        desired = [config_map("a", k="1")]
        await world.children.apply(world.client, owner, desired)
        before = world.requests()
        for children in (world.children, world.make_children()):
            for _ in range(3):
                assert not (await children.apply(world.client, owner, desired)).changed

        assert world.requests() == before


@virtually
async def test_a_change_of_intent_is_applied_and_what_is_no_longer_wanted_goes() -> None:
    async with world_running() as (world, owner):
        await world.children.apply(world.client, owner, [config_map("a", k="1", gone="x"), config_map("b")])
        result = await world.make_children().apply(world.client, owner, [config_map("a", k="2")])
        found = await world.client.get(CONFIG_MAPS, "a", "n")

    assert (result.applied, result.deleted) == (("a",), ("b",))
    assert found["data"] == {"k": "2"}
    assert world.names() == ["a"]


@virtually
async def test_a_field_that_is_no_longer_wanted_goes_even_if_the_rest_is_as_it_was() -> None:
    async with world_running() as (world, owner):
        await world.children.apply(world.client, owner, [config_map("a", k="1", gone="x")])
        await world.make_children().apply(world.client, owner, [config_map("a", k="1")])

        assert (await world.client.get(CONFIG_MAPS, "a", "n"))["data"] == {"k": "1"}


@virtually
async def test_drift_is_repaired_and_what_others_added_stays() -> None:
    async with world_running() as (world, owner):
        desired = [config_map("a", k="1")]
        await world.children.apply(world.client, owner, desired)
        await world.client.patch(CONFIG_MAPS, "a", {"data": {"k": "9", "theirs": "x"}}, "n")
        result = await world.children.apply(world.client, owner, desired)

        assert result.applied == ("a",)
        assert (await world.client.get(CONFIG_MAPS, "a", "n"))["data"] == {"k": "1", "theirs": "x"}
        assert not (await world.children.apply(world.client, owner, desired)).changed


@virtually
async def test_a_child_that_vanished_is_made_again() -> None:
    async with world_running() as (world, owner):
        await world.children.apply(world.client, owner, [config_map("a")])
        await world.client.delete(CONFIG_MAPS, "a", "n")
        await asyncio.sleep(0.1)
        await world.children.apply(world.client, owner, [config_map("a")])

    assert world.names() == ["a"]


@virtually
async def test_what_somebody_else_owns_is_left_alone() -> None:
    async with world_running() as (world, owner):
        rival = await world.owner("rival")
        await world.children.apply(world.client, rival, [config_map("a", k="rival")])

        with pytest.raises(Permanent, match="ConfigMap n/a belongs to Thing rival"):
            await world.children.apply(world.client, owner, [config_map("a", k="mine")])
        await world.children.apply(world.client, owner, [])

        assert (await world.client.get(CONFIG_MAPS, "a", "n"))["data"] == {"k": "rival"}


@virtually
async def test_without_prune_nothing_is_deleted() -> None:
    async with world_running() as (world, owner):
        await world.children.apply(world.client, owner, [config_map("a")])
        await world.children.apply(world.client, owner, [config_map("b")], prune=False)

    assert world.names() == ["a", "b"]


@virtually
async def test_children_elsewhere_are_known_by_label() -> None:
    async with world_running() as (world, owner):
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "space"}}
        far = {**config_map("far"), "metadata": {"name": "far", "namespace": "elsewhere"}}
        await world.children.apply(world.client, owner, [space, far])
        made = await world.client.get(CONFIG_MAPS, "far", "elsewhere")
        assert made["metadata"]["labels"] == {OWNER_UID_LABEL: owner.uid}
        assert "ownerReferences" not in made["metadata"]
        assert not (await world.children.apply(world.client, owner, [space, far])).changed

        await world.children.delete(world.client, owner)
        await asyncio.sleep(0.1)
        assert await world.children.delete(world.client, owner)

    assert [key for key in world.server.objects if key.resource in {"namespaces", "configmaps"}] == []


@pytest.mark.parametrize(
    ("children", "message"),
    [
        ([config_map("a"), config_map("a")], "two ConfigMaps of n/boss are named n/a"),
        ([config_map("")], "has no name"),
        ([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}], "Pod of v1 is not among"),
    ],
)
def test_children_that_make_no_sense_are_refused(children: list[Object], message: str) -> None:
    async def main() -> None:
        async with world_running() as (world, owner):
            with pytest.raises(Permanent, match=message):
                await world.children.apply(world.client, owner, children)
            assert world.names() == []

    virtually(main)()


@virtually
async def test_one_child_that_is_refused_keeps_no_other_from_being_made() -> None:
    async with world_running() as (world, owner):
        refused = {**config_map("a"), "metadata": {"name": "a", "namespace": "elsewhere", "uid": "x"}}
        await world.client.create(CONFIG_MAPS, config_map("a"), "elsewhere")
        with pytest.raises(Exception, match="modified"):
            await world.children.apply(world.client, owner, [refused, config_map("b")])

    assert "b" in world.names()
