from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workloads import made
from tests.workloads.made import Object, later

from fleetplane.workloads.daemonset.placement import Verdict, for_node, judge, target_node, with_tolerations
from fleetplane.workloads.daemonset.plan import Plan, View, fenceposts, plan, status
from fleetplane.workloads.shared.pods import Pod


def daemon_set(**spec: Any) -> Object:
    return {
        "metadata": {"name": "agent", "namespace": "default", "generation": 1},
        "spec": {"template": made.template(), **spec},
    }


class World:
    def __init__(self, nodes: int, **spec: Any) -> None:
        self.set = daemon_set(**spec)
        self.verdicts = {f"n{number}": Verdict(True, True) for number in range(nodes)}
        self.pods: dict[str, Object] = {}
        self.revision = "v1"
        self.count = 0

    def view(self) -> View:
        found: dict[str, list[Pod]] = {}
        for one in self.pods.values():
            pod = Pod.of(one)
            found.setdefault(pod.node, []).append(pod)
        return View(self.verdicts, found, self.revision)

    def decide(self) -> Plan:
        result = plan(self.set, self.view(), later(self.count))
        for pod in result.delete:
            self.pods[pod.name]["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
        for node in result.create:
            self.add(node)
        return result

    def add(self, node: str, **extra: Any) -> str:
        self.count += 1
        name = f"p{self.count:04}"
        labels = {"controller-revision-hash": self.revision}
        self.pods[name] = made.pod(name, node=node, ready=False, labels=labels, created=later(self.count), **extra)
        return name

    def ready(self, name: str) -> None:
        self.pods[name]["status"]["conditions"][0]["status"] = "True"

    def reap(self) -> None:
        self.pods = {name: one for name, one in self.pods.items() if not one["metadata"].get("deletionTimestamp")}

    def settle(self) -> None:
        for _ in range(60):
            before = copy.deepcopy(self.pods)
            result = self.decide()
            self.reap()
            for name in self.pods:
                self.ready(name)
            if not result.create and not result.delete and before == self.pods:
                return
        raise AssertionError("it never settled")

    def serving(self) -> int:
        alive = [Pod.of(one) for one in self.pods.values()]
        return len({pod.node for pod in alive if pod.ready and not pod.deleting})


@given(
    st.integers(1, 8),
    st.lists(
        st.tuples(st.sampled_from(["decide", "ready", "reap", "taint", "clear", "double"]), st.integers(0, 9)),
        max_size=60,
    ),
)
@settings(max_examples=150, deadline=None)
def test_every_node_that_wants_one_gets_exactly_one(nodes, moves):
    world = World(nodes)
    for kind, number in moves:
        node = f"n{number % nodes}"
        match kind:
            case "decide":
                result = world.decide()
                assert len(set(result.create)) == len(result.create)
            case "ready" if world.pods:
                world.ready(sorted(world.pods)[number % len(world.pods)])
            case "reap":
                world.reap()
            case "taint":
                world.verdicts[node] = Verdict(False, bool(number % 2))
            case "clear":
                world.verdicts[node] = Verdict(True, True)
            case "double":
                world.add(node)
    world.settle()
    on = [Pod.of(one).node for one in world.pods.values()]
    assert len(on) == len(set(on))
    wanted = {node for node, verdict in world.verdicts.items() if verdict.should_run}
    allowed = {node for node, verdict in world.verdicts.items() if verdict.may_stay}
    assert wanted <= set(on) <= allowed


@given(
    st.integers(1, 10),
    st.one_of(st.integers(1, 4), st.sampled_from(["20%", "100%"])),
    st.lists(st.tuples(st.sampled_from(["decide", "ready", "reap"]), st.integers(0, 9)), max_size=80),
)
@settings(max_examples=150, deadline=None)
def test_an_update_never_takes_more_nodes_out_of_service_than_it_may(nodes, unavailable, moves):
    world = World(nodes, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable}})
    world.settle()
    world.revision = "v2"
    limit = fenceposts(world.set, world.view())[1]
    for kind, number in moves:
        if kind == "decide":
            world.decide()
        elif kind == "ready" and world.pods:
            world.ready(sorted(world.pods)[number % len(world.pods)])
        else:
            world.reap()
        assert world.serving() >= nodes - limit
    world.settle()
    assert {Pod.of(one).labels["controller-revision-hash"] for one in world.pods.values()} == {"v2"}


def test_a_surge_puts_the_new_pod_beside_the_old_until_it_serves():
    world = World(2, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    world.settle()
    world.revision = "v2"
    assert world.decide().create == ["n0"]
    assert world.decide().create == [], "one at a time"
    assert world.serving() == 2
    world.settle()
    assert len(world.pods) == 2


def test_on_delete_leaves_old_pods_alone():
    world = World(2, updateStrategy={"type": "OnDelete"})
    world.settle()
    world.revision = "v2"
    result = world.decide()
    assert (result.create, result.delete) == ([], [])


def test_a_failed_daemon_is_replaced():
    world = World(1)
    world.settle()
    (name,) = world.pods
    world.pods[name]["status"]["phase"] = "Failed"
    world.count += 5
    assert [pod.name for pod in world.decide().failed] == [name]
    world.settle()
    assert name not in world.pods
    assert len(world.pods) == 1


def test_status_counts_nodes():
    world = World(3)
    world.settle()
    world.verdicts["n2"] = Verdict(False, True)
    found = status(world.set, world.view(), later(100))
    assert found == {
        "observedGeneration": 1,
        "currentNumberScheduled": 2,
        "numberMisscheduled": 1,
        "desiredNumberScheduled": 2,
        "numberReady": 2,
        "updatedNumberScheduled": 2,
        "numberAvailable": 2,
    }


def node(name: str = "n", labels: Object | None = None, *taints: Object) -> Object:
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"taints": list(taints)}}


@pytest.mark.parametrize(
    ("spec", "on", "verdict"),
    [
        ({}, node(), Verdict(True, True)),
        ({"nodeSelector": {"disk": "ssd"}}, node(), Verdict(False, False)),
        ({"nodeName": "other"}, node(), Verdict(False, False)),
        ({}, node("n", {}, {"key": "k", "effect": "NoSchedule"}), Verdict(False, True)),
        ({}, node("n", {}, {"key": "k", "effect": "NoExecute"}), Verdict(False, False)),
        ({}, node("n", {}, {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}), Verdict(True, True)),
        ({}, node("n", {}, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}), Verdict(True, True)),
        (
            {},
            node("n", {}, {"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}),
            Verdict(False, True),
        ),
        (
            {"hostNetwork": True},
            node("n", {}, {"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}),
            Verdict(True, True),
        ),
    ],
)
def test_where_a_daemon_should_run_and_where_it_may_stay(spec, on, verdict):
    assert judge(with_tolerations(spec), on) == verdict


def test_a_pod_is_made_for_its_node():
    assert target_node({"spec": for_node({}, "n7")}) == "n7"
