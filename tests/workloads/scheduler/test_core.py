from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.workloads.scheduler import filters
from fleetplane.workloads.scheduler.core import Bind, Core, Refused
from fleetplane.workloads.scheduler.filters import Refusal
from fleetplane.workloads.scheduler.plugins import Plugins
from fleetplane.workloads.scheduler.shape import pod_requests

Object = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def node(name: str, cpu: str = "4", pods: int = 110, labels: Object | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "labels": {HOST: name, **(labels or {})}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": str(pods)}},
    }


def pod(name: str, cpu: str = "100m", labels: Object | None = None, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels or {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}], **spec},
        "status": {},
    }


class Plane:
    def __init__(self, *nodes: Object, plugins: Plugins | None = None) -> None:
        self.core = Core(plugins)
        self.now = 0.0
        for one in nodes:
            self.core.see_node("root", one)
        self.placed: dict[str, str] = {}
        self.refused: dict[str, Refused] = {}
        self.objects: dict[str, Object] = {}

    def add(self, *pods: Object) -> Plane:
        for one in pods:
            self.objects[one["metadata"]["uid"]] = one
            self.core.see_pod("root", orjson.dumps(one), self.now)
        return self

    def run(self) -> Plane:
        while (decision := self.core.next(self.now)) is not None:
            uid = decision.entry.pod.uid
            if isinstance(decision, Bind):
                self.placed[uid] = decision.node
                self.objects[uid]["spec"]["nodeName"] = decision.node
                self.core.bound(decision.entry)
                self.core.see_pod("root", orjson.dumps(self.objects[uid]), self.now)
            else:
                self.refused[uid] = decision
        return self

    def delete(self, uid: str) -> None:
        self.core.lose_pod("root", uid)
        self.placed.pop(uid, None)

    def message(self, uid: str) -> str:
        return self.refused[uid].message


def test_a_pod_goes_to_a_node_with_room():
    plane = Plane(node("full", cpu="1"), node("free", cpu="4")).add(pod("a", cpu="2")).run()
    assert plane.placed == {"a": "free"}


def test_siblings_spread_over_nodes():
    owner = {"ownerReferences": [{"uid": "rs", "controller": True, "kind": "ReplicaSet", "name": "rs"}]}
    pods = [pod(f"p{n}") for n in range(6)]
    for one in pods:
        one["metadata"] |= owner
    plane = Plane(node("a"), node("b"), node("c")).add(*pods).run()
    assert sorted(plane.placed.values()) == ["a", "a", "b", "b", "c", "c"]


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from(["500m", "1", "2"]), st.sampled_from([0, 80]), st.booleans()), max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_no_node_is_ever_given_more_than_it_has_and_nothing_that_fits_is_refused(sizes, wanted):
    plane = Plane(*(node(f"n{i}", cpu=str(size), pods=5) for i, size in enumerate(sizes)))
    for index, (cpu, port, apart) in enumerate(wanted):
        one = pod(f"p{index}", cpu=cpu)
        if port:
            one["spec"]["containers"][0]["ports"] = [{"hostPort": port, "containerPort": port}]
        if apart:
            one["spec"]["affinity"] = anti(HOST)
        plane.add(one)
    plane.run()
    cluster = plane.core.clusters["root"]
    for each in cluster.nodes.values():
        assert each.requested.get("cpu", 0) <= each.allocatable["cpu"]
        assert len(each.pods) <= 5
        assert all(count == 1 for count in each.ports.values())
    for refused in plane.refused.values():
        shape = refused.entry.pod.shape
        if shape.is_local and not cluster.anti_shapes:
            assert all(filters.refuse(shape, each, cluster) is not None for each in cluster.nodes.values())


def anti(key: str) -> Object:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_refusals_are_counted_in_kubernetes_words():
    tainted = node("t", taints=[{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}])
    plane = Plane(tainted, node("small", cpu="1"), node("tiny", cpu="1"), node("off", unschedulable=True))
    plane.add(pod("a", cpu="2")).run()
    assert plane.message("a") == (
        "0/4 nodes are available: 1 node(s) had untolerated taint {dedicated: gpu}, 1 node(s) were unschedulable, "
        "2 Insufficient cpu. preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
    )


def test_without_nodes_the_message_says_so_and_the_first_node_helps():
    plane = Plane().add(pod("a")).run()
    assert plane.message("a") == "no nodes available to schedule pods"
    plane.now = 20
    plane.core.see_node("root", node("n"))
    assert plane.run().placed == {"a": "n"}


