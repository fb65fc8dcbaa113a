"""One active container of several in a pod: who leads, who stands by, and that two never run."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.made import NOW, SANDBOX, at, container, deleted, notes, pod, seen, state, up

from fleetplane.node.actions import Action, PauseContainer, StartContainer, StopContainer
from fleetplane.node.leading import CONDITION, ended, following, told, went_on
from fleetplane.node.observed import Lead, PodNotes, notes_from_json, notes_to_json
from fleetplane.node.plan import is_frozen, plan_pod
from fleetplane.node.runtime import ContainerState
from fleetplane.node.status import NodeFacts, pod_status

ANNOTATIONS = {"annotations": {"node.fleetplane.io/one-active": "a, b"}}
PAIR = pod(container("a"), container("b"), meta=ANNOTATIONS)


def led(name: str, **more: PodNotes) -> PodNotes:
    return replace(notes(a=up("a"), b=up("b")), lead=Lead(name))


def test_the_first_leads_and_the_other_is_frozen() -> None:
    known = following(PAIR, seen(), notes(), NOW)
    assert known.lead == Lead("a")

    found = plan_pod(PAIR, seen(state("a"), state("b")), led("a"), NOW).actions

    assert found == (PauseContainer("b", "b-0"),)


def test_who_runs_goes_on_where_nothing_is_remembered() -> None:
    found = following(PAIR, seen(state("a", "paused"), state("b")), notes(), NOW)

    assert found.lead == Lead("b")


def test_the_standby_goes_on_when_the_leader_has_ended_and_the_leader_comes_back_as_standby() -> None:
    picture = seen(state("a", "exited", code=1), state("b", "paused"))

    known = following(PAIR, picture, led("a"), at(1))

    assert known.lead is not None
    assert (known.lead.name, known.lead.switches) == ("b", 1)
    assert set(plan_pod(PAIR, picture, known, at(1)).actions) == {
        StartContainer("a", 1),
        PauseContainer("b", "b-0", resume=True),
    }
    assert is_frozen(PAIR, known, "a")
    lead = went_on(known, "b", at(0.25)).lead
    assert lead is not None
    assert lead.milliseconds == 250
    assert told(lead)[2] == "b is active; 1 switchovers, the last took 250 ms"


def test_the_lead_stays_while_the_leader_runs_is_worked_on_or_nobody_waits() -> None:
    for picture in (
        seen(state("a"), state("b", "paused")),
        seen(state("a", "exited"), state("b", "paused"), busy=("a",)),
        seen(state("a", "exited"), state("b", "paused"), busy=("b",)),
        seen(state("a", "exited"), state("b")),
        seen(state("a", "exited")),
        seen(state("b", "paused")),
    ):
        assert following(PAIR, picture, led("a"), NOW).lead == Lead("a")


def test_a_leader_that_cannot_be_started_does_not_keep_the_lead() -> None:
    known = replace(led("a"), containers={"a": up("a", failed_at=NOW, container_id="")})

    assert following(PAIR, seen(state("b", "paused")), known, NOW).lead == Lead("b", 1, NOW)


def test_nobody_takes_over_in_a_pod_that_ends_or_shares_processes() -> None:
    picture = seen(state("a", "exited"), state("b", "paused"))
    for one in (
        pod(container("a"), container("b"), meta={**ANNOTATIONS, **deleted()}),
        pod(container("a"), container("b"), meta=ANNOTATIONS, shareProcessNamespace=True),
        pod(container("a"), container("b"), meta=ANNOTATIONS, hostPID=True),
    ):
        assert following(one, picture, led("a"), NOW).lead == Lead("a")


def test_nobody_goes_on_while_another_runs() -> None:
    found = plan_pod(PAIR, seen(state("a"), state("b", "paused")), led("b"), NOW).actions

    assert found == (PauseContainer("a", "a-0"),)


def test_a_standby_that_answers_no_probe_does_not_make_the_pod_unready() -> None:
    known = replace(notes(a=up("a"), b=up("b", ready=False)), lead=Lead("a"))
    found = pod_status(PAIR, seen(state("a"), state("b", "paused")), known, NodeFacts(), NOW, {})

    conditions = {one["type"]: one for one in found["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    assert conditions[CONDITION]["reason"] == "First"


def test_who_leads_is_kept_over_a_restart_of_the_agent() -> None:
    known = replace(notes(), lead=Lead("b", 3, NOW, 12))

    assert notes_from_json(notes_to_json(known)).lead == Lead("b", 3, None, 12)


def test_a_container_that_is_held_is_stopped_and_not_started_until_it_is_let_go() -> None:
    held = pod(container("a"), container("b"), meta={"annotations": {"node.fleetplane.io/held-containers": "b"}})
    both = notes(a=up("a"), b=up("b"))

    (stop,) = plan_pod(held, seen(state("a"), state("b")), both, NOW).actions
    assert isinstance(stop, StopContainer)
    assert stop.name == "b"
    assert plan_pod(held, seen(state("a"), state("b", "exited")), both, NOW).actions == ()
    assert plan_pod(held, seen(state("a")), both, NOW).actions == ()
    free = pod(container("a"), container("b"))
    assert plan_pod(free, seen(state("a"), state("b", "exited")), both, NOW).actions == (StartContainer("b", 1),)


TRIPLE = pod(
    container("a"),
    container("b"),
    container("c"),
    meta={"annotations": {"node.fleetplane.io/one-active": "a,b,c"}},
)


def test_the_lead_passes_as_soon_as_the_end_is_told_and_nobody_touches_what_is_over() -> None:
    stale = seen(state("a"), state("b", "paused"))

    known = ended(PAIR, stale, led("a"), "a-0", at(1))

    assert known is not None
    assert known.lead == Lead("b", 1, at(1), None, "a-0")
    assert plan_pod(PAIR, stale, known, at(1)).actions == (PauseContainer("b", "b-0", resume=True),)


def test_other_ends_pass_no_lead_on() -> None:
    stale = seen(state("a"), state("b", "paused"))
    assert ended(PAIR, stale, led("a"), "b-0", NOW) is None
    assert ended(PAIR, stale, led("a"), "a-7", NOW) is None
    assert ended(PAIR, seen(state("a"), state("b")), led("a"), "a-0", NOW) is None
    assert ended(PAIR, stale, notes(a=up("a")), "a-0", NOW) is None
    fresh = replace(led("a"), containers={"b": up("b")})
    assert ended(PAIR, stale, fresh, "a-0", NOW) is None, "it has not come to life yet"
    shared = pod(container("a"), container("b"), meta=ANNOTATIONS, hostPID=True)
    assert ended(shared, stale, led("a"), "a-0", NOW) is None


class Machine:
    """A runtime that does one thing at a time; what was begun may come to its end much later.

    ``states`` is what is, ``known`` what was seen of it last.
    """

    def __init__(self) -> None:
        self.states: dict[str, ContainerState] = {}
        self.known: dict[str, ContainerState] = {}
        self.begun: dict[str, Action] = {}
        self.notes = notes()
        self.now: datetime = NOW

    def look(self) -> None:
        self.notes = following(TRIPLE, self.picture(), self.notes, self.now)

    def picture(self):
        return seen(*self.known.values(), sandbox=SANDBOX, busy=tuple(self.begun))

    def refresh(self) -> None:
        self.known = dict(self.states)

    def tell(self, name: str) -> None:
        """The runtime says that this container ended, if it has."""
        if name in self.states and self.states[name].phase == "exited":
            self.notes = ended(TRIPLE, self.picture(), self.notes, self.states[name].id, self.now) or self.notes

    def plan(self) -> None:
        self.look()
        for action in plan_pod(TRIPLE, self.picture(), self.notes, self.now).actions:
            if isinstance(action, StartContainer | PauseContainer | StopContainer):
                self.begun.setdefault(action.name, action)

    def finish(self, name: str) -> None:
        action = self.begun.pop(name, None)
        match action:
            case StartContainer(_, attempt):
                phase = "paused" if is_frozen(TRIPLE, self.notes, name) else "running"
                self.states[name] = state(name, phase, attempt)
                self.notes = self.notes.with_container(name, up(name, attempt))
            case PauseContainer() if self.states[name].phase in {"running", "paused"}:
                self.states[name] = replace(self.states[name], phase="running" if action.resume else "paused")
            case StopContainer():
                self.crash(name)
        if action is not None and name in self.states:
            self.known[name] = self.states[name]

    def crash(self, name: str) -> None:
        if name in self.states and self.states[name].phase != "exited":
            self.states[name] = replace(self.states[name], phase="exited", exit_code=1, finished_at=self.now)

    def restart_agent(self) -> None:
        """With the pod's notes, or without them."""
        self.begun.clear()
        self.refresh()
        self.notes = replace(notes_from_json(notes_to_json(self.notes)), volumes_ready=True)


moves = st.lists(
    st.tuples(
        st.sampled_from(["plan", "plan", "finish", "finish", "crash", "tell", "refresh", "restart"]),
        st.sampled_from("abc"),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(moves)
def test_whatever_ends_and_however_slow_anything_is_two_never_run(story: list[tuple[str, str]]) -> None:
    machine = Machine()
    for number, (what, name) in enumerate(story):
        machine.now = at(number * 400.0)
        match what:
            case "plan":
                machine.plan()
            case "finish":
                machine.finish(name)
            case "crash":
                machine.crash(name)
            case "tell":
                machine.tell(name)
            case "refresh":
                machine.refresh()
            case _:
                machine.restart_agent()
        running = [one.name for one in machine.states.values() if one.phase == "running"]
        assert len(running) <= 1
    for number in range(20):  # left alone, one of them runs and the others stand by
        machine.now = at(100_000 + number * 400.0)
        machine.refresh()
        machine.plan()
        for name in "abc":
            machine.finish(name)
    assert sorted(one.phase for one in machine.states.values()) == ["paused", "paused", "running"]
