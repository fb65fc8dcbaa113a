"""How many pods a budget wants healthy, has healthy, and can spare. Pure.

Evictions are granted by the server, which notes each in ``disruptedPods`` before the pod is deleted: such a pod counts
as gone already, for two minutes, in case it never goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.objects import Object, generation
from fleetplane.workloads.shared.conditions import find, make, without
from fleetplane.workloads.shared.numbers import scaled
from fleetplane.workloads.shared.pods import Pod

DISRUPTION_TIMEOUT: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Expected:
    """``pods`` are expected in all (what their controllers want, or what is there); ``problem`` why nobody knows."""

    pods: int = 0
    problem: str = ""


def needs_scale(budget: Mapping[str, Any]) -> bool:
    """Whether the sizes of controllers count, not just the pods there are."""
    spec = budget["spec"]
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def desired(budget: Mapping[str, Any], expected: int) -> int:
    spec = budget["spec"]
    if spec.get("maxUnavailable") is not None:
        return max(0, expected - scaled(spec["maxUnavailable"], expected, round_up=True))
    return scaled(spec.get("minAvailable", 1), expected, round_up=True)


def status(budget: Mapping[str, Any], pods: Sequence[Pod], expected: Expected, now: datetime) -> Object:
    """The whole new status. ``pods`` are those the budget selects."""
    old = budget.get("status") or {}
    disrupted = _still_disrupted(old.get("disruptedPods") or {}, pods, now)
    if expected.problem:
        found = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
        verdict = ("False", "SyncFailed", expected.problem)
    else:
        healthy = sum(pod.ready and pod.is_active and pod.name not in disrupted for pod in pods)
        wanted = desired(budget, expected.pods)
        allowed = max(0, healthy - wanted) if expected.pods > 0 else 0
        found = {
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": wanted,
            "expectedPods": expected.pods,
        }
        verdict = ("True", "SufficientPods", "") if allowed > 0 else ("False", "InsufficientPods", "")
    new: Object = {**found, "observedGeneration": generation(budget)}
    if disrupted:
        new["disruptedPods"] = disrupted
    new["conditions"] = _conditions(old.get("conditions"), verdict, generation(budget), now)
    return new


def _still_disrupted(known: Mapping[str, str], pods: Sequence[Pod], now: datetime) -> dict[str, str]:
    """Pods whose eviction was granted and that have not begun to go yet."""
    alive = {pod.name for pod in pods if not pod.deleting}
    return {
        name: when for name, when in known.items() if name in alive and parse_timestamp(when) + DISRUPTION_TIMEOUT > now
    }


def recheck_after(new: Mapping[str, Any], now: datetime) -> float | None:
    """Seconds until an evicted pod that did not go counts again."""
    ends = [parse_timestamp(when) + DISRUPTION_TIMEOUT for when in (new.get("disruptedPods") or {}).values()]
    return max((min(ends) - now).total_seconds(), 0.0) + 0.1 if ends else None


def _conditions(old: list[Object] | None, verdict: tuple[str, str, str], observed: int, now: datetime) -> list[Object]:
    kind = "DisruptionAllowed"
    made = {**make(kind, *verdict, timestamp(now)), "observedGeneration": observed}
    current = find(old, kind)
    if current is not None and current.get("status") == verdict[0] and current.get("lastTransitionTime"):
        made["lastTransitionTime"] = current["lastTransitionTime"]
    return [*without(old, kind), made]
