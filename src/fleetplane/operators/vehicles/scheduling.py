"""Mixed criticality where pods are placed: a node's budget per level, and freedom from interference.

A scheduler plug-in. A node says, in annotations, which levels it takes (``vehicles.fleetplane.io/levels: "C,D"``) and how
much of it each level may ask for (``vehicles.fleetplane.io/budget: {"QM": {"cpu": "2"}}``); a level without an entry has
no limit of its own. Pods of different levels never share a writable host path on one node: that would be a way for the
lower to disturb the higher (ISO 26262-6, Annex D: memory and exchange of information). Realtime workloads that say how
long they run go only where every deadline is kept (``schedulability``; timing and execution).

That lower levels go first when there is no room is the scheduler's preemption, by the priority of each level.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from fleetplane.operators.vehicles.degradation import MODE, shed_here
from fleetplane.operators.vehicles.limits import LEVELS
from fleetplane.operators.vehicles.plan import HOST_PATHS, LEVEL, PREFIX, RESERVATION
from fleetplane.operators.vehicles.redundancy import GROUP
from fleetplane.operators.vehicles.schedulability import Task, missed, task_of
from fleetplane.workloads.scheduler.cluster import Cluster
from fleetplane.workloads.scheduler.filters import Refusal
from fleetplane.workloads.scheduler.node import NodeInfo
from fleetplane.workloads.scheduler.shape import PodInfo, Shape, amounts

BUDGET: Final = PREFIX + "budget"
TAKES: Final = PREFIX + "levels"
RULE: Final = "VehicleCriticality"


class Criticality:
    """See the module. Stateless: everything is read off the node and the pods on it."""

    is_local = True

    def concerns(self, shape: Shape) -> bool:
        return level_of(shape) is not None

    def refuse(self, pod: PodInfo, node: NodeInfo, cluster: Cluster) -> Refusal | None:
        level = level_of(pod.shape)
        if level is None:
            return None
        takes = node.annotations.get(TAKES)
        if takes is not None and level not in {one.strip() for one in takes.split(",")}:
            return Refusal(RULE, (f"node(s) do not take criticality {level}",), resolvable=False)
        if level in shed_here(node.annotations.get(MODE)):
            return Refusal(RULE, (f"node(s) shed criticality {level} in their degradation mode",), resolvable=False)
        if (text := node.annotations.get(BUDGET)) is not None:
            for resource, limit in budget(text, level).items():
                used = sum(
                    one.shape.requests.get(resource, 0)
                    for one in node.pods.values()
                    if one.uid != pod.uid and level_of(one.shape) == level
                )
                if used + pod.shape.requests.get(resource, 0) > limit:
                    return Refusal(RULE, (f"node(s) had no {resource} budget left for {level}",), resolvable=False)
        if why := _missed(pod, node):
            return Refusal(RULE, (f"node(s) could not keep every deadline: {why}",))
        ours = set(writable_host_paths(pod.shape))
        if ours:
            for one in node.pods.values():
                other = level_of(one.shape)
                if one.uid != pod.uid and other not in {None, level} and ours & set(writable_host_paths(one.shape)):
                    return Refusal(RULE, (f"node(s) had a host path in use by criticality {other}",))
        return None


def _missed(pod: PodInfo, node: NodeInfo) -> str:
    """Which deadline could be missed if the pod came there. Of redundant instances of one group only one runs at a time."""
    own = _task(pod)
    if own is None:
        return ""
    there: dict[str, Task] = {}
    for one in node.pods.values():
        group = _note(one, GROUP)
        if one.uid != pod.uid and not (group and group == _note(pod, GROUP)) and (task := _task(one)) is not None:
            there[group or one.uid] = task
    return missed(own, list(there.values()), -(-node.allocatable.get("cpu", 1000) // 1000))


def _note(pod: PodInfo, annotation: str) -> str:
    return str((pod.shape.raw.get("annotations") or {}).get(annotation) or "")


def _task(pod: PodInfo) -> Task | None:
    text = _note(pod, RESERVATION)
    return task_of(pod.name, text) if text else None


def level_of(shape: Shape) -> str | None:
    """The level of a vehicle pod; ``None`` for any other."""
    level = (shape.raw.get("annotations") or {}).get(LEVEL)
    return level if level in LEVELS else None


def budget(text: str, level: str) -> dict[str, int]:
    """What a level may ask for on a node. A budget that cannot be read gives nothing: it fails closed."""
    try:
        found: Any = orjson.loads(text)
        mine = found.get(level)
        return {} if mine is None else amounts({str(k): str(v) for k, v in mine.items()})
    except (orjson.JSONDecodeError, AttributeError, ValueError):
        return {"cpu": 0}


def writable_host_paths(shape: Shape) -> list[str]:
    """Host paths the pod may write, devices aside: what its expansion noted of them."""
    found = (shape.raw.get("annotations") or {}).get(HOST_PATHS)
    return found.split(",") if found else []
