"""One pod on this node: keeps its picture, makes the next plan, starts what was planned.

``step`` is synchronous and cheap: it plans, begins operations and computes the status. Whatever takes time is an
operation: a task of the engine's group, at most one for each container, one for the sandbox and one for the volumes.
An operation changes the picture when it ends and pokes the worker, which plans again. So a slow pull or a stubborn
container delays nothing else, and nothing here is lost when the agent dies: the picture is read back from the runtime.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import orjson

from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.node.actions import (
    Action,
    FailPod,
    NoteBackoff,
    PauseContainer,
    PrepareVolumes,
    Release,
    RemoveContainer,
    StartContainer,
    StartSandbox,
    StopContainer,
    StopSandbox,
    UpdateResources,
)
from fleetplane.node.building import PodBuilder
from fleetplane.node.guard import Guard
from fleetplane.node.hooks import HookRunner
from fleetplane.node.images import Images
from fleetplane.node.leading import following
from fleetplane.node.observed import (
    SANDBOX,
    VOLUMES,
    Failure,
    Observed,
    PodNotes,
    Waiting,
    observe,
)
from fleetplane.node.operations import PodOperations
from fleetplane.node.plan import Plan, plan_pod
from fleetplane.node.pod import GROUP, SELF_FENCING, ContainerView, PodView, Role
from fleetplane.node.probing import PodProbes
from fleetplane.node.recorder import Recorder
from fleetplane.node.runtime import ContainerRuntime, ContainerState, Sandbox
from fleetplane.node.status import NodeFacts, pod_status

BROKEN_SECONDS = 10.0
HELD_SECONDS = 0.2
REFRESH = "/refresh"

_log = logging.getLogger(__name__)

Operation = Callable[[], Coroutine[Any, Any, None]]
"""Work that takes time; a function rather than a coroutine, so that work never begun leaves nothing behind."""


def packed(obj: Object) -> bytes:
    """Encoded in no more memory than it takes: the encoder leaves itself room to grow."""
    return bytes(memoryview(orjson.dumps(obj)))


def has_promise(pod: PodView) -> bool:
    """Whether self-fencing may concern the pod."""
    return SELF_FENCING in pod.annotations or GROUP in pod.annotations


class Surroundings(Protocol):
    """What a worker needs of the engine that holds it."""

    runtime: ContainerRuntime
    environment: Environment
    builder: PodBuilder
    images: Images
    hooks: HookRunner
    recorder: Recorder
    guard: Guard
    may_start: Callable[[PodWorker], bool]
    """Whether containers of a pod may be started now (see ``fencing``)."""
    unenforced: str
    """Why limits have no effect on this node; empty where they have."""
    cannot_freeze: str
    """Why pods cannot be frozen on this node; empty where they can."""

    def note_unfrozen(self, why: str) -> None:
        """A pod could not be frozen, so no other is to come here for that."""

    def facts_of(self, pod: PodView) -> NodeFacts:
        """What statuses say of the node this pod is on."""

    def spawn(self, work: Operation) -> asyncio.Task[None]:
        """Run in the engine's task group."""

    def probes_of(self, worker: PodWorker) -> PodProbes: ...

    def status_changed(self, worker: PodWorker) -> None: ...

    def ended(self, worker: PodWorker, *, forget: bool) -> None:
        """Nothing of the pod is left on the node."""


@dataclass(slots=True)
class Picture:
    """What the runtime is known to have of one pod, by id."""

    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    containers: dict[str, ContainerState] = field(default_factory=dict)


@dataclass(slots=True)
class _Operation:
    task: asyncio.Task[None]
    kind: type[Any]
    grace_seconds: int = 0
    may_be_cancelled: bool = False


