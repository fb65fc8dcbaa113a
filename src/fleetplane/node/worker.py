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
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

import orjson

from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.node.building import ConfigFailure, PodBuilder
from fleetplane.node.hooks import HookFailure, HookRunner
from fleetplane.node.images import ImageFailure, Images, Obtained
from fleetplane.node.observed import (
    SANDBOX,
    VOLUMES,
    Failure,
    Observed,
    PodNotes,
    Waiting,
    observe,
)
from fleetplane.node.plan import (
    Action,
    FailPod,
    NoteBackoff,
    PauseContainer,
    Plan,
    PrepareVolumes,
    Release,
    RemoveContainer,
    StartContainer,
    StartSandbox,
    StopContainer,
    StopSandbox,
    UpdateResources,
    next_backoff,
    plan_pod,
)
from fleetplane.node.pod import ContainerView, PodView, Role
from fleetplane.node.probing import PodProbes
from fleetplane.node.recorder import Recorder
from fleetplane.node.runtime import ContainerRuntime, ContainerState, NotThere, RuntimeFailure, Sandbox
from fleetplane.node.status import NodeFacts, pod_status, terminated_state

RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 16.0
BROKEN_SECONDS = 10.0
START_ERROR_CODE = 128
REFRESH = "/refresh"

_log = logging.getLogger(__name__)

Operation = Callable[[], Coroutine[Any, Any, None]]
"""Work that takes time; a function rather than a coroutine, so that work never begun leaves nothing behind."""


def packed(obj: Object) -> bytes:
    """Encoded in no more memory than it takes: the encoder leaves itself room to grow."""
    return bytes(memoryview(orjson.dumps(obj)))


