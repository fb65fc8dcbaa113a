"""What a pod asks of the place where it runs, parsed once and shared by all pods that ask the same.

A shape holds nothing that differs between siblings (name, uid, generated volume names), so ten thousand pods of ten
Deployments are ten shapes. Everything the scheduler computes is keyed by shape. Shapes are immutable and compare by
identity; ``Shapes`` makes sure that equal ones are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec
import orjson

from fleetplane.model import pod_resources
from fleetplane.model.objects import Object
from fleetplane.model.quantity import Quantity
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.scheduler.terms import NodeTerm, Toleration, node_terms, tolerations

DEFAULT_SCHEDULER: Final = "default-scheduler"
DEFAULT_MILLI_CPU: Final = 100
DEFAULT_MEMORY: Final = 200 * 1024 * 1024
"""What a pod that asks for nothing is taken to use when nodes are compared (never when they are refused)."""

Amounts = dict[str, int]
"""Resource -> amount: thousandths for ``cpu``, whole units for everything else."""


class PodTerm(NamedTuple):
    """One term of pod (anti-)affinity: pods that match, in these namespaces, within one value of ``topology_key``."""

    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None
    topology_key: str
    weight: int = 1


class Spread(NamedTuple):
    """One topology spread constraint; ``hard`` is ``DoNotSchedule``."""

    topology_key: str
    max_skew: int
    hard: bool
    selector: LabelSelector
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


class Port(NamedTuple):
    protocol: str
    port: int
    address: str


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Shape:
    """See the module. ``group`` is the uid of the controlling owner: its pods are spread over nodes."""

    namespace: str
    labels: Mapping[str, str]
    group: str
    scheduler: str
    priority: int
    may_preempt: bool
    requests: Amounts
    scored_cpu: int
    scored_memory: int
    node_selector: tuple[tuple[str, str], ...]
    node_terms: tuple[NodeTerm, ...] | None
    preferred_nodes: tuple[tuple[int, NodeTerm], ...]
    tolerations: tuple[Toleration, ...]
    ports: tuple[Port, ...]
    images: tuple[str, ...]
    claims: tuple[str, ...]
    affinity: tuple[PodTerm, ...]
    anti_affinity: tuple[PodTerm, ...]
    preferred_affinity: tuple[PodTerm, ...]
    spreads: tuple[Spread, ...]
    raw: Object
    """Labels, annotations and spec of the pod it was parsed from, for plug-ins that know more than this."""

    @property
    def is_local(self) -> bool:
        """Whether a node's answer depends on that node alone, as far as the built-in rules go."""
        return not (self.affinity or self.anti_affinity or self.preferred_affinity or self.spreads)


@dataclass(slots=True, eq=False)
class PodInfo:
    """One pod: what the scheduler keeps of it."""

    cluster: str
    namespace: str
    name: str
    uid: str
    shape: Shape
    created: str
    deleting: bool
    node: str = ""
    nominated: str = ""
    started: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.cluster, self.namespace, self.name


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


def parse(raw: Object) -> Shape:
    """A shape from the parts that matter (see ``_relevant``)."""
    spec, ns = raw["spec"], raw["namespace"]
    requests = pod_requests(spec)
    affinity = spec.get("affinity") or {}
    node_affinity, between, apart = (
        affinity.get(field) or {} for field in ("nodeAffinity", "podAffinity", "podAntiAffinity")
    )
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    preferred = node_affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    return Shape(
        namespace=ns,
        labels=raw["labels"],
        group=raw["group"],
        scheduler=str(spec.get("schedulerName") or DEFAULT_SCHEDULER),
        priority=int(spec.get("priority") or 0),
        may_preempt=spec.get("preemptionPolicy") != "Never",
        requests={resource: amount for resource, amount in requests.items() if amount},
        scored_cpu=scored(spec, "cpu", DEFAULT_MILLI_CPU),
        scored_memory=scored(spec, "memory", DEFAULT_MEMORY),
        node_selector=tuple(sorted((spec.get("nodeSelector") or {}).items())),
        node_terms=None if required is None else node_terms(required.get("nodeSelectorTerms") or ()),
        preferred_nodes=tuple(
            (int(one.get("weight") or 0), term)
            for one in preferred
            for term in node_terms([one.get("preference") or {}])
        ),
        tolerations=tolerations(spec.get("tolerations") or ()),
        ports=tuple(_ports(spec)),
        images=tuple(sorted({normal_image(str(one.get("image") or "")) for one in containers if one.get("image")})),
        claims=tuple(spec.get("claims") or ()),
        affinity=_pod_terms(between.get("requiredDuringSchedulingIgnoredDuringExecution"), raw),
        anti_affinity=_pod_terms(apart.get("requiredDuringSchedulingIgnoredDuringExecution"), raw),
        preferred_affinity=(
            *_weighted(between.get("preferredDuringSchedulingIgnoredDuringExecution"), raw, 1),
            *_weighted(apart.get("preferredDuringSchedulingIgnoredDuringExecution"), raw, -1),
        ),
        spreads=tuple(_spreads(spec.get("topologySpreadConstraints") or (), raw)),
        raw=raw,
    )


