"""What a DaemonSet is to do, and what it says about itself. Pure.

First every node gets its one pod and loses what is too much; then, when all nodes have one, old pods give way to the
new template as fast as ``maxUnavailable`` or ``maxSurge`` allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object, generation, is_deleting
from fleetplane.workloads.daemonset.placement import Verdict
from fleetplane.workloads.shared.numbers import scaled
from fleetplane.workloads.shared.pods import Pod
from fleetplane.workloads.shared.revisions import POD_REVISION

BURST: Final = 250
_FAILED_BACKOFF: Final = 1.0


@dataclass(slots=True)
class Plan:
    """``create`` are names of nodes. ``failed`` are pods among ``delete`` that had ended (an event says so)."""

    create: list[str] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    failed: list[Pod] = field(default_factory=list)
    recheck_after: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What is seen: ``verdicts`` by node name, ``pods`` by the node they are on or meant for."""

    verdicts: Mapping[str, Verdict]
    pods: Mapping[str, Sequence[Pod]]
    revision: str
    """The hash of the present template, as new pods carry it."""

    def is_new(self, pod: Pod) -> bool:
        return pod.labels.get(POD_REVISION) == self.revision


def plan(daemon_set: Mapping[str, Any], view: View, now: datetime) -> Plan:
    made = Plan()
    if is_deleting(daemon_set):
        return made
    _place(daemon_set, view, now, made)
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if not made.create and not made.delete and strategy.get("type", "RollingUpdate") == "RollingUpdate":
        _update(daemon_set, view, now, made)
    made.create, made.delete = made.create[:BURST], made.delete[:BURST]
    return made


def _place(daemon_set: Mapping[str, Any], view: View, now: datetime, made: Plan) -> None:
    surge, _ = fenceposts(daemon_set, view)
    for node, verdict in view.verdicts.items():
        here = list(view.pods.get(node, ()))
        alive = [pod for pod in here if not pod.deleting]
        if verdict.should_run and not here:
            made.create.append(node)
        elif verdict.may_stay:
            _tidy(daemon_set, view, node, alive, now, made, surge=surge)
        elif not verdict.may_stay:
            made.delete += alive
    for node, found in view.pods.items():
        if node and node not in view.verdicts:
            made.delete += [pod for pod in found if not pod.deleting]


def _tidy(
    daemon_set: Mapping[str, Any],
    view: View,
    node: str,
    alive: Sequence[Pod],
    now: datetime,
    made: Plan,
    *,
    surge: int,
) -> None:
    """Ended pods go (their successor is made when they are gone); of several that run the oldest stays."""
    running: list[Pod] = []
    for pod in alive:
        if pod.phase == "Failed":
            left = _backoff_left(pod, now)
            if left > 0:
                made.recheck_after = left if made.recheck_after is None else min(made.recheck_after, left)
            else:
                made.delete.append(pod)
                made.failed.append(pod)
        elif pod.phase == "Succeeded":
            made.delete.append(pod)
            made.failed.append(pod)
        else:
            running.append(pod)
    if len(running) <= 1:
        return
    if surge == 0:
        made.delete += _but_the_oldest(running)
        return
    min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
    new = [pod for pod in running if view.is_new(pod)]
    old = [pod for pod in running if not view.is_new(pod)]
    made.delete += _but_the_oldest(new)
    made.delete += _but_the_oldest(old)
    kept_new = [pod for pod in new if pod not in made.delete]
    if any(pod.is_available(min_ready, now) for pod in kept_new):
        made.delete += [pod for pod in old if pod not in made.delete]


def _backoff_left(pod: Pod, now: datetime) -> float:
    """A daemon that fails at once is replaced at the earliest a second after it was made."""
    if not pod.created:
        return 0.0
    return max(0.0, _FAILED_BACKOFF - (now - parse_timestamp(pod.created)).total_seconds())


def _but_the_oldest(found: Sequence[Pod]) -> list[Pod]:
    """One that is on its node already counts as older than one that is only meant for it."""
    return sorted(found, key=lambda pod: (not pod.node, pod.created, pod.name))[1:]


