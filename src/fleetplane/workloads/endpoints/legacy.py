"""The older Endpoints object of a Service: one per Service, at most a thousand addresses. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.model.builtin.types import ENDPOINTS
from fleetplane.model.objects import Object, labels, name, namespace
from fleetplane.workloads.endpoints.backends import HEADLESS, Backend, Port, families, is_headless, ports_of

MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
MANAGER: Final = "endpoint-controller"
OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
CAPACITY: Final = 1000


def endpoints(service: Object, pods: Sequence[Backend]) -> Object:
    """The whole object as it should be."""
    family = families(service, pods)[0]
    groups: dict[tuple[Port, ...], tuple[list[Object], list[Object]]] = {}
    public = bool(service["spec"].get("publishNotReadyAddresses"))
    total = 0
    for pod in sorted(pods, key=lambda one: (not one.serving, one.uid)):
        address = pod.address(family)
        if not address or (pod.terminating and not public):
            continue
        total += 1
        if total > CAPACITY:
            continue
        ready, not_ready = groups.setdefault(ports_of(service, pod), ([], []))
        (ready if pod.serving or public else not_ready).append(_address(service, pod, address))
    found: Object = {"name": name(service), "namespace": namespace(service), "labels": endpoints_labels(service)}
    if total > CAPACITY:
        found["annotations"] = {OVER_CAPACITY: "truncated"}
    made: Object = {"apiVersion": ENDPOINTS.api_version, "kind": ENDPOINTS.kind, "metadata": found}
    if groups:
        made["subsets"] = [_subset(ports, *addresses) for ports, addresses in sorted(groups.items())]
    return made


def _subset(ports: Sequence[Port], ready: list[Object], not_ready: list[Object]) -> Object:
    made: Object = {}
    if ready:
        made["addresses"] = sorted(ready, key=_by_address)
    if not_ready:
        made["notReadyAddresses"] = sorted(not_ready, key=_by_address)
    if ports:
        made["ports"] = [port.to_object(with_empty_name=False) for port in ports]
    return made


def _by_address(one: Mapping[str, Any]) -> str:
    return str(one["ip"])


def _address(service: Mapping[str, Any], pod: Backend, address: str) -> Object:
    reference = {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    made: Object = {"ip": address, "targetRef": reference}
    if pod.node:
        made["nodeName"] = pod.node
    if pod.hostname and pod.subdomain == name(service):
        made["hostname"] = pod.hostname
    return made


def endpoints_labels(service: Mapping[str, Any]) -> dict[str, str]:
    found = {key: value for key, value in labels(service).items() if key not in {MANAGED_BY, HEADLESS}}
    if is_headless(service):
        found[HEADLESS] = ""
    return {**found, MANAGED_BY: MANAGER}