def amount(resource: str, written: Any) -> int:
    """Thousandths of a cpu, whole units of anything else; 0 when it cannot be read."""
    try:
        quantity = Quantity.parse(written)
    except (ValueError, TypeError):
        return 0
    return quantity.milli_value() if resource == "cpu" else quantity.value()


def amounts(written: Mapping[str, Any] | None) -> Amounts:
    return {resource: amount(resource, value) for resource, value in (written or {}).items()}


def pod_requests(spec: Mapping[str, Any]) -> Amounts:
    """What the whole pod needs at its largest moment; nothing where that cannot be read."""
    try:
        found = pod_resources.pod_requests({"spec": spec})
    except (ValueError, TypeError):
        return {}
    return {name: one.milli_value() if name == "cpu" else one.value() for name, one in found.items()}


def scored(spec: Mapping[str, Any], resource: str, default: int) -> int:
    """As ``pod_requests`` of one resource, where a container that names none is taken to use ``default``."""

    def one(container: Mapping[str, Any]) -> int:
        requests = (container.get("resources") or {}).get("requests") or {}
        return amount(resource, requests[resource]) if resource in requests else default

    whole = ((spec.get("resources") or {}).get("requests") or {}).get(resource)
    if whole is not None:
        return amount(resource, whole)
    return sum(one(container) for container in spec.get("containers") or ())


def _ports(spec: Mapping[str, Any]) -> Iterable[Port]:
    for container in spec.get("containers") or ():
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (port.get("containerPort") if spec.get("hostNetwork") else 0)
            if number:
                yield Port(str(port.get("protocol") or "TCP"), int(number), str(port.get("hostIP") or "0.0.0.0"))  # noqa: S104


def normal_image(image: str) -> str:
    """With a tag, so that a pod's name of an image equals the node's."""
    return image if ":" in image.rpartition("/")[2] or "@" in image else image + ":latest"


def _selector(written: Mapping[str, Any] | None) -> LabelSelector:
    """A selector that cannot be read selects nothing: validation refuses such pods, older ones must do no harm."""
    try:
        return LabelSelector.from_object(written)
    except ValueError:
        return LabelSelector.nothing()


def _with_keys(written: Mapping[str, Any], raw: Object) -> Mapping[str, Any] | None:
    """``labelSelector`` with ``matchLabelKeys`` and ``mismatchLabelKeys`` filled in from the pod (KEP-3243, KEP-3633)."""
    selector = written.get("labelSelector")
    expressions = []
    for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
        for key in written.get(field) or ():
            if key in raw["labels"]:
                expressions.append({"key": key, "operator": operator, "values": [raw["labels"][key]]})
    if selector is None or not expressions:
        return selector
    return {**selector, "matchExpressions": [*(selector.get("matchExpressions") or ()), *expressions]}


def _pod_term(written: Mapping[str, Any], raw: Object, weight: int = 1) -> PodTerm:
    names = frozenset(written.get("namespaces") or ())
    by_labels = written.get("namespaceSelector")
    if not names and by_labels is None:
        names = frozenset({raw["namespace"]})
    return PodTerm(
        _selector(_with_keys(written, raw)),
        names,
        None if by_labels is None else _selector(by_labels),
        str(written.get("topologyKey") or ""),
        weight,
    )


def _pod_terms(written: Sequence[Mapping[str, Any]] | None, raw: Object) -> tuple[PodTerm, ...]:
    return tuple(_pod_term(one, raw) for one in written or ())


def _weighted(written: Sequence[Mapping[str, Any]] | None, raw: Object, sign: int) -> list[PodTerm]:
    return [
        _pod_term(one.get("podAffinityTerm") or {}, raw, sign * int(one.get("weight") or 0)) for one in written or ()
    ]


def _spreads(written: Sequence[Mapping[str, Any]], raw: Object) -> Iterable[Spread]:
    for one in written:
        yield Spread(
            topology_key=str(one.get("topologyKey") or ""),
            max_skew=int(one.get("maxSkew") or 1),
            hard=one.get("whenUnsatisfiable") != "ScheduleAnyway",
            selector=_selector(_with_keys(one, raw)),
            min_domains=int(one.get("minDomains") or 1),
            honor_affinity=one.get("nodeAffinityPolicy") != "Ignore",
            honor_taints=one.get("nodeTaintsPolicy") == "Honor",
        )
