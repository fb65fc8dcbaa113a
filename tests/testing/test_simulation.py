"""The simulator, and with it the controller framework on the real server: whatever happens, the end state is right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from fleetplane.client.protocol import Client, Unreachable
from fleetplane.controller import Condition, Context, LeaderElection, Manager, controller_for
from fleetplane.model.builtin.types import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, LEASES
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.kind import Kind, StatusCondition, View, crd_manifest, field
from fleetplane.model.objects import Object, condition, is_condition_true
from fleetplane.testing import Faults, Simulation, simulate, simulated


class GreetingSpec(View):
    text: str
    copies: int = 1


class GreetingStatus(View):
    copies: int = 0
    observed_generation: int = 0
    conditions: list[StatusCondition] = field(default_factory=list, list_map_keys=["type"])


class Greeting(Kind, group="example.org", version="v1"):
    spec: GreetingSpec
    status: GreetingStatus = field(default_factory=lambda: GreetingStatus.view({}))


def plan(greeting: Greeting) -> list[Object]:
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{greeting.name}-{n}"},
            "data": {"text": greeting.spec.text},
        }
        for n in range(greeting.spec.copies)
    ]


async def reconcile(context: Context[Greeting], greeting: Greeting) -> None:
    await context.apply_children(plan(greeting))
    await context.set_status({"copies": greeting.spec.copies}, Condition("Ready", True, "Said"))


def operator(environment: Environment, election: LeaderElection | None = None) -> Callable[[Client], Awaitable[None]]:
    async def run(client: Client) -> None:
        manager = Manager(client, environment=environment, name="greetings", election=election)
        manager.add(controller_for(manager, Greeting, reconcile, owns=[CONFIG_MAPS]))
        await manager.run()

    return run


async def install(client: Client) -> None:
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, crd_manifest(Greeting))
    name = f"{Greeting.resource.plural}.{Greeting.resource.group}"
    while not is_condition_true(await client.get(CUSTOM_RESOURCE_DEFINITIONS, name), "Established"):
        await asyncio.sleep(0.1)


def greeting(name: str, text: str = "hi", copies: int = 1) -> Object:
    return {
        "apiVersion": "example.org/v1",
        "kind": "Greeting",
        "metadata": {"name": name},
        "spec": {"text": text, "copies": copies},
    }


async def live_a_little(simulation: Simulation, changes: int) -> None:
    """A user who makes, changes and deletes greetings, and meddles with what is not hers."""
    chance, client = simulation.environment.random, simulation.client
    for _ in range(changes):
        name = chance.choice(("a", "b", "c"))
        there = {one["metadata"]["name"] for one in (await client.list(Greeting, "default")).items}
        try:
            if name not in there:
                await client.create(Greeting, greeting(name, copies=chance.randint(0, 3)), "default")
            elif chance.random() < 0.5:
                spec = {"copies": chance.randint(0, 4), "text": chance.choice(("hi", "ho"))}
                await client.patch(Greeting, name, {"spec": spec}, "default")
            elif chance.random() < 0.5:
                await client.delete(CONFIG_MAPS, f"{name}-0", "default")
            else:
                await client.patch(CONFIG_MAPS, f"{name}-0", {"data": {"text": "meddled", "mine": "x"}}, "default")
        except ApiError as error:
            assert error.code == 404
        await simulation.run(seconds=chance.random() * 20)


async def check(simulation: Simulation) -> None:
    client = simulation.client
    children = {
        one["metadata"]["name"]: one
        for one in (await client.list(CONFIG_MAPS, "default")).items
        if one["metadata"]["name"] != "kube-root-ca.crt"
    }
    expected: set[str] = set()
    for one in (await client.list(Greeting, "default")).items:
        view = Greeting.view(one)
        for child in plan(view):
            name = child["metadata"]["name"]
            expected.add(name)
            assert children[name]["data"]["text"] == view.spec.text
            (owner,) = children[name]["metadata"]["ownerReferences"]
            assert owner["uid"] == view.uid
        assert (view.status.copies, view.status.observed_generation) == (view.spec.copies, view.generation)
        ready = condition(one, "Ready")
        assert ready is not None
        assert ready["status"] == "True"
    assert set(children) == expected


@simulated(seeds=range(8), faults=Faults.some())
async def test_whatever_happens_the_end_state_is_what_was_asked_for(simulation: Simulation) -> None:
    await install(simulation.client)
    process = simulation.process("operator", operator(simulation.environment))
    process.crashes(mean_requests=12)

    await live_a_little(simulation, changes=25)
    simulation.calm()
    await simulation.settle()

    assert process.starts > 1
    await check(simulation)


@simulated(seeds=range(4))
async def test_a_crash_between_any_two_steps_changes_nothing_in_the_end(simulation: Simulation) -> None:
    await install(simulation.client)
    process = simulation.process("operator", operator(simulation.environment))
    for n in range(10):
        await simulation.client.create(Greeting, greeting(f"g{n}", copies=2), "default")
        process.kill_after(simulation.environment.random.randint(0, 60))
        await simulation.run(seconds=3)
    await simulation.settle()

    await check(simulation)


@simulated(seeds=range(2))
async def test_in_steady_state_nothing_is_written(simulation: Simulation) -> None:
    await install(simulation.client)
    simulation.process("operator", operator(simulation.environment))
    await live_a_little(simulation, changes=10)
    await simulation.settle()
    before = len([step for step in simulation.trace if step.method != "GET"])

    await simulation.run(hours=30)

    assert len([step for step in simulation.trace if step.method != "GET"]) == before


@simulated(seeds=range(2), faults=Faults.some())
async def test_of_two_managers_one_writes_at_a_time(simulation: Simulation) -> None:
    await install(simulation.client)
    processes = {}
    for name in ("first", "second"):
        election = LeaderElection("greetings", identity=name)
        processes[name] = simulation.process(name, operator(simulation.environment, election), restart_after=60)
    for _ in range(4):
        await live_a_little(simulation, changes=8)
        await simulation.client.create(Greeting, {**greeting("x"), "metadata": {"generateName": "x-"}}, "default")
        await simulation.run(seconds=60)
        lease = await simulation.client.get(LEASES, "greetings", "kube-system")
        processes[lease["spec"]["holderIdentity"]].kill()

    simulation.calm()
    await simulation.settle()

    await check(simulation)
    writes = [
        (step.at, step.who)
        for step in simulation.trace
        if step.method not in {"", "GET"} and "leases" not in step.path and "events" not in step.path
    ]
    assert {who for _, who in writes} == {"first", "second"}
    for (at, who), (then, other) in pairwise(writes):
        assert who == other or then - at > 0.1, "two writers within a tenth of a second"


def test_the_same_seed_is_the_same_run_and_another_is_not() -> None:
    async def story(simulation: Simulation) -> None:
        await install(simulation.client)
        process = simulation.process("operator", operator(simulation.environment))
        process.crashes(mean_requests=10)
        await live_a_little(simulation, changes=30)

    first = simulate(story, 7, faults=Faults.some())

    assert simulate(story, 7, faults=Faults.some()) == first
    assert simulate(story, 8, faults=Faults.some()) != first
    assert {step.outcome for step in first} >= {"lost answer", "killed"}


def test_a_failure_is_told_its_seed() -> None:
    async def story(simulation: Simulation) -> None:
        raise AssertionError("wrong")

    with pytest.raises(AssertionError) as caught:
        simulate(story, 42)

    assert caught.value.__notes__ == ["replay with seed=42"]


def test_a_process_that_ends_on_its_own_is_reported() -> None:
    async def broken(client: Client) -> None:
        raise ValueError("boom")

    async def story(simulation: Simulation) -> None:
        simulation.process("broken", broken)
        await simulation.run(seconds=1)

    with pytest.raises(AssertionError, match=r"broken: ValueError\('boom'\)"):
        simulate(story, 1)


def test_a_lost_answer_is_a_write_that_happened() -> None:
    async def story(simulation: Simulation) -> None:
        async def write(client: Client) -> None:
            with pytest.raises(Unreachable):
                await client.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, "default")

        simulation.process("writer", write)
        await simulation.run(seconds=5)
        assert (await simulation.client.get(CONFIG_MAPS, "a", "default"))["metadata"]["name"] == "a"

    simulate(story, 1, faults=Faults(lost_answer=1))


def test_a_dead_process_writes_nothing_more() -> None:
    async def story(simulation: Simulation) -> None:
        async def write(client: Client) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await client.create(CONFIG_MAPS, {"metadata": {"name": "last-words"}}, "default")

        process = simulation.process("writer", write)
        await simulation.run(seconds=5)
        process.kill(restart=False)
        await simulation.run(seconds=5)
        with pytest.raises(ApiError):
            await simulation.client.get(CONFIG_MAPS, "last-words", "default")

    simulate(story, 1)
