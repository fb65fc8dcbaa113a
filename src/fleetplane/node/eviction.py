"""Which pod must go when a node runs short: a pure choice, and the loop that makes it.

The kubelet's order: first pods that use more of the short resource than they asked for, then lower priority, then those
furthest above their request. Static pods and node-critical ones stay. One pod goes at a time, and then the node is
measured again.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.node.observed import Failure
from fleetplane.node.pod import PodView
from fleetplane.node.resources import amount, pod_requests

CRITICAL: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Use:
    """What a pod uses of each resource, in whole units (bytes, processes)."""

    pod: PodView
    amounts: Mapping[str, int]


def choose_victim(uses: Iterable[Use], resource: str) -> Use | None:
    """The pod to evict for this resource, or None when none may be."""
    candidates = [use for use in uses if _may_go(use.pod)]
    if not candidates:
        return None
    return min(candidates, key=lambda use: _rank(use, resource))


def _may_go(pod: PodView) -> bool:
    return not (pod.static or pod.mirror or pod.deleting or _priority(pod) >= CRITICAL)


def _priority(pod: PodView) -> int:
    return int(pod.spec.get("priority") or 0)


def _rank(use: Use, resource: str) -> tuple[bool, int, int]:
    asked = pod_requests(use.pod.spec).get(resource)
    above = use.amounts.get(resource, 0) - (asked.value() if asked else 0)
    return above <= 0, _priority(use.pod), -above


def eviction_failure(use: Use, resource: str, message: str) -> Failure:
    """What the evicted pod's status says."""
    request = pod_requests(use.pod.spec).get(resource)
    used = use.amounts.get(resource, 0)
    words = f"{message} Pod was using {used // 1024}Ki, request is {request or 0}." if used else message
    return Failure("Evicted", words, grace_seconds=0)


def over_limits(pod: PodView, disk_use: Mapping[str, int]) -> Failure | None:
    """Whether an emptyDir has outgrown its limit; ``disk_use`` maps volume names to bytes."""
    for volume in pod.spec.get("volumes") or []:
        limit = amount(volume.get("emptyDir"), "sizeLimit")
        name = str(volume.get("name") or "")
        if limit is not None and limit and disk_use.get(name, 0) > limit.value():
            return Failure("Evicted", f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". ')
    return None


def is_measured(empty: Mapping[str, Any]) -> bool:
    """On disk, or in memory where no file system of its own could be mounted."""
    return not empty.get("medium") or os.geteuid() != 0


def limited_volumes(pods: Sequence[PodView]) -> list[tuple[PodView, Mapping[str, Any]]]:
    """The emptyDirs that have a limit nothing else enforces: those worth measuring."""
    return [
        (pod, volume)
        for pod in pods
        for volume in pod.spec.get("volumes") or []
        if (volume.get("emptyDir") or {}).get("sizeLimit") and is_measured(volume["emptyDir"])
    ]
