"""Succession: when an active pod ends, its named successor on the same node goes on at once, without asking anybody.

A frozen pod (``node.fleetplane.io/paused``) waits; the active one names it by uid (``node.fleetplane.io/successor``).
Whoever named it has bound himself to let nobody else become active before that successor has verifiably stopped, so the
node may decide alone. It decides only on what it saw with its own eyes: the active's last container is one this node brought
to life, and the kernel said that its first process ended. That ends all of them, because the container has a
process namespace of its own; where it has not, or where a container would be started again, nothing is decided here.

The decision is kept in the pod's notes and shown as the condition ``node.fleetplane.io/Promoted``. It must never be made
for a pod that was stopped (deleted, evicted, fenced), nor by a node that may have been given up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from fleetplane.node import leading
from fleetplane.node.fencing import GROUP, is_thawed
from fleetplane.node.observed import Promotion
from fleetplane.node.worker import PodWorker

SUCCESSOR: Final = "node.fleetplane.io/successor"


class Succession:
    """``workers`` are the pods here by uid; ``may_decide`` answers whether a pod's node may still decide."""

    def __init__(self, workers: Mapping[str, PodWorker], monotonic: Callable[[], float]) -> None:
        self._workers = workers
        self._monotonic = monotonic
        self.may_decide: Callable[[PodWorker], bool] = lambda _worker: True

    def ended(self, worker: PodWorker, container_id: str) -> None:
        """The runtime says that this container's first process ended just now."""
        passed = leading.ended(
            worker.pod, worker.observed(), worker.notes, container_id, worker.around.environment.now()
        )
        if passed is not None:
            worker.notes = passed
            worker.poke()
            return
        heir = self._workers.get(worker.pod.annotations.get(SUCCESSOR, ""))
        if heir is None or not _has_ended(worker, container_id) or not _waits(heir, worker):
            return
        if self.may_decide(worker):
            heir.notes = replace(heir.notes, promotion=Promotion(worker.uid, self._monotonic()))
            heir.poke()


def _has_ended(worker: PodWorker, container_id: str) -> bool:
    """Whether this end is the end of the whole pod, by itself."""
    pod = worker.pod
    if pod.deleting or worker.notes.failure is not None or not is_thawed(worker):
        return False
    if pod.spec.get("hostPID") or pod.spec.get("shareProcessNamespace"):
        return False
    if any(one.policy != "Never" or one.rules for one in pod.containers):
        return False
    states = [worker.container_state(one.name) for one in pod.containers]
    # A look at the runtime may have come before its event; the notes know that this one came to life.
    last = [
        one
        for one in states
        if one is not None and one.id == container_id and worker.notes.of(one.name).container_id == container_id
    ]
    return bool(last) and all(one is not None and (one.id == container_id or one.phase == "exited") for one in states)


def _waits(heir: PodWorker, before: PodWorker) -> bool:
    pod, group = heir.pod, before.pod.annotations.get(GROUP)
    if not group or pod.annotations.get(GROUP) != group or not pod.paused or pod.deleting:
        return False
    if heir.notes.failure is not None or heir.notes.promotion is not None:
        return False
    states = [heir.container_state(one.name) for one in pod.main]
    return all(one is not None and one.phase == "paused" for one in states)
