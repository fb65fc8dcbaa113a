"""Reading pods fast: from their bytes to a ``PodInfo`` with a shared shape.

Most pods are siblings of one already read. So only the parts that make a shape are cut out of the JSON, as they are
written, and compared; they are parsed when nothing equal is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec
import orjson

from fleetplane.model.objects import Object
from fleetplane.workloads.scheduler.shape import PodInfo, Shape, parse


class _Owner(msgspec.Struct, frozen=True, gc=False):
    uid: str = ""
    controller: bool | None = None


class _Meta(msgspec.Struct, rename="camel", frozen=True, gc=False):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: msgspec.Raw = msgspec.Raw(b"")
    annotations: msgspec.Raw = msgspec.Raw(b"")
    owner_references: list[_Owner] | None = None


class _Container(msgspec.Struct, rename="camel", frozen=True, gc=False):
    image: str = ""
    ports: msgspec.Raw = msgspec.Raw(b"")
    resources: msgspec.Raw = msgspec.Raw(b"")
    restart_policy: str = ""


class _Named(msgspec.Struct, rename="camel", frozen=True, gc=False):
    claim_name: str = ""


class _Volume(msgspec.Struct, rename="camel", frozen=True, gc=False):
    name: str = ""
    persistent_volume_claim: _Named | None = None
    ephemeral: msgspec.Raw = msgspec.Raw(b"")


class _Spec(msgspec.Struct, rename="camel", frozen=True, gc=False):
    node_name: str = ""
    scheduling_gates: list[msgspec.Raw] | None = None
    containers: list[_Container] = []
    init_containers: list[_Container] | None = None
    volumes: list[_Volume] | None = None
    affinity: msgspec.Raw = msgspec.Raw(b"")
    host_network: bool | None = None
    node_selector: msgspec.Raw = msgspec.Raw(b"")
    overhead: msgspec.Raw = msgspec.Raw(b"")
    preemption_policy: str = ""
    priority: int | None = None
    resources: msgspec.Raw = msgspec.Raw(b"")
    scheduler_name: str = ""
    tolerations: msgspec.Raw = msgspec.Raw(b"")
    topology_spread_constraints: msgspec.Raw = msgspec.Raw(b"")


class _Status(msgspec.Struct, rename="camel", frozen=True, gc=False):
    phase: str = ""
    nominated_node_name: str | None = None
    start_time: str | None = None


class _Pod(msgspec.Struct, frozen=True, gc=False):
    metadata: _Meta
    spec: _Spec
    status: _Status = _Status()


_decode: Final = msgspec.json.Decoder(_Pod).decode
_RAW_FIELDS: Final = (
    "affinity",
    "node_selector",
    "overhead",
    "resources",
    "tolerations",
    "topology_spread_constraints",
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A pod, and what decides whether it is to be scheduled at all."""

    pod: PodInfo
    is_gated: bool
    is_terminal: bool


class Shapes:
    """Parses pods; equal shapes are one object, and live as long as a pod has them.

    What makes a shape is compared as JSON text: siblings are written by the same hand, and a difference in spelling
    only costs one more shape.
    """

    def __init__(self) -> None:
        self._known: WeakValueDictionary[bytes, Shape] = WeakValueDictionary()

    def parse(self, encoded: bytes, cluster: str) -> Parsed:
        """Raises msgspec.DecodeError for what is no pod."""
        raw = _decode(encoded)
        meta, spec, status = raw.metadata, raw.spec, raw.status
        pod = PodInfo(
            cluster=cluster,
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            shape=self._shape(raw),
            created=meta.creation_timestamp or "",
            deleting=meta.deletion_timestamp is not None,
            node=spec.node_name,
            nominated=status.nominated_node_name or "",
            started=status.start_time or "",
        )
        return Parsed(pod, bool(spec.scheduling_gates), status.phase in {"Succeeded", "Failed"})

    def _shape(self, raw: _Pod) -> Shape:
        signature = _signature(raw)
        found = self._known.get(signature)
        if found is None:
            found = parse(_relevant(raw))
            self._known[signature] = found
        return found

    def __len__(self) -> int:
        return len(self._known)


def _group(raw: _Pod) -> str:
    return next((one.uid for one in raw.metadata.owner_references or () if one.controller), "")


def _signature(raw: _Pod) -> bytes:
    spec = raw.spec
    parts: list[bytes] = [
        raw.metadata.namespace.encode(),
        bytes(raw.metadata.labels),
        bytes(raw.metadata.annotations),
        _group(raw).encode(),
        *(bytes(getattr(spec, field)) for field in _RAW_FIELDS),
        f"{spec.host_network}{spec.preemption_policy}{spec.priority} {spec.scheduler_name}".encode(),
    ]
    for one in (*spec.containers, None, *(spec.init_containers or ())):
        if one is not None:
            parts += [one.image.encode(), bytes(one.ports), bytes(one.resources), one.restart_policy.encode()]
        parts.append(b";")
    parts += [claim.encode() for claim in _claims(raw)]
    return b"\0".join(parts)


def _loaded(raw: msgspec.Raw) -> Any:
    return orjson.loads(bytes(raw)) if bytes(raw) else None


def _relevant(raw: _Pod) -> Object:
    """The parts of a pod that can change where it may run, in the pod's own field names."""
    spec = raw.spec
    kept: Object = {
        "hostNetwork": spec.host_network,
        "preemptionPolicy": spec.preemption_policy,
        "priority": spec.priority,
        "schedulerName": spec.scheduler_name,
        "claims": _claims(raw),
        "affinity": _loaded(spec.affinity),
        "nodeSelector": _loaded(spec.node_selector),
        "overhead": _loaded(spec.overhead),
        "resources": _loaded(spec.resources),
        "tolerations": _loaded(spec.tolerations),
        "topologySpreadConstraints": _loaded(spec.topology_spread_constraints),
        "containers": [_container(one) for one in spec.containers],
        "initContainers": [_container(one) for one in spec.init_containers or ()],
    }
    return {
        "namespace": raw.metadata.namespace,
        "labels": _loaded(raw.metadata.labels) or {},
        "annotations": _loaded(raw.metadata.annotations) or {},
        "group": _group(raw),
        "spec": {field: value for field, value in kept.items() if value},
    }


def _container(one: _Container) -> Object:
    kept = {
        "image": one.image,
        "ports": _loaded(one.ports),
        "resources": _loaded(one.resources),
        "restartPolicy": one.restart_policy,
    }
    return {field: value for field, value in kept.items() if value}


def _claims(raw: _Pod) -> list[str]:
    found = []
    for volume in raw.spec.volumes or ():
        if volume.persistent_volume_claim is not None:
            found.append(volume.persistent_volume_claim.claim_name)
        elif bytes(volume.ephemeral):
            found.append(f"{raw.metadata.name}-{volume.name}")
    return found