def test_a_refused_pod_is_tried_again_when_room_appears_and_not_before():
    plane = Plane(node("n", cpu="1")).add(pod("first", cpu="1")).run()
    plane.add(pod("second", cpu="1")).run()
    plane.now = 60
    assert plane.core.next(plane.now) is None
    plane.core.see_node("root", node("useless", cpu="500m"))
    assert plane.core.next(plane.now) is None, "the new node is too small to help"
    plane.delete("first")
    assert plane.run().placed == {"second": "n"}


def test_a_retry_waits_for_its_back_off():
    plane = Plane(node("n", cpu="1")).add(pod("big", cpu="2")).run()
    plane.core.see_node("root", node("m", cpu="2"))
    assert plane.core.next(0.5) is None
    assert plane.core.next_due(0.5) == 0.5
    assert isinstance(plane.core.next(1.0), Bind)


def test_a_failed_binding_gives_the_place_back():
    plane = Plane(node("n", cpu="1")).add(pod("a", cpu="1"))
    decision = plane.core.next(0)
    assert isinstance(decision, Bind)
    plane.core.binding_failed(decision.entry, 0)
    assert plane.core.clusters["root"].nodes["n"].requested == {"cpu": 0}
    plane.now = 2
    assert plane.run().placed == {"a": "n"}


def test_the_important_pod_goes_first():
    plane = Plane(node("n", cpu="1"))
    plane.add(pod("low", cpu="1", priority=0), pod("high", cpu="1", priority=10)).run()
    assert list(plane.placed) == ["high"]


@pytest.mark.parametrize("spec", [{"schedulerName": "mine"}, {"schedulingGates": [{"name": "wait"}]}])
def test_pods_of_others_and_gated_pods_are_left_alone(spec):
    assert Plane(node("n")).add(pod("a", **spec)).run().placed == {}


def test_a_toleration_opens_a_tainted_node():
    tainted = node("t", taints=[{"key": "k", "value": "v", "effect": "NoExecute"}])
    tolerant = pod("a", tolerations=[{"key": "k", "operator": "Exists"}])
    assert Plane(tainted).add(tolerant).run().placed == {"a": "t"}


def test_node_affinity_and_selector_choose():
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    nodes = node("a", labels={"disk": "hdd"}), node("b", labels={"disk": "ssd"})
    plane = Plane(*nodes).add(pod("x", affinity=affinity), pod("y", nodeSelector={"disk": "hdd"})).run()
    assert plane.placed == {"x": "b", "y": "a"}


