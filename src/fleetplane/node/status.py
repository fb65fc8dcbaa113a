"""The status of a pod, computed from what is observed: a pure function, in the kubelet's words.

Reasons, messages, phases and conditions follow what the kubelet writes, because controllers, kubectl and people match
on them. Nothing is remembered here except through ``previous``: a condition keeps its transition time while its status
stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fleetplane.model import objects
from fleetplane.model.environment import timestamp
from fleetplane.model.objects import Object
from fleetplane.node import leading
from fleetplane.node.observed import SANDBOX, VOLUMES, ContainerNotes, Observed, PodNotes
from fleetplane.node.plan import backoff_until, crash_message, init_failed, is_over
from fleetplane.node.pod import ContainerView, PodView, Role
from fleetplane.node.resources import qos_class
from fleetplane.node.runtime import ContainerState

CREATING: Final = "ContainerCreating"
INITIALIZING: Final = "PodInitializing"
PROMOTED: Final = "node.fleetplane.io/Promoted"
"""Condition: the node let a frozen pod go on because the active one had ended (see ``succession``)."""
FROZEN: Final = "node.fleetplane.io/Frozen"
CANNOT_FREEZE: Final = "CannotFreeze"
"""Condition and reason of a standby that was stopped because it could not be frozen."""
OWN_CONDITIONS: Final = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a status says of the node: its addresses (first is ``hostIP``) and the scheme of container ids."""

    addresses: tuple[str, ...] = ()
    scheme: str = "fleetplane"


def terminated_state(state: ContainerState, scheme: str, message: str = "") -> Object:
    """``ContainerStateTerminated`` of an exited container; ``message`` is its termination message."""
    if state.oom_killed:
        reason = "OOMKilled"
    elif state.error:
        reason, message = "ContainerCannotRun", message or state.error
    else:
        reason = "Completed" if state.exit_code == 0 else "Error"
    found: Object = {"exitCode": state.exit_code, "reason": reason, "containerID": f"{scheme}://{state.id}"}
    if message:
        found["message"] = message
    found["startedAt"] = _time(state.started_at)
    found["finishedAt"] = _time(state.finished_at)
    return found


def pod_status(
    pod: PodView,
    observed: Observed,
    notes: PodNotes,
    node: NodeFacts,
    now: datetime,
    previous: Mapping[str, Any],
) -> Object:
    """The whole status this node reports; ``previous`` is the status it replaces."""
    # Who finds a pod at its end may take it away or start another in its place: not before nothing of it runs.
    left = notes.failure is not None and bool(observed.running or observed.busy - {VOLUMES, SANDBOX})
    over = is_over(pod, observed, notes) and not left
    ending = pod.deleting or notes.failure is not None or over
    shown = {c.name: _container_status(pod, c, observed, notes, node, now, ending=ending) for c in pod.containers}
    failed = notes.failure is not None and not left
    phase = _phase(pod, shown, failed=failed, over=over, init_is_over=init_failed(pod, observed, notes))
    status: Object = {"phase": phase}
    if failed and notes.failure is not None:
        status["reason"], status["message"] = notes.failure.reason, notes.failure.message
    generation = objects.generation(pod.object)
    if generation:
        status["observedGeneration"] = generation
    status["conditions"] = _conditions(pod, shown, observed, notes, phase, now, previous)
    if node.addresses:
        status["hostIP"] = node.addresses[0]
        status["hostIPs"] = [{"ip": address} for address in node.addresses]
    addresses = _pod_addresses(pod, observed, notes, node)
    if addresses:
        status["podIP"] = addresses[0]
        status["podIPs"] = [{"ip": address} for address in addresses]
    if notes.started_at is not None:
        status["startTime"] = timestamp(notes.started_at)
    if pod.init:
        status["initContainerStatuses"] = [shown[c.name] for c in pod.init]
    status["containerStatuses"] = [shown[c.name] for c in sorted(pod.main, key=lambda c: c.name)]
    if ephemeral := pod.with_role(Role.EPHEMERAL):
        status["ephemeralContainerStatuses"] = [shown[c.name] for c in ephemeral]
    status["qosClass"] = previous.get("qosClass") or qos_class(pod.spec)
    return status


def _pod_addresses(pod: PodView, observed: Observed, notes: PodNotes, node: NodeFacts) -> tuple[str, ...]:
    sandbox = observed.sandbox
    if pod.host_network or (sandbox is not None and sandbox.network == "host"):
        return node.addresses if sandbox is not None else ()
    return sandbox.addresses if sandbox is not None and sandbox.addresses else notes.addresses


# Containers


