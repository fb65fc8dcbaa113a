"""A node that cannot freeze pods: it takes no standbys, and one that came all the same does not run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.node.test_agent import Machine, create, machine, pod
from tests.node.test_agent_fencing import GROUP, PAUSED, names

from fleetplane.client.protocol import Client
from fleetplane.model import objects
from fleetplane.model.builtin.types import EVENTS, NODES, PODS
from fleetplane.node import freezer
from fleetplane.node.agent import NodeAgent, NodeSettings
from fleetplane.node.registration import FREEZES
from fleetplane.node.runtime import RuntimeFailure
from fleetplane.testing import Simulation, simulated

WHY = "without root, cgroup v1 lets nobody freeze containers"


def agent_of(made: Machine, cannot_freeze: str = "") -> Callable[[Client], Awaitable[None]]:
    async def run(client: Client) -> None:
        settings = NodeSettings(made.directory, name="here", addresses=("192.0.2.7",))
        info = replace(await made.runtime.info(), cannot_freeze=cannot_freeze)
        await NodeAgent(client, made.runtime, settings, made.simulation.environment, info).run()

    return run


def unable(made: Machine) -> list[str]:
    """From now on nothing can be paused there; tells what was tried."""
    tried: list[str] = []

    async def refuse(container_id: str) -> None:
        tried.append(container_id)
        raise RuntimeFailure("cgroup v1 cannot pause rootless containers")

    made.runtime.pause_container = refuse  # type: ignore[method-assign]
    return tried


def annotated(name: str, **notes: str) -> dict[str, Any]:
    made = pod(
        name, restartPolicy="Never", containers=[{"name": "main", "image": "app:1", "command": ["sleep", "inf"]}]
    )
    keys = {"frozen": PAUSED, "group": GROUP}
    made["metadata"]["annotations"] = {keys[key]: value for key, value in notes.items()}
    return made


async def label_of(simulation: Simulation) -> str | None:
    return objects.labels(await simulation.client.get(NODES, "here")).get(FREEZES)


def frozen_condition(found: dict[str, Any]) -> dict[str, Any]:
    (one,) = [one for one in found["status"]["conditions"] if one["type"] == "node.fleetplane.io/Frozen"]
    return dict(one)


@simulated()
async def test_a_node_that_cannot_freeze_never_gets_the_label_and_an_older_one_is_taken_away(
    simulation: Simulation,
) -> None:
    async with machine(simulation) as made:
        agent = simulation.process("agent", agent_of(made))
        await simulation.run(seconds=3)
        assert await label_of(simulation) == "true"
        agent.kill(restart=False)
        await agent.ended()

        simulation.process("again", agent_of(made, WHY))
        await simulation.run(seconds=3)
        assert await label_of(simulation) is None
        await simulation.client.patch(NODES, "here", {"metadata": {"labels": {FREEZES: "true"}}})
        await simulation.run(seconds=15)
        assert await label_of(simulation) is None, "nor does it keep one that somebody else put there"
        await simulation.end()


@simulated()
async def test_a_standby_is_not_even_started_where_it_could_not_be_frozen(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        simulation.process("agent", agent_of(made, WHY))
        await simulation.run(seconds=3)
        await create(simulation, annotated("standby", frozen="true", group="g"))
        await create(simulation, annotated("active", group="g"))
        await simulation.run(seconds=10)

        assert await names(made) == {"active"}
        assert {name for _, name in made.started} == {"main"}
        assert sum(made.started.values()) == 1
        found = await simulation.client.get(PODS, "standby", "default")
        assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "CannotFreeze")
        assert (frozen_condition(found)["status"], frozen_condition(found)["reason"]) == ("False", "CannotFreeze")
        assert WHY in frozen_condition(found)["message"]
        await simulation.end()


@simulated()
async def test_a_standby_that_could_not_be_paused_is_killed_and_the_node_loses_its_label(
    simulation: Simulation,
) -> None:
    async with machine(simulation) as made:
        simulation.process("agent", agent_of(made))
        await simulation.run(seconds=3)
        tried = unable(made)
        await create(simulation, annotated("active", group="g"))
        await create(simulation, annotated("standby", frozen="true", group="g"))
        await simulation.run(seconds=5)

        assert len(tried) == 1
        assert await names(made) == {"active"}
        found = await simulation.client.get(PODS, "standby", "default")
        assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "CannotFreeze")
        assert await label_of(simulation) is None
        told = {one["reason"] for one in (await simulation.client.list(EVENTS, "default")).items}
        assert {"PauseFailed", "CannotFreeze"} <= told

        await create(simulation, annotated("next", frozen="true", group="g"))
        await simulation.run(seconds=5)
        assert len(tried) == 1, "now it is known without trying"
        assert await names(made) == {"active"}
        await simulation.end()


@simulated()
async def test_one_that_is_to_be_paused_later_and_cannot_be_is_killed_too(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        simulation.process("agent", agent_of(made))
        await create(simulation, annotated("member", group="g"))
        await create(simulation, annotated("alone"))
        await simulation.run(seconds=5)
        unable(made)
        for name in ("member", "alone"):
            await simulation.client.patch(PODS, name, {"metadata": {"annotations": {PAUSED: "true"}}}, "default")
        await simulation.run(seconds=10)

        assert await names(made) == {"alone"}, "who is in no group harms nobody, and is only told about"
        await simulation.end()


@simulated()
async def test_a_container_that_stands_by_in_a_pod_waits_until_it_leads(simulation: Simulation) -> None:
    async with machine(simulation) as made:
        simulation.process("agent", agent_of(made))
        await simulation.run(seconds=3)
        unable(made)
        both = [{"name": name, "image": "app:1", "command": ["sleep", "inf"]} for name in ("first", "second")]
        several = pod("several", containers=both)
        several["metadata"]["annotations"] = {"node.fleetplane.io/one-active": "first,second"}
        await create(simulation, several)
        await simulation.run(seconds=60)

        assert [one.name for one in await made.running()] == ["first"]
        found = await simulation.client.get(PODS, "several", "default")
        (waiting,) = [one["state"] for one in found["status"]["containerStatuses"] if one["name"] == "second"]
        assert waiting["waiting"]["reason"] == "CannotFreeze"
        assert made.started[objects.uid(found), "second"] <= 1
        await simulation.end()


@pytest.mark.parametrize(
    ("there", "root_user", "can"),
    [
        (("cgroup.controllers",), False, True),
        (("freezer/", "memory/"), True, True),
        (("freezer/", "memory/"), False, False),
        (("memory/",), True, False),
        ((), True, False),
    ],
)
def test_whether_a_machine_freezes(tmp_path: Path, there: tuple[str, ...], root_user: bool, can: bool) -> None:
    for one in there:
        if one.endswith("/"):
            (tmp_path / one).mkdir()
        else:
            (tmp_path / one).write_text("")

    assert (freezer.why_not(root_user=root_user, root=tmp_path) == "") is can
