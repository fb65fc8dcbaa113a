from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.workloads.made import template
from tests.workloads.stage import Object, Stage, play

from fleetplane.model.builtin.types import DAEMON_SETS, NODES


def agent(**spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template("agent:1", app="agent"), **spec},
    }


def is_rolled_out(stage: Stage, nodes: int) -> bool:
    found = stage.one(DAEMON_SETS, "agent")
    status = found.get("status") or {}
    return (
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedNumberScheduled", 0) == status.get("numberAvailable", 0) == nodes
    )


@pytest.mark.parametrize("seed", range(4))
def test_nodes_come_and_go_and_the_image_changes_in_spite_of_faults(seed):
    async def story(stage: Stage) -> None:
        await stage.create(DAEMON_SETS, agent())
        await stage.until(lambda: is_rolled_out(stage, 3))
        await stage.node("late")
        image = {"spec": {"template": template("agent:2", app="agent")}}
        await stage.client.patch(DAEMON_SETS, "agent", image, "default")
        await asyncio.sleep(stage.environment.random.random() * 5)
        await stage.crash()
        await stage.start()
        await stage.until(lambda: is_rolled_out(stage, 4))
        await stage.client.delete(NODES, "node-0")
        await stage.until(lambda: is_rolled_out(stage, 3))
        stage.transport.rate = 0
        await stage.quiet()
        found = stage.pods()
        assert sorted(one["spec"]["nodeName"] for one in found) == ["late", "node-1", "node-2"]
        assert {one["spec"]["containers"][0]["image"] for one in found} == {"agent:2"}

    play(story, seed=seed, faults=0.15)


def test_a_settled_set_writes_nothing():
    async def story(stage: Stage) -> None:
        await stage.create(DAEMON_SETS, agent())
        await stage.until(lambda: is_rolled_out(stage, 3))
        await stage.quiet()
        before = stage.write_count()
        await stage.crash()
        await stage.start()
        await asyncio.sleep(3600)
        assert stage.write_count() == before

    play(story)
