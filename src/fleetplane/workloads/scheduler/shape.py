"""What a pod asks of the place where it runs, parsed once and shared by all pods that ask the same.

A shape holds nothing that differs between siblings (name, uid, generated volume names), so ten thousand pods of ten
Deployments are ten shapes. Everything the scheduler computes is keyed by shape. Shapes are immutable and compare by
identity; ``parsing.Shapes`` makes sure that equal ones are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

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
