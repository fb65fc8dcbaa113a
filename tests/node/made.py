"""Pods, containers and moments for tests, with as few words as possible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fleetplane.node.observed import ContainerNotes, Observed, PodNotes, observe
from fleetplane.node.pod import PodView
from fleetplane.node.runtime import ContainerState, Sandbox

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def container(name: str = "main", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "app:1", **more}


def pod(
    *containers: dict[str, Any], init: list[dict[str, Any]] | None = None, meta: Any = None, **spec: Any
) -> PodView:
    return PodView(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generation": 1, **(meta or {})},
            "spec": {
                "nodeName": "n1",
                "containers": list(containers) or [container()],
                **({"initContainers": init} if init else {}),
                **spec,
            },
        }
    )


def deleted(grace: int = 30) -> dict[str, Any]:
    return {"deletionTimestamp": "2026-01-01T12:00:30Z", "deletionGracePeriodSeconds": grace}


SANDBOX = Sandbox("s0", "u1", "default", "web", 0, True, NOW, ("10.0.0.2",))


def state(name: str = "main", phase: Any = "running", attempt: int = 0, code: int = 0, **more: Any) -> ContainerState:
    known: dict[str, Any] = {
        "id": f"{name}-{attempt}",
        "pod_uid": "u1",
        "name": name,
        "attempt": attempt,
        "phase": phase,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": NOW if phase == "exited" else None,
        "exit_code": code,
        "sandbox_id": "s0",
        "image": "app:1",
    }
    return ContainerState(**{**known, **more})


def seen(*states: ContainerState, sandbox: Sandbox | None = SANDBOX, busy: tuple[str, ...] = ()) -> Observed:
    return observe([sandbox] if sandbox else [], states, busy)


def notes(**containers: ContainerNotes) -> PodNotes:
    return PodNotes(started_at=NOW, volumes_ready=True, containers=containers)


def up(name: str = "main", attempt: int = 0, **more: Any) -> ContainerNotes:
    """Notes of a container that runs, started up and ready."""
    return ContainerNotes(
        **{"container_id": f"{name}-{attempt}", "started": True, "ready": True, "next_attempt": attempt + 1, **more}
    )
