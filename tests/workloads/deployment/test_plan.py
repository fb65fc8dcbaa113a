from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workloads.deployment.world import World

from fleetplane.workloads.deployment import sets

ROLLING = st.builds(
    lambda surge, unavailable: {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
    },
    st.one_of(st.integers(0, 4), st.sampled_from(["0%", "25%", "100%"])),
    st.one_of(st.integers(0, 4), st.sampled_from(["0%", "25%", "100%"])),
)
MOVES = st.lists(
    st.tuples(st.sampled_from(["decide", "run", "ready", "report"]), st.integers(0, 9)), min_size=5, max_size=80
)


@given(st.integers(1, 10), ROLLING, MOVES, st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_a_roll_out_never_passes_its_fenceposts_however_the_others_lag(total, strategy, moves, images):
    world = World(replicas=total, strategy=strategy)
    world.settle()
    surge, unavailable = world.fenceposts
    for image in range(images):
        world.set_image(f"web:{image + 2}")
        for kind, which in moves:
            names = sorted(world.sets)
            name = names[which % len(names)]
            match kind:
                case "decide":
                    world.decide()
                case "run":
                    world.run_pods(name, ready=False)
                case "ready":
                    world.make_ready(name, 1 + which % 3)
                case "report":
                    world.report(name)
            assert world.wanted_pods() <= total + surge
            assert world.surely_available() >= total - unavailable
    world.settle()
    assert world.wanted_pods() == total
    assert world.condition("Progressing")["reason"] == "NewReplicaSetAvailable"
    assert world.deployment["status"]["updatedReplicas"] == total


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), ROLLING, MOVES)
@settings(max_examples=100, deadline=None)
def test_scaling_in_the_middle_of_a_roll_out_keeps_within_the_new_bounds(sizes, strategy, moves):
    world = World(replicas=6, strategy=strategy)
    world.settle()
    world.set_image("web:2")
    steps = iter(moves * len(sizes))
    for size in sizes:
        for _ in range(7):
            kind, which = next(steps, ("decide", 0))
            names = sorted(world.sets)
            if kind == "decide":
                world.decide()
            elif kind == "run":
                world.run_pods(names[which % len(names)], ready=bool(which % 2))
            else:
                world.report(names[which % len(names)])
        world.set_spec(replicas=size)
        world.decide()
        assert world.wanted_pods() <= max(size + world.fenceposts[0], 0)
    world.settle()
    assert world.wanted_pods() == sizes[-1]


def test_scaling_up_while_rolling_keeps_each_sets_share():
    world = World(
        replicas=10, strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    )
    world.settle()
    world.set_image("nosuchimage")
    for _ in range(6):
        world.decide()
        for name in world.sets:
            world.run_pods(name, ready=False)
            world.report(name)
    by_revision = {sets.revision(one): one for one in world.sets.values()}
    assert (by_revision[1]["spec"]["replicas"], by_revision[2]["spec"]["replicas"]) == (8, 5)

    world.set_spec(replicas=15)
    world.decide()

    assert (by_revision[1]["spec"]["replicas"], by_revision[2]["spec"]["replicas"]) == (11, 7)


