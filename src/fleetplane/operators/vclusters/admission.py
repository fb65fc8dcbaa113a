"""What is refused when a virtual cluster is written, what is filled in, and what is only warned of.

Everything the original found out in the middle of an installation (no master, two names alike, a version nobody can
parse) is said at once, by the field. Objects that exist already are never refused for rules that came later: only a
changed spec is looked at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Elsewhere,
    Reader,
    allowed,
    changed,
    refused,
)
from fleetplane.model.builtin.types import NAMESPACES, SERVICES
from fleetplane.model.errors import FieldError, forbidden
from fleetplane.model.networks import is_within, overlap
from fleetplane.model.objects import Object, finalizers, is_deleting, labels
from fleetplane.model.quantity import Quantity
from fleetplane.operators.vclusters import policy, ports
from fleetplane.operators.vclusters.images import minor_of, skew_problem, upgrade_problem
from fleetplane.operators.vclusters.kinds import (
    DEFAULT_POD_CIDR,
    DEFAULT_SERVICE_CIDR,
    FINALIZER,
    GROUP,
    Vk8s,
    Vk8sPolicy,
    mode_of,
)

MAX_NODES: Final = 100
MAX_PORTS: Final = 100
NODE_PORTS: Final = range(30000, 32768)
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_VERSION: Final = re.compile(r"v\d{1,3}\.\d{1,3}\.\d{1,3}")
_EMAIL: Final = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}")

_PRIVATE: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""RFC 1918, RFC 6598, RFC 4193."""

HOST_SCHEDULER: Final = "fleetplane-host"
"""Pods of logical virtual clusters wait for the host, not for a scheduler of their own cluster."""
_DATA_PLANE: Final = "fleetplane.io/data-plane"


def problems(spec: Mapping[str, Any], name: str = "") -> Iterator[FieldError]:
    """Everything that is wrong with a spec."""
    view = Vk8s.view({"metadata": {"name": name}, "spec": spec}).spec
    pods = mode_of(view) == "pods"
    nodes = list(spec.get("nodes") or ())
    if len(nodes) > MAX_NODES:
        yield FieldError.invalid("spec.nodes", len(nodes), f"must be at most {MAX_NODES} nodes")
    seen: set[str] = set()
    masters = 0
    for index, node in enumerate(nodes[:MAX_NODES]):
        path = f"spec.nodes[{index}]"
        called = str(node.get("name") or "")
        if len(called) > 52 or not _LABEL.fullmatch(called):
            yield FieldError.invalid(f"{path}.name", called, "must be a DNS label of at most 52 characters")
        if called in seen:
            yield FieldError.duplicate(f"{path}.name", called)
        seen.add(called)
        role = node.get("role")
        masters += role == "master"
        if role not in {"master", "worker"}:
            yield FieldError.not_supported(f"{path}.role", [str(role)], ["master", "worker"])
        if pods and not node.get("image"):
            yield FieldError.required(f"{path}.image", "every node of a cluster of pods needs an image")
        yield from _resource_problems(f"{path}.resources", node.get("resources") or {})
    if pods and masters != 1:
        why = "exactly one node must have the role master; several control planes are not supported"
        yield FieldError.invalid("spec.nodes", masters, why)
    if pods:
        yield from _skew_problems(nodes)
    yield from _port_problems(spec, pods)
    yield from _network_problems(view.kubernetes.pod_network_cidr, view.kubernetes.service_cidr)
    yield from _kubeflow_problems(spec, pods, nodes)


def _skew_problems(nodes: Sequence[Mapping[str, Any]]) -> Iterator[FieldError]:
    master = next((str(node.get("image") or "") for node in nodes if node.get("role") == "master"), "")
    for index, node in enumerate(nodes):
        image = str(node.get("image") or "")
        if node.get("role") == "worker" and (why := skew_problem(master, image)):
            yield FieldError.invalid(f"spec.nodes[{index}].image", image, why)


def _resource_problems(path: str, resources: Mapping[str, Any]) -> Iterator[FieldError]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    parsed: dict[tuple[str, str], Quantity] = {}
    for kind, values in (("limits", limits), ("requests", requests)):
        for key, value in values.items():
            try:
                parsed[kind, key] = Quantity.parse(str(value))
            except ValueError:
                yield FieldError.invalid(f"{path}.{kind}[{key}]", value, "must be a quantity")
    for key in requests:
        wanted, limit = parsed.get(("requests", key)), parsed.get(("limits", key))
        if wanted is not None and limit is not None and wanted > limit:
            yield FieldError.invalid(f"{path}.requests[{key}]", str(requests[key]), f"must be at most the {key} limit")