def test_preferred_affinity_wins_over_emptiness():
    preferred = [{"weight": 10, "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]}}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    plane = Plane(node("a", cpu="8"), node("b", labels={"fast": ""})).add(pod("x", affinity=affinity)).run()
    assert plane.placed == {"x": "b"}


def test_a_daemon_pod_goes_to_its_node_only():
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    assert Plane(node("a"), node("b")).add(pod("x", affinity=affinity)).run().placed == {"x": "b"}


def test_host_ports_do_not_clash():
    def with_port(name: str) -> Object:
        one = pod(name)
        one["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 80}]
        return one

    plane = Plane(node("n")).add(with_port("a"), with_port("b")).run()
    assert list(plane.placed) == ["a"]
    assert "1 node(s) didn't have free ports for the requested pod ports" in plane.message("b")


def test_pods_that_avoid_each_other_get_a_host_each():
    pods = [pod(f"p{n}", affinity=anti(HOST)) for n in range(3)]
    plane = Plane(node("a"), node("b")).add(*pods).run()
    assert sorted(plane.placed.values()) == ["a", "b"]
    assert "2 node(s) didn't match pod anti-affinity rules" in plane.message("p2")


def test_existing_pods_keep_others_away():
    plane = Plane(node("a")).add(pod("loner", affinity=anti(HOST))).run()
    plane.add(pod("late")).run()
    assert "1 node(s) didn't satisfy existing pods anti-affinity rules" in plane.message("late")
    plane.now = 30
    plane.delete("loner")
    assert plane.run().placed == {"late": "a"}


def test_pods_that_want_company_follow_it_and_the_first_may_start_alone():
    term = {"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "web"}}}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    nodes = [node(f"{zone}{n}", cpu="1", labels={ZONE: zone}) for zone in "xy" for n in range(2)]
    plane = Plane(*nodes).add(*(pod(f"p{n}", cpu="600m", affinity=affinity) for n in range(2))).run()
    assert len({name[0] for name in plane.placed.values()}) == 1
    lonely = {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {**term, "labelSelector": {"matchLabels": {"app": "db"}}}
            ]
        }
    }
    plane.add(pod("q", affinity=lonely)).run()
    assert "4 node(s) didn't match pod affinity rules" in plane.message("q")


@given(st.integers(1, 3), st.integers(1, 14))
@settings(max_examples=50, deadline=None)
def test_a_hard_spread_never_exceeds_its_skew(skew, count):
    rule = {
        "topologyKey": ZONE,
        "maxSkew": skew,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    nodes = [node(f"{zone}{n}", labels={ZONE: zone}) for zone in "xyz" for n in range(2)]
    plane = Plane(*nodes).add(*(pod(f"p{n}", topologySpreadConstraints=[rule]) for n in range(count))).run()
    per_zone = [sum(name[0] == zone for name in plane.placed.values()) for zone in "xyz"]
    assert sum(per_zone) == count
    assert max(per_zone) - min(per_zone) <= skew


def test_preemption_evicts_the_least_and_keeps_the_room():
    plane = Plane(node("a", cpu="2"), node("b", cpu="2"))
    plane.add(*(pod(f"low{n}", cpu="1", priority=n) for n in range(4))).run()
    plane.add(pod("high", cpu="1", priority=100)).run()

    refused = plane.refused["high"]
    assert [victim.name for victim in refused.victims] == ["low0"]
    assert refused.node == plane.placed["low0"]

    plane.add(pod("sneaky", cpu="1", priority=0)).run()
    plane.now = 60
    plane.delete("low0")
    plane.run()
    assert plane.placed["high"] == refused.node
    assert "sneaky" not in plane.placed


def test_a_polite_pod_never_preempts():
    plane = Plane(node("a", cpu="1")).add(pod("low", cpu="1")).run()
    plane.add(pod("high", cpu="1", priority=5, preemptionPolicy="Never")).run()
    assert plane.refused["high"].victims == ()
    assert plane.message("high").endswith(
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )


def test_preemption_names_what_it_could_not_do():
    plane = Plane(node("a", cpu="1")).add(pod("same", cpu="1", priority=5)).run()
    plane.add(pod("other", cpu="1", priority=5)).run()
    assert plane.message("other") == (
        "0/1 nodes are available: 1 Insufficient cpu. "
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


class _OnlyEven:
    is_local = True

    def concerns(self, shape):
        return True

    def refuse(self, pod, node, cluster):
        return None if int(node.name[1:]) % 2 == 0 else Refusal("Even", ("node(s) were odd",))


def test_a_plug_in_refuses_nodes_of_its_own_accord():
    plane = Plane(*(node(f"n{n}") for n in range(4)), plugins=Plugins.of([_OnlyEven()]))
    plane.add(*(pod(f"p{n}") for n in range(4))).run()
    assert set(plane.placed.values()) == {"n0", "n2"}


@pytest.mark.parametrize("missing", ["concerns", "is_local", "refuse"])
def test_a_plug_in_that_would_never_be_asked_is_refused(missing):
    members = {name: one for name, one in vars(_OnlyEven).items() if name != missing and not name.startswith("__")}
    with pytest.raises(TypeError, match=f"plug-in Odd lacks .*{missing}"):
        Plugins.of([type("Odd", (), members)()])


class _Willing:
    """Takes pods only on nodes that say so in an annotation."""

    is_local = True

    def concerns(self, shape):
        return True

    def refuse(self, pod, node, cluster):
        return None if node.annotations.get("willing") else Refusal("Willing", ("node(s) were unwilling",))


def test_a_plug_in_is_asked_again_when_a_nodes_annotations_change():
    plane = Plane(node("n"), plugins=Plugins.of([_Willing()])).add(pod("a")).run()
    assert "1 node(s) were unwilling" in plane.message("a")
    plane.now = 20
    changed = node("n")
    changed["metadata"]["annotations"] = {"willing": "yes"}
    plane.core.see_node("root", changed)
    assert plane.run().placed == {"a": "n"}


def test_clusters_never_lend_each_other_nodes():
    plane = Plane(node("n"))
    plane.core.see_pod("other", orjson.dumps(pod("a")), 0)
    decision = plane.core.next(0)
    assert isinstance(decision, Refused)


@pytest.mark.parametrize(
    ("spec", "milli_cpu"),
    [
        (
            {
                "containers": [{"resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"resources": {"requests": {"cpu": "3"}}}],
            },
            3000,
        ),
        (
            {
                "containers": [{"resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "3"}}}],
            },
            4000,
        ),
        ({"containers": [{"resources": {"requests": {"cpu": "1"}}}], "overhead": {"cpu": "250m"}}, 1250),
        ({"containers": [{"resources": {"requests": {"cpu": "1"}}}], "resources": {"requests": {"cpu": "5"}}}, 5000),
    ],
)
def test_what_a_pod_needs_at_its_largest_moment(spec, milli_cpu):
    assert pod_requests(spec)["cpu"] == milli_cpu
