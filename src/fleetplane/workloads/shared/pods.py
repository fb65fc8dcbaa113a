"""What a pod tells a controller: is it alive, ready, available, and which of several goes first when there are too many.

A ``Pod`` is a small view made once per state of a pod, straight from its bytes: controllers look at all pods of an
owner again and again, and ten thousand decoded pods would be most of a plane's memory. Whoever needs more of one pod
asks its snapshot.

Rules and their order are those of kube-controller-manager (KEP-2255 for the deletion cost, KEP-2185 for the
logarithmic comparison of ages).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object

DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER: Final = {"Pending": 0, "Unknown": 1, "Running": 2}


# What is read of a pod's JSON; all else is skipped without being made.


class _Owner(msgspec.Struct, rename="camel", frozen=True, gc=False):
    uid: str = ""
    controller: bool | None = None


class _Meta(msgspec.Struct, rename="camel", frozen=True, gc=False):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    creation_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Spec(msgspec.Struct, rename="camel", frozen=True, gc=False):
    node_name: str | None = None


class _Condition(msgspec.Struct, rename="camel", frozen=True, gc=False):
    type: str = ""
    status: str = ""
    last_transition_time: str | None = None


class _Container(msgspec.Struct, rename="camel", frozen=True, gc=False):
    restart_count: int | None = None


class _Status(msgspec.Struct, rename="camel", frozen=True, gc=False):
    phase: str | None = None
    conditions: list[_Condition] | None = None
    container_statuses: list[_Container] | None = None
    init_container_statuses: list[_Container] | None = None


class _Raw(msgspec.Struct, rename="camel", frozen=True, gc=False):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_decode: Final = msgspec.json.Decoder(_Raw).decode
_NO_LABELS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Pod:
    """One state of one pod. ``owner`` is the uid of its controller; ``created`` and ``ready_since`` are RFC 3339."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    owner: str
    created: str
    deleting: bool
    node: str
    phase: str
    ready: bool
    ready_since: str
    restarts: int
    deletion_cost: int

    @property
    def is_terminal(self) -> bool:
        """It has run to its end, well or badly."""
        return self.phase in {"Succeeded", "Failed"}

    @property
    def is_active(self) -> bool:
        """It counts against the wanted number: not at its end and not being deleted."""
        return not self.deleting and self.phase not in {"Succeeded", "Failed"}

    def available_at(self, min_ready_seconds: int) -> datetime | None:
        """The moment from which a ready pod counts as available; None while it is not ready or does not say."""
        if not self.ready or not self.ready_since:
            return None
        return parse_timestamp(self.ready_since) + timedelta(seconds=min_ready_seconds)

    def is_available(self, min_ready_seconds: int, now: datetime) -> bool:
        """Ready for at least ``min_ready_seconds``."""
        if not self.ready or min_ready_seconds == 0:
            return self.ready
        at = self.available_at(min_ready_seconds)
        return at is not None and at <= now

    @classmethod
    def decode(cls, encoded: bytes) -> Pod:
        return _view(_decode(encoded))

    @classmethod
    def of(cls, obj: Mapping[str, Any]) -> Pod:
        return _view(msgspec.convert(obj, _Raw))


def _view(raw: _Raw) -> Pod:
    meta, status = raw.metadata, raw.status
    ready = next((one for one in status.conditions or () if one.type == "Ready"), None)
    containers = [*(status.container_statuses or ()), *(status.init_container_statuses or ())]
    return Pod(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        resource_version=meta.resource_version,
        labels=meta.labels or _NO_LABELS,
        owner=next((one.uid for one in meta.owner_references or () if one.controller), ""),
        created=meta.creation_timestamp or "",
        deleting=meta.deletion_timestamp is not None,
        node=raw.spec.node_name or "",
        phase=status.phase or "Pending",
        ready=ready is not None and ready.status == "True",
        ready_since=(ready.last_transition_time or "") if ready is not None and ready.status == "True" else "",
        restarts=max((one.restart_count or 0 for one in containers), default=0),
        deletion_cost=_cost(meta.annotations),
    )


def _cost(annotations: Mapping[str, str] | None) -> int:
    """0 when absent or unreadable."""
    try:
        return int((annotations or _NO_LABELS).get(DELETION_COST) or 0)
    except ValueError:
        return 0


def next_available(pods: Iterable[Pod], min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the next ready pod becomes available; None when there is nothing to wait for."""
    if min_ready_seconds == 0:
        return None
    moments = [at for pod in pods if (at := pod.available_at(min_ready_seconds)) is not None and at > now]
    return (min(moments) - now).total_seconds() if moments else None


def _age_bucket(moment: str, now: datetime) -> int:
    """log2 of the age in whole seconds, so that pods of nearly one age compare equal; -1 when unknown."""
    if not moment:
        return -1
    age = int((now - parse_timestamp(moment)).total_seconds())
    return int(math.log2(age)) if age > 0 else 0


def deletion_rank(pod: Pod, related_on_node: int, now: datetime) -> tuple[Any, ...]:
    """A sort key: the pod with the smallest goes first.

    ``related_on_node`` is how many pods of the same owner (or of its sibling ReplicaSets) run on this pod's node.
    """
    return (
        bool(pod.node),
        _PHASE_ORDER.get(pod.phase, 0),
        pod.ready,
        pod.deletion_cost,
        -related_on_node,
        _age_bucket(pod.ready_since, now) if pod.ready else 0,
        -pod.restarts,
        _age_bucket(pod.created, now),
        pod.uid,
    )


def choose_for_deletion(pods: Sequence[Pod], count: int, related: Iterable[Pod], now: datetime) -> list[Pod]:
    """The ``count`` pods that go first; ``related`` are all active pods whose doubling up on a node should end."""
    if count <= 0:
        return []
    if count >= len(pods):
        return list(pods)
    per_node: dict[str, int] = {}
    for pod in related:
        if pod.node:
            per_node[pod.node] = per_node.get(pod.node, 0) + 1
    return sorted(pods, key=lambda pod: deletion_rank(pod, per_node.get(pod.node, 0), now))[:count]


def from_template(template: Mapping[str, Any], name: str, namespace: str, owner: Object) -> Object:
    """A pod as the template describes it, controlled by ``owner`` (an ownerReference).

    Its name is ``name``; ``generateName`` only says what that begins with, for those who group pods by it.
    """
    meta = template.get("metadata") or {}
    prefix = name.rpartition("-")[0] + "-"
    made: Object = {"name": name, "generateName": prefix, "namespace": namespace, "ownerReferences": [owner]}
    for part in ("labels", "annotations"):
        if meta.get(part):
            made[part] = dict(meta[part])
    if meta.get("finalizers"):
        made["finalizers"] = list(meta["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": dict(template.get("spec") or {})}


def name_prefix(owner_name: str) -> str:
    """What stands before the random part of a pod's name; cut so that the whole stays a valid name."""
    return owner_name[:243].rstrip("-.") + "-" if len(owner_name) > 243 else owner_name + "-"
