"""Podman's descriptions in our words. Pure functions, tolerant of what other versions leave out or add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.node.moments import EPOCH, moment
from fleetplane.node.runtime import ContainerPhase, ContainerState, Image, Label

_PHASES: Final[dict[str, ContainerPhase]] = {
    "created": "created",
    "configured": "created",
    "initialized": "created",
    "running": "running",
    "stopping": "running",
    "paused": "paused",
    "exited": "exited",
    "stopped": "exited",
    "removing": "exited",
}


def listed_state(entry: Mapping[str, Any], sandbox_id: str) -> ContainerState:
    """A container as ``containers/json`` lists it: no sub-second times, no word on memory."""
    labels = entry.get("Labels") or {}
    return ContainerState(
        id=str(entry["Id"]),
        pod_uid=labels.get(Label.UID, ""),
        name=labels.get(Label.CONTAINER, ""),
        attempt=_number(labels.get(Label.ATTEMPT)),
        phase=_PHASES.get(str(entry.get("State") or "").lower(), "exited"),
        created_at=moment(entry.get("Created")) or EPOCH,
        started_at=moment(entry.get("StartedAt")),
        finished_at=moment(entry.get("ExitedAt")),
        exit_code=int(entry.get("ExitCode") or 0),
        image=str(entry.get("Image") or ""),
        image_id=_image_id(entry.get("ImageID")),
        hash=labels.get(Label.HASH, ""),
        pid=int(entry.get("Pid") or 0),
        sandbox_id=sandbox_id,
        labels=labels,
    )


def inspected_state(entry: Mapping[str, Any], sandbox_id: str) -> ContainerState:
    """A container as ``containers/{id}/json`` describes it."""
    state = entry.get("State") or {}
    labels = (entry.get("Config") or {}).get("Labels") or {}
    phase = _PHASES.get(str(state.get("Status") or "").lower(), "exited")
    return ContainerState(
        id=str(entry["Id"]),
        pod_uid=labels.get(Label.UID, ""),
        name=labels.get(Label.CONTAINER, ""),
        attempt=_number(labels.get(Label.ATTEMPT)),
        phase=phase,
        created_at=moment(entry.get("Created")) or EPOCH,
        started_at=moment(state.get("StartedAt")),
        finished_at=moment(state.get("FinishedAt")) if phase == "exited" else None,
        exit_code=int(state.get("ExitCode") or 0) if phase == "exited" else 0,
        oom_killed=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        image=str(entry.get("ImageName") or ""),
        image_id=_image_id(entry.get("Image")),
        hash=labels.get(Label.HASH, ""),
        pid=int(state.get("Pid") or 0),
        sandbox_id=sandbox_id,
        labels=labels,
    )


def image_of(entry: Mapping[str, Any]) -> Image:
    """An image as ``images/json`` lists or ``images/{name}/json`` describes it."""
    config = entry.get("Config") or {}
    return Image(
        id=_image_id(entry.get("Id")),
        names=tuple(entry.get("NamesHistory") or entry.get("RepoTags") or entry.get("Names") or ()),
        digests=tuple(entry.get("RepoDigests") or ()),
        size=int(entry.get("Size") or 0),
        user=str(entry.get("User") or config.get("User") or ""),
        created_at=moment(entry.get("Created")),
    )


def _image_id(value: Any) -> str:
    text = str(value or "")
    return text if not text or ":" in text else f"sha256:{text}"


def _number(text: Any) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() else 0
