"""How many pods each ReplicaSet of a Deployment should have: rolling, recreating, and scaling in proportion. Pure.

The arithmetic is that of kube-controller-manager, with two sharper rules so that a late status cannot take away more
than ``maxUnavailable``: pods of a set never count as available beyond its wanted size, and a status that was written
before the set's latest size was seen counts for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetplane.model.objects import Object, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.workloads.deployment.sets import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    active,
    available,
    by_age,
    fenceposts,
    is_observed,
    is_rolling,
    replicas,
    revision,
    status_count,
)

Sizes = dict[str, int]
"""uid of a ReplicaSet -> replicas it should have; only sets that change."""


def first_size(deployment: Mapping[str, Any], old: Sequence[Object]) -> int:
    """How many pods the new set may start with."""
    return new_size(deployment, None, old)


def new_size(deployment: Mapping[str, Any], new: Object | None, old: Sequence[Object]) -> int:
    """How far the new set may grow now without passing ``replicas + maxSurge``."""
    total = replicas(deployment)
    if not is_rolling(deployment):
        return total
    current = replicas(new) if new is not None else 0
    existing = current + sum(map(replicas, old))
    allowed = total + fenceposts(deployment)[0]
    if existing >= allowed:
        return current
    return current + min(allowed - existing, total - current)


def roll_new(deployment: Mapping[str, Any], new: Object, old: Sequence[Object]) -> Sizes:
    total, current = replicas(deployment), replicas(new)
    if current == total:
        return {}
    size = total if current > total else new_size(deployment, new, old)
    return {uid(new): size} if size != current else {}


def roll_old(deployment: Mapping[str, Any], new: Object, old: Sequence[Object]) -> Sizes:
    """Takes unhealthy pods of old sets first, then healthy ones as far as ``maxUnavailable`` allows.

    Waits while a set has not seen its latest size: it may have been smaller in between, and its status would promise
    pods that are gone.
    """
    old = by_age(active(old))
    if not old or not all(map(is_observed, (new, *old))):
        return {}
    minimum = replicas(deployment) - fenceposts(deployment)[1]
    spare = sum(map(replicas, old)) + available(new) - minimum
    if spare <= 0:
        return {}
    sizes = {uid(one): replicas(one) for one in old}
    for one in old:
        going = min(spare, replicas(one) - available(one))
        sizes[uid(one)] -= going
        spare -= going
    healthy_spare = min(spare, available(new) + sum(map(available, old)) - minimum)
    for one in old:
        going = max(0, min(healthy_spare, sizes[uid(one)]))
        sizes[uid(one)] -= going
        healthy_spare -= going
    return {uid(one): sizes[uid(one)] for one in old if sizes[uid(one)] != replicas(one)}


def is_scaling_event(deployment: Mapping[str, Any], sets: Sequence[Object]) -> bool:
    """Whether the Deployment's size changed since its active sets were last scaled."""
    wanted = str(replicas(deployment))
    return any(annotations_of(one).get(DESIRED_REPLICAS, wanted) != wanted for one in active(sets))


def rescale(deployment: Mapping[str, Any], new: Object | None, old: Sequence[Object]) -> Sizes:
    """The size changed in the middle of a roll-out, or while paused: every set keeps its share."""
    everything = [*old, *([new] if new is not None else [])]
    only = _active_or_latest(new, old, everything)
    if only is not None:
        return {uid(only): replicas(deployment)} if replicas(only) != replicas(deployment) else {}
    if new is not None and _is_saturated(deployment, new):
        return {uid(one): 0 for one in active(old)}
    return _in_proportion(deployment, active(everything)) if is_rolling(deployment) else {}


def _active_or_latest(new: Object | None, old: Sequence[Object], everything: Sequence[Object]) -> Object | None:
    running = active(everything)
    if len(running) > 1:
        return None
    if running:
        return running[0]
    if new is not None:
        return new
    return max(old, key=revision, default=None)


def _is_saturated(deployment: Mapping[str, Any], new: Object) -> bool:
    total = replicas(deployment)
    return (
        replicas(new) == total
        and annotations_of(new).get(DESIRED_REPLICAS) == str(total)
        and status_count(new, "availableReplicas") == total
    )


def _in_proportion(deployment: Mapping[str, Any], running: Sequence[Object]) -> Sizes:
    total = replicas(deployment)
    allowed = total + fenceposts(deployment)[0] if total > 0 else 0
    to_add = allowed - sum(map(replicas, running))
    newest_first = list(reversed(by_age(running)))
    ordered = sorted(newest_first if to_add > 0 else by_age(running), key=replicas, reverse=True)
    sizes: Sizes = {}
    added = 0
    for one in ordered:
        share = _share(deployment, one, to_add, added)
        sizes[uid(one)] = replicas(one) + share
        added += share
    if ordered and to_add:
        largest = uid(ordered[0])
        sizes[largest] = max(0, sizes[largest] + to_add - added)
    return {uid(one): sizes[uid(one)] for one in ordered if sizes[uid(one)] != replicas(one)}


def _share(deployment: Mapping[str, Any], one: Object, to_add: int, added: int) -> int:
    if replicas(one) == 0 or to_add in {0, added}:
        return 0
    fraction = _fraction(deployment, one)
    return min(fraction, to_add - added) if to_add > 0 else max(fraction, to_add - added)


def _fraction(deployment: Mapping[str, Any], one: Object) -> int:
    total = replicas(deployment)
    if total == 0:
        return -replicas(one)
    try:
        before = int(annotations_of(one).get(MAX_REPLICAS) or 0)
    except ValueError:
        before = 0
    before = before or status_count(deployment, "replicas")
    if before <= 0:
        return 0
    target = replicas(one) * (total + fenceposts(deployment)[0])
    return (2 * target + before) // (2 * before) - replicas(one)
