"""What the API is told about a pod, in the kubelet's words."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from tests.node.made import NOW, SANDBOX, at, container, deleted, notes, pod, seen, state, up
from tests.node.test_plan import situations

from fleetplane.node.observed import Backoff, ContainerNotes, Failure, PodNotes, Waiting
from fleetplane.node.status import NodeFacts, pod_status

NODE = NodeFacts(("192.0.2.1",), "podman")


def told(made, observed, known, now=NOW, previous=None):
    return pod_status(made, observed, known, NODE, now, previous or {})


def condition(status, name):
    found = next(one for one in status["conditions"] if one["type"] == name)
    return found["status"], found.get("reason"), found.get("message")


def main(status):
    return status["containerStatuses"][0]


def test_a_pod_that_has_just_come_is_creating():
    status = told(pod(), seen(sandbox=None), PodNotes(started_at=NOW))

    assert status["phase"] == "Pending"
    assert main(status)["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert condition(status, "PodReadyToStartContainers")[0] == "False"
    assert condition(status, "ContainersReady") == (
        "False",
        "ContainersNotReady",
        "containers with unready status: [main]",
    )
    assert status["startTime"] == "2026-01-01T12:00:00Z"


def test_a_running_pod():
    status = told(pod(), seen(state()), notes(main=up()))

    assert status["phase"] == "Running"
    assert (status["podIP"], status["podIPs"]) == ("10.0.0.2", [{"ip": "10.0.0.2"}])
    assert (status["hostIP"], status["hostIPs"]) == ("192.0.2.1", [{"ip": "192.0.2.1"}])
    assert main(status)["containerID"] == "podman://main-0"
    assert (main(status)["ready"], main(status)["started"], main(status)["restartCount"]) == (True, True, 0)
    for name in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"):
        assert condition(status, name)[0] == "True"


def test_while_initializing():
    status = told(pod(init=[container("one")]), seen(state("one")), notes(one=up("one")))

    assert status["phase"] == "Pending"
    assert main(status)["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert condition(status, "Initialized") == (
        "False",
        "ContainersNotInitialized",
        "containers with incomplete status: [one]",
    )


def test_a_crashing_container_waits_with_its_last_state():
    known = notes(main=up(restart_backoff=Backoff(10, NOW)))
    status = told(pod(), seen(state(phase="exited", code=1)), known, at(1))

    assert status["phase"] == "Running"
    assert main(status)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert main(status)["lastState"]["terminated"]["exitCode"] == 1
    assert main(status)["lastState"]["terminated"]["reason"] == "Error"
    assert condition(status, "Ready")[0] == "False"


def test_restarts_are_counted():
    last = {"exitCode": 1, "reason": "Error"}
    status = told(pod(), seen(state(attempt=3)), notes(main=up(attempt=3, last_terminated=last)))

    assert main(status)["restartCount"] == 3
    assert main(status)["lastState"] == {"terminated": last}


def test_a_job_that_succeeded():
    status = told(pod(restartPolicy="Never"), seen(state(phase="exited")), replace(notes(), sandbox_down=True))

    assert status["phase"] == "Succeeded"
    assert main(status)["state"]["terminated"]["reason"] == "Completed"
    assert condition(status, "Ready")[:2] == ("False", "PodCompleted")
    assert condition(status, "Initialized")[:2] == ("True", "PodCompleted")
    assert condition(status, "PodReadyToStartContainers")[0] == "False"
    assert status["podIP"] == "10.0.0.2"


def test_a_job_that_failed():
    status = told(pod(restartPolicy="Never"), seen(state(phase="exited", code=2)), notes())

    assert status["phase"] == "Failed"
    assert condition(status, "Ready")[:2] == ("False", "PodFailed")


def test_out_of_memory_is_the_reason():
    status = told(pod(restartPolicy="Never"), seen(state(phase="exited", code=137, oom_killed=True)), notes())

    assert main(status)["state"]["terminated"]["reason"] == "OOMKilled"


def test_a_failed_init_container_fails_a_pod_that_never_restarts():
    once = pod(init=[container("one")], restartPolicy="Never")
    status = told(once, seen(state("one", "exited", code=1)), notes())

    assert status["phase"] == "Failed"
    assert main(status)["state"] == {"waiting": {"reason": "PodInitializing"}}


def test_an_image_that_cannot_be_had():
    known = ContainerNotes(waiting=Waiting("ErrImagePull", "not found"))
    status = told(pod(), seen(), notes(main=known))

    assert status["phase"] == "Pending"
    assert main(status)["state"] == {"waiting": {"reason": "ErrImagePull", "message": "not found"}}


def test_a_container_that_could_not_be_started_shows_how_it_failed():
    ended = {"exitCode": 128, "reason": "StartError", "message": "no such file"}
    known = ContainerNotes(waiting=Waiting("RunContainerError", "no such file"), final=ended, next_attempt=1)

    status = told(pod(), seen(), notes(main=known))
    assert main(status)["state"]["waiting"]["reason"] == "RunContainerError"
    assert main(status)["lastState"] == {"terminated": ended}
    status = told(pod(restartPolicy="Never"), seen(), notes(main=known))
    assert (status["phase"], main(status)["state"]) == ("Failed", {"terminated": ended})


def test_an_evicted_pod():
    known = replace(notes(main=up()), failure=Failure("Evicted", "The node was low on resource: memory."))
    status = told(pod(), seen(state(phase="exited", code=137)), known)

    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert condition(status, "DisruptionTarget")[:2] == ("True", "TerminationByKubelet")


def test_a_deleted_pod_ends_with_what_its_containers_did():
    known = replace(notes(), sandbox_down=True)

    assert told(pod(meta=deleted()), seen(state(phase="exited", code=0)), known)["phase"] == "Succeeded"
    assert told(pod(meta=deleted()), seen(state(phase="exited", code=137)), known)["phase"] == "Failed"
    assert told(pod(meta=deleted()), seen(state()), notes(main=up()))["phase"] == "Running"


def test_an_unready_container_makes_the_pod_unready():
    status = told(
        pod(container("a"), container("b")), seen(state("a"), state("b")), notes(a=up("a"), b=up("b", ready=False))
    )

    assert condition(status, "Ready") == ("False", "ContainersNotReady", "containers with unready status: [b]")
    assert status["phase"] == "Running"


def test_readiness_gates_hold_the_pod_back():
    gated = pod(readinessGates=[{"conditionType": "example.org/ok"}])
    status = told(gated, seen(state()), notes(main=up()))

    assert condition(status, "ContainersReady")[0] == "True"
    assert condition(status, "Ready")[:2] == ("False", "ReadinessGatesNotReady")
    gated.object["status"] = {"conditions": [{"type": "example.org/ok", "status": "True"}]}
    assert condition(told(gated, seen(state()), notes(main=up())), "Ready")[0] == "True"


def test_a_sidecar_counts_for_readiness_but_not_for_the_end():
    side = pod(init=[container("side", restartPolicy="Always")], restartPolicy="Never")

    running = told(side, seen(state("side"), state()), notes(side=up("side"), main=up()))
    assert condition(running, "Ready")[0] == "True"
    ended = told(side, seen(state("side"), state(phase="exited")), notes(side=up("side")))
    assert ended["phase"] == "Succeeded"


def test_a_pod_its_node_ends_has_failed_once_nothing_of_it_runs():
    fenced = replace(notes(main=up()), failure=Failure("SelfFenced", "no lease", grace_seconds=0))

    for still in (seen(state()), seen(state(phase="exited"), busy=("main",))):
        assert told(pod(), still, fenced)["phase"] == "Running", "who sees its end may start another in its place"
        assert "reason" not in told(pod(), still, fenced)
    ended = told(pod(), seen(state(phase="exited", code=137)), fenced)
    assert (ended["phase"], ended["reason"]) == ("Failed", "SelfFenced")


def test_transition_times_change_only_with_the_status():
    first = told(pod(), seen(state()), notes(main=up()))
    later = told(pod(), seen(state()), notes(main=up()), at(60), first)
    assert later == first

    unready = told(pod(), seen(state()), notes(main=up(ready=False)), at(90), first)
    times = {one["type"]: one["lastTransitionTime"] for one in unready["conditions"]}
    assert times["Ready"] == "2026-01-01T12:01:30Z"
    assert times["Initialized"] == "2026-01-01T12:00:00Z"


def test_the_hosts_network_is_the_pods():
    shared = replace(SANDBOX, addresses=(), network="host")
    status = told(pod(hostNetwork=True), seen(state(), sandbox=shared), notes(main=up()))

    assert status["podIP"] == "192.0.2.1"


@settings(max_examples=200, deadline=None)
@given(situations())
def test_every_situation_has_a_consistent_status(situation):
    made, observed, known = situation
    status = told(made, observed, known)

    assert status["phase"] in {"Pending", "Running", "Succeeded", "Failed"}
    for one in status["containerStatuses"] + status.get("initContainerStatuses", []):
        assert len(one["state"]) == 1
        assert not (one["ready"] and "waiting" in one["state"])
    if status["phase"] == "Succeeded":
        assert all("terminated" in one["state"] for one in status["containerStatuses"])
    if condition(status, "Ready")[0] == "True":
        assert status["phase"] == "Running"
    assert told(made, observed, known, at(1), status)["conditions"] == status["conditions"]
