"""What the node remembers of containers in VMs: enough to tell how they ended when their VM is no more, and what they said.

A file for each container, written when it is made; its log beside it once the VM goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from fleetplane.node.files import read_json, remove_tree, write_private
from fleetplane.node.moments import EPOCH
from fleetplane.node.runtime import ContainerState


@dataclass(frozen=True, slots=True)
class Kept:
    """The records of one node's pod VMs, below a folder."""

    folder: Path

    def put(self, state: ContainerState) -> None:
        write_private(self._file(state.sandbox_id, state.id, "json"), orjson.dumps(encoded(state)))

    def put_log(self, sandbox_id: str, container_id: str, data: bytes) -> None:
        write_private(self.log_file(sandbox_id, container_id), data)

    def of(self, sandbox_id: str) -> dict[str, ContainerState]:
        found = {}
        for path in (self.folder / sandbox_id).glob("*.json"):
            if (said := read_json(path)) is not None:
                state = decoded(said)
                found[state.id] = state
        return found

    def sandboxes(self) -> list[str]:
        return sorted(one.name for one in self.folder.iterdir() if one.is_dir()) if self.folder.is_dir() else []

    def holder(self, container_id: str) -> str:
        """The sandbox a container is of; empty when it is of none."""
        if not container_id.isalnum():
            return ""
        return next((one for one in self.sandboxes() if self._file(one, container_id, "json").exists()), "")

    def log_file(self, sandbox_id: str, container_id: str) -> Path:
        return self._file(sandbox_id, container_id, "log")

    def forget(self, sandbox_id: str, container_id: str) -> None:
        for kind in ("json", "log"):
            self._file(sandbox_id, container_id, kind).unlink(missing_ok=True)

    def forget_sandbox(self, sandbox_id: str) -> None:
        remove_tree(self.folder / sandbox_id)

    def _file(self, sandbox_id: str, container_id: str, kind: str) -> Path:
        return self.folder / sandbox_id / f"{container_id}.{kind}"


def encoded(state: ContainerState) -> dict[str, Any]:
    names = (
        "id",
        "pod_uid",
        "name",
        "attempt",
        "phase",
        "exit_code",
        "oom_killed",
        "error",
        "image",
        "image_id",
        "hash",
    )
    made: dict[str, Any] = {name: getattr(state, name) for name in (*names, "sandbox_id")}
    times = {name: getattr(state, name) for name in ("created_at", "started_at", "finished_at")}
    return {**made, **{name: one and one.timestamp() for name, one in times.items()}, "labels": dict(state.labels)}


def decoded(said: Mapping[str, Any]) -> ContainerState:
    times = {
        name: datetime.fromtimestamp(said[name], UTC) if said.get(name) else None
        for name in ("created_at", "started_at", "finished_at")
    }
    return ContainerState(**{**said, **times, "created_at": times["created_at"] or EPOCH})


def lost(state: ContainerState, now: datetime) -> ContainerState:
    """What is said of a container whose VM is gone: killed, as it is."""
    if state.phase == "exited":
        return state
    return replace(state, phase="exited", exit_code=137, finished_at=now, pid=0, error="the pod VM has ended")
