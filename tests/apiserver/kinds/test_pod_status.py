from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fleetplane.apiserver.kinds.pod_status import COLUMNS, summarise

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
READY = [{"type": "Ready", "status": "True"}]


def running(**fields: Any) -> dict[str, Any]:
    return {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}} | fields


def waiting(reason: str, **fields: Any) -> dict[str, Any]:
    return {"name": "c", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": reason}}} | fields


def ended(code: int = 0, reason: str = "", signal: int = 0, **fields: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason, "signal": signal}}
    return {"name": "c", "ready": False, "restartCount": 0, "state": state} | fields


def pod(*containers: Any, init: tuple[Any, ...] = (), sidecars: int = 0, deleting: bool = False, **status: Any) -> Any:
    initial = [{"name": f"i{n}"} | ({"restartPolicy": "Always"} if n < sidecars else {}) for n in range(len(init))]
    return {
        "metadata": {"name": "a"} | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {}),
        "spec": {"containers": [{"name": "c"}] * max(1, len(containers)), "initContainers": initial},
        "status": {
            "phase": "Running",
            "containerStatuses": list(containers),
            "initContainerStatuses": [one | {"name": f"i{n}"} for n, one in enumerate(init)],
        }
        | status,
    }


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (pod(phase="Pending"), "Pending"),
        (pod(running()), "Running"),
        (pod(waiting("ContainerCreating"), phase="Pending"), "ContainerCreating"),
        (pod(waiting("CrashLoopBackOff")), "CrashLoopBackOff"),
        (pod(ended(0, "Completed"), phase="Succeeded"), "Completed"),
        (pod(ended(1, "Error"), phase="Failed"), "Error"),
        (pod(ended(3), phase="Failed"), "ExitCode:3"),
        (pod(ended(137, signal=9), phase="Failed"), "Signal:9"),
        (pod(running(), ended(1, "OOMKilled")), "OOMKilled"),
        (pod(ended(0, "Completed"), running(), conditions=READY), "Running"),
        (pod(ended(0, "Completed"), running()), "NotReady"),
        (pod(phase="Failed", reason="Evicted"), "Evicted"),
        (pod(init=(waiting("PodInitializing"),), phase="Pending"), "Init:0/1"),
        (pod(init=(ended(0), waiting("PodInitializing")), phase="Pending"), "Init:1/2"),
        (pod(init=(waiting("ImagePullBackOff"),), phase="Pending"), "Init:ImagePullBackOff"),
        (pod(init=(ended(2),), phase="Failed"), "Init:ExitCode:2"),
        (pod(init=(ended(1, "Error"),), phase="Failed"), "Init:Error"),
        (pod(init=(running(started=True),), sidecars=1, phase="Pending"), "Pending"),
        (pod(running(), deleting=True), "Terminating"),
        (pod(ended(0, "Completed"), deleting=True, phase="Succeeded"), "Completed"),
        (pod(running(), deleting=True, reason="NodeLost"), "Unknown"),
        (
            pod(phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            "SchedulingGated",
        ),
    ],
)
def test_the_status_word(found: Any, word: str) -> None:
    assert summarise(found).status == word


def test_sidecars_count_as_containers() -> None:
    found = summarise(pod(running(), init=(running(started=True),), sidecars=1))

    assert (found.ready, found.total) == (2, 2)


def cell(column: str, found: Any) -> Any:
    return next(one for one in COLUMNS if one.name == column).cell(found, NOW)


def test_restarts_say_when_the_last_one_was() -> None:
    last = {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}

    assert cell("Restarts", pod(running(restartCount=3, lastState=last))) == "3 (5m ago)"
    assert cell("Restarts", pod(running(restartCount=3))) == "3"
    assert cell("Restarts", pod(running())) == "0"


def test_wide_columns_say_none_where_there_is_nothing() -> None:
    assert [cell(name, pod()) for name in ("IP", "Node", "Nominated Node", "Readiness Gates")] == ["<none>"] * 4
    assert cell("IP", pod(podIPs=[{"ip": "fd00::1"}, {"ip": "10.0.0.1"}])) == "fd00::1"


def test_readiness_gates_are_counted() -> None:
    found = pod(conditions=[{"type": "a", "status": "True"}])
    found["spec"]["readinessGates"] = [{"conditionType": "a"}, {"conditionType": "b"}]

    assert cell("Readiness Gates", found) == "1/2"


def test_a_pod_without_anything_is_printed_all_the_same() -> None:
    assert [column.cell({}, NOW) for column in COLUMNS][:4] == ["", "0/0", "", "0"]
