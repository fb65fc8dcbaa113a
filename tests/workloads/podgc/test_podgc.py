from __future__ import annotations

import asyncio

from tests.workloads.stage import Object, Stage, play

from fleetplane.model.builtin.types import NODES, PODS


def pod(name: str, node: str = "", **meta: object) -> Object:
    spec: Object = {"containers": [{"name": "c", "image": "i"}], "tolerations": [{"operator": "Exists"}]}
    if node:
        spec["nodeName"] = node
    return {"metadata": {"name": name, "namespace": "default", **meta}, "spec": spec}


def names(stage: Stage) -> list[str]:
    return sorted(one["metadata"]["name"] for one in stage.pods())


def test_pods_of_a_node_that_is_gone_go_after_a_while_and_say_why():
    async def story(stage: Stage) -> None:
        await stage.create(PODS, pod("lost", "node-0", finalizers=["example.com/look"]))
        await stage.create(PODS, pod("kept", "node-1"))
        await asyncio.sleep(5)
        await stage.client.delete(NODES, "node-0")
        await asyncio.sleep(30)
        assert names(stage) == ["kept", "lost"]
        await stage.until(lambda: names(stage) == ["kept"], seconds=60)
        found = stage.one(PODS, "lost")["status"]
        assert found["phase"] == "Failed"
        assert [one["reason"] for one in found["conditions"] if one["type"] == "DisruptionTarget"] == [
            "DeletionByPodGC"
        ]

    play(story)


def test_a_node_that_comes_back_keeps_its_pods():
    async def story(stage: Stage) -> None:
        await stage.create(PODS, pod("kept", "node-0"))
        await asyncio.sleep(5)
        await stage.client.delete(NODES, "node-0")
        await asyncio.sleep(30)
        await stage.node("node-0")
        await asyncio.sleep(120)
        assert names(stage) == ["kept"]

    play(story)