def fenceposts(daemon_set: Mapping[str, Any], view: View) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods; exactly one of them is at work."""
    wanted = sum(verdict.should_run for verdict in view.verdicts.values())
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = scaled(rolling.get("maxSurge") or 0, wanted, round_up=True)
    unavailable = scaled(rolling.get("maxUnavailable", 1), wanted, round_up=True)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, unavailable


def _update(daemon_set: Mapping[str, Any], view: View, now: datetime, made: Plan) -> None:
    surge, unavailable = fenceposts(daemon_set, view)
    if surge > 0:
        _surge(daemon_set, view, now, made, surge)
    else:
        _replace(daemon_set, view, now, made, unavailable)


def _replace(daemon_set: Mapping[str, Any], view: View, now: datetime, made: Plan, limit: int) -> None:
    """Old pods that do not work anyway go first; of those that do, as many as may be missing."""
    min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
    missing = 0
    candidates: list[Pod] = []
    for node, verdict in view.verdicts.items():
        if not verdict.should_run:
            continue
        alive = [pod for pod in view.pods.get(node, ()) if not pod.deleting]
        if not alive:
            missing += 1
            continue
        pod = alive[0]
        if not pod.is_available(min_ready, now):
            missing += 1
            if not view.is_new(pod):
                made.delete.append(pod)
        elif not view.is_new(pod):
            candidates.append(pod)
    made.delete += sorted(candidates, key=lambda pod: pod.created)[: max(0, limit - missing)]


def _surge(daemon_set: Mapping[str, Any], view: View, now: datetime, made: Plan, limit: int) -> None:
    """New pods beside the old ones, at most ``limit`` nodes with two at a time."""
    min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
    surging = 0
    candidates: list[str] = []
    for node, verdict in view.verdicts.items():
        alive = [pod for pod in view.pods.get(node, ()) if not pod.deleting]
        new = [pod for pod in alive if view.is_new(pod)]
        old = [pod for pod in alive if not view.is_new(pod)]
        if new and old:
            surging += 1
        elif old and verdict.should_run:
            if old[0].is_available(min_ready, now):
                candidates.append(node)
            else:
                made.delete += old  # it serves nobody: no need to surge
    made.create += candidates[: max(0, limit - surging)]


def status(daemon_set: Mapping[str, Any], view: View, now: datetime, collisions: int = 0) -> Object:
    """The whole new status."""
    min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
    desired = current = misplaced = ready = updated = available = 0
    for node, verdict in view.verdicts.items():
        alive = sorted(view.pods.get(node, ()), key=lambda pod: (pod.deleting, not view.is_new(pod), pod.created))
        if not verdict.should_run:
            misplaced += bool(alive)
            continue
        desired += 1
        if not alive:
            continue
        current += 1
        pod = next((one for one in alive if one.ready), alive[0])
        ready += pod.ready
        available += pod.is_available(min_ready, now)
        updated += any(view.is_new(one) for one in alive)
    found: Object = {
        "observedGeneration": generation(daemon_set),
        "currentNumberScheduled": current,
        "numberMisscheduled": misplaced,
        "desiredNumberScheduled": desired,
        "numberReady": ready,
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": desired - available,
    }
    required = {"currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"}
    new = {key: value for key, value in found.items() if value or key in required}
    old = daemon_set.get("status") or {}
    collisions = collisions or int(old.get("collisionCount") or 0)
    if collisions:
        new["collisionCount"] = collisions
    if old.get("conditions"):
        new["conditions"] = old["conditions"]
    return new


def recheck_after(daemon_set: Mapping[str, Any], view: View, now: datetime) -> float | None:
    """Seconds until a ready pod becomes available."""
    min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
    if min_ready == 0:
        return None
    moments = [
        at
        for found in view.pods.values()
        for pod in found
        if (at := pod.available_at(min_ready)) is not None and at > now
    ]
    return (min(moments) - now + timedelta(milliseconds=1)).total_seconds() if moments else None
