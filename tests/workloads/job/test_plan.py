from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workloads.made import NOW, Object, later, template

from fleetplane.model.environment import timestamp
from fleetplane.workloads.job import indexes
from fleetplane.workloads.job.plan import Plan, plan
from fleetplane.workloads.job.pods import FAILURES, FINALIZER, IGNORED_FAILURES, INDEX, job_pod
from fleetplane.workloads.job.timing import expires_after


def job(**spec: Any) -> Object:
    return {
        "metadata": {"name": "pi", "namespace": "default", "uid": "job", "creationTimestamp": timestamp(NOW)},
        "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 6, "template": template(), **spec},
        "status": {},
    }


class World:
    """A Job and its pods; ``step`` carries a plan out as the reconciler would."""

    def __init__(self, **spec: Any) -> None:
        self.job = job(**spec)
        self.pods: dict[str, Object] = {}
        self.seconds = 0.0
        self.number = 0
        self.ended: dict[str, int] = {"Succeeded": 0, "Failed": 0}

    def step(self, *, write: bool = True, release: bool = True) -> Plan:
        made = plan(self.job, [job_pod(one) for one in self.pods.values()], later(self.seconds))
        for pod in made.discard:
            self.pods.pop(pod.name, None)
        for pod in made.delete:
            self.pods[pod.name]["metadata"]["deletionTimestamp"] = timestamp(later(self.seconds))
        for new in made.create:
            self._add(new)
        if not write:
            return made
        self.job["status"] = made.status
        if release:
            for pod in made.release:
                if pod.name in self.pods:
                    self.pods[pod.name]["metadata"]["finalizers"] = []
                    if self.pods[pod.name]["metadata"].get("deletionTimestamp"):
                        del self.pods[pod.name]
        return made

    def _add(self, new: Any) -> None:
        self.number += 1
        notes = {FAILURES: str(new.failures), IGNORED_FAILURES: str(new.ignored_failures)}
        if new.completion is not None:
            notes[INDEX] = str(new.completion)
        name = f"p{self.number}"
        self.pods[name] = {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "creationTimestamp": timestamp(later(self.seconds)),
                "finalizers": [FINALIZER],
                "annotations": notes,
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }

    def active(self) -> list[str]:
        return [
            name
            for name, pod in self.pods.items()
            if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")
        ]

    def end(self, name: str, code: int = 0, **status: Any) -> None:
        phase = "Failed" if code else "Succeeded"
        ended = {"exitCode": code, "finishedAt": timestamp(later(self.seconds))}
        self.pods[name]["status"] = {
            "phase": phase,
            "containerStatuses": [{"name": "main", "state": {"terminated": ended}}],
            **status,
        }
        self.ended[phase] += 1

    def condition(self, type: str) -> Object | None:
        return next((one for one in self.job["status"].get("conditions", []) if one["type"] == type), None)

    def settle(self) -> None:
        for _ in range(10):
            self.step()


@given(
    st.integers(1, 8),
    st.integers(1, 4),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.booleans(), st.booleans()), max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_every_end_counts_once_and_the_job_completes_exactly(completions, parallelism, indexed, moves):
    """However writes fail and finalizers linger, there are never too many pods nor too many successes."""
    mode = "Indexed" if indexed else "NonIndexed"
    world = World(completions=completions, parallelism=parallelism, backoffLimit=1000, completionMode=mode)
    for which, failed, write, release in moves:
        world.seconds += 1000
        world.step(write=write, release=release)
        running = world.active()
        assert len(running) <= parallelism
        if running:
            world.end(running[which % len(running)], code=int(failed))
    while not world.condition("Complete"):
        world.seconds += 1000
        world.step()
        for name in world.active():
            world.end(name)
        assert world.seconds < 1e6
    status = world.job["status"]
    assert status["succeeded"] == completions
    assert status.get("failed", 0) == world.ended["Failed"]
    assert world.ended["Succeeded"] >= completions
    assert status["uncountedTerminatedPods"] == {}
    if indexed:
        assert indexes.parse(status["completedIndexes"], completions) == set(range(completions))
    assert world.active() == []


