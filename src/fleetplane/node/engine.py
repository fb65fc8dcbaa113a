"""All pods of one node: who works on each, and the one group of tasks their operations run in.

The engine owns the workers. It reads back what the runtime has when it starts, passes runtime events on as hints, and
lists everything anew at times, because hints get lost. It knows nothing of the API: specifications come in through
``set_pod``, statuses go out through ``on_status``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fleetplane.model.environment import Environment
from fleetplane.node.asking import NetworkAsker
from fleetplane.node.building import PodBuilder
from fleetplane.node.guard import Guard, NoGuard
from fleetplane.node.hooks import HookRunner
from fleetplane.node.images import Images
from fleetplane.node.observed import PodNotes
from fleetplane.node.pod import PodView
from fleetplane.node.probes import Prober
from fleetplane.node.probing import ContainerProbes, NoProbes, PodProbes
from fleetplane.node.recorder import Recorder
from fleetplane.node.runtime import ContainerRuntime, ContainerState, RuntimeFailure, Sandbox
from fleetplane.node.status import NodeFacts
from fleetplane.node.succession import Succession
from fleetplane.node.worker import Operation, PodWorker

RELIST_SECONDS = 30.0
STOCK_SECONDS = 2.0

_log = logging.getLogger(__name__)


class PodEngine:
    """See the module. It works inside ``working``."""

    def __init__(
        self,
        runtime: ContainerRuntime,
        environment: Environment,
        builder: PodBuilder,
        prober: Prober,
        recorder: Recorder,
        facts_of: Callable[[PodView], NodeFacts],
        *,
        asker: NetworkAsker | None = None,
        images: Images | None = None,
        unenforced: str = "",
        on_status: Callable[[PodWorker], None],
        on_ended: Callable[[PodWorker], None],
    ) -> None:
        self.runtime = runtime
        self.environment = environment
        self.builder = builder
        self.recorder = recorder
        self._facts_of = facts_of
        self.asker = asker or NetworkAsker()
        self.images = images or Images(runtime, environment)
        self.hooks = HookRunner(runtime, self.asker)
        self.workers: dict[str, PodWorker] = {}
        self.succession = Succession(self.workers, environment.monotonic)
        self.may_start: Callable[[PodWorker], bool] = lambda _worker: True
        self.guard: Guard = NoGuard()
        self._by_name: dict[tuple[str, str, str], PodWorker] = {}
        self.unenforced = unenforced
        self.cannot_freeze = ""
        self.on_unfrozen: Callable[[], None] = lambda: None
        self._prober = prober
        self._on_status = on_status
        self._on_ended = on_ended
        self._group: asyncio.TaskGroup | None = None
        self._stock: dict[str, tuple[list[Sandbox], list[ContainerState]]] = {}

    @asynccontextmanager
    async def working(self, group: asyncio.TaskGroup) -> AsyncIterator[None]:
        """Run operations in this group until the context is left; containers go on after that."""
        self._group = group
        try:
            yield
        finally:
            self.close()
            await self.images.close()
            await self.asker.close()
            self._group = None

    async def take_stock(self) -> None:
        """Learn what runs before anything is started, however long the runtime takes to answer.

        Whoever works on a pod from now on begins with what an earlier agent left of it: nothing is started twice.
        """
        while True:
            try:
                sandboxes, containers = await self.runtime.sandboxes(), await self.runtime.containers()
                break
            except RuntimeFailure as error:
                _log.error("the container runtime does not answer: %s", error.message)
                await asyncio.sleep(STOCK_SECONDS)
        for sandbox in sandboxes:
            self._stock.setdefault(sandbox.uid, ([], []))[0].append(sandbox)
        for container in containers:
            self._stock.setdefault(container.pod_uid, ([], []))[1].append(container)

    def set_pod(self, pod: PodView, notes: PodNotes | None = None, encoded: bytes = b"") -> PodWorker:
        """A pod that should be here, as it is now; ``encoded`` are its bytes, if they may be kept instead of it."""
        worker = self.workers.get(pod.uid)
        if worker is None:
            worker = PodWorker(self, pod, notes, encoded)
            worker.adopt(*self._stock.pop(pod.uid, ((), ())))
            self.workers[pod.uid] = worker
            self._by_name[worker.cluster, worker.namespace, worker.name] = worker
            worker.poke()
        else:
            worker.set_pod(pod, encoded)
        return worker

    def find(self, cluster: str, namespace: str, name: str) -> PodWorker | None:
        """Whichever pod has this name here."""
        return self._by_name.get((cluster, namespace, name))

    async def watch_runtime(self) -> None:
        """Pass on what the runtime tells, until cancelled."""
        async for event in self.runtime.events():
            worker = self.workers.get(event.pod_uid)
            if worker is not None and event.what == "exited":
                self.succession.ended(worker, event.container_id)
            if worker is not None and event.what in {"exited", "oom", "removed", "paused", "resumed"}:
                worker.refresh()

    async def relist(self) -> None:
        """Look at everything from time to time, in case a hint was lost; until cancelled."""
        while True:
            await asyncio.sleep(RELIST_SECONDS)
            try:
                found = await self.runtime.containers()
            except RuntimeFailure as error:
                _log.warning("the container runtime does not answer: %s", error.message)
                continue
            by_pod: dict[str, dict[str, str]] = {}
            for state in found:
                by_pod.setdefault(state.pod_uid, {})[state.id] = state.phase
            for uid, worker in list(self.workers.items()):
                if worker.differs(by_pod.get(uid, {})):
                    worker.refresh()

    # Surroundings of the workers

    def facts_of(self, pod: PodView) -> NodeFacts:
        return self._facts_of(pod)

    def spawn(self, work: Operation) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("the engine is not working")
        return self._group.create_task(_guarded(work))

    def probes_of(self, worker: PodWorker) -> PodProbes:
        kinds = ("startup", "liveness", "readiness")
        if any(container.probe(kind) for container in worker.pod.containers for kind in kinds):
            return ContainerProbes(worker, self._prober, self.environment)
        return NoProbes()

    def note_unfrozen(self, why: str) -> None:
        if not self.cannot_freeze:
            self.cannot_freeze = why
            self.on_unfrozen()

    def status_changed(self, worker: PodWorker) -> None:
        self._on_status(worker)

    def ended(self, worker: PodWorker, *, forget: bool) -> None:
        worker.close()
        self.workers.pop(worker.uid, None)
        name = (worker.cluster, worker.namespace, worker.name)
        if self._by_name.get(name) is worker:
            del self._by_name[name]
        self._on_ended(worker)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


async def _guarded(work: Operation) -> None:
    """One pod's bug must not end the node: log it, and let the worker plan again a little later."""
    try:
        await work()
    except Exception:  # the boundary between one pod and all the others
        _log.exception("an operation failed unexpectedly")
        await asyncio.sleep(5)