class PodWorker:
    """See the module. All methods run in the engine's event loop.

    There may be tens of thousands, most of them at rest. So the specification and the status are kept encoded, the
    former as the very bytes the watch brought, and are decoded while something happens.
    """

    __slots__ = (
        "_encoded",
        "_operations",
        "_poked",
        "_probes",
        "_refresh_again",
        "_said_backoff",
        "_status",
        "_view",
        "_wake",
        "around",
        "closed",
        "cluster",
        "facts",
        "has_promise",
        "name",
        "namespace",
        "notes",
        "picture",
        "static",
        "uid",
    )

    def __init__(
        self, surroundings: Surroundings, pod: PodView, notes: PodNotes | None = None, encoded: bytes = b""
    ) -> None:
        self.around = surroundings
        self.facts = surroundings.facts_of(pod)
        self.uid, self.name, self.namespace, self.cluster = pod.uid, pod.name, pod.namespace, pod.cluster
        self.static = pod.static
        self.has_promise = has_promise(pod)
        self._view: PodView | None = pod
        self._encoded = encoded
        self.notes = notes or PodNotes(started_at=pod.observed_started_at)
        self._status = packed(pod.object.get("status") or {})
        self.picture = Picture()
        self._operations: dict[str, _Operation] = {}
        self._poked = False
        self._refresh_again = False
        self._wake: asyncio.TimerHandle | None = None
        self._said_backoff: frozenset[tuple[str, int, bool]] = frozenset()
        self._probes = surroundings.probes_of(self)
        self.closed = False

    # What others call

    def adopt(self, sandboxes: Iterable[Sandbox], containers: Iterable[ContainerState]) -> None:
        """What the runtime has of this pod, when the agent starts."""
        self.picture.sandboxes = {sandbox.id: sandbox for sandbox in sandboxes}
        self.picture.containers = {container.id: container for container in containers}

    @property
    def pod(self) -> PodView:
        """The pod as last received."""
        if self._view is None:
            self._view = PodView(orjson.loads(self._encoded), self.cluster)
        return self._view

    @property
    def encoded_status(self) -> bytes:
        return self._status

    @property
    def status(self) -> Object:
        """The status as last computed."""
        decoded: Object = orjson.loads(self._status)
        return decoded

    def rest(self) -> None:
        """Let go of what can be decoded again."""
        if self._encoded and not self._operations:
            self._view = None

    def same_pod(self, encoded: bytes) -> None:
        """Newer bytes of the pod that say nothing new to a node: share them with whoever else keeps them."""
        if self._encoded:
            self._encoded = encoded

    def set_pod(self, pod: PodView, encoded: bytes = b"") -> None:
        """The pod's newest specification; with its bytes it need not be kept decoded."""
        before, self._view, self._encoded = self.pod, pod, encoded
        self.has_promise = has_promise(pod)
        if pod.deleting and (not before.deleting or pod.grace_seconds < before.grace_seconds):
            self._hurry()
        if pod.annotations != before.annotations:
            self._probes.pod_changed()
        self.poke()

    def fail(self, failure: Failure) -> None:
        """End the pod for a reason of the node's (eviction, deadline)."""
        if self.notes.failure is None:
            self.notes = replace(self.notes, failure=failure)
            self._hurry()
            self.poke()

    def poke(self) -> None:
        """Plan again soon; any number of pokes make one step."""
        if not self._poked and not self.closed:
            self._poked = True
            asyncio.get_running_loop().call_soon(self._guarded_step)

    def refresh(self) -> None:
        """Ask the runtime for this pod's containers: something happened to them."""
        if REFRESH in self._operations:
            self._refresh_again = True
        elif not self.closed:
            self._begin(REFRESH, PodOperations(self).refresh, object)

    def differs(self, phases: Mapping[str, str]) -> bool:
        """Whether the runtime's containers (id to phase) are not those of the picture."""
        return {state.id: state.phase for state in self.picture.containers.values()} != phases

    def note(self, name: str, **changes: Any) -> None:
        """Change what is noted of one container."""
        self.notes = self.notes.with_container(name, replace(self.notes.of(name), **changes))

    def busy(self) -> set[str]:
        """What operations are working on."""
        return self._operations.keys() - {REFRESH}

    def may_cancel(self, name: str, *, yes: bool) -> None:
        """Whether the operation under way for a container only waits, and may be given up."""
        operation = self._operations.get(name)
        if operation is not None:
            operation.may_be_cancelled = yes

    def observed(self) -> Observed:
        return observe(self.picture.sandboxes.values(), self.picture.containers.values(), self.busy())

    def container_state(self, name: str) -> ContainerState | None:
        return self.observed().newest(name)

    @property
    def sandbox(self) -> Sandbox | None:
        return self.observed().sandbox

    @property
    def phase(self) -> str:
        return str(self.status.get("phase") or "Pending")

    @property
    def addresses(self) -> tuple[str, ...]:
        sandbox = self.sandbox
        if self.pod.host_network or (sandbox is not None and sandbox.network == "host"):
            return self.facts.addresses
        return sandbox.addresses if sandbox is not None else ()

    def close(self) -> None:
        """Stop working on the pod; its containers go on."""
        self.closed = True
        self._probes.close()
        if self._wake is not None:
            self._wake.cancel()
        for operation in list(self._operations.values()):
            operation.task.cancel()

    # One step

    def _guarded_step(self) -> None:
        """One pod's bug must not hold up the others, nor itself for ever."""
        try:
            self._step()
        except Exception:
            _log.exception("pod %s cannot be worked on", self.pod.key)
            self._wake = asyncio.get_running_loop().call_later(BROKEN_SECONDS, self.poke)

    def _step(self) -> None:
        self._poked = False
        if self.closed:
            return
        now = self.around.environment.now()
        observed = self.observed()
        self._take_over(observed)
        self.notes = following(self.pod, observed, self.notes, now)
        self._note_end(now)
        plan = plan_pod(
            self.pod, observed, self.notes, now, lambda container: self.around.builder.resources(self.pod, container)
        )
        for action in plan.actions:
            self._act(action, observed)
        self._arrange_wake(plan, now)
        observed = self.observed()
        self._probes.keep(observed)
        self._report(observed, now)
        self.rest()

    def _take_over(self, observed: Observed) -> None:
        """A running container the notes do not speak of (a restarted agent): take it as it is."""
        for container in self.pod.containers:
            state = observed.newest(container.name)
            if state is None or container.name in observed.busy or state.phase not in {"running", "paused"}:
                continue
            notes = self.notes.of(container.name)
            if notes.container_id != state.id:
                self.begun(container, state.id, state.attempt)

    def begun(self, container: ContainerView, container_id: str, attempt: int) -> None:
        """Note a container that has just come to life."""
        startup = container.probe("startup") is not None
        ready = container.probe("readiness") is None
        self.note(
            container.name,
            container_id=container_id,
            started=not startup,
            ready=ready,
            kill="",
            kill_grace=None,
            waiting=None,
            failed_at=None,
            retry_at=None,
            retry_seconds=0.0,
            next_attempt=attempt + 1,
        )

    def _note_end(self, now: datetime) -> None:
        ending = self.pod.deleting or self.notes.failure is not None
        if ending and self.notes.stopping_since is None:
            self.notes = replace(self.notes, stopping_since=now)
        if self.notes.started_at is None:
            self.notes = replace(self.notes, started_at=now)

    def _arrange_wake(self, plan: Plan, now: datetime) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if plan.wake_at is not None:
            delay = max(0.01, (plan.wake_at - now).total_seconds())
            self._wake = asyncio.get_running_loop().call_later(delay, self.poke)

    def _report(self, observed: Observed, now: datetime) -> None:
        before = self.status
        status = pod_status(self.pod, observed, self.notes, self.facts, now, before)
        if status != before:
            self._status = packed(status)
            self.around.status_changed(self)

    # Acting

    def _act(self, action: Action, observed: Observed) -> None:
        do = PodOperations(self)
        match action:
            case PrepareVolumes():
                self._begin(VOLUMES, do.prepare_volumes, PrepareVolumes, may_be_cancelled=True)
            case StartSandbox(attempt):
                self._begin(SANDBOX, partial(do.start_sandbox, attempt), StartSandbox)
            case StopSandbox(sandbox_id):
                self._begin(SANDBOX, partial(do.stop_sandbox, sandbox_id), StopSandbox)
            case StartContainer(name, attempt):
                container, sandbox = self.pod.by_name.get(name), observed.sandbox
                if not self.around.may_start(self):
                    asyncio.get_running_loop().call_later(HELD_SECONDS, self.poke)
                elif container is not None and sandbox is not None:
                    self._begin(name, partial(do.start_container, container, attempt, sandbox), StartContainer)
            case StopContainer():
                self._begin(action.name, partial(do.stop_container, action), StopContainer, action.grace_seconds)
            case RemoveContainer(name, container_id):
                self._begin(name, partial(do.remove_container, container_id), RemoveContainer)
            case UpdateResources():
                self._begin(action.name, partial(do.update_resources, action), UpdateResources)
            case PauseContainer():
                self._begin(action.name, partial(do.pause_container, action), PauseContainer)
            case FailPod(failure):
                self.say(failure.reason, failure.message, warning=failure.reason == "Evicted")
                self.fail(failure)
            case NoteBackoff():
                self._note_backoff(action)
            case Release(forget):
                self._begin(SANDBOX, partial(do.release, forget=forget), Release)

    def _begin(
        self,
        name: str,
        work: Operation,
        kind: type[Any],
        grace_seconds: int = 0,
        *,
        may_be_cancelled: bool = False,
    ) -> None:
        if name in self._operations:  # two actions for one container in one plan: the second waits for the next
            return
        task = self.around.spawn(work)
        self._operations[name] = _Operation(task, kind, grace_seconds, may_be_cancelled)
        task.add_done_callback(lambda done: self._done(name, done))

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        operation = self._operations.get(name)
        if operation is not None and operation.task is task:
            del self._operations[name]
        if name == REFRESH and self._refresh_again:
            self._refresh_again = False
            self.refresh()
        self.poke()

    def _hurry(self) -> None:
        """The pod must end (sooner): give up what only waits, and stops that were given more time."""
        grace, failure = self.pod.grace_seconds, self.notes.failure
        if failure is not None and failure.grace_seconds is not None:
            grace = min(grace, failure.grace_seconds)
        for operation in list(self._operations.values()):
            slow_stop = operation.kind is StopContainer and grace < operation.grace_seconds
            if operation.may_be_cancelled or slow_stop:
                operation.task.cancel()

    def _note_backoff(self, action: NoteBackoff) -> None:
        container = self.pod.by_name.get(action.name)
        key = (action.name, action.attempt, action.image)
        if action.image:
            self.note(action.name, waiting=Waiting("ImagePullBackOff", action.message))
            self.say("BackOff", action.message, container=container)
            self.say("Failed", "Error: ImagePullBackOff", warning=True, container=container)
        elif key not in self._said_backoff:
            self._said_backoff |= {key}
            text = f"Back-off restarting failed container {action.name} in pod "
            text += f"{self.pod.name}_{self.pod.namespace}({self.pod.uid})"
            self.say("BackOff", text, warning=True, container=container)

    def say(self, reason: str, message: str, *, warning: bool = False, container: ContainerView | None = None) -> None:
        path = ""
        if container is not None:
            kind = {Role.INIT: "initContainers", Role.SIDECAR: "initContainers", Role.EPHEMERAL: "ephemeralContainers"}
            path = f"spec.{kind.get(container.role, 'containers')}{{{container.name}}}"
        self.around.recorder.say(self.pod.object, reason, message, warning=warning, container=path)
