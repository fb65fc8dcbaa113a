from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.workloads.made import NOW, Object, later
from tests.workloads.stage import Stage, play

from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.environment import timestamp
from fleetplane.workloads.nodes import health
from fleetplane.workloads.nodes.eviction import leaves_at


def node(ready: str | None = "True", *taints: Object, **conditions: str) -> Object:
    found = [{"type": kind, "status": status} for kind, status in conditions.items()]
    if ready is not None:
        found.append({"type": "Ready", "status": ready})
    return {"metadata": {"name": "n"}, "spec": {"taints": list(taints)}, "status": {"conditions": found}}


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (node("True"), []),
        (node("False"), [("not-ready", "NoSchedule"), ("not-ready", "NoExecute")]),
        (node("Unknown"), [("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]),
        (node(None), [("not-ready", "NoSchedule")]),
        (node("True", MemoryPressure="True", DiskPressure="False"), [("memory-pressure", "NoSchedule")]),
    ],
)
def test_taints_follow_conditions(of, expected):
    found = [(one["key"].removeprefix("node.kubernetes.io/"), one["effect"]) for one in health.taints(of, NOW)]
    assert found == expected


def test_taints_of_others_stay_and_ours_go_with_their_reason():
    mine = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}
    stale = {"key": health.NOT_READY, "effect": "NoSchedule"}
    assert health.taints(node("True", mine, stale), NOW) == [mine]


def test_a_cordoned_node_is_tainted():
    one = node()
    one["spec"]["unschedulable"] = True
    assert [taint["key"] for taint in health.taints(one, NOW)] == [health.UNSCHEDULABLE]


def test_silence_turns_every_condition_unknown():
    found = health.silence(node("True", MemoryPressure="False"), NOW)
    assert found.became_unknown
    reasons = {one["type"]: (one["status"], one["reason"]) for one in found.conditions}
    assert reasons["Ready"] == ("Unknown", "NodeStatusUnknown")
    assert reasons["DiskPressure"] == ("Unknown", "NodeStatusNeverUpdated")


TAINT = {"key": "k", "value": "v", "effect": "NoExecute", "timeAdded": timestamp(NOW)}


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], later(5)),
        ([{"key": "k", "operator": "Exists", "effect": "NoExecute"}], None),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": 30}], later(30)),
        (
            [
                {"key": "k", "operator": "Exists", "tolerationSeconds": 30},
                {"operator": "Exists", "tolerationSeconds": 10},
            ],
            later(10),
        ),
        ([{"key": "other", "operator": "Exists"}], later(5)),
    ],
)
def test_when_a_pod_has_to_leave(tolerations, expected):
    assert (
        leaves_at({"spec": {"tolerations": tolerations}}, node("True", TAINT), NOW + timedelta(seconds=5)) == expected
    )


def pod(name: str, on: str, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": on, "containers": [{"name": "c", "image": "i"}], **spec},
    }


def keys(stage: Stage, name: str) -> set[tuple[str, str]]:
    return {(one["key"], one["effect"]) for one in stage.one(NODES, name)["spec"].get("taints") or []}


def test_a_silent_node_loses_its_pods_after_their_tolerance_and_comes_back_clean():
    async def story(stage: Stage) -> None:
        patient = {"tolerations": [{"key": health.UNREACHABLE, "operator": "Exists", "tolerationSeconds": 300}]}
        await stage.create(PODS, pod("patient", "node-0", **patient))
        await stage.create(PODS, pod("loyal", "node-0", tolerations=[{"operator": "Exists"}]))
        await asyncio.sleep(600)
        assert keys(stage, "node-0") == set()

        stage.silent.add("node-0")
        await stage.until(lambda: (health.UNREACHABLE, "NoExecute") in keys(stage, "node-0"), seconds=70)
        assert keys(stage, "node-1") == set()
        await asyncio.sleep(5)
        ready = next(one for one in stage.one(PODS, "loyal")["status"]["conditions"] if one["type"] == "Ready")
        assert ready["status"] == "False"
        await asyncio.sleep(280)
        assert len(stage.pods()) == 2
        await stage.until(lambda: [one["metadata"]["name"] for one in stage.pods()] == ["loyal"], seconds=30)

        status = {
            "status": {
                "conditions": [
                    {"type": "Ready", "status": "True", "lastHeartbeatTime": timestamp(stage.environment.now())}
                ]
            }
        }
        await stage.client.patch(NODES, "node-0", status, subresource="status")
        await stage.until(lambda: keys(stage, "node-0") == set(), seconds=10)

    play(story)


def test_a_new_node_is_opened_when_it_is_ready():
    async def story(stage: Stage) -> None:
        new = {"metadata": {"name": "late"}, "spec": {"taints": [{"key": health.NOT_READY, "effect": "NoSchedule"}]}}
        await stage.create(NODES, new)
        await asyncio.sleep(10)
        assert keys(stage, "late") == {(health.NOT_READY, "NoSchedule")}
        status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await stage.client.patch(NODES, "late", status, subresource="status")
        await stage.until(lambda: keys(stage, "late") == set(), seconds=5)

    play(story)


def test_when_every_node_is_silent_nobody_is_evicted():
    async def story(stage: Stage) -> None:
        await stage.create(PODS, pod("any", "node-0"))
        await asyncio.sleep(60)
        stage.silent |= {"node-0", "node-1", "node-2"}
        await asyncio.sleep(900)
        assert [one["metadata"]["name"] for one in stage.pods()] == ["any"]
        assert keys(stage, "node-0") == {(health.UNREACHABLE, "NoSchedule")}

    play(story)
