"""Packing a Service's endpoints into slices of at most a hundred, changing as few of them as possible. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fleetplane.client.protocol import CLUSTER_ANNOTATION
from fleetplane.model.builtin.types import ENDPOINT_SLICES, SERVICES
from fleetplane.model.objects import Object, is_deleting, labels, metadata, name, namespace
from fleetplane.workloads.endpoints.backends import HEADLESS, Backend, Port, families, is_headless, ports_of
from fleetplane.workloads.shared.ownership import owner_reference
from fleetplane.workloads.shared.templates import same_meaning

SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "endpointslice-controller.k8s.io"
CAPACITY: Final = 100

Group = tuple[str, tuple[Port, ...]]
"""(address family, ports): endpoints of one group may share a slice."""


@dataclass(slots=True)
class Plan:
    """``create`` lack a name; ``update`` are whole slices; ``delete`` are slices as they are."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)


def plan(service: Object, pods: Sequence[Backend], existing: Sequence[Object]) -> Plan:
    """``existing`` are the slices we manage for this Service."""
    made = Plan()
    wanted = _wanted(service, pods)
    usable: dict[Group, list[Object]] = {}
    for one in sorted(existing, key=name):
        if is_deleting(one):
            continue
        group = _group_of(one)
        if group in wanted:
            usable.setdefault(group, []).append(one)
        else:
            made.delete.append(one)
    for group, endpoints in wanted.items():
        _pack(service, group, endpoints, usable.get(group, []), made)
    return made


def _wanted(service: Object, pods: Sequence[Backend]) -> dict[Group, dict[str, Object]]:
    """Endpoints by group and pod uid. Every family has at least one group, so that the Service is seen to be empty."""
    found: dict[Group, dict[str, Object]] = {}
    for family in families(service, pods):
        groups: dict[Group, dict[str, Object]] = {}
        for pod in pods:
            if address := pod.address(family):
                group = (family, ports_of(service, pod))
                groups.setdefault(group, {})[pod.uid] = endpoint(service, pod, address)
        found |= groups or {(family, ()): {}}
    return found


def endpoint(service: Mapping[str, Any], pod: Backend, address: str) -> Object:
    public = bool(service["spec"].get("publishNotReadyAddresses"))
    made: Object = {
        "addresses": [address],
        "conditions": {
            "ready": public or (pod.serving and not pod.terminating),
            "serving": pod.serving,
            "terminating": pod.terminating,
        },
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
    }
    if pod.node:
        made["nodeName"] = pod.node
    if pod.zone:
        made["zone"] = pod.zone
    if pod.hostname and pod.subdomain == name(service) and pod.namespace == namespace(service):
        made["hostname"] = pod.hostname
    return made


def _group_of(one: Mapping[str, Any]) -> Group:
    ports = tuple(
        Port(
            str(port.get("name") or ""),
            str(port.get("protocol") or "TCP"),
            int(port.get("port") or 0),
            str(port.get("appProtocol") or ""),
        )
        for port in one.get("ports") or ()
    )
    return str(one.get("addressType") or ""), ports


def _pack(
    service: Object, group: Group, endpoints: Mapping[str, Object], existing: Sequence[Object], made: Plan
) -> None:
    waiting = dict(endpoints)
    contents: list[tuple[Object | None, list[Object]]] = []
    for one in existing:
        kept = []
        for old in one.get("endpoints") or ():
            endpoint_now = waiting.pop((old.get("targetRef") or {}).get("uid", ""), None)
            if endpoint_now is not None:
                kept.append(endpoint_now)
        contents.append((one, kept))
    new = list(waiting.values())
    for _, kept in contents:
        room = CAPACITY - len(kept)
        kept += new[:room]
        new = new[room:]
    while new:
        contents.append((None, new[:CAPACITY]))
        new = new[CAPACITY:]
    if not any(kept for _, kept in contents):
        contents = contents[:1] or [(None, [])]
        made.delete += list(existing[1:])
    for slice_now, kept in contents:
        if not kept and len(contents) > 1 and slice_now is not None:
            made.delete.append(slice_now)
        else:
            _keep(service, group, slice_now, kept, made)


def _keep(service: Object, group: Group, old: Object | None, endpoints: list[Object], made: Plan) -> None:
    family, ports = group
    body: Object = {
        "addressType": family,
        "endpoints": endpoints,
        "ports": [port.to_object(with_empty_name=True) for port in ports],
    }
    if old is None:
        meta = {
            "namespace": namespace(service),
            "labels": slice_labels(service),
            "ownerReferences": [owner_reference(service, SERVICES)],
        }
        typed = {"apiVersion": ENDPOINT_SLICES.api_version, "kind": ENDPOINT_SLICES.kind}
        made.create.append({**typed, "metadata": meta, **body})
        return
    same_labels = labels(old) == slice_labels(service)
    if same_labels and all(same_meaning(old.get(part), body[part]) for part in body):
        return
    notes = {key: value for key, value in (metadata(old).get("annotations") or {}).items() if key != CLUSTER_ANNOTATION}
    meta = {**metadata(old), "labels": slice_labels(service), "annotations": notes}
    made.update.append({**old, "metadata": meta, **body})


def slice_labels(service: Mapping[str, Any]) -> dict[str, str]:
    """The Service's own labels, and ours over them."""
    found = {key: value for key, value in labels(service).items() if key not in {SERVICE_NAME, MANAGED_BY, HEADLESS}}
    if is_headless(service):
        found[HEADLESS] = ""
    return {**found, SERVICE_NAME: name(service), MANAGED_BY: MANAGER}
