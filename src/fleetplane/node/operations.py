"""What a worker does when its plan says so: the operations, one method each.

An operation takes time, changes the worker's picture and notes when it is done, and raises nothing: what goes wrong
becomes a note (why a container waits, when to try again) and an event in the kubelet's words.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from fleetplane.model.environment import timestamp
from fleetplane.model.objects import Object
from fleetplane.node import reservation
from fleetplane.node.actions import PauseContainer, StopContainer, UpdateResources
from fleetplane.node.building import ConfigFailure
from fleetplane.node.hooks import HookFailure
from fleetplane.node.images import ImageFailure, Obtained
from fleetplane.node.leading import stands_by, went_on
from fleetplane.node.observed import Failure, Waiting
from fleetplane.node.plan import is_frozen, next_backoff
from fleetplane.node.pod import GROUP, ContainerView, PodView
from fleetplane.node.runtime import ContainerState, NotThere, RuntimeFailure, Sandbox
from fleetplane.node.status import CANNOT_FREEZE, terminated_state

if TYPE_CHECKING:
    from fleetplane.node.worker import PodWorker

RETRY_SECONDS: Final = 2.0
LONGEST_RETRY_SECONDS: Final = 16.0
START_ERROR_CODE: Final = 128


def placeholder(
    pod: PodView, container: ContainerView, container_id: str, attempt: int, sandbox: Sandbox, now: datetime
) -> ContainerState:
    """A container that was created a moment ago."""
    return ContainerState(
        id=container_id,
        pod_uid=pod.uid,
        name=container.name,
        attempt=attempt,
        phase="created",
        created_at=now,
        image=container.image,
        hash=container.hash,
        sandbox_id=sandbox.id,
    )


class PodOperations:
    """The operations of one worker; holds nothing of its own."""

    __slots__ = ("_worker",)

    def __init__(self, worker: PodWorker) -> None:
        self._worker = worker

    async def prepare_volumes(self) -> None:
        now = self._worker.around.environment.now()
        try:
            await self._worker.around.builder.prepare(self._worker.pod)
        except ConfigFailure as error:
            where = f'MountVolume.SetUp failed for volume "{error.volume}" : ' if error.volume else ""
            self._worker.say("FailedMount", where + error.message, warning=True)
            seconds = min(LONGEST_RETRY_SECONDS, max(RETRY_SECONDS, self._worker.notes.volumes_retry_seconds * 2))
            self._worker.notes = replace(
                self._worker.notes, volumes_retry_at=now + timedelta(seconds=seconds), volumes_retry_seconds=seconds
            )
        else:
            self._worker.notes = replace(
                self._worker.notes, volumes_ready=True, volumes_retry_at=None, volumes_retry_seconds=0.0
            )

    async def start_sandbox(self, attempt: int) -> None:
        environment = self._worker.around.environment
        try:
            spec = await self._worker.around.builder.sandbox(self._worker.pod, attempt)
            sandbox = await self._worker.around.runtime.start_sandbox(spec)
        except (RuntimeFailure, ConfigFailure) as error:
            message = f"Failed to create pod sandbox: {error.message}"
            self._worker.say("FailedCreatePodSandBox", message, warning=True)
            backoff = next_backoff(self._worker.notes.sandbox_backoff, None, environment.now())
            wait = timedelta(seconds=min(backoff.seconds / 5, 60))
            self._worker.notes = replace(
                self._worker.notes, sandbox_backoff=backoff, sandbox_retry_at=environment.now() + wait
            )
            return
        for old in [s for s in self._worker.picture.sandboxes.values() if s.id != sandbox.id]:
            await self._quietly(self._worker.around.runtime.stop_sandbox(old.id))
            self._worker.picture.sandboxes[old.id] = replace(old, ready=False)
        self._worker.picture.sandboxes[sandbox.id] = sandbox
        self._worker.notes = replace(
            self._worker.notes,
            sandbox_attempts=attempt + 1,
            sandbox_retry_at=None,
            addresses=sandbox.addresses or self._worker.notes.addresses,
        )

    async def stop_sandbox(self, sandbox_id: str) -> None:
        try:
            await self._worker.around.runtime.stop_sandbox(sandbox_id)
        except NotThere:
            pass
        except RuntimeFailure as error:
            self._worker.say("FailedKillPod", f"error killing pod: {error.message}", warning=True)
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._worker.notes = replace(self._worker.notes, sandbox_down=True)
        known = self._worker.picture.sandboxes.get(sandbox_id)
        if known is not None:
            self._worker.picture.sandboxes[sandbox_id] = replace(known, ready=False)

    async def start_container(self, container: ContainerView, attempt: int, sandbox: Sandbox) -> None:
        runtime, builder, pod = self._worker.around.runtime, self._worker.around.builder, self._worker.pod
        why = "" if pod.spec.get("runtimeClassName") else self._worker.around.cannot_freeze
        if why and self._is_standby(container.name):
            self._cannot_freeze(container, why)
            return
        try:
            shared = await builder.sandbox(pod, sandbox.attempt)
        except ConfigFailure as error:
            self._refused(container, error.reason, error.message)
            return
        obtained = await self._obtain_image(container, shared.handler)
        if obtained is None:
            return
        try:
            spec = await builder.container(pod, container, attempt, sandbox, obtained.image)
        except ConfigFailure as error:
            self._refused(container, error.reason, error.message)
            return
        await self._remove_never_started(container.name)
        try:
            container_id = await runtime.create_container(sandbox, spec, shared)
        except RuntimeFailure as error:
            self._refused(container, error.reason or "CreateContainerError", error.message)
            return
        # From here on it is known, whatever goes wrong: what is not in the picture would be made once more.
        created = placeholder(pod, container, container_id, attempt, sandbox, self._worker.around.environment.now())
        self._worker.picture.containers[container_id] = created
        self._worker.say("Created", f"Created container: {container.name}", container=container)
        before = self._worker.notes.of(container.name)
        now = self._worker.around.environment.now()
        # A first start leaves no back-off behind; a restart lengthens it.
        ended = self._worker.container_state(container.name)
        restarted = ended is not None and ended.phase == "exited"
        last = before.final or before.last_terminated
        if before.final is None and ended is not None and restarted:
            last = terminated_state(ended, self._worker.facts.scheme)
        backoff = before.restart_backoff
        if restarted or before.final is not None:
            backoff = next_backoff(before.restart_backoff, ended.finished_at if ended else None, now)
        self._worker.note(
            container.name,
            restart_backoff=backoff,
            last_terminated=last,
            final=None,
            next_attempt=attempt + 1,
        )
        if self._worker.has_promise:
            await self._worker.around.guard.arm()
        try:
            await runtime.start_container(container_id)
        except RuntimeFailure as error:
            await self._start_failed(container, container_id, error)
            return
        if is_frozen(pod, self._worker.notes, container.name):
            # At once, so that what should be frozen runs for as short a moment as the runtime allows.
            try:
                await runtime.pause_container(container_id)
            except RuntimeFailure as error:
                await self._unfrozen(container.name, container_id, error)
        state = await self._started(created)
        await self._reserve(container, state)
        self._worker.begun(container, container_id, attempt)
        if state.phase == "exited":
            await self._note_exit(state)
        self._worker.picture.containers[container_id] = state
        self._worker.around.guard.changed()
        self._worker.note(container.name, resources=builder.resources(pod, container))
        self._worker.say("Started", f"Started container {container.name}", container=container)
        if self._worker.around.unenforced and (container.spec.get("resources") or {}).get("limits"):
            text = f"The limits of container {container.name} are not enforced: {self._worker.around.unenforced}"
            self._worker.say("LimitsNotEnforced", text, warning=True, container=container)
        await self._post_start(container, container_id)

    async def _reserve(self, container: ContainerView, state: ContainerState) -> None:
        """Keep for its processes what the pod asks for, and say what could not be."""
        text = self._worker.pod.annotations.get(reservation.RESERVATION)
        if not text or state.pid <= 0:
            return
        try:
            asked = reservation.read(text)
            wanted, problems = reservation.of_container(asked, container.name, os.sched_getaffinity(0))
            problems += await asyncio.to_thread(reservation.apply, wanted, state.pid)
        except reservation.ReservationError as error:
            problems = [str(error)]
        if problems:
            text = f"Not reserved for container {container.name}: {'; '.join(problems)}"
            self._worker.say("ReservationNotApplied", text, warning=True, container=container)

    async def _started(self, created: ContainerState) -> ContainerState:
        """The state of a container that has just been started; a guess, soon corrected, where nobody answers."""
        try:
            return await self._worker.around.runtime.inspect_container(created.id)
        except RuntimeFailure:
            self._worker.refresh()
            return replace(created, phase="running", started_at=self._worker.around.environment.now())

    async def _obtain_image(self, container: ContainerView, handler: str) -> Obtained | None:
        name = container.image
        self._worker.may_cancel(container.name, yes=True)
        try:
            auth = await self._worker.around.builder.credentials(self._worker.pod, name)
            obtained = await self._worker.around.images.obtain(
                name,
                container.pull_policy,
                auth,
                lambda: self._worker.say("Pulling", f'Pulling image "{name}"', container=container),
                handler,
            )
        except ConfigFailure as error:
            self._refused(container, error.reason, error.message)
            return None
        except ImageFailure as error:
            self._image_failed(container, error)
            return None
        finally:
            self._worker.may_cancel(container.name, yes=False)
        if obtained.pulled:
            took = f"{obtained.seconds:.3f}s"
            text = f'Successfully pulled image "{name}" in {took} ({took} including waiting). '
            self._worker.say("Pulled", text + f"Image size: {obtained.image.size} bytes.", container=container)
        else:
            text = f'Container image "{name}" already present on machine'
            self._worker.say("Pulled", text, container=container)
        return obtained

    def _image_failed(self, container: ContainerView, error: ImageFailure) -> None:
        now = self._worker.around.environment.now()
        notes = self._worker.notes.of(container.name)
        backoff = next_backoff(notes.image_backoff, None, now)
        self._worker.note(
            container.name,
            waiting=Waiting(error.reason, error.message),
            failed_at=now,
            retry_at=now + timedelta(seconds=backoff.seconds),
            image_backoff=backoff,
        )
        if error.reason == "ErrImagePull":
            text = f'Failed to pull image "{container.image}": {error.message}'
            self._worker.say("Failed", text, warning=True, container=container)
        else:
            reason = error.reason if error.reason == "ErrImageNeverPull" else "InspectFailed"
            self._worker.say(reason, error.message, warning=True, container=container)
        self._worker.say("Failed", f"Error: {error.reason}", warning=True, container=container)

    def _refused(self, container: ContainerView, reason: str, message: str) -> None:
        """It could not be created: say so, try again soon."""
        now = self._worker.around.environment.now()
        seconds = min(
            LONGEST_RETRY_SECONDS, max(RETRY_SECONDS, self._worker.notes.of(container.name).retry_seconds * 2)
        )
        if self._worker.notes.of(container.name).waiting != Waiting(reason, message):
            self._worker.say("Failed", f"Error: {message}", warning=True, container=container)
        self._worker.note(
            container.name,
            waiting=Waiting(reason, message),
            failed_at=now,
            retry_at=now + timedelta(seconds=seconds),
            retry_seconds=seconds,
        )

    async def _remove_never_started(self, name: str) -> None:
        for state in [s for s in self._worker.picture.containers.values() if s.name == name and s.phase == "created"]:
            await self._quietly(self._worker.around.runtime.remove_container(state.id))
            self._worker.picture.containers.pop(state.id, None)

    async def _start_failed(self, container: ContainerView, container_id: str, error: RuntimeFailure) -> None:
        """The runtime created it but could not start it (a bad command, most often): that counts as a run."""
        now = self._worker.around.environment.now()
        message = error.message
        self._worker.say("Failed", f"Error: {message}", warning=True, container=container)
        await self.remove_container(container_id)
        ended: Object = {
            "exitCode": START_ERROR_CODE,
            "reason": "StartError",
            "message": message,
            "containerID": f"{self._worker.facts.scheme}://{container_id}",
            "startedAt": "1970-01-01T00:00:00Z",
            "finishedAt": timestamp(now),
        }
        for old in [
            s for s in self._worker.picture.containers.values() if s.name == container.name and s.phase == "exited"
        ]:
            await self._quietly(self._worker.around.runtime.remove_container(old.id))
            self._worker.picture.containers.pop(old.id, None)
        backoff = self._worker.notes.of(container.name).restart_backoff
        if backoff.updated is None:
            backoff = next_backoff(backoff, None, now)
        self._worker.note(
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
        self._worker.note(container.name, ready=False)
        try:
            await self._worker.around.hooks.run(
                hook, container, container_id, self._worker.addresses, timeout_seconds=None
            )
        except HookFailure as error:
            self._worker.say("FailedPostStartHook", str(error), warning=True, container=container)
            self._worker.note(container.name, kill="FailedPostStartHook")
            return
        self._worker.note(container.name, ready=container.probe("readiness") is None)

    async def stop_container(self, action: StopContainer) -> None:
        container = self._worker.pod.by_name.get(action.name)
        runtime, environment = self._worker.around.runtime, self._worker.around.environment
        self._worker.say("Killing", action.why, container=container)
        began = environment.monotonic()
        hook = container.hook("preStop") if container is not None and action.hook else None
        if hook is not None and container is not None:
            try:
                await self._worker.around.hooks.run(
                    hook, container, action.id, self._worker.addresses, timeout_seconds=float(action.grace_seconds)
                )
            except HookFailure as error:
                self._worker.say("FailedPreStopHook", str(error), warning=True, container=container)
        left = action.grace_seconds - (environment.monotonic() - began)
        try:
            await runtime.stop_container(action.id, max(left, min(2.0, action.grace_seconds)))
        except NotThere:
            pass
        except RuntimeFailure as error:
            self._worker.say(
                "FailedKillPod", f"error killing container: {error.message}", warning=True, container=container
            )
            await asyncio.sleep(RETRY_SECONDS)
        await self._look_at(action.id)

    async def remove_container(self, container_id: str) -> None:
        await self._quietly(self._worker.around.runtime.remove_container(container_id))
        self._worker.picture.containers.pop(container_id, None)

    async def update_resources(self, action: UpdateResources) -> None:
        try:
            await self._worker.around.runtime.update_resources(action.id, action.resources)
        except RuntimeFailure as error:
            self._worker.say(
                "ResizeFailed", error.message, warning=True, container=self._worker.pod.by_name.get(action.name)
            )
        self._worker.note(action.name, resources=action.resources)

    async def pause_container(self, action: PauseContainer) -> None:
        try:
            if action.resume:
                if self._worker.has_promise:
                    await self._worker.around.guard.arm()
                await self._worker.around.runtime.resume_container(action.id)
            else:
                await self._worker.around.runtime.pause_container(action.id)
        except RuntimeFailure as error:
            if action.resume:
                container = self._worker.pod.by_name.get(action.name)
                self._worker.say("PauseFailed", error.message, warning=True, container=container)
            else:
                await self._unfrozen(action.name, action.id, error)
            if self._worker.notes.failure is None:
                await asyncio.sleep(RETRY_SECONDS)
        await self._look_at(action.id)
        promotion = self._worker.notes.promotion
        if action.resume and promotion is not None and promotion.ended and promotion.milliseconds is None:
            took = round((self._worker.around.environment.monotonic() - promotion.ended) * 1000)
            self._worker.notes = replace(self._worker.notes, promotion=replace(promotion, milliseconds=took))
        state = self._worker.container_state(action.name)
        if action.resume and state is not None and state.phase == "running":
            now = self._worker.around.environment.now()
            self._worker.notes = went_on(self._worker.notes, action.name, now)

    def _is_standby(self, name: str) -> bool:
        """Whether another pod of its group, or another container of the pod, may be active: then it must not run."""
        pod, notes = self._worker.pod, self._worker.notes
        return (pod.paused and notes.promotion is None and GROUP in pod.annotations) or stands_by(pod, notes, name)

    async def _unfrozen(self, name: str, container_id: str, error: RuntimeFailure) -> None:
        """It should stand still and does not: a standby that runs would be a second active, so it is ended."""
        runtime, container = self._worker.around.runtime, self._worker.pod.by_name.get(name)
        try:
            state = await runtime.inspect_container(container_id)
        except RuntimeFailure:
            return
        if state.phase != "running":
            return
        self._worker.say("PauseFailed", error.message, warning=True, container=container)
        if container is None or not self._is_standby(name):
            return
        await self._quietly(runtime.stop_container(container_id, 0))
        if not self._worker.pod.spec.get("runtimeClassName"):
            self._worker.around.note_unfrozen(error.message)
        self._cannot_freeze(container, error.message)

    def _cannot_freeze(self, container: ContainerView, why: str) -> None:
        """One of several containers waits until it leads; a pod that is a standby is over."""
        if stands_by(self._worker.pod, self._worker.notes, container.name):
            self._refused(container, CANNOT_FREEZE, f"it stands by, and cannot be frozen on this node: {why}")
            return
        text = f"The node cannot freeze this standby and stopped it, so that no two are active: {why}"
        self._worker.say(CANNOT_FREEZE, text, warning=True)
        self._worker.fail(Failure(CANNOT_FREEZE, text, grace_seconds=0))

    async def release(self, *, forget: bool) -> None:
        runtime = self._worker.around.runtime
        if not self._worker.notes.released:
            # Removing a container takes its log along, so this waits until the pod itself goes.
            for container_id in list(self._worker.picture.containers):
                await self._quietly(runtime.remove_container(container_id))
            for sandbox_id in list(self._worker.picture.sandboxes):
                await self._quietly(runtime.remove_sandbox(sandbox_id))
            await self._worker.around.builder.release(self._worker.pod)
            self._worker.notes = replace(self._worker.notes, released=True)
        self._worker.around.ended(self._worker, forget=forget)

    async def refresh(self) -> None:
        try:
            found = await self._worker.around.runtime.containers(self._worker.pod.uid)
        except RuntimeFailure:
            return
        states = {state.id: state for state in found}
        newest = {state.name: state for state in sorted(found, key=lambda one: one.attempt)}
        for state in newest.values():
            if state.phase == "exited":
                await self._note_exit(state)
        # What an operation is just making may be younger than the list.
        busy = self._worker.busy()
        kept = {key: one for key, one in self._worker.picture.containers.items() if one.name in busy}
        self._worker.picture.containers = {**kept, **states}

    async def _look_at(self, container_id: str) -> None:
        try:
            state = await self._worker.around.runtime.inspect_container(container_id)
        except NotThere:
            self._worker.picture.containers.pop(container_id, None)
            return
        except RuntimeFailure:
            return
        if state.phase == "exited":
            await self._note_exit(state)
        self._worker.picture.containers[container_id] = state

    async def _note_exit(self, state: ContainerState) -> None:
        """Keep how it ended, with its termination message."""
        container = self._worker.pod.by_name.get(state.name)
        if container is None:
            return
        notes = self._worker.notes.of(state.name)
        scheme = self._worker.facts.scheme
        if notes.final is not None and notes.final.get("containerID") == f"{scheme}://{state.id}":
            return
        message = await self._worker.around.builder.termination_message(self._worker.pod, container, state)
        self._worker.note(
            state.name,
            final=terminated_state(state, scheme, message),
            next_attempt=max(self._worker.notes.of(state.name).next_attempt, state.attempt + 1),
        )

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        """Clean-up: what is gone is gone, and what refuses is met again at the next start."""
        try:
            await work
        except RuntimeFailure:
            return
