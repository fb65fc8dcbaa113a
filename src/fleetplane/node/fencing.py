"""Self-fencing: a node that cannot renew its lease stops what must not run twice, before somebody else may start it.

The control plane starts a successor elsewhere only when a node has been silent for longer than the node promised to keep
its pods without it. The promise is the annotation ``node.fleetplane.io/self-fencing-seconds``: on a Node it concerns the
thawed pods that belong to a group (``node.fleetplane.io/group``: of a group at most one may be active), on a pod it
concerns that pod. The time counts from the moment the last renewal that succeeded was *sent*, so it is over here before it
is over anywhere else. Whoever is stopped for this reason stays stopped, also when the control plane returns.

When the agent starts, the time of the last renewal is read back from a file on volatile storage: an agent that was away
for too long stops its pods before anything else. After a reboot that file is gone; then what may run once only is not
started before the pods have been read from the control plane, because somebody else may have its place by now: whoever took
it over had it marked as deleted first. The promise itself is kept on disk.

While there is no agent, or none that works, its watchdog fences (see ``guard`` and ``watchdog``), a second later than the agent
would have. What it killed is read from its files, and stays stopped like everything else that was fenced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import orjson

from fleetplane.model.environment import Environment
from fleetplane.node.files import read_json, remove_file, write_private
from fleetplane.node.guard import Held, HeldProcess
from fleetplane.node.observed import Failure
from fleetplane.node.pod import GROUP, SELF_FENCING, PodView
from fleetplane.node.worker import PodWorker

__all__ = ["GROUP", "SELF_FENCING", "SelfFencing", "is_thawed", "seconds_of"]

KILL_SECONDS: Final = 2.0
"""How long before its time is over a pod is killed: killing takes a moment too."""
WATCHDOG_SECONDS: Final = 1.0
"""The same for the watchdog, which has less to do, and leaves the agent its turn."""
LOOK_SECONDS: Final = 0.5
REASON: Final = "SelfFenced"
_SILENT: Final = "had not heard of a renewed lease, nor of an agent that stops it, for as long as was promised"

_log = logging.getLogger(__name__)


def seconds_of(text: str | None) -> float | None:
    """A promise as it is written; None for none. One that cannot be read is none: nobody may rely on it either."""
    try:
        found = float(text) if text else 0.0
    except ValueError:
        return None
    return found if 0 < found < float("inf") else None


def is_thawed(worker: PodWorker) -> bool:
    return not worker.pod.paused or worker.notes.promotion is not None


class SelfFencing:
    """For the pods of one node, or of a fleet's. ``promise`` answers what a node (by name) has promised."""

    def __init__(
        self,
        environment: Environment,
        workers: Callable[[], Iterable[PodWorker]],
        promise: Callable[[str], float | None],
        memory: Path | None = None,
        disk: Path | None = None,
        records: Path | None = None,
    ) -> None:
        self._environment = environment
        self._workers = workers
        self._promise = promise
        self._memory = memory
        self._disk = disk
        self._records = records
        """Where the watchdog writes down what it killed: a file for each pod, named by its uid."""
        self._fenced: set[str] = set()
        self._overdue: dict[str, float] = {}
        """When pods that were told to end for this reason must be dead, by uid."""
        self._looked = self._began = environment.monotonic()
        self._remembered: float | None = None
        self._renewed: dict[str, float] = {}
        self._rebooted = False
        self._synced = False

    def recall(self, node: str) -> None:
        """What an earlier agent of this machine knew."""
        promised = (read_json(self._disk) if self._disk is not None else None) or {}
        if isinstance(promised.get("seconds"), float):
            self._remembered = promised["seconds"]
        kept = (read_json(self._memory) if self._memory is not None else None) or {}
        if isinstance(kept.get("renewed"), float):
            self._renewed[node] = kept["renewed"]
        self._rebooted = node not in self._renewed
        if self._records is not None:
            self._fenced |= {one.stem for one in self._records.glob("*.json")}

    def synced(self) -> None:
        """The pods are as the control plane has them now."""
        self._synced = True
        for uid in self._fenced - {worker.uid for worker in self._workers()}:
            self.forget(uid)

    def fenced(self, uids: Iterable[str]) -> None:
        """The watchdog has killed these pods."""
        if new := set(uids) - self._fenced:
            self._fenced |= new
            self.look()

    def forget(self, uid: str) -> None:
        """The pod is gone from this node."""
        self._overdue.pop(uid, None)
        if uid in self._fenced:
            self._fenced.discard(uid)
            if self._records is not None:
                remove_file(self._records / f"{uid}.json")

    def renewed(self, node: str, sent: float) -> None:
        """A renewal sent at this monotonic time has succeeded."""
        if self._environment.monotonic() - self._looked > 1.5 * LOOK_SECONDS:
            self.look()  # who was held up must not make good what is over already
        self._renewed[node] = max(sent, self._renewed.get(node, sent))
        promised = self._promise(node)
        try:
            if promised is not None and self._memory is not None:
                write_private(self._memory, orjson.dumps({"renewed": sent}))
            if promised != self._remembered and self._disk is not None:
                write_private(self._disk, orjson.dumps({"seconds": promised}))
        except OSError as error:
            _log.warning("what self-fencing must remember is not kept: %s", error)
        self._remembered = promised

    def may_start(self, worker: PodWorker) -> bool:
        """Whether a container of this pod may be started now. What is frozen may."""
        if worker.uid in self._fenced:
            return False
        seconds = self._seconds(worker.pod)
        if seconds is None or not is_thawed(worker):
            return True
        if self._rebooted and not self._synced:
            return False
        return self._left(worker.pod, seconds) > 0

    def is_fresh(self, worker: PodWorker) -> bool:
        """Whether the control plane cannot have given up on this pod's node yet."""
        seconds = self._seconds(worker.pod)
        return seconds is None or self._left(worker.pod, seconds) > 0

    def _seconds(self, pod: PodView) -> float | None:
        own = seconds_of(pod.annotations.get(SELF_FENCING))
        node = str(pod.spec.get("nodeName") or "")
        promised = (self._promise(node) or self._remembered) if GROUP in pod.annotations else None
        known = [one for one in (own, promised) if one is not None]
        return min(known) if known else None

    def _left(self, pod: PodView, seconds: float) -> float:
        """Seconds until the pod must be killed."""
        last = self._renewed.get(str(pod.spec.get("nodeName") or ""), self._began)
        return last + seconds - min(KILL_SECONDS, seconds / 4) - self._environment.monotonic()

    def held(self) -> tuple[list[Held], bool]:
        """What the watchdog is to hold, and whether there may be more of it soon."""
        found, promised = [], False
        for worker in self._workers():
            if not worker.has_promise:
                continue
            pod = worker.pod
            seconds = self._seconds(pod)
            if seconds is None:
                continue
            promised = True
            there = [one for one in worker.picture.containers.values() if one.phase != "exited"]
            if not there:
                continue
            thawed = is_thawed(worker)
            loss = not thawed and GROUP in pod.annotations and any(one.phase != "paused" for one in there)
            until = min(self._until(pod, seconds), self._overdue.get(worker.uid, float("inf")))
            processes = tuple(sorted((HeldProcess(one.id, one.pid) for one in there), key=lambda one: one.id))
            found.append(Held(worker.uid, pod.key, seconds, until if thawed or loss else None, loss, processes))
        return found, promised

    def _until(self, pod: PodView, seconds: float) -> float:
        last = self._renewed.get(str(pod.spec.get("nodeName") or ""), self._began)
        return last + seconds - min(WATCHDOG_SECONDS, seconds / 8)

    def look(self) -> None:
        """Kill what is overdue."""
        self._looked = self._environment.monotonic()
        for worker in list(self._workers()):
            if worker.uid in self._fenced:
                self._end(worker, f"The pod was stopped by the watchdog of its node, which {_SILENT}")
            if not worker.has_promise:  # told without the pod: tens of thousands at rest are not decoded twice a second
                continue
            pod = worker.pod
            seconds = self._seconds(pod)
            if seconds is None or self._left(pod, seconds) > 0 or worker.notes.failure is not None:
                continue
            if self._rebooted and not worker.observed().running:
                continue  # it was not started since, and is held
            if is_thawed(worker):
                self._end(worker, f"The node could not renew its lease for {seconds:g} seconds and stopped the pod")

    def _end(self, worker: PodWorker, text: str) -> None:
        if worker.notes.failure is None:
            self._overdue[worker.uid] = self._environment.monotonic() + WATCHDOG_SECONDS
            worker.say(REASON, text, warning=True)
            worker.fail(Failure(REASON, text, grace_seconds=0))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)
