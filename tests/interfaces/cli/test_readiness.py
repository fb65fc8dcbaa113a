"""Whether objects are ready, and the words for why not."""

from __future__ import annotations

from typing import Any

import pytest

from fleetplane.interfaces.cli.readiness import readiness


def made(api_version: str, kind: str, spec: Any = None, status: Any = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "a", **metadata},
        "spec": spec or {},
        "status": status or {},
    }


def condition(kind: str, status: str = "True", **more: str) -> dict[str, str]:
    return {"type": kind, "status": status, **more}


@pytest.mark.parametrize(
    ("obj", "ready", "why"),
    [
        (made("v1", "ConfigMap"), True, "is there"),
        (made("v1", "ConfigMap", deletionTimestamp="2026-01-01T00:00:00Z"), False, "is being deleted"),
        (made("v1", "Pod", {"nodeName": "n"}, {"conditions": [condition("Ready")]}), True, "is ready"),
        (made("v1", "Pod", {"nodeName": "n"}, {"phase": "Succeeded"}), True, "has finished"),
        (made("v1", "Pod"), False, "waits to be placed on a node"),
        (made("v1", "Pod", {"nodeName": "n"}), False, "node n has not started it yet"),
        (
            made("v1", "Pod", {}, {"conditions": [condition("PodScheduled", "False", message="no room")]}),
            False,
            "cannot be placed on a node: no room",
        ),
        (
            made(
                "v1",
                "Pod",
                {"nodeName": "n"},
                {
                    "containerStatuses": [
                        {"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
                    ]
                },
            ),
            False,
            "container c cannot start: ErrImagePull: no such image",
        ),
        (
            made(
                "apps/v1", "Deployment", {"replicas": 3}, {"observedGeneration": 1, "updatedReplicas": 1}, generation=1
            ),
            False,
            "1 of 3 replicas are updated",
        ),
        (
            made("apps/v1", "Deployment", {"replicas": 1}, {"observedGeneration": 1}, generation=2),
            False,
            "its controller has not seen the last change yet",
        ),
        (
            made("apps/v1", "Deployment", {"replicas": 0}, {"observedGeneration": 1}, generation=1),
            True,
            "0 of 0 replicas are available",
        ),
        (made("apps/v1", "Deployment", {"paused": True}), False, "its roll-out is paused"),
        (
            made("batch/v1", "Job", {}, {"succeeded": 1, "conditions": [condition("Complete")]}),
            True,
            "1 of 1 completions are done",
        ),
        (
            made("v1", "Node", {}, {"conditions": [condition("Ready", "Unknown", message="gone")]}),
            False,
            "is not ready: gone",
        ),
        (
            made("x.io/v1", "Thing", {}, {"conditions": [condition("Ready", "False", reason="Busy")]}),
            False,
            "is not ready: Busy",
        ),
        (made("x.io/v1", "Thing", {}, {"conditions": [condition("Synced")]}), True, "is there"),
        (made("x.io/v1", "Thing", {}, {"conditions": "nonsense"}), True, "is there"),
        (made("x.io/v1", "Thing", {}, {"phase": "Pending"}), False, "is Pending"),
        (made("x.io/v1", "Thing", {}, {"phase": "Bound"}), True, "is Bound"),
    ],
)
def test_ready_or_why_not(obj: dict[str, Any], ready: bool, why: str) -> None:
    found = readiness(obj)

    assert (found.ready, found.why) == (ready, why)


def test_what_waiting_will_not_help() -> None:
    failed_job = made("batch/v1", "Job", {}, {"conditions": [condition("Failed", message="too often")]})
    stuck = made(
        "apps/v1",
        "Deployment",
        {},
        {"conditions": [condition("Progressing", "False", reason="ProgressDeadlineExceeded")]},
    )

    assert readiness(failed_job).failed
    assert readiness(stuck).failed
