"""From what pods use to how many there should be, one metric at a time. Pure.

Pods that are not ready yet, and pods nobody has measured, neither push up nor pull down by accident: they are taken to
use nothing when the others say "more", and all they asked for when the others say "fewer".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.model.objects import Object
from fleetplane.model.quantity import Quantity

TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """One pod. ``usage`` is in thousandths, None when not measured; ``request`` None when it asks for nothing.

    ``ready`` says whether its usage means anything yet.
    """

    name: str
    ready: bool
    request: int | None
    usage: int | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """``replicas`` for this metric, ``current`` as it goes into status, ``problem`` (reason, message) instead of both."""

    replicas: int = 0
    current: Object | None = None
    problem: tuple[str, str] | None = None


def milli(written: Any) -> int:
    return Quantity.parse(written).milli_value()


def propose(
    metric: Mapping[str, Any],
    pods: Sequence[Measured],
    current_replicas: int,
    tolerances: tuple[float, float] = (TOLERANCE, TOLERANCE),
) -> Proposal:
    """``metric`` is one of ``spec.metrics``; ``tolerances`` are (down, up)."""
    kind = str(metric.get("type"))
    if kind in _OTHER_APIS:
        return Proposal(problem=_no_such_api(kind, metric))
    source = metric.get("resource") if kind == "Resource" else metric.get("containerResource")
    if source is None:
        text = f"the metric type {kind} is not served here; only Resource and ContainerResource are"
        return Proposal(problem=("InvalidMetricSourceType", text))
    resource, target = str(source.get("name")), source.get("target") or {}
    measured = [pod for pod in pods if pod.usage is not None]
    if not measured:
        text = f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
        return Proposal(problem=(f"FailedGet{kind}Metric", text))
    if target.get("averageUtilization") is not None:
        return _by_utilization(kind, source, pods, current_replicas, int(target["averageUtilization"]), tolerances)
    if target.get("averageValue") is not None:
        return _by_value(kind, source, pods, current_replicas, milli(target["averageValue"]), tolerances)
    return Proposal(
        problem=(f"FailedGet{kind}Metric", f"the target of resource {resource} says neither how much nor how full")
    )


_OTHER_APIS: Final = {"Pods": "custom", "Object": "custom", "External": "external"}
"""The types of metrics that need an API of their own, which planes do not have."""


def _no_such_api(kind: str, metric: Mapping[str, Any]) -> tuple[str, str]:
    """In the words of Kubernetes where nobody serves that API."""
    api = _OTHER_APIS[kind]
    source = metric.get(kind.lower()) or {}
    named = (source.get("metric") or {}).get("name")
    problem = f"unable to fetch metrics from {api} metrics API: no {api} metrics API ({api}.metrics.k8s.io) registered"
    if kind == "Object":
        about = source.get("describedObject") or {}
        problem = f"{about.get('kind')} {about.get('name')}: {problem}"
    what = "external metric" if kind == "External" else "metric"
    return f"FailedGet{kind}Metric", f"unable to get {what} {named}: {problem}"


def _by_utilization(
    kind: str,
    source: Mapping[str, Any],
    pods: Sequence[Measured],
    current: int,
    target: int,
    tolerances: tuple[float, float],
) -> Proposal:
    resource = str(source.get("name"))
    without = next((pod for pod in pods if not pod.request), None)
    if without is not None:
        text = f"failed to get {resource} utilization: missing request for {resource} in pod {without.name}"
        return Proposal(problem=(f"FailedGet{kind}Metric", text))
    wanted = {pod.name: target * (pod.request or 0) / 100 for pod in pods}
    ready = [pod for pod in pods if pod.ready and pod.usage is not None]
    if not ready:
        return Proposal(
            problem=(f"FailedGet{kind}Metric", "did not receive metrics for targeted pods (pods might be unready)")
        )
    replicas = _replicas(pods, wanted, current, tolerances)
    usage, requested = sum(pod.usage or 0 for pod in ready), sum(pod.request or 0 for pod in ready)
    status = {"averageUtilization": usage * 100 // requested, "averageValue": _amount(usage // len(ready), resource)}
    return Proposal(replicas, _status(kind, source, status))


def _by_value(
    kind: str,
    source: Mapping[str, Any],
    pods: Sequence[Measured],
    current: int,
    target: int,
    tolerances: tuple[float, float],
) -> Proposal:
    ready = [pod for pod in pods if pod.ready and pod.usage is not None]
    if not ready or target <= 0:
        return Proposal(
            problem=(f"FailedGet{kind}Metric", "did not receive metrics for targeted pods (pods might be unready)")
        )
    wanted = {pod.name: float(target) for pod in pods}
    replicas = _replicas(pods, wanted, current, tolerances)
    average = sum(pod.usage or 0 for pod in ready) // len(ready)
    return Proposal(replicas, _status(kind, source, {"averageValue": _amount(average, str(source.get("name")))}))


def _replicas(
    pods: Sequence[Measured], wanted: Mapping[str, float], current: int, tolerances: tuple[float, float]
) -> int:
    """``wanted`` is what each pod should use; the answer brings the sum of use to the sum of that."""
    ready = [pod for pod in pods if pod.ready and pod.usage is not None]
    ratio = _ratio([(pod.usage or 0, wanted[pod.name]) for pod in ready])
    others = [pod for pod in pods if pod not in ready]
    if not others:
        return current if _is_close(ratio, tolerances) else _ceil(ratio * len(ready))
    counted = [(float(pod.usage or 0), wanted[pod.name]) for pod in ready]
    for pod in others:
        if ratio > 1:
            counted.append((0.0, wanted[pod.name]))
        elif pod.usage is None:
            counted.append((float(pod.request or wanted[pod.name]), wanted[pod.name]))
    corrected = _ratio(counted)
    if _is_close(corrected, tolerances) or (ratio < 1) != (corrected < 1):
        return current
    proposed = _ceil(corrected * len(counted))
    # What was left out must not turn the direction around.
    if (corrected < 1 and proposed > current) or (corrected > 1 and proposed < current):
        return current
    return proposed


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    wanted = sum(pair[1] for pair in pairs)
    return sum(pair[0] for pair in pairs) / wanted if wanted else 1.0


def _is_close(ratio: float, tolerances: tuple[float, float]) -> bool:
    down, up = tolerances
    return 1.0 - down <= ratio <= 1.0 + up


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)


def _amount(thousandths: int, resource: str) -> str:
    if resource == "cpu":
        return str(Quantity.of_milli(thousandths))
    return str(Quantity.of(thousandths // 1000))


def _status(kind: str, source: Mapping[str, Any], current: Object) -> Object:
    if kind == "Resource":
        return {"type": kind, "resource": {"name": source.get("name"), "current": current}}
    found = {"name": source.get("name"), "container": source.get("container"), "current": current}
    return {"type": kind, "containerResource": found}