def test_a_finished_job_says_so_in_kubernetes_words():
    world = World()
    world.step()
    world.end("p1")
    world.settle()
    assert [one["type"] for one in world.job["status"]["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    complete = world.condition("Complete")
    assert complete is not None
    assert (complete["reason"], complete["message"]) == (
        "CompletionsReached",
        "Reached expected number of succeeded pods",
    )
    assert world.job["status"]["completionTime"] == timestamp(NOW)


def test_too_many_failures_fail_the_job_and_end_what_runs():
    world = World(completions=5, parallelism=3, backoffLimit=1)
    for _ in range(2):
        world.seconds += 1000
        world.step()
        world.end(world.active()[0], code=1)
    world.settle()
    failed = world.condition("Failed")
    assert failed is not None
    assert failed["reason"] == "BackoffLimitExceeded"
    assert failed["message"] == "Job has reached the specified backoff limit"
    assert world.active() == []
    assert world.job["status"]["failed"] == 4


def test_a_new_pod_waits_longer_after_each_failure():
    world = World()
    world.step()
    world.end("p1", code=1)
    assert world.step().create == []
    assert world.step().recheck_after == 10
    world.seconds = 10
    assert len(world.step().create) == 1
    world.end("p2", code=1)
    assert world.step().recheck_after == 20


def test_a_job_past_its_deadline_fails():
    world = World(activeDeadlineSeconds=30)
    assert world.step().recheck_after == 30
    world.seconds = 30
    world.settle()
    failed = world.condition("Failed")
    assert failed is not None
    assert failed["reason"] == "DeadlineExceeded"


def test_suspending_stops_pods_without_counting_them_and_resuming_starts_the_clock_anew():
    world = World(completions=3, parallelism=3)
    world.step()
    world.job["spec"]["suspend"] = True
    world.settle()
    assert world.pods == {}
    assert "startTime" not in world.job["status"]
    assert world.condition("Suspended") == {
        "type": "Suspended",
        "status": "True",
        "reason": "JobSuspended",
        "message": "Job suspended",
        "lastProbeTime": timestamp(NOW),
        "lastTransitionTime": timestamp(NOW),
    }
    world.job["spec"]["suspend"] = False
    world.seconds = 60
    world.settle()
    assert len(world.active()) == 3
    assert world.job["status"]["startTime"] == timestamp(later(60))
    assert world.job["status"].get("failed", 0) == 0


def test_without_completions_one_success_ends_the_queue():
    world = World(completions=None, parallelism=3)
    world.step()
    first, *others = world.active()
    world.end(first)
    world.settle()
    assert len(world.active()) == 2, "the others work off what is left"
    for name in others:
        world.end(name)
    world.settle()
    assert world.condition("Complete")
    assert world.job["status"]["succeeded"] == 3


def test_fewer_in_parallel_removes_pods_uncounted():
    world = World(completions=10, parallelism=4)
    world.step()
    world.job["spec"]["parallelism"] = 1
    world.settle()
    assert len(world.active()) == 1
    assert world.job["status"].get("failed", 0) == 0


def test_an_indexed_job_runs_each_index_once():
    world = World(completions=5, parallelism=2, completionMode="Indexed")
    seen: list[int | None] = []
    while not world.condition("Complete"):
        seen += [new.completion for new in world.step().create]
        for name in world.active():
            world.end(name)
    assert seen == [0, 1, 2, 3, 4]
    assert world.job["status"]["completedIndexes"] == "0-4"


def test_one_bad_index_does_not_fail_the_others():
    world = World(completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1)
    for _ in range(12):
        world.seconds += 1000
        world.step()
        for name in world.active():
            world.end(name, code=int(world.pods[name]["metadata"]["annotations"][INDEX] == "1"))
    world.settle()
    failed = world.condition("Failed")
    assert failed is not None
    assert failed["reason"] == "FailedIndexes"
    assert world.job["status"]["failedIndexes"] == "1"
    assert world.job["status"]["completedIndexes"] == "0,2"
    assert world.job["status"]["failed"] == 2


@pytest.mark.parametrize(("action", "reason"), [("FailJob", "PodFailurePolicy"), ("Ignore", None), ("Count", None)])
def test_a_failure_policy_decides_by_exit_code(action, reason):
    rule = {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}
    world = World(podFailurePolicy={"rules": [rule]})
    world.step()
    world.end("p1", code=42)
    world.settle()
    failed = world.condition("Failed")
    if reason:
        assert failed is not None
        assert failed["reason"] == reason
        assert (
            failed["message"]
            == "Container main for pod default/p1 failed with exit code 42 matching FailJob rule at index 0"
        )
    else:
        assert failed is None
    assert world.job["status"].get("failed", 0) == (0 if action == "Ignore" else 1)


def test_a_failure_policy_decides_by_condition():
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    world = World(backoffLimit=0, podFailurePolicy={"rules": [rule]})
    world.step()
    world.end("p1", code=137, conditions=[{"type": "DisruptionTarget", "status": "True"}])
    world.settle()
    world.seconds = 60
    world.settle()
    assert not world.condition("Failed")
    assert len(world.active()) == 1


def test_a_success_policy_ends_the_job_early():
    rules = {"rules": [{"succeededIndexes": "0,2", "succeededCount": 1}]}
    world = World(completions=3, parallelism=3, completionMode="Indexed", successPolicy=rules)
    world.step()
    world.end("p3")
    world.settle()
    complete = world.condition("Complete")
    assert complete is not None
    assert (complete["reason"], complete["message"]) == ("SuccessPolicy", "Matched rules at index 0")
    assert world.active() == []


def test_replacements_wait_for_the_end_where_the_policy_says_so():
    world = World(podReplacementPolicy="Failed")
    world.step()
    world.pods["p1"]["metadata"]["deletionTimestamp"] = timestamp(NOW)
    assert world.step().create == []
    world.end("p1", code=1)
    world.seconds = 60
    world.step()
    assert len(world.active()) == 1


def test_a_finished_job_expires():
    world = World(ttlSecondsAfterFinished=100)
    world.step()
    world.end("p1")
    world.settle()
    assert expires_after(world.job, NOW + timedelta(seconds=40)) == 60


def test_a_finished_job_says_the_same_thing_forever():
    world = World()
    world.step()
    world.end("p1")
    world.settle()
    before = world.job["status"]
    world.seconds = 10_000
    made = world.step()
    assert (made.status, made.create, made.delete, made.release) == (before, [], [], [])


@given(st.sets(st.integers(0, 60)))
@settings(max_examples=100)
def test_index_sets_survive_writing(found):
    assert indexes.parse(indexes.render(found), 61) == found


def test_index_sets_are_written_as_kubernetes_does():
    assert indexes.render({0, 2, 3, 5, 6, 7}) == "0,2,3,5-7"
