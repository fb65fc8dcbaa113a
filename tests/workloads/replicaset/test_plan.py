from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workloads import made as objects
from tests.workloads.made import NOW, later, replica_set

from fleetplane.workloads.replicaset.plan import Failure, plan, recheck_after, status
from fleetplane.workloads.shared import pods as podlib
from fleetplane.workloads.shared.pods import Pod


def pod(*args, **kwargs):
    return Pod.of(objects.pod(*args, **kwargs))


PODS = st.lists(
    st.builds(
        dict,
        phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        ready=st.booleans(),
        deleting=st.booleans(),
        node=st.sampled_from(["", "n1", "n2"]),
        restarts=st.integers(0, 3),
    ),
    max_size=12,
)


@given(PODS, st.integers(0, 10))
@settings(max_examples=200, deadline=None)
def test_a_pass_brings_the_active_pods_exactly_to_the_wanted_number(made, wanted):
    owned = [pod(f"p{index}", **one) for index, one in enumerate(made)]
    active = {one.name for one in owned if one.is_active}

    decided = plan(replica_set(replicas=wanted), owned, owned, NOW)

    gone = {one.name for one in decided.delete}
    assert gone <= active
    assert len(active) - len(gone) + decided.create == wanted
    assert not (decided.create and decided.delete)


@given(PODS)
@settings(max_examples=100, deadline=None)
def test_ready_pods_go_after_all_others(made):
    owned = [pod(f"p{index}", **one) for index, one in enumerate(made)]
    active = [one for one in owned if one.is_active and one.node]
    going = podlib.choose_for_deletion(active, len(active) // 2, active, NOW)
    staying = [one for one in active if one not in going]
    running = [one for one in going if one.phase == "Running" and one.ready]
    if running:
        assert all(one.ready and one.phase == "Running" for one in staying)


def test_the_cheapest_pod_goes_first():
    dear = pod("a", annotations={podlib.DELETION_COST: "10"})
    cheap = pod("b", annotations={podlib.DELETION_COST: "-5"})
    assert plan(replica_set(replicas=1), [dear, cheap], [], NOW).delete == (cheap,)


def test_pods_doubled_up_on_a_node_go_before_lonely_ones():
    crowd = [pod("a", node="n1"), pod("b", node="n1")]
    lonely = pod("c", node="n2")
    (gone,) = plan(replica_set(replicas=2), [lonely, *crowd], [lonely, *crowd], NOW).delete
    assert gone in crowd


def test_an_owner_being_deleted_touches_nothing():
    owner = replica_set()
    owner["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert plan(owner, [], [], NOW).create == 0


def test_a_ready_pod_counts_as_available_only_after_min_ready_seconds():
    owner = replica_set(minReadySeconds=30)
    owned = [pod("a", ready_at=NOW)]
    early = status(owner, owned, None, later(10))
    assert (early["readyReplicas"], early.get("availableReplicas", 0)) == (1, 0)
    assert recheck_after(owner, owned, later(10)) == 20
    assert status(owner, owned, None, later(30))["availableReplicas"] == 1


def test_a_status_computed_twice_is_the_same():
    owner = replica_set()
    owned = [pod("a"), pod("b", ready=False)]
    owner["status"] = status(owner, owned, Failure("FailedCreate", "exceeded quota"), NOW)
    assert status(owner, owned, Failure("FailedCreate", "exceeded quota, again"), later(60)) == owner["status"]
    assert "conditions" not in status(owner, owned, None, later(60))
