"""The probes of one pod's running containers: when each is asked, and what the pod's notes learn from it.

A probe is a timer, not a task: only while a question is under way does it hold one. A container that ends, restarts or
is stopped takes its probes along; a probe asks on until then, except a startup probe, which ends with its first success
and only then lets the others begin.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fleetplane.model.environment import Environment
from fleetplane.node.observed import Observed
from fleetplane.node.pod import ContainerView, Role
from fleetplane.node.probes import KINDS, Answer, Count, ProbeKind, Prober, Timing, advance
from fleetplane.node.runtime import ContainerState, RuntimeFailure

if TYPE_CHECKING:
    from fleetplane.node.worker import PodWorker

_WORDS = {"startup": "Startup", "liveness": "Liveness", "readiness": "Readiness"}


class PodProbes(Protocol):
    def keep(self, observed: Observed) -> None:
        """Have the probes of what runs now, and no others."""

    def pod_changed(self) -> None:
        """The pod's annotations changed: ask steady probers again."""

    def close(self) -> None: ...


@dataclass(slots=True)
class _Probe:
    kind: ProbeKind
    container: ContainerView
    container_id: str
    timing: Timing
    count: Count
    timer: asyncio.TimerHandle | None = None
    asking: asyncio.Task[None] | None = None
    ended: bool = False


@dataclass(slots=True)
class _Set:
    container_id: str
    probes: list[_Probe] = field(default_factory=list)


class ContainerProbes:
    """See the module."""

    def __init__(self, worker: PodWorker, prober: Prober, environment: Environment) -> None:
        self._worker = worker
        self._prober = prober
        self._environment = environment
        self._sets: dict[str, _Set] = {}

    def keep(self, observed: Observed) -> None:
        for container in self._worker.pod.containers:
            if container.role in {Role.INIT, Role.EPHEMERAL}:
                continue
            state = observed.newest(container.name)
            running = state is not None and state.phase == "running" and container.name not in observed.busy
            held = self._sets.get(container.name)
            if held is not None and (not running or state is None or held.container_id != state.id):
                self._drop(container.name)
                held = None
            if running and held is None and state is not None:
                self._sets[container.name] = self._begin(container, state)
            elif held is not None and self._worker.notes.of(container.name).started:
                self._begin_rest(held, container)

    def pod_changed(self) -> None:
        for held in self._sets.values():
            for probe in held.probes:
                if probe.asking is None and not probe.ended:
                    self._schedule(probe, 0.0)

    def close(self) -> None:
        for name in list(self._sets):
            self._drop(name)

    def _drop(self, name: str) -> None:
        for probe in self._sets.pop(name).probes:
            probe.ended = True
            if probe.timer is not None:
                probe.timer.cancel()
            if probe.asking is not None:
                probe.asking.cancel()

    def _begin(self, container: ContainerView, state: ContainerState) -> _Set:
        held = _Set(state.id)
        if container.probe("startup") is not None and not self._worker.notes.of(container.name).started:
            self._add(held, "startup", container)
        else:
            self._begin_rest(held, container)
        return held

    def _begin_rest(self, held: _Set, container: ContainerView) -> None:
        present = {probe.kind for probe in held.probes if not probe.ended}
        if "startup" in present:
            return
        for kind in KINDS[1:]:
            if kind not in present and container.probe(kind) is not None:
                self._add(held, kind, container)

    def _add(self, held: _Set, kind: ProbeKind, container: ContainerView) -> None:
        timing = Timing.of(container.probe(kind) or {})
        # A restarted agent takes the last known readiness as it was, so that nothing flickers.
        known = self._worker.notes.of(container.name).ready if kind == "readiness" else None
        probe = _Probe(kind, container, held.container_id, timing, Count(verdict=known or None))
        held.probes.append(probe)
        self._schedule(probe, self._first_delay(probe))

    def _first_delay(self, probe: _Probe) -> float:
        """Kubernetes spreads first probes over the period; the first answer matters more here, so ask soon."""
        return float(probe.timing.initial_delay)

    def _schedule(self, probe: _Probe, delay: float) -> None:
        if probe.timer is not None:
            probe.timer.cancel()
        probe.timer = asyncio.get_running_loop().call_later(delay, self._ask, probe)

    def _ask(self, probe: _Probe) -> None:
        if probe.asking is None and not probe.ended:
            probe.asking = self._worker.around.spawn(partial(self._question, probe))

    async def _question(self, probe: _Probe) -> None:
        began = self._environment.monotonic()
        answer = await self._answer(probe)
        probe.asking = None
        if probe.ended:
            return
        self._learn(probe, answer)
        if not probe.ended and not (self._prober.steady and probe.count.verdict is not None):
            took = self._environment.monotonic() - began
            self._schedule(probe, max(0.0, probe.timing.period - took))

    async def _answer(self, probe: _Probe) -> Answer:
        state = self._worker.container_state(probe.container.name)
        spec = probe.container.probe(probe.kind)
        if state is None or state.id != probe.container_id or spec is None:
            return Answer(False, "the container is gone")
        try:
            return await self._prober.ask(
                probe.kind, spec, self._worker.pod, probe.container, state, self._worker.addresses
            )
        except RuntimeFailure as error:
            return Answer(False, error.message)

    def _learn(self, probe: _Probe, answer: Answer) -> None:
        probe.count = advance(probe.count, answer.healthy, probe.timing)
        name, worker = probe.container.name, self._worker
        if worker.notes.of(name).container_id != probe.container_id:
            return
        if not answer.healthy:
            self._complain(probe, answer)
        verdict = probe.count.verdict
        if probe.kind == "readiness":
            ready = verdict is True
            if worker.notes.of(name).ready != ready:
                worker.note(name, ready=ready)
                worker.poke()
        elif probe.kind == "startup" and verdict is True:
            probe.ended = True
            worker.note(name, started=True)
            worker.poke()
        elif verdict is False:
            probe.ended = True
            grace = (probe.container.probe(probe.kind) or {}).get("terminationGracePeriodSeconds")
            why = f"Container {name} failed {probe.kind} probe, will be restarted"
            worker.note(name, kill=why, kill_grace=int(grace) if grace is not None else None)
            worker.poke()

    def _complain(self, probe: _Probe, answer: Answer) -> None:
        path = f"spec.containers{{{probe.container.name}}}"
        text = f"{_WORDS[probe.kind]} probe failed: {answer.message}"
        self._worker.around.recorder.say(self._worker.pod.object, "Unhealthy", text, warning=True, container=path)


class NoProbes:
    """For pods without any probe: most simulated ones."""

    def keep(self, observed: Observed) -> None:
        return

    def pod_changed(self) -> None:
        return

    def close(self) -> None:
        return
