"""What a whole pod asks for and may use at most, from what its containers say.

Containers run together, so their amounts add up; init containers run one after the other before them, except those that
stay (``restartPolicy: Always``), which count for everything started after them. Amounts of the pod itself (KEP-2837)
take the place of the sum, the overhead of its runtime class comes on top. Pure, for objects that passed validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from fleetplane.model.quantity import Quantity

Amounts = dict[str, Quantity]
Kind = Literal["requests", "limits"]

POD_LEVEL: Final = frozenset({"cpu", "memory"})
_POD_LEVEL_PREFIX: Final = "hugepages-"


def parsed(amounts: Mapping[str, Any] | None) -> Amounts:
    """A resource list with its amounts read. Raises ValueError."""
    return {name: Quantity.parse(value) for name, value in (amounts or {}).items()}


def container_amounts(container: Mapping[str, Any], kind: Kind) -> Amounts:
    return parsed((container.get("resources") or {}).get(kind))


def pod_requests(pod: Mapping[str, Any], *, overhead: bool = True) -> Amounts:
    """What must be free on a node for the pod."""
    total = _total(pod, "requests")
    if overhead:
        _add(total, parsed((pod.get("spec") or {}).get("overhead")))
    return total


def pod_limits(pod: Mapping[str, Any], *, overhead: bool = True) -> Amounts:
    """What the pod may use at most; a resource that nothing limits is absent."""
    total = _total(pod, "limits")
    if overhead:
        extra = parsed((pod.get("spec") or {}).get("overhead"))
        _add(total, {name: amount for name, amount in extra.items() if name in total})
    return total


def is_best_effort(pod: Mapping[str, Any]) -> bool:
    """Whether neither the pod nor a container asks for CPU or memory."""
    spec = pod.get("spec") or {}
    for holder in (spec, *(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for kind in ("requests", "limits"):
            amounts = container_amounts(holder, kind)
            if any(amounts.get(name) for name in POD_LEVEL):
                return False
    return True


def _total(pod: Mapping[str, Any], kind: Kind) -> Amounts:
    spec = pod.get("spec") or {}
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, container_amounts(container, kind))
    staying: Amounts = {}
    starting: Amounts = {}
    for container in spec.get("initContainers") or ():
        amounts = container_amounts(container, kind)
        if container.get("restartPolicy") == "Always":
            _add(total, amounts)
            _add(staying, amounts)
            _raise(starting, staying)
        else:
            _add(amounts, staying)
            _raise(starting, amounts)
    _raise(total, starting)
    for name, amount in container_amounts(spec, kind).items():
        if name in POD_LEVEL or name.startswith(_POD_LEVEL_PREFIX):
            total[name] = amount
    return total


def _add(total: Amounts, more: Mapping[str, Quantity]) -> None:
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def _raise(total: Amounts, least: Mapping[str, Quantity]) -> None:
    for name, amount in least.items():
        if name not in total or total[name] < amount:
            total[name] = amount


def summed(several: Iterable[Mapping[str, Quantity]]) -> Amounts:
    total: Amounts = {}
    for amounts in several:
        _add(total, amounts)
    return total