def _container_status(
    pod: PodView,
    container: ContainerView,
    observed: Observed,
    notes: PodNotes,
    node: NodeFacts,
    now: datetime,
    *,
    ending: bool,
) -> Object:
    known = notes.of(container.name)
    newest = observed.newest(container.name)
    state, last = _state(pod, container, newest, known, node, now, ending=ending)
    running = "running" in state
    same = newest is not None and known.container_id == newest.id
    started = running and same and known.started
    attempt = max(newest.attempt if newest else 0, known.next_attempt - 1, 0)
    status: Object = {
        "name": container.name,
        "state": state,
        "lastState": {"terminated": last} if last else {},
        "ready": _is_ready(container, state, started=started, ready=same and known.ready),
        "restartCount": attempt,
        "image": newest.image if newest and newest.image else container.image,
        "imageID": newest.image_id if newest else "",
    }
    if newest is not None:
        status["containerID"] = f"{node.scheme}://{newest.id}"
    if container.role is not Role.EPHEMERAL:
        status["started"] = started
    if running and (resources := container.spec.get("resources")):
        status["resources"] = resources
        if requests := resources.get("requests"):
            status["allocatedResources"] = requests
    return status


def _state(
    pod: PodView,
    container: ContainerView,
    newest: ContainerState | None,
    notes: ContainerNotes,
    node: NodeFacts,
    now: datetime,
    *,
    ending: bool,
) -> tuple[Object, Object | None]:
    """The container's state and the terminated state before it."""
    if newest is not None and newest.phase in {"running", "paused"}:
        return {"running": {"startedAt": _time(newest.started_at)}}, notes.last_terminated
    ended = _ended(newest, notes, node)
    if ended is None:
        return {"waiting": _waiting(pod, notes)}, notes.last_terminated
    if ending or not container.restarts_after(int(ended["exitCode"])):
        return {"terminated": ended}, notes.last_terminated
    if notes.waiting is not None:
        return {"waiting": _words(notes.waiting.reason, notes.waiting.message)}, ended
    finished = newest.finished_at if newest is not None else None
    if finished is not None and backoff_until(notes.restart_backoff, finished) > now:
        message = crash_message(pod, container.name, notes)
        return {"waiting": _words("CrashLoopBackOff", message)}, ended
    return {"terminated": ended}, notes.last_terminated


def _ended(newest: ContainerState | None, notes: ContainerNotes, node: NodeFacts) -> Object | None:
    if newest is None:
        return notes.final
    if newest.phase != "exited":
        return None
    container_id = f"{node.scheme}://{newest.id}"
    if notes.final is not None and notes.final.get("containerID") == container_id:
        return notes.final
    return terminated_state(newest, node.scheme)


def _waiting(pod: PodView, notes: ContainerNotes) -> Object:
    if notes.waiting is not None:
        return _words(notes.waiting.reason, notes.waiting.message)
    return _words(INITIALIZING if pod.init else CREATING)


def _words(reason: str, message: str = "") -> Object:
    return {"reason": reason, "message": message} if message else {"reason": reason}


def _is_ready(container: ContainerView, state: Object, *, started: bool, ready: bool) -> bool:
    if container.role is Role.INIT:
        return "terminated" in state and state["terminated"]["exitCode"] == 0
    return "running" in state and (container.role is Role.EPHEMERAL or (started and ready))


# The pod


def _phase(pod: PodView, shown: Mapping[str, Object], *, failed: bool, over: bool, init_is_over: bool) -> str:
    if failed:
        return "Failed"
    if init_is_over:
        return "Failed"
    states = [shown[c.name]["state"] for c in pod.main]
    running = sum("running" in state for state in states)
    ended = [_exit_of(shown[c.name]) for c in pod.main]
    if not running and states and all(code is not None for code in ended):
        done = all("terminated" in state for state in states)
        if over or (pod.deleting and done):
            return "Succeeded" if not any(ended) else "Failed"
        return "Running"
    if not _initialized(pod, shown):
        return "Pending"
    if any(_exit_of(shown[c.name]) is None and "waiting" in shown[c.name]["state"] for c in pod.main):
        return "Pending"
    return "Running" if running else "Pending"


def _exit_of(status: Mapping[str, Any]) -> int | None:
    """The exit code of a container that is not running but did run."""
    if "terminated" in status["state"]:
        return int(status["state"]["terminated"]["exitCode"])
    if "waiting" in status["state"] and status["lastState"]:
        return int(status["lastState"]["terminated"]["exitCode"])
    return None


def _initialized(pod: PodView, shown: Mapping[str, Object]) -> bool:
    """Whether every init container succeeded and every sidecar came up (or a main container ran since)."""
    if any("running" in shown[c.name]["state"] or _exit_of(shown[c.name]) is not None for c in pod.main):
        return True
    return not _incomplete(pod, shown)