class Surroundings(Protocol):
    """What a worker needs of the engine that holds it."""

    runtime: ContainerRuntime
    environment: Environment
    builder: PodBuilder
    images: Images
    hooks: HookRunner
    recorder: Recorder

    def facts_of(self, pod: PodView) -> NodeFacts:
        """What statuses say of the node this pod is on."""

    def spawn(self, work: Operation) -> asyncio.Task[None]:
        """Run in the engine's task group."""

    def probes_of(self, worker: PodWorker) -> PodProbes: ...

    def status_changed(self, worker: PodWorker) -> None: ...

    def ended(self, worker: PodWorker, *, forget: bool) -> None:
        """Nothing of the pod is left on the node."""


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
        "_containers",
        "_encoded",
        "_operations",
        "_poked",
        "_probes",
        "_refresh_again",
        "_said_backoff",
        "_sandboxes",
        "_status",
        "_view",
        "_wake",
        "around",
        "closed",
        "cluster",
        "facts",
        "name",
        "namespace",
        "notes",
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
        self._view: PodView | None = pod
        self._encoded = encoded
        self.notes = notes or PodNotes(started_at=pod.observed_started_at)
        self._status = packed(pod.object.get("status") or {})
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, ContainerState] = {}
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
        self._sandboxes = {sandbox.id: sandbox for sandbox in sandboxes}
        self._containers = {container.id: container for container in containers}

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
            self._begin(REFRESH, self._refresh, object)

    def differs(self, phases: Mapping[str, str]) -> bool:
        """Whether the runtime's containers (id to phase) are not those of the picture."""
        return {state.id: state.phase for state in self._containers.values()} != phases

    def note(self, name: str, **changes: Any) -> None:
        """Change what is noted of one container."""
        self.notes = self.notes.with_container(name, replace(self.notes.of(name), **changes))

    def observed(self) -> Observed:
        busy = self._operations.keys() - {REFRESH}
        return observe(self._sandboxes.values(), self._containers.values(), busy)

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
                self._begun(container, state.id, state.attempt)

    def _begun(self, container: ContainerView, container_id: str, attempt: int) -> None:
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
        match action:
            case PrepareVolumes():
                self._begin(VOLUMES, partial(self._prepare_volumes), PrepareVolumes, may_be_cancelled=True)
            case StartSandbox(attempt):
                self._begin(SANDBOX, partial(self._start_sandbox, attempt), StartSandbox)
            case StopSandbox(sandbox_id):
                self._begin(SANDBOX, partial(self._stop_sandbox, sandbox_id), StopSandbox)
            case StartContainer(name, attempt):
                container, sandbox = self.pod.by_name.get(name), observed.sandbox
                if container is not None and sandbox is not None:
                    self._begin(name, partial(self._start_container, container, attempt, sandbox), StartContainer)
            case StopContainer():
                self._begin(action.name, partial(self._stop_container, action), StopContainer, action.grace_seconds)
            case RemoveContainer(name, container_id):
                self._begin(name, partial(self._remove_container, container_id), RemoveContainer)
            case UpdateResources():
                self._begin(action.name, partial(self._update_resources, action), UpdateResources)
            case PauseContainer():
                self._begin(action.name, partial(self._pause_container, action), PauseContainer)
            case FailPod(failure):
                self._say(failure.reason, failure.message, warning=failure.reason == "Evicted")
                self.fail(failure)
            case NoteBackoff():
                self._note_backoff(action)
            case Release(forget):
                self._begin(SANDBOX, partial(self._release, forget=forget), Release)

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
        for operation in list(self._operations.values()):
            slow_stop = operation.kind is StopContainer and self.pod.grace_seconds < operation.grace_seconds
            if operation.may_be_cancelled or slow_stop:
                operation.task.cancel()

    # Operations

    async def _prepare_volumes(self) -> None:
        now = self.around.environment.now()
        try:
            await self.around.builder.prepare(self.pod)
        except ConfigFailure as error:
            where = f'MountVolume.SetUp failed for volume "{error.volume}" : ' if error.volume else ""
            self._say("FailedMount", where + error.message, warning=True)
            seconds = min(LONGEST_RETRY_SECONDS, max(RETRY_SECONDS, self.notes.volumes_retry_seconds * 2))
            self.notes = replace(
                self.notes, volumes_retry_at=now + timedelta(seconds=seconds), volumes_retry_seconds=seconds
            )
        else:
            self.notes = replace(self.notes, volumes_ready=True, volumes_retry_at=None, volumes_retry_seconds=0.0)

    async def _start_sandbox(self, attempt: int) -> None:
        environment = self.around.environment
        try:
            sandbox = await self.around.runtime.start_sandbox(self.around.builder.sandbox(self.pod, attempt))
        except (RuntimeFailure, ConfigFailure) as error:
            message = f"Failed to create pod sandbox: {error.message}"
            self._say("FailedCreatePodSandBox", message, warning=True)
            backoff = next_backoff(self.notes.sandbox_backoff, None, environment.now())
            wait = timedelta(seconds=min(backoff.seconds / 5, 60))
            self.notes = replace(self.notes, sandbox_backoff=backoff, sandbox_retry_at=environment.now() + wait)
            return
        for old in [s for s in self._sandboxes.values() if s.id != sandbox.id]:
            await self._quietly(self.around.runtime.stop_sandbox(old.id))
            self._sandboxes[old.id] = replace(old, ready=False)
        self._sandboxes[sandbox.id] = sandbox
        self.notes = replace(
            self.notes,
            sandbox_attempts=attempt + 1,
            sandbox_retry_at=None,
            addresses=sandbox.addresses or self.notes.addresses,
        )

    async def _stop_sandbox(self, sandbox_id: str) -> None:
        try:
            await self.around.runtime.stop_sandbox(sandbox_id)
        except NotThere:
            pass
        except RuntimeFailure as error:
            self._say("FailedKillPod", f"error killing pod: {error.message}", warning=True)
            await asyncio.sleep(RETRY_SECONDS)
            return
        self.notes = replace(self.notes, sandbox_down=True)
        known = self._sandboxes.get(sandbox_id)
        if known is not None:
            self._sandboxes[sandbox_id] = replace(known, ready=False)

    async def _start_container(self, container: ContainerView, attempt: int, sandbox: Sandbox) -> None:
        obtained = await self._obtain_image(container)
        if obtained is None:
            return
        runtime, builder, pod = self.around.runtime, self.around.builder, self.pod
        try:
            spec = await builder.container(pod, container, attempt, sandbox, obtained.image)
        except ConfigFailure as error:
            self._refused(container, error.reason, error.message)
            return
        await self._remove_never_started(container.name)
        try:
            container_id = await runtime.create_container(sandbox, spec, builder.sandbox(pod, sandbox.attempt))
        except RuntimeFailure as error:
            self._refused(container, error.reason or "CreateContainerError", error.message)
            return
        self._say("Created", f"Created container: {container.name}", container=container)
        before = self.notes.of(container.name)
        now = self.around.environment.now()
        # A first start leaves no back-off behind; a restart lengthens it.
        ended = self.container_state(container.name)
        restarted = ended is not None and ended.phase == "exited"
        last = before.final or before.last_terminated
        if before.final is None and ended is not None and restarted:
            last = terminated_state(ended, self.facts.scheme)
        backoff = before.restart_backoff
        if restarted or before.final is not None:
            backoff = next_backoff(before.restart_backoff, ended.finished_at if ended else None, now)
        self.note(
            container.name,
            restart_backoff=backoff,
            last_terminated=last,
            final=None,
            next_attempt=attempt + 1,
        )
        try:
            await runtime.start_container(container_id)
        except RuntimeFailure as error:
            await self._start_failed(container, container_id, error)
            return
        self._containers[container_id] = await runtime.inspect_container(container_id)
        self._begun(container, container_id, attempt)
        self.note(container.name, resources=builder.resources(pod, container))
        self._say("Started", f"Started container {container.name}", container=container)
        await self._post_start(container, container_id)

    async def _obtain_image(self, container: ContainerView) -> Obtained | None:
        name = container.image
        operation = self._operations.get(container.name)
        if operation is not None:
            operation.may_be_cancelled = True
        try:
            auth = await self.around.builder.credentials(self.pod, name)
            obtained = await self.around.images.obtain(
                name,
                container.pull_policy,
                auth,
                lambda: self._say("Pulling", f'Pulling image "{name}"', container=container),
            )
        except ConfigFailure as error:
            self._refused(container, error.reason, error.message)
            return None
        except ImageFailure as error:
            self._image_failed(container, error)
            return None
        finally:
            if operation is not None:
                operation.may_be_cancelled = False
        if obtained.pulled:
            took = f"{obtained.seconds:.3f}s"
            text = f'Successfully pulled image "{name}" in {took} ({took} including waiting). '
            self._say("Pulled", text + f"Image size: {obtained.image.size} bytes.", container=container)
        else:
            text = f'Container image "{name}" already present on machine'
            self._say("Pulled", text, container=container)
        return obtained

    def _image_failed(self, container: ContainerView, error: ImageFailure) -> None:
        now = self.around.environment.now()
        notes = self.notes.of(container.name)
        backoff = next_backoff(notes.image_backoff, None, now)
        self.note(
            container.name,
            waiting=Waiting(error.reason, error.message),
            failed_at=now,
            retry_at=now + timedelta(seconds=backoff.seconds),
            image_backoff=backoff,
        )
        if error.reason == "ErrImagePull":
            text = f'Failed to pull image "{container.image}": {error.message}'
            self._say("Failed", text, warning=True, container=container)
        self._say(
            "Failed" if error.reason != "ErrImageNeverPull" else "ErrImageNeverPull",
            f"Error: {error.reason}" if error.reason == "ErrImagePull" else error.message,
            warning=True,
            container=container,
        )

    def _refused(self, container: ContainerView, reason: str, message: str) -> None:
        """It could not be created: say so, try again soon."""
        now = self.around.environment.now()
        seconds = min(LONGEST_RETRY_SECONDS, max(RETRY_SECONDS, self.notes.of(container.name).retry_seconds * 2))
        if self.notes.of(container.name).waiting != Waiting(reason, message):
            self._say("Failed", f"Error: {message}", warning=True, container=container)
        self.note(
            container.name,
            waiting=Waiting(reason, message),
            failed_at=now,
            retry_at=now + timedelta(seconds=seconds),
            retry_seconds=seconds,
        )

    async def _remove_never_started(self, name: str) -> None:
        for state in [s for s in self._containers.values() if s.name == name and s.phase == "created"]:
            await self._quietly(self.around.runtime.remove_container(state.id))
            self._containers.pop(state.id, None)

    async def _start_failed(self, container: ContainerView, container_id: str, error: RuntimeFailure) -> None:
        """The runtime created it but could not start it (a bad command, most often): that counts as a run."""
        now = self.around.environment.now()
        message = error.message
        self._say("Failed", f"Error: {message}", warning=True, container=container)
        await self._quietly(self.around.runtime.remove_container(container_id))
        ended: Object = {
            "exitCode": START_ERROR_CODE,
            "reason": "StartError",
            "message": message,
            "containerID": f"{self.facts.scheme}://{container_id}",
            "startedAt": "1970-01-01T00:00:00Z",
            "finishedAt": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for old in [s for s in self._containers.values() if s.name == container.name and s.phase == "exited"]:
            await self._quietly(self.around.runtime.remove_container(old.id))
            self._containers.pop(old.id, None)
        backoff = self.notes.of(container.name).restart_backoff
        if backoff.updated is None:
            backoff = next_backoff(backoff, None, now)
        self.note(
            container.name,
            final=ended,
            waiting=Waiting("RunContainerError", message),
            failed_at=now,
            retry_at=now + timedelta(seconds=backoff.seconds),
            restart_backoff=backoff,
        )

    async def _post_start(self, container: ContainerView, container_id: str) -> None:
        hook = container.hook("postStart")
        if hook is None:
            return
        self.note(container.name, ready=False)
        try:
            await self.around.hooks.run(hook, container, container_id, self.addresses, timeout_seconds=None)
        except HookFailure as error:
            self._say("FailedPostStartHook", str(error), warning=True, container=container)
            self.note(container.name, kill="FailedPostStartHook")
            return
        self.note(container.name, ready=container.probe("readiness") is None)

    async def _stop_container(self, action: StopContainer) -> None:
        container = self.pod.by_name.get(action.name)
        runtime, environment = self.around.runtime, self.around.environment
        self._say("Killing", action.why, container=container)
        began = environment.monotonic()
        hook = container.hook("preStop") if container is not None and action.hook else None
        if hook is not None and container is not None:
            try:
                await self.around.hooks.run(
                    hook, container, action.id, self.addresses, timeout_seconds=float(action.grace_seconds)
                )
            except HookFailure as error:
                self._say("FailedPreStopHook", str(error), warning=True, container=container)
        left = action.grace_seconds - (environment.monotonic() - began)
        try:
            await runtime.stop_container(action.id, max(left, min(2.0, action.grace_seconds)))
        except NotThere:
            pass
        except RuntimeFailure as error:
            self._say("FailedKillPod", f"error killing container: {error.message}", warning=True, container=container)
            await asyncio.sleep(RETRY_SECONDS)
        await self._look_at(action.id)

    async def _remove_container(self, container_id: str) -> None:
        await self._quietly(self.around.runtime.remove_container(container_id))
        self._containers.pop(container_id, None)

    async def _update_resources(self, action: UpdateResources) -> None:
        try:
            await self.around.runtime.update_resources(action.id, action.resources)
        except RuntimeFailure as error:
            self._say("ResizeFailed", error.message, warning=True, container=self.pod.by_name.get(action.name))
        self.note(action.name, resources=action.resources)

    async def _pause_container(self, action: PauseContainer) -> None:
        try:
            if action.resume:
                await self.around.runtime.resume_container(action.id)
            else:
                await self.around.runtime.pause_container(action.id)
        except RuntimeFailure as error:
            self._say("PauseFailed", error.message, warning=True, container=self.pod.by_name.get(action.name))
            await asyncio.sleep(RETRY_SECONDS)
        await self._look_at(action.id)

    def _note_backoff(self, action: NoteBackoff) -> None:
        container = self.pod.by_name.get(action.name)
        key = (action.name, action.attempt, action.image)
        if action.image:
            self.note(action.name, waiting=Waiting("ImagePullBackOff", action.message))
            self._say("BackOff", action.message, container=container)
            self._say("Failed", "Error: ImagePullBackOff", warning=True, container=container)
        elif key not in self._said_backoff:
            self._said_backoff |= {key}
            text = f"Back-off restarting failed container {action.name} in pod "
            text += f"{self.pod.name}_{self.pod.namespace}({self.pod.uid})"
            self._say("BackOff", text, warning=True, container=container)

    async def _release(self, *, forget: bool) -> None:
        runtime = self.around.runtime
        if not self.notes.released:
            # Removing a container takes its log along, so this waits until the pod itself goes.
            for container_id in list(self._containers):
                await self._quietly(runtime.remove_container(container_id))
            for sandbox_id in list(self._sandboxes):
                await self._quietly(runtime.remove_sandbox(sandbox_id))
            await self.around.builder.release(self.pod)
            self.notes = replace(self.notes, released=True)
        self.around.ended(self, forget=forget)

    async def _refresh(self) -> None:
        try:
            found = await self.around.runtime.containers(self.pod.uid)
        except RuntimeFailure:
            return
        states = {state.id: state for state in found}
        newest = {state.name: state for state in sorted(found, key=lambda one: one.attempt)}
        for state in newest.values():
            if state.phase == "exited":
                await self._note_exit(state)
        self._containers = states

    async def _look_at(self, container_id: str) -> None:
        try:
            state = await self.around.runtime.inspect_container(container_id)
        except NotThere:
            self._containers.pop(container_id, None)
            return
        except RuntimeFailure:
            return
        if state.phase == "exited":
            await self._note_exit(state)
        self._containers[container_id] = state

    async def _note_exit(self, state: ContainerState) -> None:
        """Keep how it ended, with its termination message."""
        container = self.pod.by_name.get(state.name)
        if container is None:
            return
        notes = self.notes.of(state.name)
        scheme = self.facts.scheme
        if notes.final is not None and notes.final.get("containerID") == f"{scheme}://{state.id}":
            return
        message = await self.around.builder.termination_message(self.pod, container, state)
        self.note(
            state.name,
            final=terminated_state(state, scheme, message),
            next_attempt=max(self.notes.of(state.name).next_attempt, state.attempt + 1),
        )

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        """Clean-up: what is gone is gone, and what refuses is met again at the next start."""
        try:
            await work
        except RuntimeFailure:
            return

    def _say(self, reason: str, message: str, *, warning: bool = False, container: ContainerView | None = None) -> None:
        path = ""
        if container is not None:
            kind = {Role.INIT: "initContainers", Role.SIDECAR: "initContainers", Role.EPHEMERAL: "ephemeralContainers"}
            path = f"spec.{kind.get(container.role, 'containers')}{{{container.name}}}"
        self.around.recorder.say(self.pod.object, reason, message, warning=warning, container=path)
