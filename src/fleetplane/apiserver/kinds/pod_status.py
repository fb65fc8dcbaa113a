"""What ``kubectl get pods`` says of a pod.

The STATUS word is not the phase: it is the most telling thing about the pod's containers, found in the order kubectl's
users know. ``READY`` counts containers and sidecars, ``RESTARTS`` says when the last one was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from fleetplane.apiserver.kinds.access import entries, number, section, text
from fleetplane.apiserver.kinds.columns import NONE, at, text_column, timed_column
from fleetplane.apiserver.kinds.container_rules import is_sidecar
from fleetplane.model.objects import Object, condition, is_condition_true, is_deleting
from fleetplane.model.table import AGE, NAME, Cell, Column, time_since

Pod = Mapping[str, Any]


class Summary(NamedTuple):
    """``last_restart`` is the timestamp of the last termination that was followed by a restart, empty if none."""

    ready: int
    total: int
    status: str
    restarts: int
    last_restart: str


def summarise(pod: Pod) -> Summary:
    spec, status = section(pod, "spec"), section(pod, "status")
    phase = text(status, "phase")
    word = text(status, "reason") or phase
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.get("reason") == "SchedulingGated":
        word = "SchedulingGated"

    initial = entries(spec, "initContainers")
    sidecars = {one.get("name") for one in initial if is_sidecar(one)}
    total = len(entries(spec, "containers")) + len(sidecars)
    starting = _initial(status, sidecars, len(initial))
    ready, restarts, last = starting.ready, starting.restarts, starting.last_restart
    if starting.word is not None:
        word = starting.word
    if starting.word is None or is_condition_true(pod, "Initialized"):
        running = _running(pod, status, word)
        word, ready = running.word or word, ready + running.ready
        restarts = starting.sidecar_restarts + running.restarts
        last = max(starting.last_sidecar_restart, running.last_restart)

    if is_deleting(pod):
        if text(status, "reason") == "NodeLost":
            word = "Unknown"
        elif phase not in ("Succeeded", "Failed"):
            word = "Terminating"
    return Summary(ready, total, word, restarts, last)


class _Progress(NamedTuple):
    word: str | None
    ready: int
    restarts: int
    last_restart: str
    sidecar_restarts: int = 0
    last_sidecar_restart: str = ""


def _initial(status: Pod, sidecars: set[Any], count: int) -> _Progress:
    """How far initialisation is; the word is None once it is over."""
    ready = restarts = sidecar_restarts = 0
    last = last_sidecar = ""
    for index, container in enumerate(entries(status, "initContainerStatuses")):
        sidecar = container.get("name") in sidecars
        restarts += number(container, "restartCount")
        finished = _last_termination(container)
        last = max(last, finished)
        if sidecar:
            sidecar_restarts += number(container, "restartCount")
            last_sidecar = max(last_sidecar, finished)
        ended = section(container, "state").get("terminated")
        waiting = text(section(container, "state", "waiting"), "reason")
        if isinstance(ended, dict) and not number(ended, "exitCode"):
            continue
        if sidecar and container.get("started") is True:
            ready += container.get("ready") is True
            continue
        if isinstance(ended, dict):
            word = "Init:" + (text(ended, "reason") or _exit(ended))
        elif waiting and waiting != "PodInitializing":
            word = f"Init:{waiting}"
        else:
            word = f"Init:{index}/{count}"
        return _Progress(word, ready, restarts, last, sidecar_restarts, last_sidecar)
    return _Progress(None, ready, restarts, last, sidecar_restarts, last_sidecar)


def _running(pod: Pod, status: Pod, word: str) -> _Progress:
    """What the ordinary containers say; the first of them has the last word."""
    ready = restarts = 0
    last, has_running = "", False
    for container in reversed(entries(status, "containerStatuses")):
        restarts += number(container, "restartCount")
        last = max(last, _last_termination(container))
        state = section(container, "state")
        ended = state.get("terminated")
        waiting = text(section(state, "waiting"), "reason")
        if waiting:
            word = waiting
        elif isinstance(ended, dict):
            word = text(ended, "reason") or _exit(ended)
        elif container.get("ready") is True and isinstance(state.get("running"), dict):
            has_running = True
            ready += 1
    if word == "Completed" and has_running:
        word = "Running" if is_condition_true(pod, "Ready") else "NotReady"
    return _Progress(word, ready, restarts, last)


def _exit(ended: Object) -> str:
    signal = number(ended, "signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{number(ended, 'exitCode')}"


def _last_termination(container: Object) -> str:
    return text(section(container, "lastState", "terminated"), "finishedAt")


def _ready_cell(pod: Pod) -> Cell:
    found = summarise(pod)
    return f"{found.ready}/{found.total}"


def _restarts_cell(pod: Pod, now: datetime) -> Cell:
    found = summarise(pod)
    if found.restarts and found.last_restart:
        return f"{found.restarts} ({time_since(found.last_restart, now)} ago)"
    return str(found.restarts)


def _address(pod: Pod) -> Cell:
    addresses = entries(section(pod, "status"), "podIPs")
    return text(addresses[0], "ip") if addresses else NONE


def _gates(pod: Pod) -> Cell:
    gates = entries(section(pod, "spec"), "readinessGates")
    if not gates:
        return NONE
    passed = sum(is_condition_true(pod, text(gate, "conditionType")) for gate in gates)
    return f"{passed}/{len(gates)}"


def _or_none(*path: str) -> Any:
    return lambda pod: at(*path)(pod) or NONE


COLUMNS: Final[tuple[Column, ...]] = (
    NAME,
    text_column("Ready", "Containers that are ready, of all that should be.", _ready_cell),
    text_column("Status", "The most telling state of the pod and its containers.", lambda pod: summarise(pod).status),
    timed_column("Restarts", "How often containers were restarted, and when last.", _restarts_cell),
    AGE,
    text_column("IP", "First address of the pod.", _address, wide=True),
    text_column("Node", "The node the pod is bound to.", _or_none("spec", "nodeName"), wide=True),
    text_column(
        "Nominated Node", "The node being cleared for the pod.", _or_none("status", "nominatedNodeName"), wide=True
    ),
    text_column("Readiness Gates", "Conditions that must hold besides readiness, and how many do.", _gates, wide=True),
)
