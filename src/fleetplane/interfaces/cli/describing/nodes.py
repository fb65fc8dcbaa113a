"""Nodes: what they have, what runs on them, and how much of it is promised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.describing.sheet import Sheet
from fleetplane.interfaces.cli.podselect import PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata, name, namespace
from fleetplane.model.quantity import Quantity
from fleetplane.model.table import time_since

_ENDED: Final = frozenset({"Succeeded", "Failed"})
_MOST_PODS: Final = 200


async def describe(session: Session, sheet: Sheet, obj: Object) -> None:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    info = status.get("nodeInfo") or {}
    sheet.field(
        "Addresses", ", ".join(f"{one.get('address')} ({one.get('type')})" for one in status.get("addresses") or [])
    )
    sheet.field("Schedulable", "no, it is cordoned" if spec.get("unschedulable") else "yes")
    sheet.field("Taints", ", ".join(_taint(one) for one in spec.get("taints") or []))
    sheet.field(
        "System",
        ", ".join(part for part in (info.get("osImage"), info.get("kernelVersion"), info.get("architecture")) if part),
    )
    sheet.field("Runtime", info.get("containerRuntimeVersion"))
    sheet.field("Agent", info.get("kubeletVersion"))
    try:
        pods = [pod async for pod in session.client.iterate(PODS, None, fields=f"spec.nodeName={name(obj)}")]
    except ApiError as error:
        if error.code != 403:
            raise
        pods = []
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in _ENDED]
    allocatable = status.get("allocatable") or {}
    asked, limited = total(running, "requests"), total(running, "limits")
    rows = [
        [
            key,
            (status.get("capacity") or {}).get(key),
            value,
            _share(asked.get(key), value),
            _share(limited.get(key), value),
        ]
        for key, value in sorted(allocatable.items())
    ]
    sheet.table("Resources", ("RESOURCE", "CAPACITY", "ALLOCATABLE", "REQUESTED", "LIMITS"), rows)
    now = session.environment.now()
    table = []
    for pod in sorted(running, key=lambda one: (namespace(one), name(one)))[:_MOST_PODS]:
        wants = total([pod], "requests")
        cpu, memory = wants.get("cpu", ""), wants.get("memory", "")
        table.append(
            [namespace(pod), name(pod), str(cpu), str(memory), time_since(metadata(pod).get("creationTimestamp"), now)]
        )
    more = f" (the first {_MOST_PODS} of {len(running)})" if len(running) > _MOST_PODS else f" ({len(running)})"
    sheet.table("Pods" + more, ("NAMESPACE", "NAME", "CPU", "MEMORY", "AGE"), table)


def total(pods: Iterable[Object], what: str) -> dict[str, Quantity]:
    """What the containers of pods request, or may use at most, together."""
    sums: dict[str, int] = {}
    formats: dict[str, Quantity] = {}
    for pod in pods:
        if what == "requests":
            sums["pods"] = sums.get("pods", 0) + 10**9
        for container in (pod.get("spec") or {}).get("containers") or []:
            amounts: Mapping[str, Any] = (container.get("resources") or {}).get(what) or {}
            for key, value in amounts.items():
                try:
                    parsed = Quantity.parse(value)
                except ValueError:
                    continue
                sums[key] = sums.get(key, 0) + parsed.nanos
                formats.setdefault(key, parsed)
    return {
        key: Quantity(nanos, formats[key].format) if key in formats else Quantity(nanos) for key, nanos in sums.items()
    }


def _share(used: Quantity | None, of: Any) -> str:
    if used is None or not used.nanos:
        return ""
    try:
        whole = Quantity.parse(of).nanos
    except ValueError:
        whole = 0
    return f"{used} ({100 * used.nanos // whole}%)" if whole else str(used)


def _taint(taint: Object) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint.get('key')}{value}:{taint.get('effect')}"
