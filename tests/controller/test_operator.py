"""The thirty-line operator, from its declaration to its rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fleetplane.controller import (
    Condition,
    Context,
    Manager,
    Operator,
    Permanent,
    Result,
    controller_for,
    load_operators,
)
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.registration import UnknownOperator
from fleetplane.controller.rights import election_rules, rules_for
from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.model.errors import ApiError
from fleetplane.model.kind import Kind, StatusCondition, View, field
from fleetplane.model.objects import Object, condition
from fleetplane.testing.clock import virtually
from fleetplane.testing.environment import SimulatedEnvironment
from fleetplane.testing.memory import MemoryServer


class GreetingSpec(View):
    text: str
    times: int = 1


class GreetingStatus(View):
    said: int = 0
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class Greeting(Kind, group="example.org", version="v1"):
    spec: GreetingSpec
    status: GreetingStatus = field(default_factory=lambda: GreetingStatus.view({}))


def plan(greeting: Greeting) -> list[Object]:
    if greeting.spec.text == "rude":
        raise Permanent("we do not say that", reason="Rude")
    data = {"text": " ".join([greeting.spec.text] * greeting.spec.times)}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": greeting.name}, "data": data}]


async def reconcile(context: Context[Greeting], greeting: Greeting) -> None:
    await context.apply_children(plan(greeting))
    await context.set_status({"said": greeting.spec.times}, Condition("Ready", True, "Said"))


OPERATOR = Operator(
    name="greetings",
    kinds=[Greeting],
    controllers=lambda manager: [controller_for(manager, Greeting, reconcile, owns=[CONFIG_MAPS])],
)


class World:
    def __init__(self) -> None:
        self.environment = SimulatedEnvironment()
        self.server = MemoryServer(self.environment)
        self.client = self.server.client()
        self.manager = Manager(self.client, environment=self.environment, name="greetings")

    async def greet(self, name: str = "hello", **spec: object) -> Object:
        obj = {**Greeting.view({}).object, "apiVersion": "example.org/v1", "kind": "Greeting"}
        return await self.client.create(Greeting, {**obj, "metadata": {"name": name}, "spec": spec}, "n")

    async def greeting(self, name: str = "hello") -> Object:
        return await self.client.get(Greeting, name, "n")

    def writes(self) -> int:
        return sum(key.resource != "events" for _, key in self.server.writes)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    task = asyncio.ensure_future(world.manager.run())
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        world.manager.stop()
        await task


@virtually
async def test_an_object_becomes_its_child_and_its_status() -> None:
    world = World()
    OPERATOR.install(world.manager)

    async with running(world):
        await world.greet(text="hi", times=2)
        await asyncio.sleep(1)
        child = await world.client.get(CONFIG_MAPS, "hello", "n")
        greeting = await world.greeting()

    assert child["data"] == {"text": "hi hi"}
    assert (greeting["status"]["said"], greeting["status"]["observedGeneration"]) == (2, 1)
    ready = condition(greeting, "Ready")
    assert ready is not None
    assert (ready["status"], ready["observedGeneration"]) == ("True", 1)


@virtually
async def test_steady_state_writes_nothing_for_days() -> None:
    world = World()
    OPERATOR.install(world.manager)

    async with running(world):
        await world.greet(text="hi")
        await asyncio.sleep(1)
        before, asked = world.writes(), len([one for one in world.server.requests if one.method != "GET"])
        await asyncio.sleep(3 * 24 * 3600)

    assert world.writes() == before == 3
    assert len([one for one in world.server.requests if one.method != "GET"]) == asked


@virtually
async def test_what_cannot_be_done_is_said_on_the_object() -> None:
    world = World()
    OPERATOR.install(world.manager)

    async with running(world):
        await world.greet(text="rude")
        await asyncio.sleep(1)
        refused = condition(await world.greeting(), "Ready")
        await world.client.patch(Greeting, "hello", {"spec": {"text": "hi"}}, "n")
        await asyncio.sleep(1)
        ready = condition(await world.greeting(), "Ready")

    assert refused is not None
    assert ready is not None
    assert (refused["status"], refused["reason"], refused["message"]) == ("False", "Rude", "we do not say that")
    assert ready["status"] == "True"
    events = [obj for key, obj in world.server.objects.items() if key.resource == "events"]
    assert [one["reason"] for one in events] == ["Rude"]


@virtually
async def test_cleanup_runs_until_it_is_done_before_the_object_is_gone() -> None:
    world = World()
    cleaned: list[str] = []

    async def cleanup(context: Context[Greeting], greeting: Greeting) -> Result | None:
        cleaned.append(greeting.name)
        return Result(requeue_after=5) if len(cleaned) < 3 else None

    world.manager.add(
        controller_for(
            world.manager, Greeting, reconcile, owns=[CONFIG_MAPS], finalizer="example.org/f", cleanup=cleanup
        )
    )
    async with running(world):
        await world.greet(text="hi")
        await asyncio.sleep(1)
        await world.client.delete(Greeting, "hello", "n")
        await asyncio.sleep(20)
        with pytest.raises(ApiError):
            await world.greeting()

    assert cleaned == ["hello"] * 3


@virtually
async def test_plain_resources_are_reconciled_as_plain_data() -> None:
    world = World()
    seen: list[Object] = []

    async def look(context: Context[Object], obj: Object) -> None:
        seen.append(obj)
        assert context.children() == []

    world.manager.add(controller_for(world.manager, CONFIG_MAPS, look))
    async with running(world):
        await world.client.create(CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}}, "n")
        await asyncio.sleep(1)

    assert [one["data"] for one in seen] == [{"k": "v"}]


def test_a_finalizer_and_its_cleanup_belong_together() -> None:
    with pytest.raises(ValueError, match="a finalizer needs a cleanup"):
        controller_for(World().manager, Greeting, reconcile, finalizer="example.org/f")


def test_rights_are_read_off_the_declaration() -> None:
    manager = World().manager
    rules = rules_for(OPERATOR.controllers(manager))

    assert rules == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "verbs": ["create", "delete", "get", "list", "patch", "watch"],
        },
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["example.org"], "resources": ["greetings"], "verbs": ["get", "list", "patch", "watch"]},
        {"apiGroups": ["example.org"], "resources": ["greetings/finalizers"], "verbs": ["update"]},
        {"apiGroups": ["example.org"], "resources": ["greetings/status"], "verbs": ["patch"]},
    ]
    assert election_rules(LeaderElection("x"))[1]["resourceNames"] == ["x"]


def test_an_operator_has_its_manifests() -> None:
    assert [one["metadata"]["name"] for one in OPERATOR.manifests()] == ["greetings.example.org"]


def test_an_operator_that_is_not_installed_is_named() -> None:
    with pytest.raises(UnknownOperator, match="no operator 'nowhere'"):
        load_operators(["nowhere"])
