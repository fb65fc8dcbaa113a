"""Why a pod could not be placed, as kube-scheduler words it: counted reasons, sorted, in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fleetplane.workloads.scheduler.filters import Refusal


def no_nodes() -> str:
    return "no nodes available to schedule pods"


def unavailable(nodes: int, refusals: Mapping[int, Refusal], preemption: str = "") -> str:
    """``0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.``"""
    if nodes == 0:
        return no_nodes()
    counted = Counter(reason for refusal in refusals.values() for reason in refusal.reasons)
    return f"0/{nodes} nodes are available: {_listed(counted)}." + (f" {preemption}" if preemption else "")


def preemption_failed(nodes: int, refusals: Mapping[int, Refusal]) -> str:
    """What preemption found: where it cannot help, and where it found nobody to evict."""
    counted: Counter[str] = Counter()
    for refusal in refusals.values():
        if refusal.resolvable:
            counted["No preemption victims found for incoming pod"] += 1
        else:
            counted["Preemption is not helpful for scheduling"] += 1
    return f"preemption: 0/{nodes} nodes are available: {_listed(counted)}."


def _listed(counted: Counter[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
