"""How fast a size may follow: stabilisation windows, rates, and the bounds of the autoscaler. Pure.

History (what was recommended, what was done) is kept by the caller, per autoscaler, and only as long as it matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_DEFAULT_UP: Final[Mapping[str, Any]] = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DEFAULT_DOWN: Final[Mapping[str, Any]] = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_LONGEST: Final = 3600.0


@dataclass(slots=True)
class History:
    """(moment, replicas) recommended; (moment, change) done. Moments are monotonic seconds."""

    recommended: list[tuple[float, int]] = field(default_factory=list)
    changes: list[tuple[float, int]] = field(default_factory=list)

    def forget(self, now: float) -> None:
        self.recommended = [one for one in self.recommended if now - one[0] <= _LONGEST]
        self.changes = [one for one in self.changes if now - one[0] <= _LONGEST]

    def changed_since(self, moment: float, *, up: bool) -> int:
        return sum(abs(change) for at, change in self.changes if at > moment and (change > 0) is up)


@dataclass(frozen=True, slots=True)
class Limited:
    """The size after all limits. ``reason`` and ``message`` go into ScalingLimited, ``stabilized`` into AbleToScale."""

    replicas: int
    is_limited: bool
    reason: str
    message: str
    stabilized: str = ""


def rules(spec: Mapping[str, Any], direction: str) -> Mapping[str, Any]:
    """``scaleUp`` or ``scaleDown``, with defaults for what is not given."""
    given = (spec.get("behavior") or {}).get(direction) or {}
    default = _DEFAULT_UP if direction == "scaleUp" else _DEFAULT_DOWN
    return {**default, **{key: value for key, value in given.items() if value is not None}}


def limit(spec: Mapping[str, Any], current: int, proposed: int, history: History, now: float) -> Limited:
    """From the proposal to the next size."""
    minimum = int(spec["minReplicas"]) if spec.get("minReplicas") is not None else 1
    maximum = int(spec["maxReplicas"])
    up, down = rules(spec, "scaleUp"), rules(spec, "scaleDown")
    desired = _stabilized(current, proposed, history, up, down, now)
    stabilized = ""
    if desired != proposed:
        stabilized = "ScaleUpStabilized" if proposed > current else "ScaleDownStabilized"
    if desired > current:
        ceiling = _ceiling(current, history, up, now)
        allowed = min(maximum, max(ceiling, current))
        if desired > allowed:
            if allowed == maximum:
                return _too_many(allowed, stabilized)
            text = "the desired replica count is increasing faster than the maximum scale rate"
            return Limited(allowed, True, "ScaleUpLimit", text, stabilized)
    elif desired < current:
        floor = _floor(current, history, down, now)
        allowed = max(minimum, min(floor, current))
        if desired < allowed:
            if allowed == minimum:
                return _too_few(allowed, stabilized)
            text = "the desired replica count is decreasing faster than the maximum scale rate"
            return Limited(allowed, True, "ScaleDownLimit", text, stabilized)
    if desired > maximum:
        return _too_many(maximum, stabilized)
    if desired < minimum:
        return _too_few(minimum, stabilized)
    text = "the desired count is within the acceptable range"
    return Limited(desired, False, "DesiredWithinRange", text, stabilized)


def _too_many(maximum: int, stabilized: str) -> Limited:
    text = "the desired replica count is more than the maximum replica count"
    return Limited(maximum, True, "TooManyReplicas", text, stabilized)


def _too_few(minimum: int, stabilized: str) -> Limited:
    text = "the desired replica count is less than the minimum replica count"
    return Limited(minimum, True, "TooFewReplicas", text, stabilized)


def _stabilized(
    current: int, proposed: int, history: History, up: Mapping[str, Any], down: Mapping[str, Any], now: float
) -> int:
    """The most cautious recommendation of each direction's window."""
    lowest = highest = proposed
    for at, replicas in history.recommended:
        if now - at <= float(up["stabilizationWindowSeconds"]):
            lowest = min(lowest, replicas)
        if now - at <= float(down["stabilizationWindowSeconds"]):
            highest = max(highest, replicas)
    if current < lowest:
        return lowest
    return highest if current > highest else current


def _ceiling(current: int, history: History, rule: Mapping[str, Any], now: float) -> int:
    if rule["selectPolicy"] == "Disabled":
        return current
    limits = [_up_to(one, current, history, now) for one in rule["policies"]]
    return (min if rule["selectPolicy"] == "Min" else max)(limits, default=current)


def _up_to(policy: Mapping[str, Any], current: int, history: History, now: float) -> int:
    since = now - float(policy["periodSeconds"])
    start = current - history.changed_since(since, up=True) + history.changed_since(since, up=False)
    if policy["type"] == "Pods":
        return start + int(policy["value"])
    return math.ceil(start * (1 + int(policy["value"]) / 100))


def _floor(current: int, history: History, rule: Mapping[str, Any], now: float) -> int:
    if rule["selectPolicy"] == "Disabled":
        return current
    limits = [_down_to(one, current, history, now) for one in rule["policies"]]
    return (max if rule["selectPolicy"] == "Min" else min)(limits, default=current)


def _down_to(policy: Mapping[str, Any], current: int, history: History, now: float) -> int:
    since = now - float(policy["periodSeconds"])
    start = current + history.changed_since(since, up=False) - history.changed_since(since, up=True)
    if policy["type"] == "Pods":
        return start - int(policy["value"])
    return int(start * (1 - int(policy["value"]) / 100))