def _port_problems(spec: Mapping[str, Any], pods: bool) -> Iterator[FieldError]:
    ports = list(spec.get("ports") or ())
    if len(ports) > MAX_PORTS:
        yield FieldError.invalid("spec.ports", len(ports), f"must be at most {MAX_PORTS} ports")
    names: set[str] = set()
    taken: set[tuple[str, int]] = set()
    for index, port in enumerate(ports[:MAX_PORTS]):
        path = f"spec.ports[{index}]"
        called, protocol = str(port.get("name") or ""), str(port.get("protocol") or "TCP")
        if len(ports) > 1 and not called:
            yield FieldError.required(f"{path}.name", "several ports need names")
        if called and called in names:
            yield FieldError.duplicate(f"{path}.name", called)
        names.add(called)
        target = port.get("targetPort")
        if pods and isinstance(target, str) and not target.isdigit():
            why = "must be a number: it is a port of the node, where nothing has names"
            yield FieldError.invalid(f"{path}.targetPort", target, why)
        node_port = port.get("nodePort")
        if node_port and node_port not in NODE_PORTS:
            yield FieldError.invalid(f"{path}.nodePort", node_port, "must be in 30000-32767")
        if node_port and (protocol, node_port) in taken:
            yield FieldError.duplicate(f"{path}.nodePort", node_port)
        taken.add((protocol, node_port or 0))
    access = spec.get("accessPodPort") or 0
    if access and access not in NODE_PORTS:
        yield FieldError.invalid("spec.accessPodPort", access, "must be 0 or in 30000-32767: it is a NodePort")
    if access and ("TCP", access) in taken:
        yield FieldError.invalid("spec.accessPodPort", access, "is the nodePort of a port in spec.ports already")


def _network_problems(pod_cidr: str, service_cidr: str) -> Iterator[FieldError]:
    networks = []
    for path, text in (("podNetworkCidr", pod_cidr), ("serviceCidr", service_cidr)):
        try:
            networks.append((path, ipaddress.ip_network(text, strict=True)) if text else (path, None))
        except ValueError:
            why = "must be a network such as 10.244.0.0/16, without host bits"
            yield FieldError.invalid(f"spec.kubernetes.{path}", text, why)
            networks.append((path, None))
    defaults = (ipaddress.ip_network(DEFAULT_POD_CIDR), ipaddress.ip_network(DEFAULT_SERVICE_CIDR))
    effective = [network or default for (_, network), default in zip(networks, defaults, strict=True)]
    given = [network for _, network in networks if network is not None]
    if given and overlap(*effective):
        yield FieldError.invalid("spec.kubernetes", f"{effective[0]}, {effective[1]}", "the two networks overlap")


def _kubeflow_problems(spec: Mapping[str, Any], pods: bool, nodes: Sequence[Mapping[str, Any]]) -> Iterator[FieldError]:
    kubeflow = spec.get("kubeflow") or {}
    if not any(kubeflow.get(key) for key in ("version", "email", "password")):
        return
    version, email = str(kubeflow.get("version") or ""), str(kubeflow.get("email") or "")
    if not _VERSION.fullmatch(version):
        yield FieldError.invalid("spec.kubeflow.version", version, "must look like v1.4.0")
    if email and not _EMAIL.fullmatch(email):
        yield FieldError.invalid("spec.kubeflow.email", email, "must be an e-mail address")
    if not pods:
        yield FieldError.forbidden("spec.kubeflow", "is installed in clusters of pods only")
        return
    if not any(port.get("name") == "kubeflow" for port in spec.get("ports") or ()):
        yield FieldError.required("spec.ports", "Kubeflow needs a port named kubeflow")
    for index, node in enumerate(nodes):
        if node.get("role") == "master" and minor_of(str(node.get("image") or "")) is None:
            why = "must have a tag with v1.NN, which tells how Kubeflow is installed"
            yield FieldError.invalid(f"spec.nodes[{index}].image", node.get("image"), why)


def warnings(spec: Mapping[str, Any]) -> Iterator[str]:
    """What is allowed, but somebody should know."""
    kubernetes = spec.get("kubernetes") or {}
    for key in ("podNetworkCidr", "serviceCidr"):
        try:
            network = ipaddress.ip_network(kubernetes.get(key) or DEFAULT_POD_CIDR)
        except ValueError:
            continue
        if not any(is_within(network, one) for one in _PRIVATE):
            yield f"spec.kubernetes.{key}: {network} is public address space; hosts there cannot be reached from inside"
    if (spec.get("kubeflow") or {}).get("password"):
        yield "spec.kubeflow.password is readable by whoever reads the object; use passwordSecret"


