from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workloads import made
from tests.workloads.made import NOW, Object

from fleetplane.workloads.shared.pods import Pod
from fleetplane.workloads.statefulset.plan import Plan, Revisions, plan


def stateful_set(replicas: int = 3, **spec: Any) -> Object:
    return {
        "metadata": {"name": "db", "namespace": "default", "uid": "db", "generation": 1},
        "spec": {"replicas": replicas, "serviceName": "db", "template": made.template("db:1"), **spec},
        "status": {},
    }


class World:
    """``pods``: ordinal -> [revision, ready, terminating]."""

    def __init__(self, replicas: int = 3, **spec: Any) -> None:
        self.set = stateful_set(replicas, **spec)
        self.current = self.update = "v1"
        self.pods: dict[int, Object] = {}

    def decide(self) -> Plan:
        current = self.set["status"].get("currentRevision") or self.update
        result = plan(self.set, [Pod.of(one) for one in self.pods.values()], Revisions(current, self.update), NOW)
        for pod in result.delete:
            self.pods[int(pod.name.rpartition("-")[2])]["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
        for new in result.create:
            assert new.ordinal not in self.pods
            self.pods[new.ordinal] = made.pod(
                f"db-{new.ordinal}", ready=False, labels={"controller-revision-hash": new.revision}
            )
        self.set["status"] = result.status
        return result

    def ready(self, ordinal: int, ready: bool = True) -> None:
        if ordinal in self.pods:
            self.pods[ordinal]["status"]["conditions"][0]["status"] = str(ready)

    def reap(self, ordinal: int) -> None:
        if self.pods.get(ordinal, {"metadata": {}})["metadata"].get("deletionTimestamp"):
            del self.pods[ordinal]

    def settle(self) -> None:
        for _ in range(100):
            result = self.decide()
            before = len(self.pods)
            for ordinal in list(self.pods):
                self.reap(ordinal)
                self.ready(ordinal)
            idle = not result.create and not result.delete and before == len(self.pods)
            if idle and self.set["status"].get("readyReplicas", 0) == len(self.pods):
                return
        raise AssertionError("it never settled")

    def revisions(self) -> dict[int, str]:
        return {
            ordinal: one["metadata"]["labels"]["controller-revision-hash"] for ordinal, one in sorted(self.pods.items())
        }

    def healthy(self) -> set[int]:
        return {
            ordinal
            for ordinal, one in self.pods.items()
            if one["status"]["conditions"][0]["status"] == "True" and not one["metadata"].get("deletionTimestamp")
        }


MOVES = st.lists(
    st.tuples(st.sampled_from(["decide", "ready", "reap", "unready", "scale", "roll"]), st.integers(0, 6)), max_size=80
)


@given(MOVES, st.booleans())
@settings(max_examples=200, deadline=None)
def test_ordered_pods_come_and_go_one_by_one_whatever_happens(moves, parallel):
    world = World(replicas=3, **({"podManagementPolicy": "Parallel"} if parallel else {}))
    version = 1
    for kind, number in moves:
        match kind:
            case "decide":
                healthy, before = world.healthy(), set(world.pods)
                wanted = set(range(world.set["spec"]["replicas"]))
                result = world.decide()
                if not parallel:
                    assert len(result.create) + len(result.delete) <= 1
                    for new in result.create:
                        assert set(range(new.ordinal)) <= healthy, "all before it are ready"
                    for pod in result.delete:
                        if int(pod.name[3:]) not in wanted:
                            assert int(pod.name[3:]) == max(before)
            case "ready":
                world.ready(number)
            case "unready":
                world.ready(number, ready=False)
            case "reap":
                world.reap(number)
            case "scale":
                world.set["spec"]["replicas"] = number
            case "roll":
                version += 1
                world.update = f"v{version}"
    world.settle()
    assert world.revisions() == dict.fromkeys(range(world.set["spec"]["replicas"]), world.update)


def test_an_update_goes_down_to_the_partition_and_no_further():
    world = World(replicas=4, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}})
    world.settle()
    world.update = "v2"
    world.settle()
    assert world.revisions() == {0: "v1", 1: "v1", 2: "v2", 3: "v2"}
    assert world.set["status"]["currentRevision"] == "v1"
    assert (world.set["status"]["currentReplicas"], world.set["status"]["updatedReplicas"]) == (2, 2)
    del world.pods[0]
    world.settle()
    assert world.revisions()[0] == "v1", "below the partition a lost pod comes back as it was"


def test_on_delete_waits_for_the_user():
    world = World(updateStrategy={"type": "OnDelete"})
    world.settle()
    world.update = "v2"
    world.settle()
    assert set(world.revisions().values()) == {"v1"}
    del world.pods[1]
    world.settle()
    assert world.revisions() == {0: "v1", 1: "v2", 2: "v1"}


def test_several_may_be_missing_where_the_strategy_allows():
    world = World(
        replicas=5,
        podManagementPolicy="Parallel",
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}},
    )
    world.settle()
    world.update = "v2"
    assert [pod.name for pod in world.decide().delete] == ["db-4", "db-3"]
    assert world.decide().delete == []


def test_a_failed_pod_is_replaced_under_its_name():
    world = World(replicas=1)
    world.settle()
    world.pods[0]["status"]["phase"] = "Failed"
    result = world.decide()
    assert [pod.name for pod in result.restart] == ["db-0"]
    world.settle()
    assert set(world.pods) == {0}


def test_ordinals_may_start_anywhere():
    world = World(replicas=2, ordinals={"start": 5})
    world.settle()
    assert sorted(world.pods) == [5, 6]


def test_a_finished_roll_out_makes_the_new_revision_current():
    world = World()
    world.settle()
    world.update = "v2"
    world.settle()
    world.decide()
    status = world.set["status"]
    assert (status["currentRevision"], status["updateRevision"], status["currentReplicas"]) == ("v2", "v2", 3)
    assert plan(world.set, [Pod.of(one) for one in world.pods.values()], Revisions("v2", "v2"), NOW).status == status
