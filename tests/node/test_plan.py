"""What to do next for a pod, state by state."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.made import NOW, SANDBOX, at, container, deleted, notes, pod, seen, state, up

from fleetplane.node.actions import (
    FailPod,
    NoteBackoff,
    PauseContainer,
    PrepareVolumes,
    Release,
    RemoveContainer,
    StartContainer,
    StartSandbox,
    StopContainer,
    StopSandbox,
    UpdateResources,
)
from fleetplane.node.observed import SANDBOX as SANDBOX_NAME
from fleetplane.node.observed import VOLUMES, Backoff, ContainerNotes, Failure, PodNotes, Waiting
from fleetplane.node.plan import backoff_until, next_backoff, plan_pod
from fleetplane.node.runtime import Resources


def actions(*arguments, now=NOW):
    return list(plan_pod(*arguments, now).actions)


def names(found):
    return [(type(action).__name__, getattr(action, "name", "")) for action in found]


# Coming up


def test_a_new_pod_gets_volumes_and_sandbox_at_once():
    assert actions(pod(), seen(sandbox=None), PodNotes()) == [PrepareVolumes(), StartSandbox(0)]


def test_containers_wait_for_the_volumes():
    assert actions(pod(), seen(), PodNotes(started_at=NOW)) == [PrepareVolumes()]


def test_main_containers_start_together():
    found = actions(pod(container("a"), container("b")), seen(), notes())

    assert found == [StartContainer("a", 0), StartContainer("b", 0)]


def test_what_is_busy_is_left_alone():
    assert actions(pod(), seen(busy=("main",)), notes()) == []
    assert actions(pod(), seen(sandbox=None, busy=(VOLUMES, SANDBOX_NAME)), PodNotes()) == []


def test_a_running_pod_needs_nothing():
    assert actions(pod(), seen(state()), notes(main=up())) == []


def test_init_containers_run_one_after_the_other():
    both = pod(init=[container("one"), container("two")])

    assert actions(both, seen(), notes()) == [StartContainer("one", 0)]
    assert actions(both, seen(state("one")), notes(one=up("one"))) == []
    done = state("one", "exited")
    assert actions(both, seen(done), notes(one=up("one"))) == [StartContainer("two", 0)]
    assert actions(both, seen(done, state("two", "exited")), notes()) == [StartContainer("main", 0)]


def test_a_failed_init_container_runs_again():
    again = pod(init=[container("one")])

    assert actions(again, seen(state("one", "exited", code=1)), notes()) == [StartContainer("one", 1)]


def test_a_failed_init_container_ends_a_pod_that_never_restarts():
    once = pod(init=[container("one")], restartPolicy="Never")

    assert actions(once, seen(state("one", "exited", code=1)), notes()) == [StopSandbox("s0")]


def test_a_sidecar_lets_others_start_only_once_it_has_started_up():
    sidecar = pod(init=[container("side", restartPolicy="Always", startupProbe={})])
    starting = notes(side=up("side", started=False))

    assert actions(sidecar, seen(state("side")), starting) == []
    assert actions(sidecar, seen(state("side")), notes(side=up("side"))) == [StartContainer("main", 0)]


def test_a_sidecar_is_restarted_beside_running_containers():
    sidecar = pod(init=[container("side", restartPolicy="Always")])
    observed = seen(state("side", "exited", code=0), state())

    assert actions(sidecar, observed, notes(main=up())) == [StartContainer("side", 1)]


def test_init_containers_are_not_run_again_while_main_containers_live():
    both = pod(init=[container("one")])

    assert actions(both, seen(state()), notes(main=up())) == []


def test_a_container_created_and_never_started_is_made_again_as_the_same_attempt():
    assert actions(pod(), seen(state(phase="created")), notes()) == [StartContainer("main", 0)]


# Restarting


def test_a_container_that_ends_is_started_again():
    assert actions(pod(), seen(state(phase="exited", code=0)), notes(main=up())) == [StartContainer("main", 1)]


def test_back_off_delays_the_restart_and_says_so():
    known = notes(main=up(restart_backoff=Backoff(20, NOW)))
    plan = plan_pod(pod(), seen(state(phase="exited", code=1)), known, at(5))

    assert plan.wake_at == at(20)
    (said,) = plan.actions
    assert isinstance(said, NoteBackoff)
    assert said.message == "back-off 20s restarting failed container=main pod=web_default(u1)"
    assert actions(pod(), seen(state(phase="exited", code=1)), known, now=at(20)) == [StartContainer("main", 1)]


def test_on_failure_restarts_only_failures():
    job = pod(container("good"), container("bad"), restartPolicy="OnFailure")
    observed = seen(state("good", "exited", code=0), state("bad", "exited", code=1))

    assert actions(job, observed, notes()) == [StartContainer("bad", 1)]


def test_exit_code_rules_decide_before_the_policy():
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    ruled = pod(container(restartPolicy="Never", restartPolicyRules=rules), restartPolicy="Never")

    assert actions(ruled, seen(state(phase="exited", code=42)), notes()) == [StartContainer("main", 1)]
    assert actions(ruled, seen(state(phase="exited", code=1)), notes()) == [StopSandbox("s0")]


def test_a_failed_probe_stops_the_container_that_failed_it():
    known = notes(main=up(kill="Container main failed liveness probe, will be restarted", kill_grace=3))

    (stop,) = actions(pod(), seen(state()), known)
    assert (stop.grace_seconds, stop.hook) == (3, True)
    assert actions(pod(), seen(state(attempt=1)), known) == []  # the next attempt is innocent


def test_a_changed_image_restarts_the_container():
    changed = pod(container(image="app:2"))

    (stop,) = actions(changed, seen(state(hash=pod().main[0].hash)), notes(main=up()))
    assert stop.why == "Container main definition changed, will be restarted"


def test_a_failed_pull_is_tried_again_later():
    known = ContainerNotes(waiting=Waiting("ErrImagePull", "no"), failed_at=NOW, retry_at=at(10))

    assert plan_pod(pod(), seen(), notes(main=known), at(0.5)).wake_at == at(1)
    (said,) = actions(pod(), seen(), notes(main=known), now=at(2))
    assert said == NoteBackoff("main", 0, 'Back-off pulling image "app:1"', image=True)
    assert actions(pod(), seen(), notes(main=known), now=at(10)) == [StartContainer("main", 0)]


def test_old_attempts_are_removed_but_the_last_one():
    observed = seen(state(attempt=2), state(attempt=1, phase="exited"), state(attempt=0, phase="exited"))

    assert actions(pod(), observed, notes(main=up(attempt=2))) == [RemoveContainer("main", "main-0")]


def test_limits_are_changed_in_place():
    wanted = Resources(memory_bytes=2)
    plan = plan_pod(pod(), seen(state()), notes(main=up(resources=Resources())), NOW, lambda _: wanted)

    assert plan.actions == (UpdateResources("main", "main-0", wanted),)


def test_an_annotation_pauses_and_resumes():
    frozen = pod(meta={"annotations": {"node.fleetplane.io/paused": "true"}})

    assert actions(frozen, seen(state()), notes(main=up())) == [PauseContainer("main", "main-0")]
    assert actions(frozen, seen(state(phase="paused")), notes(main=up())) == []
    assert actions(pod(), seen(state(phase="paused")), notes(main=up())) == [
        PauseContainer("main", "main-0", resume=True)
    ]


# A sandbox that is lost


def test_containers_of_a_lost_sandbox_are_stopped_before_a_new_one_is_made():
    lost = replace(SANDBOX, ready=False)

    (stop,) = actions(pod(), seen(state(), sandbox=lost), notes(main=up()))
    assert isinstance(stop, StopContainer) and not stop.hook
    after = seen(state(phase="exited", code=137), sandbox=lost)
    assert actions(pod(), after, notes(main=up())) == [StartSandbox(1)]


def test_in_a_new_sandbox_init_containers_run_again():
    both = pod(init=[container("one")])
    new = replace(SANDBOX, id="s1", attempt=1)
    observed = seen(state("one", "exited"), state(phase="exited", code=137), sandbox=new)

    assert actions(both, observed, notes()) == [StartContainer("one", 1)]


def test_what_ended_for_good_stays_ended_in_a_new_sandbox():
    job = pod(container("done"), container("lost"), restartPolicy="OnFailure")
    new = replace(SANDBOX, id="s1", attempt=1)
    observed = seen(state("done", "exited", code=0), state("lost", "exited", code=137), sandbox=new)

    assert actions(job, observed, notes()) == [StartContainer("lost", 1)]


# Ending


def test_a_finished_pod_gives_its_sandbox_back_once():
    job = pod(restartPolicy="Never")
    ended = state(phase="exited")

    assert actions(job, seen(ended), notes()) == [StopSandbox("s0")]
    assert actions(job, seen(ended), replace(notes(), sandbox_down=True)) == []


def test_sidecars_end_after_the_main_containers_in_reverse():
    sides = [container("a", restartPolicy="Always"), container("b", restartPolicy="Always")]
    job = pod(init=sides, restartPolicy="Never")
    observed = seen(state("a"), state("b"), state(phase="exited"))

    assert names(actions(job, observed, notes())) == [("StopContainer", "b")]


def test_a_deleted_pod_stops_main_containers_then_sidecars_then_its_sandbox():
    both = pod(init=[container("side", restartPolicy="Always")], meta=deleted(7))

    (stop,) = actions(both, seen(state("side"), state()), notes())
    assert (stop.name, stop.grace_seconds) == ("main", 7)
    ended = state(phase="exited")
    assert names(actions(both, seen(state("side"), ended), notes())) == [("StopContainer", "side")]
    assert actions(both, seen(state("side", "exited"), ended), notes()) == [StopSandbox("s0")]
    down = replace(notes(), sandbox_down=True)
    assert actions(both, seen(state("side", "exited"), ended), down) == [Release(forget=True)]


def test_grace_is_shared_by_all_containers_of_the_pod():
    known = replace(notes(), stopping_since=NOW)

    (stop,) = actions(pod(meta=deleted(30)), seen(state()), known, now=at(20))
    assert stop.grace_seconds == 10
    (stop,) = actions(pod(meta=deleted(30)), seen(state()), known, now=at(100))
    assert stop.grace_seconds == 2
    (stop,) = actions(pod(meta=deleted(0)), seen(state()), known, now=at(100))
    assert (stop.grace_seconds, stop.hook) == (0, False)


def test_a_pod_deleted_before_it_began_is_released():
    assert actions(pod(meta=deleted()), seen(sandbox=None), PodNotes()) == [Release(forget=True)]


def test_nothing_is_released_while_a_container_may_still_be_starting():
    assert actions(pod(meta=deleted()), seen(busy=("main",)), notes()) == []


def test_a_deadline_fails_the_pod():
    limited = pod(activeDeadlineSeconds=60)

    assert plan_pod(limited, seen(state()), notes(main=up()), at(10)).wake_at == at(60)
    (fail,) = actions(limited, seen(state()), notes(main=up()), now=at(61))
    assert isinstance(fail, FailPod) and fail.failure.reason == "DeadlineExceeded"


def test_a_failed_pod_is_stopped_and_kept():
    failed = replace(notes(main=up()), failure=Failure("Evicted", "memory", grace_seconds=0))

    (stop,) = actions(pod(), seen(state()), failed)
    assert stop.grace_seconds == 0
    assert actions(pod(), seen(state(phase="exited", code=137)), failed) == [StopSandbox("s0")]
    assert actions(pod(), seen(state(phase="exited", code=137)), replace(failed, sandbox_down=True)) == []


# Back-off


def test_back_off_doubles_to_five_minutes():
    found, backoff = [], Backoff()
    for _ in range(7):
        backoff = next_backoff(backoff, NOW, NOW)
        found.append(backoff.seconds)

    assert found == [10, 20, 40, 80, 160, 300, 300]


def test_back_off_is_forgotten_after_ten_good_minutes():
    long_ago = Backoff(160, NOW)

    assert backoff_until(long_ago, at(601)) == at(601)
    assert next_backoff(long_ago, at(601), at(602)).seconds == 10


# Whatever the state


PHASES = st.sampled_from(["created", "running", "paused", "exited"])
SPECS = st.lists(st.sampled_from(["init", "sidecar", "main"]), min_size=1, max_size=4).map(
    lambda kinds: [*kinds, "main"]
)


@st.composite
def situations(draw):
    kinds = draw(SPECS)
    init, main = [], []
    for number, kind in enumerate(kinds):
        one = container(f"{kind}{number}")
        if kind == "sidecar":
            one["restartPolicy"] = "Always"
        (main if kind == "main" else init).append(one)
    made = pod(
        *main,
        init=init,
        restartPolicy=draw(st.sampled_from(["Always", "OnFailure", "Never"])),
        meta=deleted(draw(st.integers(0, 60))) if draw(st.booleans()) else {},
    )
    states = []
    for one in made.containers:
        for attempt in range(draw(st.integers(0, 3))):
            states.append(state(one.name, draw(PHASES), attempt, draw(st.sampled_from([0, 1, 137]))))
    busy = draw(st.sets(st.sampled_from([*made.by_name, VOLUMES, SANDBOX_NAME])))
    sandbox = draw(st.sampled_from([None, SANDBOX, replace(SANDBOX, ready=False)]))
    known = PodNotes(started_at=NOW, volumes_ready=draw(st.booleans()), sandbox_down=draw(st.booleans()))
    return made, seen(*states, sandbox=sandbox, busy=tuple(busy)), known


@settings(max_examples=300, deadline=None)
@given(situations())
def test_plans_are_sane(situation):
    made, observed, known = situation
    found = actions(made, observed, known)

    for action in found:
        name = getattr(action, "name", None)
        if name is not None and not isinstance(action, NoteBackoff):
            assert name not in observed.busy
    started = [action.name for action in found if isinstance(action, StartContainer)]
    assert len(started) == len(set(started))
    if made.deleting:
        assert not any(isinstance(action, StartContainer | StartSandbox | PrepareVolumes) for action in found)
    if started:
        assert observed.sandbox is not None and observed.sandbox.ready and known.volumes_ready
    for name in started:
        newest = observed.newest(name)
        assert newest is None or newest.phase in {"created", "exited"}
    if any(isinstance(action, Release) for action in found):
        assert not observed.running


@settings(max_examples=100, deadline=None)
@given(situations())
def test_planning_twice_says_the_same(situation):
    assert actions(*situation) == actions(*situation)
