"""What a plan can say to do for a pod: one small type each, so that plans can be compared."""

from __future__ import annotations

from dataclasses import dataclass

from fleetplane.node.observed import Failure
from fleetplane.node.runtime import Resources


@dataclass(frozen=True, slots=True)
class PrepareVolumes:
    """Make everything the pod's containers mount."""


@dataclass(frozen=True, slots=True)
class StartSandbox:
    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    id: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Fetch its image where needed, create it, start it, run its postStart hook."""

    name: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StopContainer:
    """preStop hook, stop signal, and after ``grace_seconds`` altogether SIGKILL. ``why`` goes into the event."""

    name: str
    id: str
    grace_seconds: int
    why: str
    hook: bool = True


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    name: str
    id: str


@dataclass(frozen=True, slots=True)
class UpdateResources:
    name: str
    id: str
    resources: Resources


@dataclass(frozen=True, slots=True)
class PauseContainer:
    name: str
    id: str
    resume: bool = False


@dataclass(frozen=True, slots=True)
class FailPod:
    """The pod is over, whatever its containers do: note it, the next plan stops them."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Release:
    """Nothing runs any more: remove every trace from the node. ``forget`` also ends the pod in the API."""

    forget: bool


@dataclass(frozen=True, slots=True)
class NoteBackoff:
    """Say once that a container is not restarted yet."""

    name: str
    attempt: int
    message: str
    image: bool = False


Action = (
    PrepareVolumes
    | StartSandbox
    | StopSandbox
    | StartContainer
    | StopContainer
    | RemoveContainer
    | UpdateResources
    | PauseContainer
    | FailPod
    | Release
    | NoteBackoff
)