def _incomplete(pod: PodView, shown: Mapping[str, Object]) -> list[str]:
    names = []
    for container in pod.init:
        status = shown[container.name]
        if container.role is Role.SIDECAR:
            if not status.get("started"):
                names.append(container.name)
        elif not status["ready"]:
            names.append(container.name)
    return names


def _conditions(
    pod: PodView,
    shown: Mapping[str, Object],
    observed: Observed,
    notes: PodNotes,
    phase: str,
    now: datetime,
    previous: Mapping[str, Any],
) -> list[Object]:
    sandbox = observed.sandbox
    network = sandbox is not None and sandbox.ready and not notes.sandbox_down and phase not in {"Succeeded", "Failed"}
    containers = _containers_ready(pod, shown, notes, phase)
    facts: list[tuple[str, tuple[bool, str, str]]] = [
        ("PodReadyToStartContainers", (network, "", "")),
        ("Initialized", _initialized_condition(pod, shown, phase)),
        ("Ready", _ready_condition(pod, previous, containers)),
        ("ContainersReady", containers),
        ("PodScheduled", (True, "", "")),
    ]
    if notes.failure is not None and notes.failure.reason in {"Evicted", "Terminated", "NodeShutdown"}:
        facts.append(("DisruptionTarget", (True, "TerminationByKubelet", notes.failure.message)))
    if notes.failure is not None and notes.failure.reason == CANNOT_FREEZE:
        facts.append((FROZEN, (False, CANNOT_FREEZE, notes.failure.message)))
    if notes.promotion is not None:
        took = notes.promotion.milliseconds
        text = "" if took is None else f"It took over {took} ms after the active pod had ended."
        facts.append((PROMOTED, (True, "ActiveEnded", text)))
    if notes.lead is not None:
        facts.append((leading.CONDITION, leading.told(notes.lead)))
    generation = objects.generation(pod.object)
    before = {c.get("type"): c for c in previous.get("conditions") or []}
    return [_condition(name, fact, before.get(name), generation, now) for name, fact in facts]


def _condition(
    name: str, fact: tuple[bool, str, str], before: Mapping[str, Any] | None, generation: int, now: datetime
) -> Object:
    holds, reason, message = fact
    status = "True" if holds else "False"
    unchanged = before is not None and before.get("status") == status and before.get("lastTransitionTime")
    found: Object = {"type": name, "status": status, "lastProbeTime": None}
    if generation:
        found["observedGeneration"] = generation
    found["lastTransitionTime"] = before["lastTransitionTime"] if unchanged and before else timestamp(now)
    if reason:
        found["reason"] = reason
    if message:
        found["message"] = message
    return found


def _initialized_condition(pod: PodView, shown: Mapping[str, Object], phase: str) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return True, "PodCompleted", ""
    if _initialized(pod, shown):
        return True, "", ""
    names = " ".join(_incomplete(pod, shown))
    return False, "ContainersNotInitialized", f"containers with incomplete status: [{names}]"


def _containers_ready(pod: PodView, shown: Mapping[str, Object], notes: PodNotes, phase: str) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return False, "PodCompleted", ""
    if phase == "Failed":
        return False, "PodFailed", ""
    # What stands by cannot answer a probe, and nobody waits for its answers.
    waits = {one for one in pod.one_active if leading.stands_by(pod, notes, one)}
    serving = [c.name for c in pod.main + pod.with_role(Role.SIDECAR) if c.name not in waits]
    unready = [name for name in serving if not shown[name]["ready"]]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return True, "", ""


def _ready_condition(
    pod: PodView, previous: Mapping[str, Any], containers: tuple[bool, str, str]
) -> tuple[bool, str, str]:
    if not containers[0]:
        return containers
    found = {c.get("type"): c.get("status") for c in _current_conditions(pod, previous)}
    wrong: list[str] = []
    for gate in pod.spec.get("readinessGates") or []:
        name = gate.get("conditionType")
        if name not in found:
            wrong.append(f'corresponding condition of pod readiness gate "{name}" does not exist.')
        elif found[name] != "True":
            wrong.append(f'the status of pod readiness gate "{name}" is not "True", but {found[name]}')
    if wrong:
        return False, "ReadinessGatesNotReady", ", ".join(wrong)
    return True, "", ""


def _current_conditions(pod: PodView, previous: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Conditions others set are read from the object, which is newer than what we last sent."""
    return (pod.object.get("status") or {}).get("conditions") or previous.get("conditions") or []


def _time(moment: datetime | None) -> str | None:
    return timestamp(moment) if moment is not None else None