async def _check(request: AdmissionRequest, reader: Reader) -> Decision:
    new, old = request.new or {}, request.old
    if is_deleting(new) or (old is not None and old.get("spec") == new.get("spec")):
        return ALLOWED
    spec = new.get("spec") or {}
    found = [*problems(spec, request.name), *(_fixed(spec, old.get("spec") or {}) if old is not None else ())]
    if found:
        return refused(request, found)
    policies = await reader.list(Vk8sPolicy, request.namespace)
    if policies and (why := await _against(request, reader, policies)):
        return Decision(denial=forbidden(why, group=GROUP, resource=Vk8s.resource.plural, name=request.name))
    return allowed(*warnings(spec), *await _taken_ports(request, reader))


async def _against(request: AdmissionRequest, reader: Reader, policies: Sequence[Object]) -> str:
    """What the tenant's policies have against it; empty where nothing."""
    spec = (request.new or {}).get("spec") or {}
    others = [one for one in await reader.list(Vk8s, request.namespace) if one["metadata"]["name"] != request.name]
    old = (request.old.get("spec") or {}) if request.old is not None else None
    over = list(policy.excess(policies, [one for one in others if not is_deleting(one)], spec, old))
    told = [*policy.refusals(policies, spec), *(["exceeded quota: " + "; ".join(over)] if over else [])]
    return "; ".join(told)


async def _taken_ports(request: AdmissionRequest, reader: Reader) -> Sequence[str]:
    """A warning about NodePorts that somebody has or wants already, while there is time to choose others."""
    new = request.new or {}
    if not ports.wanted_ports(new.get("spec") or {}):
        return []
    held = [
        *ports.held_by_services(await reader.list(SERVICES, None)),
        *ports.held_by_elders(new, await reader.list(Vk8s, None), is_new=request.old is None),
    ]
    found = ports.conflicts(new, held)
    return [f"{ports.told(found, request.namespace)}; the cluster waits until it is free"] if found else []


def _fixed(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[FieldError]:
    """What cannot change once the cluster is."""
    was, now = (mode_of(Vk8s.view({"spec": spec}).spec) for spec in (old, new))
    if was != now:
        yield FieldError.forbidden(
            "spec.mode", f"a cluster of mode {was} cannot become one of mode {now}; make a new one"
        )
    if now == "pods" and was == now:
        yield from _upgrade_problems(new, old)
    if now == "pods" and (new.get("kubernetes") or {}) != (old.get("kubernetes") or {}):
        yield FieldError.forbidden("spec.kubernetes", "the networks of a cluster are fixed when it is made")
    if (new.get("restoreFrom") or "") != (old.get("restoreFrom") or ""):
        yield FieldError.forbidden("spec.restoreFrom", "only a new cluster begins with a snapshot")
    masters = [
        {node.get("name") for node in spec.get("nodes") or () if node.get("role") == "master"} for spec in (old, new)
    ]
    if now == "pods" and was == now and masters[0] != masters[1]:
        yield FieldError.forbidden("spec.nodes", "the master cannot be replaced; it holds the cluster's state")


def _upgrade_problems(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[FieldError]:
    """Only of nodes whose image changes."""
    images = {str(node.get("name")): str(node.get("image") or "") for node in old.get("nodes") or ()}
    for index, node in enumerate(new.get("nodes") or ()):
        image, before = str(node.get("image") or ""), images.get(str(node.get("name")), "")
        if before and image != before and (why := upgrade_problem(before, image)):
            yield FieldError.invalid(f"spec.nodes[{index}].image", image, why)


async def _fill(request: AdmissionRequest, _reader: Reader) -> Decision:
    """The finalizer, before anything is made that it guards."""
    new = request.new or {}
    if FINALIZER in finalizers(new):
        return ALLOWED
    meta = new.get("metadata") or {}
    return changed({**new, "metadata": {**meta, "finalizers": [*finalizers(new), FINALIZER]}})


async def _keep_for_host(request: AdmissionRequest, reader: Reader) -> Decision:
    """Pods of a cluster without nodes of its own are not for the scheduler there."""
    if request.cluster == "root" or request.new is None:
        return ALLOWED
    spec = request.new.get("spec") or {}
    if spec.get("nodeName") or spec.get("schedulerName", "default-scheduler") != "default-scheduler":
        return ALLOWED
    system = await reader.get(NAMESPACES, "kube-system")
    if system is None or labels(system).get(_DATA_PLANE) != "host":
        return ALLOWED
    return changed({**request.new, "spec": {**spec, "schedulerName": HOST_SCHEDULER}})


PLUGINS: Final = (
    AdmissionPlugin("fill.vclusters.fleetplane.io", "mutate", [AdmissionRule([Vk8s], ["CREATE"])], _fill),
    AdmissionPlugin("check.vclusters.fleetplane.io", "validate", [AdmissionRule([Vk8s])], _check),
    AdmissionPlugin(
        "pods.vclusters.fleetplane.io",
        "mutate",
        [AdmissionRule(["pods"], ["CREATE"])],
        _keep_for_host,
        order=50,
        elsewhere=Elsewhere(served=False),  # logical clusters are our server's only
    ),
)
