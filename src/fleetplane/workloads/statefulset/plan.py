"""What a StatefulSet is to do next, and what it says about itself. Pure.

In order: pods are made and replaced from the lowest number up, removed from the highest down, and each waits until
those before it are ready (``OrderedReady``), or not (``Parallel``). Updates go from the highest number down to
``partition``. One pass stops at the first thing it has to wait for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from fleetplane.model.objects import Object, generation, is_deleting
from fleetplane.workloads.shared.numbers import scaled
from fleetplane.workloads.shared.pods import Pod, next_available
from fleetplane.workloads.shared.revisions import POD_REVISION
from fleetplane.workloads.statefulset.identity import first_ordinal, ordinal_of


class NewPod(NamedTuple):
    ordinal: int
    revision: str


@dataclass(slots=True)
class Plan:
    """``restart`` are pods among ``delete`` that had ended, with the reason for the event."""

    create: list[NewPod] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    restart: list[Pod] = field(default_factory=list)
    status: Object = field(default_factory=dict)
    recheck_after: float | None = None


@dataclass(frozen=True, slots=True)
class Revisions:
    """Names of the revision that is being left and of the one that is being moved to; equal when nothing moves."""

    current: str
    update: str


def replicas(stateful_set: Mapping[str, Any]) -> int:
    found = stateful_set["spec"].get("replicas")
    return 1 if found is None else int(found)


def is_parallel(stateful_set: Mapping[str, Any]) -> bool:
    return str(stateful_set["spec"].get("podManagementPolicy")) == "Parallel"


def partition(stateful_set: Mapping[str, Any]) -> int | None:
    """``spec.updateStrategy.rollingUpdate.partition``; None when it is not given."""
    strategy = stateful_set["spec"].get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type", "RollingUpdate") != "RollingUpdate" or rolling is None:
        return None
    return int(rolling.get("partition") or 0)


def plan(stateful_set: Object, owned: Sequence[Pod], revisions: Revisions, now: datetime) -> Plan:
    return _Pass(stateful_set, owned, revisions, now).decide()


class _Pass:
    def __init__(self, stateful_set: Object, owned: Sequence[Pod], revisions: Revisions, now: datetime) -> None:
        self.set, self.revisions, self.now = stateful_set, revisions, now
        self.made = Plan()
        self.first = first_ordinal(stateful_set)
        self.total = replicas(stateful_set)
        self.min_ready = int(stateful_set["spec"].get("minReadySeconds") or 0)
        self.ordered = not is_parallel(stateful_set)
        by_ordinal = {number: pod for pod in owned if (number := ordinal_of(stateful_set, pod.name)) is not None}
        wanted = range(self.first, self.first + self.total)
        self.pods = {number: by_ordinal.get(number) for number in wanted}
        self.condemned = [by_ordinal[number] for number in sorted(by_ordinal, reverse=True) if number not in wanted]
        self.owned = list(by_ordinal.values())

    def decide(self) -> Plan:
        self.made.status = self._status()
        if is_deleting(self.set):
            return self.made
        if self._fill() and self._shrink():
            self._update()
        self._adjust_status()
        found = next_available(self.owned, self.min_ready, self.now)
        self.made.recheck_after = found
        return self.made

    # filling up, shrinking, updating: each says whether the next may go on

    def _fill(self) -> bool:
        for ordinal, pod in self.pods.items():
            waits = False
            if pod is None:
                self.made.create.append(NewPod(ordinal, self._revision_for(ordinal)))
                waits = True
            elif pod.is_terminal and not pod.deleting:
                self.made.delete.append(pod)
                self.made.restart.append(pod)
                waits = True
            elif pod.deleting or not self._is_available(pod):
                waits = True
            if waits and self.ordered:
                return False
        return True

    def _shrink(self) -> bool:
        unhealthy = self._first_unhealthy()
        for pod in self.condemned:
            if pod.deleting:
                if self.ordered:
                    return False
                continue
            if self.ordered and not self._is_healthy(pod) and pod is not unhealthy:
                return False
            self.made.delete.append(pod)
            if self.ordered:
                return False
        return True

    def _update(self) -> None:
        strategy = self.set["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate" or self.made.create:
            return
        lowest = self.first + (partition(self.set) or 0)
        reachable = [pod for number, pod in self.pods.items() if number >= lowest and pod is not None]
        limit = self._max_unavailable()
        if limit == 1:
            self._replace_one(reachable)
        else:
            self._replace_some(reachable, limit)

    def _replace_one(self, reachable: Sequence[Pod]) -> None:
        """The highest old pod goes; it waits for none but those above it."""
        for pod in reversed(reachable):
            if self._is_old(pod) and not pod.deleting:
                self.made.delete += [pod] if pod not in self.made.delete else []
                return
            if not self._is_available(pod):
                return

    def _replace_some(self, reachable: Sequence[Pod], limit: int) -> None:
        """Old pods that do not work go at once, working ones as far as ``limit`` allows."""
        spare = limit - sum(pod is None or not self._is_available(pod) for pod in self.pods.values())
        for pod in reversed(reachable):
            if not self._is_old(pod) or pod.deleting or pod in self.made.delete:
                continue
            works = self._is_available(pod)
            if not works or spare > 0:
                self.made.delete.append(pod)
                spare -= works

    def _is_old(self, pod: Pod) -> bool:
        return pod.labels.get(POD_REVISION) != self.revisions.update

    def _max_unavailable(self) -> int:
        rolling = (self.set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
        written = rolling.get("maxUnavailable")
        return 1 if written is None else max(1, scaled(written, self.total, round_up=True))

    def _is_healthy(self, pod: Pod) -> bool:
        return pod.phase == "Running" and pod.ready and not pod.deleting

    def _is_available(self, pod: Pod) -> bool:
        return self._is_healthy(pod) and pod.is_available(self.min_ready, self.now)

    def _first_unhealthy(self) -> Pod | None:
        """The unhealthy pod with the lowest number, condemned ones last: the only one that may go while unhealthy."""
        for pod in (*self.pods.values(), *reversed(self.condemned)):
            if pod is not None and not self._is_healthy(pod):
                return pod
        return None

    def _revision_for(self, ordinal: int) -> str:
        """A pod below the partition (or not yet reached by a roll-out) comes back as it was."""
        strategy = self.set["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return self.revisions.update
        at = partition(self.set)
        if at is None:
            reached = int((self.set.get("status") or {}).get("currentReplicas") or 0)
            return self.revisions.current if ordinal < self.first + reached else self.revisions.update
        return self.revisions.current if ordinal < self.first + at else self.revisions.update

    # status

    def _status(self) -> Object:
        counts = {"replicas": 0, "readyReplicas": 0, "availableReplicas": 0, "currentReplicas": 0, "updatedReplicas": 0}
        for pod in self.owned:
            counts["replicas"] += 1
            counts["readyReplicas"] += self._is_healthy(pod)
            counts["availableReplicas"] += self._is_available(pod)
            if pod.deleting:
                continue
            revision = pod.labels.get(POD_REVISION)
            counts["currentReplicas"] += revision == self.revisions.current
            counts["updatedReplicas"] += revision == self.revisions.update
        return counts

    def _adjust_status(self) -> None:
        """What this pass does counts already, and a finished roll-out makes the new revision the current one."""
        counts: Object = self.made.status
        for new in self.made.create:
            counts["replicas"] += 1
            counts["currentReplicas"] += new.revision == self.revisions.current
            counts["updatedReplicas"] += new.revision == self.revisions.update
        for pod in self.made.delete:
            counts["currentReplicas"] -= pod.labels.get(POD_REVISION) == self.revisions.current
            counts["updatedReplicas"] -= pod.labels.get(POD_REVISION) == self.revisions.update
            if pod in self.made.restart:
                counts["replicas"] -= 1
        current = self.revisions.current
        strategy = self.set["spec"].get("updateStrategy") or {}
        is_rolling = strategy.get("type", "RollingUpdate") == "RollingUpdate"
        if is_rolling and counts["updatedReplicas"] == counts["replicas"] == counts["readyReplicas"]:
            current = self.revisions.update
            counts["currentReplicas"] = counts["updatedReplicas"]
        old = self.set.get("status") or {}
        status = {key: value for key, value in counts.items() if value or key in {"replicas", "availableReplicas"}}
        status["observedGeneration"] = generation(self.set)
        status["currentRevision"], status["updateRevision"] = current, self.revisions.update
        status["collisionCount"] = int(old.get("collisionCount") or 0)
        if old.get("conditions"):
            status["conditions"] = old["conditions"]
        self.made.status = status
