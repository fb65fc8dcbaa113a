"""What to do next for one pod: a pure function of its specification, what is observed, and the time.

Level-triggered: the plan is made anew from the whole state each time anything changes, so a lost event, a restarted
agent or a container killed by hand need no cases of their own. Operations under way are part of the observation
(``busy``); nothing is planned for what an operation is working on.

The order of life: volumes and sandbox, init containers one after the other (sidecars among them go on running), main
containers, and at the end main containers first, sidecars in reverse, the sandbox last. Back-off follows the kubelet:
10 s doubling to 5 minutes, forgotten after a container has run for 10 minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

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
from fleetplane.node.leading import end_was_told, may_go_on, stands_by
from fleetplane.node.observed import SANDBOX, VOLUMES, Backoff, ContainerNotes, Failure, Observed, PodNotes
from fleetplane.node.pod import ContainerView, PodView, Role
from fleetplane.node.runtime import ContainerState, Resources

FIRST_BACKOFF = 10.0
LONGEST_BACKOFF = 300.0
FORGET_BACKOFF = 600.0
LEAST_GRACE = 2
SHOW_PULL_ERROR = 1.0
PULL_ERRORS = frozenset({"ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed"})


@dataclass(frozen=True, slots=True)
class Plan:
    """``wake_at`` is when time alone will change the plan."""

    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None


ResourcesOf = Callable[[ContainerView], Resources]


def backoff_until(backoff: Backoff, ended: datetime) -> datetime:
    """When something that ended may be tried again."""
    if backoff.updated is None or (ended - backoff.updated).total_seconds() > FORGET_BACKOFF:
        return ended
    return ended + timedelta(seconds=backoff.seconds)


def next_backoff(backoff: Backoff, ended: datetime | None, now: datetime) -> Backoff:
    """The back-off after one more try that began ``now``; ``ended`` is the end of the one before."""
    known = backoff.updated is not None and backoff.seconds > 0
    if not known or (ended and backoff.updated and (ended - backoff.updated).total_seconds() > FORGET_BACKOFF):
        return Backoff(FIRST_BACKOFF, now)
    return Backoff(min(backoff.seconds * 2, LONGEST_BACKOFF), now)


def plan_pod(
    pod: PodView,
    observed: Observed,
    notes: PodNotes,
    now: datetime,
    resources_of: ResourcesOf | None = None,
) -> Plan:
    """What to do now. ``resources_of`` tells the limits a running container should have (resize in place)."""
    return _Planner(pod, observed, notes, now, resources_of).plan()


def current(pod_container: str, observed: Observed) -> ContainerState | None:
    """The newest attempt, if it belongs to the newest sandbox: others are history."""
    newest = observed.newest(pod_container)
    if newest is None or observed.sandbox is None or newest.sandbox_id == observed.sandbox.id:
        return newest
    return newest if newest.phase in {"running", "paused"} else None


def is_over(pod: PodView, observed: Observed, notes: PodNotes) -> bool:
    """Whether no main container runs or will run again."""
    if notes.failure is not None:
        return not any(_runs(observed.newest(c.name)) for c in pod.containers)
    if init_failed(pod, observed, notes):
        return True
    return bool(pod.main) and all(_finished(c, observed.newest(c.name), notes) for c in pod.main)


def init_failed(pod: PodView, observed: Observed, notes: PodNotes) -> bool:
    """Whether an init container ended badly for good."""
    for container in pod.with_role(Role.INIT):
        code = _final_code(observed.newest(container.name), notes.of(container.name))
        if code is not None and code != 0 and not container.restarts_after(code):
            return True
    return False


def _final_code(state: ContainerState | None, notes: ContainerNotes) -> int | None:
    if state is not None and state.attempt + 1 >= notes.next_attempt:
        return state.exit_code if state.phase == "exited" else None
    return int(notes.final.get("exitCode") or 0) if notes.final else None


def _finished(container: ContainerView, state: ContainerState | None, notes: PodNotes) -> bool:
    code = _final_code(state, notes.of(container.name))
    return code is not None and not container.restarts_after(code)


def is_frozen(pod: PodView, notes: PodNotes, name: str) -> bool:
    """Whether a container stands still once it has started: all of a paused pod do, and those that stand by in it."""
    return (pod.paused and notes.promotion is None) or stands_by(pod, notes, name)


def _runs(state: ContainerState | None) -> bool:
    return state is not None and state.phase in {"running", "paused"}


class _Planner:
    """Collects the actions of one plan; lives for one call."""

    def __init__(
        self, pod: PodView, observed: Observed, notes: PodNotes, now: datetime, resources_of: ResourcesOf | None
    ) -> None:
        self.pod = pod
        self.observed = observed
        self.notes = notes
        self.now = now
        self.resources_of = resources_of
        self.actions: list[Action] = []
        self.wake_at: datetime | None = None

    def plan(self) -> Plan:
        if self.notes.released:
            if self.pod.deleting:
                self.actions.append(Release(forget=True))
        elif self.pod.deleting or self.notes.failure is not None:
            self._end()
        elif is_over(self.pod, self.observed, self.notes):
            self._finish()
        elif not self._past_deadline():
            self._run()
        return Plan(tuple(self.actions), self.wake_at)

    # Running

    def _run(self) -> None:
        self._prune()
        if (
            not self.notes.volumes_ready
            and VOLUMES not in self.observed.busy
            and self._due(self.notes.volumes_retry_at)
        ):
            self.actions.append(PrepareVolumes())
        sandbox = self.observed.sandbox
        if sandbox is None or not sandbox.ready:
            self._replace_sandbox()
            return
        if not self.notes.volumes_ready:
            return
        for container in self.pod.with_role(Role.EPHEMERAL):
            if self.observed.newest(container.name) is None:
                self._start(container)
        if self._initialize():
            for container in self.pod.main:
                self._keep(container)

    def _replace_sandbox(self) -> None:
        """Containers of a sandbox that is gone cannot go on: stop what is left of them, then make a new one."""
        left = [state for state in self.observed.running if self._free(state.name)]
        for state in left:
            self._stop(state, "Pod sandbox changed, it will be killed and re-created.", hook=False)
        if left or self.observed.running or SANDBOX in self.observed.busy:
            return
        if self._due(self.notes.sandbox_retry_at):
            newest = self.observed.sandbox
            attempt = max(self.notes.sandbox_attempts, newest.attempt + 1 if newest else 0)
            self.actions.append(StartSandbox(attempt))

    def _initialize(self) -> bool:
        """Go on with init containers; true when the main containers may run."""
        begun = any(current(c.name, self.observed) is not None for c in self.pod.main)
        for container in self.pod.init:
            state = current(container.name, self.observed)
            if container.role is Role.SIDECAR:
                if not self._keep(container) and not begun:
                    return False
            elif begun or (state is not None and state.phase == "exited" and state.exit_code == 0):
                continue
            else:
                self._keep(container)
                return False
        return True

    def _keep(self, container: ContainerView) -> bool:
        """Have it running as it should be; true when it runs and has started up."""
        state = current(container.name, self.observed)
        notes = self.notes.of(container.name)
        if not self._free(container.name):
            return False
        if container.name in self.pod.held:
            if _runs(state) and state is not None:
                self._stop(state, f"Container {container.name} is held back, it is stopped")
            return False
        if state is None or state.phase == "created":
            if not self._done_before(container):
                self._start(container)
            return False
        if state.phase == "exited":
            if container.restarts_after(state.exit_code):
                self._start(container)
            return False
        if state.hash and state.hash != container.hash:
            self._stop(state, f"Container {container.name} definition changed, will be restarted")
            return False
        if notes.kill and notes.container_id == state.id:
            self._stop(state, notes.kill, grace=notes.kill_grace)
            return False
        self._pause(state)
        self._resize(container, state, notes)
        return notes.container_id == state.id and notes.started

    def _done_before(self, container: ContainerView) -> bool:
        """A main container that ended for good in an earlier sandbox stays ended; init containers run again."""
        return container.role is Role.MAIN and _finished(container, self.observed.newest(container.name), self.notes)

    def _start(self, container: ContainerView) -> None:
        """Start the next attempt as soon as back-off allows."""
        if not self._free(container.name):
            return
        notes = self.notes.of(container.name)
        newest = self.observed.newest(container.name)
        if newest is not None and newest.phase == "exited" and newest.finished_at is not None:
            until = backoff_until(notes.restart_backoff, newest.finished_at)
            if until > self.now:
                self._wake(until)
                self.actions.append(
                    NoteBackoff(container.name, newest.attempt, crash_message(self.pod, container.name, notes))
                )
                return
        if not self._due(notes.retry_at):
            self._note_image_backoff(container, notes)
            return
        attempt = notes.next_attempt
        if newest is not None:
            # One that was created and never started is made again under its own number.
            attempt = newest.attempt if newest.phase == "created" else max(attempt, newest.attempt + 1)
        self.actions.append(StartContainer(container.name, attempt))

    def _note_image_backoff(self, container: ContainerView, notes: ContainerNotes) -> None:
        """A failed pull shows its error for a moment, then that it is waiting for the next try."""
        if notes.waiting is None or notes.waiting.reason not in PULL_ERRORS or notes.failed_at is None:
            return
        shown_until = notes.failed_at + timedelta(seconds=SHOW_PULL_ERROR)
        if shown_until > self.now:
            self._wake(shown_until)
        else:
            message = f'Back-off pulling image "{container.image}"'
            self.actions.append(NoteBackoff(container.name, notes.next_attempt, message, image=True))

    def _pause(self, state: ContainerState) -> None:
        frozen = is_frozen(self.pod, self.notes, state.name)
        if frozen and state.phase == "running" and not end_was_told(self.notes, state.id):
            self.actions.append(PauseContainer(state.name, state.id))
        elif not frozen and state.phase == "paused" and may_go_on(self.pod, self.observed, self.notes, state.name):
            self.actions.append(PauseContainer(state.name, state.id, resume=True))

    def _resize(self, container: ContainerView, state: ContainerState, notes: ContainerNotes) -> None:
        if self.resources_of is None or notes.resources is None or notes.container_id != state.id:
            return
        wanted = self.resources_of(container)
        if wanted != notes.resources:
            self.actions.append(UpdateResources(container.name, state.id, wanted))

    def _prune(self) -> None:
        """Keep the newest attempt and the one before it (for ``logs --previous``); drop older ones."""
        for name, attempts in self.observed.by_name.items():
            if name in self.observed.busy:
                continue
            for state in attempts[2:]:
                if state.phase not in {"running", "paused"}:
                    self.actions.append(RemoveContainer(name, state.id))

    def _past_deadline(self) -> bool:
        seconds, started = self.pod.active_deadline_seconds, self.notes.started_at
        if seconds is None or started is None:
            return False
        deadline = started + timedelta(seconds=seconds)
        if deadline > self.now:
            self._wake(deadline)
            return False
        message = "Pod was active on the node longer than the specified deadline"
        self.actions.append(FailPod(Failure("DeadlineExceeded", message)))
        return True

    # Ending

    def _finish(self) -> None:
        """The main containers are done by themselves: end the sidecars and give the sandbox back."""
        if not self._stop_sidecars():
            self._down()

    def _end(self) -> None:
        """The pod was told to end."""
        if self._stop_main() or self._stop_sidecars():
            return
        if self.observed.busy - {VOLUMES}:
            return  # a container may be starting: what comes of it is stopped next time
        if not self._down():
            return
        if self.pod.deleting and not self.observed.busy:
            self.actions.append(Release(forget=True))

    def _stop_main(self) -> bool:
        """True while anything but sidecars is still to end."""
        left = False
        for container in self.pod.with_role(Role.MAIN, Role.INIT, Role.EPHEMERAL):
            for state in self._running_of(container):
                left = True
                if self._free(container.name):
                    self._stop(state, f"Stopping container {container.name}", grace=self._remaining_grace())
        known = self.pod.by_name
        for state in self.observed.running:
            if state.name not in known and self._free(state.name):
                left = True
                self._stop(state, f"Stopping container {state.name}", grace=self._remaining_grace())
        return left

    def _stop_sidecars(self) -> bool:
        """Stop the last sidecar that still runs; true while there is one."""
        for container in reversed(self.pod.with_role(Role.SIDECAR)):
            for state in self._running_of(container):
                if self._free(container.name):
                    self._stop(state, f"Stopping container {container.name}", grace=self._remaining_grace())
                return True
        return False

    def _down(self) -> bool:
        """Take the sandbox down; true when it is."""
        if self.notes.sandbox_down or self.observed.sandbox is None:
            return SANDBOX not in self.observed.busy
        if SANDBOX not in self.observed.busy:
            self.actions.append(StopSandbox(self.observed.sandbox.id))
        return False

    def _remaining_grace(self) -> int:
        """What is left of the pod's grace, which all its containers share; at least two seconds unless it is zero."""
        failure = self.notes.failure
        grace = self.pod.grace_seconds
        if failure is not None and failure.grace_seconds is not None:
            grace = min(grace, failure.grace_seconds) if self.pod.deleting else failure.grace_seconds
        if grace == 0 or self.notes.stopping_since is None:
            return grace
        gone = (self.now - self.notes.stopping_since).total_seconds()
        return max(min(grace, LEAST_GRACE), round(grace - gone))

    # Small things

    def _running_of(self, container: ContainerView) -> Iterator[ContainerState]:
        for state in self.observed.by_name.get(container.name, ()):
            if state.phase in {"running", "paused"}:
                yield state

    def _free(self, name: str) -> bool:
        return name not in self.observed.busy

    def _stop(self, state: ContainerState, why: str, *, grace: int | None = None, hook: bool = True) -> None:
        seconds = self.pod.grace_seconds if grace is None else grace
        self.actions.append(StopContainer(state.name, state.id, seconds, why, hook=hook and seconds > 0))

    def _due(self, moment: datetime | None) -> bool:
        if moment is None or moment <= self.now:
            return True
        self._wake(moment)
        return False

    def _wake(self, moment: datetime) -> None:
        if self.wake_at is None or moment < self.wake_at:
            self.wake_at = moment


def crash_message(pod: PodView, container: str, notes: ContainerNotes) -> str:
    """The kubelet's words for a container that is not restarted yet."""
    seconds = int(notes.restart_backoff.seconds)
    shown = f"{seconds // 60}m{seconds % 60}s" if seconds >= 60 else f"{seconds}s"
    return f"back-off {shown} restarting failed container={container} pod={pod.name}_{pod.namespace}({pod.uid})"
