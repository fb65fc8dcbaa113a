"""From what a container asks for to what cgroups enforce, and what that makes of its pod.

CPU requests become shares (1024 a core), CPU limits a quota per 100 ms, memory limits a hard limit without swap. The
out-of-memory score follows the pod's quality of service class as in Kubernetes, so that best-effort pods die first.
Pure functions; amounts are exact quantities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.model.objects import Object
from fleetplane.model.quantity import Quantity
from fleetplane.node.runtime import Resources

PERIOD: Final = 100_000
LEAST_QUOTA: Final = 1_000
LEAST_SHARES: Final = 2
MOST_SHARES: Final = 262_144

_GUARANTEED_SCORE: Final = -997
_BEST_EFFORT_SCORE: Final = 1000


def amount(values: Mapping[str, Any] | None, name: str) -> Quantity | None:
    """The quantity of this resource, or None when it is absent or cannot be read."""
    found = (values or {}).get(name)
    if found is None:
        return None
    try:
        return Quantity.parse(found)
    except ValueError:
        return None


def container_resources(spec: Mapping[str, Any], pod_spec: Mapping[str, Any], node_memory: int) -> Resources:
    """The limits of one container on a node with this much memory (bytes)."""
    wanted = spec.get("resources") or {}
    limits, requests = wanted.get("limits") or {}, wanted.get("requests") or {}
    cpu_limit = amount(limits, "cpu")
    cpu_request = amount(requests, "cpu")
    if cpu_request is None:
        cpu_request = cpu_limit
    memory = amount(limits, "memory")
    return Resources(
        cpu_shares=_shares(cpu_request),
        cpu_quota=_quota(cpu_limit),
        cpu_period=PERIOD,
        memory_bytes=memory.value() if memory else 0,
        memory_swap_bytes=memory.value() if memory else 0,
        oom_score_adj=_oom_score(spec, pod_spec, node_memory),
        huge_pages={
            name.removeprefix("hugepages-"): quantity.value()
            for name in sorted(limits)
            if name.startswith("hugepages-") and (quantity := amount(limits, name))
        },
    )


def _shares(cpu: Quantity | None) -> int:
    if cpu is None or not cpu:
        return LEAST_SHARES
    return max(LEAST_SHARES, min(MOST_SHARES, cpu.milli_value() * 1024 // 1000))


def _quota(cpu: Quantity | None) -> int:
    if cpu is None or not cpu:
        return 0
    return max(LEAST_QUOTA, cpu.milli_value() * PERIOD // 1000)


def _oom_score(spec: Mapping[str, Any], pod_spec: Mapping[str, Any], node_memory: int) -> int:
    if pod_spec.get("priorityClassName") == "system-node-critical":
        return _GUARANTEED_SCORE
    match qos_class(pod_spec):
        case "Guaranteed":
            return _GUARANTEED_SCORE
        case "BestEffort":
            return _BEST_EFFORT_SCORE
    wanted = spec.get("resources") or {}
    request = amount(wanted.get("requests"), "memory") or amount(wanted.get("limits"), "memory")
    if request is None or node_memory <= 0:
        return 999
    return max(3, min(999, 1000 - 1000 * request.value() // node_memory))


def qos_class(pod_spec: Mapping[str, Any]) -> str:
    """``Guaranteed``, ``Burstable`` or ``BestEffort``, from CPU and memory of all containers."""
    all_equal, any_set = True, False
    for spec in [*(pod_spec.get("containers") or []), *(pod_spec.get("initContainers") or [])]:
        wanted = spec.get("resources") or {}
        limits, requests = wanted.get("limits") or {}, wanted.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = amount(limits, name), amount(requests, name)
            any_set = any_set or bool(limit) or bool(request)
            if not limit or (request is not None and request != limit):
                all_equal = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if all_equal else "Burstable"


def pod_requests(pod_spec: Mapping[str, Any]) -> dict[str, Quantity]:
    """What a pod asks of its node: the larger of its running containers' sum and its init containers' peak.

    Sidecars count with what runs beside them (KEP-753); pod overhead is added.
    """
    total: dict[str, Quantity] = {}
    for spec in pod_spec.get("containers") or []:
        _add(total, _requests(spec))
    sidecars: dict[str, Quantity] = {}
    peak: dict[str, Quantity] = {}
    for spec in pod_spec.get("initContainers") or []:
        wanted = _requests(spec)
        if spec.get("restartPolicy") == "Always":
            _add(sidecars, wanted)
            wanted = {}
        beside = dict(sidecars)
        _add(beside, wanted)
        _raise(peak, beside)
    _add(total, sidecars)
    _raise(total, peak)
    _add(total, _quantities(pod_spec.get("overhead") or {}))
    return total


def _requests(spec: Mapping[str, Any]) -> dict[str, Quantity]:
    wanted = spec.get("resources") or {}
    return _quantities({**(wanted.get("limits") or {}), **(wanted.get("requests") or {})})


def _quantities(values: Object) -> dict[str, Quantity]:
    return {name: quantity for name in values if (quantity := amount(values, name)) is not None}


def _add(total: dict[str, Quantity], more: Mapping[str, Quantity]) -> None:
    for name, quantity in more.items():
        total[name] = total[name] + quantity if name in total else quantity


def _raise(total: dict[str, Quantity], least: Mapping[str, Quantity]) -> None:
    for name, quantity in least.items():
        if name not in total or total[name] < quantity:
            total[name] = quantity
