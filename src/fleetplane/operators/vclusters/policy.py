"""What a tenant may have: the arithmetic of policies. Pure.

A tenant is a namespace. What its clusters have is counted from their specs, asleep or awake, so that a promise kept for a
sleeping cluster is not given away. Refused is only what adds to something that is full already; what exists is never taken.
Two clusters written in the same moment may both be let in: the younger one is then not built until there is room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from fleetplane.model.objects import is_deleting, metadata, uid
from fleetplane.model.quantity import Quantity
from fleetplane.operators.vclusters.kinds import Vk8s, Vk8sPolicy, mode_of

RESOURCES: Final = ("clusters", "nodes", "cpu", "memory", "gpu", "ports")
Usage = dict[str, int]
"""In thousandths, by resource."""


def usage_of(spec: Mapping[str, Any]) -> Usage:
    """What one cluster has: of cpu, memory and gpu its nodes' limits, or requests where nothing limits them."""
    ports = len(spec.get("ports") or ()) + bool(spec.get("accessPodImage") and spec.get("accessPodPort"))
    found = dict.fromkeys(RESOURCES, 0) | {"clusters": 1000, "ports": 1000 * ports}
    for node in spec.get("nodes") or ():
        found["nodes"] += 1000
        resources = node.get("resources") or {}
        for name, amount in {**(resources.get("requests") or {}), **(resources.get("limits") or {})}.items():
            counted = "gpu" if str(name).endswith("/gpu") else name
            if counted in {"cpu", "memory", "gpu"}:
                found[counted] += _milli(amount)
    return found


def _milli(amount: Any) -> int:
    try:
        return Quantity.parse(str(amount)).milli_value()
    except ValueError:
        return 0  # refused elsewhere


def total(clusters: Iterable[Mapping[str, Any]]) -> Usage:
    summed = dict.fromkeys(RESOURCES, 0)
    for cluster in clusters:
        for name, amount in usage_of(cluster.get("spec") or {}).items():
            summed[name] += amount
    return summed


def hard(policies: Iterable[Mapping[str, Any]]) -> Usage:
    """The tightest limit on each resource that any policy names."""
    found: Usage = {}
    for policy in policies:
        for name, amount in ((policy.get("spec") or {}).get("hard") or {}).items():
            if name in RESOURCES:
                found[name] = min(found.get(name, _milli(amount)), _milli(amount))
    return found


def shown(name: str, milli: int) -> str:
    """An amount as people write it."""
    if name == "memory" and milli % (1000 << 20) == 0:
        return f"{milli // (1000 << 20)}Mi"
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def excess(
    policies: Sequence[Mapping[str, Any]],
    others: Iterable[Mapping[str, Any]],
    new: Mapping[str, Any],
    old: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """What would be too much, in words; ``new`` and ``old`` are specs of the cluster that is written."""
    limits = hard(policies)
    if not limits:
        return
    used, asked = total(others), usage_of(new)
    before = usage_of(old) if old is not None else dict.fromkeys(RESOURCES, 0)
    for name, limit in limits.items():
        if asked[name] > before[name] and used[name] + asked[name] > limit:
            yield (
                f"{name}: {shown(name, asked[name])} asked for, {shown(name, used[name])} of"
                f" {shown(name, limit)} used by others"
            )


def refusals(policies: Iterable[Mapping[str, Any]], spec: Mapping[str, Any]) -> Iterator[str]:
    """What the policies do not allow at all, whatever is free."""
    view = Vk8s.view({"spec": spec}).spec
    for policy in policies:
        allowed = (policy.get("spec") or {}).get("modes") or ()
        if allowed and mode_of(view) not in allowed:
            yield f"clusters of mode {mode_of(view)} are not allowed here, only {' and '.join(allowed)}"
        longest = (policy.get("spec") or {}).get("maxTtlSeconds")
        wanted = view.lifetime.ttl_seconds
        if longest is not None and wanted is not None and wanted > longest:
            yield f"spec.lifetime.ttlSeconds must be at most {longest} here"


def beyond(policies: Sequence[Mapping[str, Any]], clusters: Iterable[Mapping[str, Any]], mine: str) -> str:
    """Why a cluster has no room, by its uid; empty where it has. Older clusters come first."""
    living = sorted((one for one in clusters if not is_deleting(one)), key=_age)
    elders: list[Mapping[str, Any]] = []
    for one in living:
        if uid(one) == mine:
            return "; ".join(excess(policies, elders, one.get("spec") or {}))
        elders.append(one)
    return ""


def status_of(policy: Mapping[str, Any], clusters: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What its status tells: how much is used of what it limits."""
    used = total(one for one in clusters if not is_deleting(one))
    return {name: shown(name, used[name]) for name in Vk8sPolicy.view(dict(policy)).spec.hard if name in RESOURCES}


def _age(cluster: Mapping[str, Any]) -> tuple[str, str]:
    meta = metadata(cluster)
    return str(meta.get("creationTimestamp") or ""), str(meta.get("uid") or "")