def test_the_first_set_is_named_labelled_and_numbered():
    world = World(replicas=2)
    world.settle()
    ((name, one),) = world.sets.items()
    digest = one["metadata"]["labels"]["pod-template-hash"]
    assert name == f"web-{digest}"
    assert one["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
    assert one["spec"]["template"]["metadata"]["labels"] == {"app": "web", "pod-template-hash": digest}
    assert one["metadata"]["annotations"][sets.REVISION] == "1"
    assert world.deployment["metadata"]["annotations"][sets.REVISION] == "1"
    assert world.events == [f"Scaled up replica set {name} from 0 to 2"]


def test_undoing_reuses_the_old_set_under_a_new_revision():
    world = World(replicas=2)
    world.settle()
    (first,) = world.sets
    world.set_image("web:2")
    world.settle()
    world.set_image("web:1")
    world.settle()

    assert len(world.sets) == 2
    assert world.sets[first]["spec"]["replicas"] == 2
    assert world.sets[first]["metadata"]["annotations"][sets.REVISION] == "3"
    assert world.sets[first]["metadata"]["annotations"][sets.REVISION_HISTORY] == "1"
    assert world.deployment["metadata"]["annotations"][sets.REVISION] == "3"


def test_recreate_waits_until_every_old_pod_is_gone():
    world = World(replicas=2, strategy={"type": "Recreate"})
    world.settle()
    (old,) = world.sets
    world.set_image("web:2")
    world.decide()
    assert world.sets[old]["spec"]["replicas"] == 0
    world.sets[old]["status"] = {"replicas": 0, "observedGeneration": world.sets[old]["metadata"]["generation"]}
    world.decide()
    assert list(world.sets) == [old], "its pods are still terminating"
    world.run_pods(old, ready=True)
    world.decide()
    assert len(world.sets) == 2


def test_a_paused_deployment_scales_but_does_not_roll():
    world = World(replicas=2)
    world.settle()
    (old,) = world.sets
    world.set_spec(paused=True)
    world.set_image("web:2")
    world.set_spec(replicas=5)
    world.decide()
    assert list(world.sets) == [old]
    assert world.sets[old]["spec"]["replicas"] == 5
    assert world.condition("Progressing")["reason"] == "DeploymentPaused"
    world.set_spec(paused=False)
    world.decide()
    assert len(world.sets) == 2


def test_history_beyond_the_limit_is_forgotten_oldest_first():
    world = World(replicas=1, revisionHistoryLimit=2)
    for version in range(5):
        world.set_image(f"web:{version}")
        world.settle()
    world.decide()
    assert sorted(map(sets.revision, world.sets.values())) == [3, 4, 5]


def test_a_roll_out_without_progress_times_out_and_recovers():
    world = World(replicas=2, progressDeadlineSeconds=60)
    world.settle()
    world.set_image("broken")
    for _ in range(4):
        made = world.decide()
        for name in world.sets:
            world.run_pods(name, ready=False)
            world.report(name)
    made = world.decide()
    assert made.recheck_after == 61
    world.time = 61
    world.decide()
    assert world.condition("Progressing") | {"lastTransitionTime": "", "lastUpdateTime": ""} == {
        "type": "Progressing",
        "status": "False",
        "lastTransitionTime": "",
        "lastUpdateTime": "",
        "reason": "ProgressDeadlineExceeded",
        "message": f'ReplicaSet "{max(world.sets.values(), key=sets.revision)["metadata"]["name"]}" has timed out progressing.',
    }
    world.settle()
    assert world.condition("Progressing")["reason"] == "NewReplicaSetAvailable"


def test_a_settled_deployment_says_the_same_thing_forever():
    world = World(replicas=3)
    world.settle()
    before = world.deployment["status"]
    world.time = 10_000
    made = world.decide()
    assert made.status == before
    assert made.recheck_after is None


def test_a_late_status_of_a_shrinking_set_takes_no_more_than_may_be_missing():
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 2}}
    world = World(replicas=10, strategy=strategy)
    world.settle()
    (old,) = world.sets
    world.set_image("web:2")
    world.decide()
    (new,) = set(world.sets) - {old}
    world.report(new)
    world.decide()
    world.decide()
    world.run_pods(new, ready=True)
    world.report(new)  # two new ones run; the old set still says that ten of its eight are available
    assert (world.sets[old]["spec"]["replicas"], world.sets[old]["status"]["availableReplicas"]) == (8, 10)

    world.decide()
    assert world.sets[old]["spec"]["replicas"] == 8

    world.run_pods(old, ready=True)
    world.report(old)
    world.decide()
    assert world.sets[old]["spec"]["replicas"] == 6
