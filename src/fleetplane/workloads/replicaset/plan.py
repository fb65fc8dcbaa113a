"""What a ReplicaSet is to do, and what it is to say about itself. Pure.

The ReplicationController is the same machine with a plainer selector, so both kinds use these functions. Whoever calls
must know that it sees all pods it has created and deleted (see ``shared.expectations``): the plan trusts its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fleetplane.model.environment import timestamp
from fleetplane.model.objects import Object, generation, is_deleting
from fleetplane.workloads.shared import conditions, pods
from fleetplane.workloads.shared.pods import Pod

BURST: Final = 500
"""At most so many pods are created or deleted in one pass, so that one owner never holds up the others."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``create`` pods are to be made from the template; ``delete`` are to go. Never both."""

    create: int = 0
    delete: tuple[Pod, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the pods could not be brought to the wanted number; ``reason`` is ``FailedCreate`` or ``FailedDelete``."""

    reason: str
    message: str


def wanted(owner: Mapping[str, Any]) -> int:
    """``spec.replicas``; one when absent."""
    replicas = owner["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def plan(
    owner: Mapping[str, Any],
    owned: Sequence[Pod],
    related: Iterable[Pod],
    now: datetime,
) -> Plan:
    """``owned`` are the owner's pods in any phase; ``related`` those of its siblings too, for fair spreading."""
    if is_deleting(owner):
        return Plan()
    active = [pod for pod in owned if pod.is_active]
    missing = wanted(owner) - len(active)
    if missing > 0:
        return Plan(create=min(missing, BURST))
    if missing < 0:
        siblings = (pod for pod in related if pod.is_active)
        going = pods.choose_for_deletion(active, min(-missing, BURST), siblings, now)
        return Plan(delete=tuple(going))
    return Plan()


def status(
    owner: Mapping[str, Any],
    owned: Sequence[Pod],
    failure: Failure | None,
    now: datetime,
) -> Object:
    """The whole new status; equal to the old one when nothing is to be said."""
    spec, old = owner["spec"], owner.get("status") or {}
    template_labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    min_ready = int(spec.get("minReadySeconds") or 0)
    active = [pod for pod in owned if pod.is_active]
    counts = {
        "fullyLabeledReplicas": sum(template_labels.items() <= pod.labels.items() for pod in active),
        "readyReplicas": sum(pod.ready for pod in active),
        "availableReplicas": sum(pod.is_available(min_ready, now) for pod in active),
    }
    new: Object = {"replicas": len(active)}
    new |= {key: count for key, count in counts.items() if count}
    if generation(owner):
        new["observedGeneration"] = generation(owner)
    if found := _conditions(old.get("conditions"), failure, now):
        new["conditions"] = found
    return new


def _conditions(old: list[Object] | None, failure: Failure | None, now: datetime) -> list[Object]:
    if failure is None:
        return conditions.without(old, "ReplicaFailure")
    if conditions.find(old, "ReplicaFailure") is not None:
        return list(old or ())
    made = conditions.make("ReplicaFailure", "True", failure.reason, failure.message, timestamp(now))
    return conditions.with_condition(old, made)


def recheck_after(owner: Mapping[str, Any], owned: Sequence[Pod], now: datetime) -> float | None:
    """Seconds until time alone changes the status: a ready pod becomes available."""
    min_ready = int(owner["spec"].get("minReadySeconds") or 0)
    return pods.next_available((pod for pod in owned if pod.is_active), min_ready, now)
