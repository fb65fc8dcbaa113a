"""Freedom from interference: what of lower criticality on the same node could disturb a workload, found and shown.

Pure. Three kinds of disturbance (ISO 26262-6, Annex D) as far as an orchestrator sees them in specifications: time (no CPU
limit on shared CPUs, a realtime priority not below), memory (no memory limit, privileged, the host's processes or IPC) and
exchange of information (a writable host path or device shared). It is a check of configuration and no proof: what it finds
is shown on the workload, and what it does not find may still be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from fleetplane.operators.vehicles.limits import LEVELS
from fleetplane.operators.vehicles.plan import DEVICES, LEVEL, RESERVATION, writable_host_paths

MOST: Final = 5
"""Findings that are named; the others are counted."""
_REALTIME: Final = ("SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE")


def level_of_pod(pod: Mapping[str, Any]) -> str:
    """A pod without a level counts as quality managed."""
    level = _notes(pod).get(LEVEL)
    return level if level in LEVELS else "QM"


def findings(pod: Mapping[str, Any], neighbours: Iterable[Mapping[str, Any]]) -> list[str]:
    """What could disturb this pod, one sentence each; ``neighbours`` are all pods of its node."""
    own, uid = LEVELS.index(level_of_pod(pod)), pod["metadata"]["uid"]
    found = []
    for one in sorted(neighbours, key=lambda each: str(each["metadata"]["name"])):
        if one["metadata"]["uid"] == uid or LEVELS.index(level_of_pod(one)) >= own or _is_over(one):
            continue
        found += [f"{one['metadata']['name']} ({level_of_pod(one)}) {what}" for what in _disturbs(pod, one)]
    return found


def told(found: list[str]) -> str:
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return "; ".join(found[:MOST]) + more


def _disturbs(pod: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    spec = other.get("spec") or {}
    containers = spec.get("containers") or ()
    limits = [(one.get("resources") or {}).get("limits") or {} for one in containers]
    if not all("memory" in one for one in limits):
        yield "has no memory limit"
    mine, its = _reservation(pod), _reservation(other)
    apart = bool(_cpus(mine) and _cpus(its) and not _cpus(mine) & _cpus(its))
    if not apart and not all("cpu" in one for one in limits):
        yield "has no CPU limit on shared CPUs"
    if not apart and its.get("schedulingPolicy") in _REALTIME and not _below(its, mine):
        yield "has a realtime priority that is not below"
    if any((one.get("securityContext") or {}).get("privileged") for one in containers):
        yield "is privileged"
    for key, what in (("hostPID", "processes"), ("hostIPC", "shared memory")):
        if spec.get(key):
            yield f"reaches the host's {what}"
    if shared := set(writable_host_paths(pod.get("spec") or {})) & set(writable_host_paths(spec)):
        yield f"may write {', '.join(sorted(shared))} too"
    if devices := _devices(pod) & _devices(other):
        yield f"uses the device {', '.join(sorted(devices))} too"


def _below(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Deadlines come before every realtime priority; what has none is above nothing."""
    if other.get("schedulingPolicy") not in _REALTIME:
        return False
    if "SCHED_DEADLINE" in {one.get("schedulingPolicy"), other.get("schedulingPolicy")}:
        return one.get("schedulingPolicy") != "SCHED_DEADLINE"
    return int(one.get("schedulingPriority") or 1) < int(other.get("schedulingPriority") or 1)


def _reservation(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    return _decoded(_notes(pod).get(RESERVATION))


def _devices(pod: Mapping[str, Any]) -> set[str]:
    given = _decoded(_notes(pod).get(DEVICES))
    return {
        str(one.get("source")) for some in given.values() for one in some if "w" in str(one.get("permissions") or "rwm")
    }


def _cpus(reservation: Mapping[str, Any]) -> frozenset[int]:
    found: set[int] = set()
    for part in str(reservation.get("cpuSet") or "").split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            found.update(range(int(first), min(int(last or first), int(first) + 4096) + 1))
    return frozenset(found)


def _decoded(text: Any) -> Mapping[str, Any]:
    try:
        found = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _notes(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    return (pod.get("metadata") or {}).get("annotations") or {}


def _is_over(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
