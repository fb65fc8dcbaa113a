"""What is known of a pod on its node: what the runtime reports, and the notes the node keeps beside it.

All of it is immutable, so that ``plan`` and ``status`` are functions of values. The notes are what no runtime
remembers: back-off, probe results, why something could not be started. They go to disk with the pod (``to_json``), so
that a restarted agent neither forgets a restart count nor starts a finished pod again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fleetplane.model.objects import Object
from fleetplane.node.runtime import ContainerState, Resources, Sandbox


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next try, in seconds, and when that was last lengthened."""

    seconds: float = 0.0
    updated: datetime | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container is not running, in the kubelet's words."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ContainerNotes:
    """``container_id`` is the container that ``started``, ``ready`` and ``kill`` speak of; another one resets them."""

    container_id: str = ""
    started: bool = False
    ready: bool = False
    kill: str = ""
    """Why the running container must be stopped and started anew; empty when it must not."""
    kill_grace: int | None = None
    waiting: Waiting | None = None
    failed_at: datetime | None = None
    retry_at: datetime | None = None
    retry_seconds: float = 0.0
    image_backoff: Backoff = Backoff()
    restart_backoff: Backoff = Backoff()
    next_attempt: int = 0
    last_terminated: Object | None = None
    final: Object | None = None
    """The terminated state of the newest attempt, kept for when the runtime no longer has it."""
    resources: Resources | None = None
    """What was last given to the runtime."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the pod as a whole must end although its containers did not ask for it."""

    reason: str
    message: str
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """A frozen pod that the node let go on: after which pod (uid), and when, by the node's monotonic clock."""

    after: str
    ended: float = 0.0
    milliseconds: int | None = None
    """How long it took; None until its containers run, or when the agent was restarted meanwhile."""


@dataclass(frozen=True, slots=True)
class Lead:
    """Which of the containers that share a role is active (see ``leading``), and how often that changed."""

    name: str
    switches: int = 0
    ended: datetime | None = None
    """When the one before ended; None once this one runs."""
    milliseconds: int | None = None
    """How long the last switch took."""
    after: str = ""
    """The container (an id) whose end was told and may not have been seen yet: whatever it looks like, it is over."""


@dataclass(frozen=True, slots=True)
class PodNotes:
    """What the node remembers of one pod."""

    started_at: datetime | None = None
    volumes_ready: bool = False
    volumes_retry_at: datetime | None = None
    volumes_retry_seconds: float = 0.0
    sandbox_retry_at: datetime | None = None
    sandbox_backoff: Backoff = Backoff()
    sandbox_attempts: int = 0
    sandbox_down: bool = False
    """The sandbox was taken down on purpose and is not to be made again."""
    failure: Failure | None = None
    promotion: Promotion | None = None
    lead: Lead | None = None
    stopping_since: datetime | None = None
    released: bool = False
    """Nothing of it is left on the node."""
    addresses: tuple[str, ...] = ()
    containers: Mapping[str, ContainerNotes] = field(default_factory=dict)

    def of(self, name: str) -> ContainerNotes:
        return self.containers.get(name, _NONE)

    def with_container(self, name: str, notes: ContainerNotes) -> PodNotes:
        return replace(self, containers={**self.containers, name: notes})


_NONE = ContainerNotes()
VOLUMES = "/volumes"
SANDBOX = "/sandbox"
"""Names of what is not a container but can be busy; no container can be called so."""


@dataclass(frozen=True, slots=True)
class Observed:
    """``by_name`` holds each container's attempts, newest first. ``busy`` names what an operation is working on."""

    sandboxes: tuple[Sandbox, ...] = ()
    by_name: Mapping[str, tuple[ContainerState, ...]] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()

    @property
    def sandbox(self) -> Sandbox | None:
        """The newest sandbox."""
        return self.sandboxes[0] if self.sandboxes else None

    def newest(self, name: str) -> ContainerState | None:
        attempts = self.by_name.get(name)
        return attempts[0] if attempts else None

    @property
    def running(self) -> list[ContainerState]:
        return [c for attempts in self.by_name.values() for c in attempts if c.phase in {"running", "paused"}]


def observe(sandboxes: Iterable[Sandbox], containers: Iterable[ContainerState], busy: Iterable[str] = ()) -> Observed:
    """Sorted so that the newest attempt of everything comes first."""
    by_name: dict[str, list[ContainerState]] = {}
    for container in containers:
        by_name.setdefault(container.name, []).append(container)
    return Observed(
        tuple(sorted(sandboxes, key=lambda s: (s.attempt, s.created_at), reverse=True)),
        {
            name: tuple(sorted(found, key=lambda c: (c.attempt, c.created_at), reverse=True))
            for name, found in by_name.items()
        },
        frozenset(busy),
    )


def notes_to_json(notes: PodNotes) -> dict[str, Any]:
    """The part of the notes worth keeping over a restart of the agent."""
    kept: dict[str, Any] = {
        "sandboxAttempts": notes.sandbox_attempts,
        "sandboxDown": notes.sandbox_down,
        "released": notes.released,
    }
    if notes.started_at is not None:
        kept["startedAt"] = notes.started_at.isoformat()
    if notes.failure is not None:
        kept["failure"] = {"reason": notes.failure.reason, "message": notes.failure.message}
    if notes.promotion is not None:
        kept["promotion"] = {"after": notes.promotion.after, "milliseconds": notes.promotion.milliseconds}
    if notes.lead is not None:
        lead = notes.lead
        kept["lead"] = {"name": lead.name, "switches": lead.switches, "milliseconds": lead.milliseconds}
    kept["containers"] = {
        name: {
            "nextAttempt": one.next_attempt,
            "backoffSeconds": one.restart_backoff.seconds,
            "backoffUpdated": one.restart_backoff.updated.isoformat() if one.restart_backoff.updated else None,
            "lastTerminated": one.last_terminated,
            "final": one.final,
            "containerId": one.container_id,
            "started": one.started,
            "ready": one.ready,
        }
        for name, one in notes.containers.items()
    }
    return kept


def notes_from_json(data: Mapping[str, Any]) -> PodNotes:
    """The notes as they were written; unknown or missing parts read as never noted."""
    failure, promotion, lead = data.get("failure"), data.get("promotion"), data.get("lead")
    return PodNotes(
        started_at=_moment(data.get("startedAt")),
        sandbox_attempts=int(data.get("sandboxAttempts") or 0),
        sandbox_down=bool(data.get("sandboxDown")),
        released=bool(data.get("released")),
        failure=Failure(str(failure["reason"]), str(failure["message"])) if failure else None,
        promotion=Promotion(str(promotion["after"]), 0.0, promotion.get("milliseconds")) if promotion else None,
        lead=Lead(str(lead["name"]), int(lead["switches"]), None, lead.get("milliseconds")) if lead else None,
        containers={
            str(name): ContainerNotes(
                container_id=str(one.get("containerId") or ""),
                started=bool(one.get("started")),
                ready=bool(one.get("ready")),
                next_attempt=int(one.get("nextAttempt") or 0),
                restart_backoff=Backoff(float(one.get("backoffSeconds") or 0), _moment(one.get("backoffUpdated"))),
                last_terminated=one.get("lastTerminated"),
                final=one.get("final"),
            )
            for name, one in (data.get("containers") or {}).items()
        },
    )


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
