"""What Services and EndpointSlices add up to: where each port of each Service leads. Pure functions.

Only endpoints that are ready count (or that serve while they terminate, when no other is left), unless the Service
publishes addresses that are not ready. Families are kept apart: an IPv4 address leads to IPv4 endpoints.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.model import objects
from fleetplane.model.objects import Object

SERVICE_NAME: Final = "kubernetes.io/service-name"
DEFAULT_AFFINITY_SECONDS: Final = 10_800


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """An endpoint: an address and a port of a pod."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Forwarding:
    """One port of a Service in one IP family. ``affinity_seconds`` 0 means any endpoint will do each time."""

    namespace: str
    service: str
    port_name: str
    family: int
    protocol: str
    port: int
    addresses: tuple[str, ...]
    node_port: int = 0
    affinity_seconds: int = 0
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind a Service. ``host`` is its own name below the Service's, if it has one."""

    address: str
    host: str
    ready: bool
    serving: bool
    terminating: bool
    ports: tuple[tuple[str, str, int], ...]
    """Name, protocol, number."""


def endpoints_of(slices: Iterable[Mapping[str, Any]]) -> list[Endpoint]:
    """Every endpoint of a Service's slices, each address once."""
    found: dict[tuple[str, tuple[tuple[str, str, int], ...]], Endpoint] = {}
    for part in slices:
        ports = tuple(
            (str(port.get("name") or ""), str(port.get("protocol") or "TCP"), int(port["port"]))
            for port in part.get("ports") or []
            if port.get("port")
        )
        for endpoint in part.get("endpoints") or []:
            conditions = endpoint.get("conditions") or {}
            ready = conditions.get("ready") is not False
            serving = conditions.get("serving")
            for address in endpoint.get("addresses") or []:
                found[str(address), ports] = Endpoint(
                    str(address),
                    str(endpoint.get("hostname") or ""),
                    ready,
                    ready if serving is None else bool(serving),
                    bool(conditions.get("terminating")),
                    ports,
                )
    return list(found.values())


def usable(endpoints: Iterable[Endpoint], *, publish_not_ready: bool) -> list[Endpoint]:
    """Those traffic may go to: ready ones, else those that still serve while they end."""
    known = list(endpoints)
    if publish_not_ready:
        return known
    ready = [one for one in known if one.ready]
    return ready or [one for one in known if one.serving and one.terminating]


def by_service(slices: Iterable[Object]) -> dict[tuple[str, str], list[Object]]:
    """EndpointSlices by the Service they belong to."""
    found: dict[tuple[str, str], list[Object]] = {}
    for part in slices:
        name = objects.labels(part).get(SERVICE_NAME)
        if name:
            found.setdefault((objects.namespace(part), name), []).append(part)
    return found


def cluster_addresses(service: Mapping[str, Any]) -> list[str]:
    """The Service's own addresses; none for headless ones."""
    spec = service.get("spec") or {}
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [str(address) for address in addresses if address and address != "None"]


def forwardings(services: Iterable[Object], slices: Iterable[Object]) -> list[Forwarding]:
    """Every port of every Service that has an address, in a stable order."""
    parts = by_service(slices)
    found: list[Forwarding] = []
    for service in services:
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            continue
        key = (objects.namespace(service), objects.name(service))
        ready = usable(endpoints_of(parts.get(key, [])), publish_not_ready=bool(spec.get("publishNotReadyAddresses")))
        for family, addresses in _by_family(_outer_addresses(service)).items():
            found += [_forwarding(key, spec, port, family, addresses, ready) for port in spec.get("ports") or []]
    return sorted(found, key=lambda one: (one.namespace, one.service, one.family, one.port, one.protocol))


def _outer_addresses(service: Mapping[str, Any]) -> list[str]:
    spec, status = service.get("spec") or {}, service.get("status") or {}
    balancers = (status.get("loadBalancer") or {}).get("ingress") or []
    own = cluster_addresses(service)
    if not own:
        return []
    return [*own, *map(str, spec.get("externalIPs") or []), *(str(one["ip"]) for one in balancers if one.get("ip"))]


def _by_family(addresses: Iterable[str]) -> dict[int, tuple[str, ...]]:
    found: dict[int, list[str]] = {}
    for address in addresses:
        try:
            found.setdefault(ipaddress.ip_address(address).version, []).append(address)
        except ValueError:
            continue
    return {family: tuple(dict.fromkeys(some)) for family, some in found.items()}


def _forwarding(
    key: tuple[str, str],
    spec: Mapping[str, Any],
    port: Mapping[str, Any],
    family: int,
    addresses: tuple[str, ...],
    ready: Iterable[Endpoint],
) -> Forwarding:
    name, protocol = str(port.get("name") or ""), str(port.get("protocol") or "TCP")
    targets = {
        Target(one.address, number)
        for one in ready
        if _family_of(one.address) == family
        for port_name, port_protocol, number in one.ports
        if port_name == name and port_protocol == protocol
    }
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        chosen = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
        affinity = int(chosen or DEFAULT_AFFINITY_SECONDS)
    return Forwarding(
        *key,
        name,
        family,
        protocol,
        int(port["port"]),
        addresses,
        int(port.get("nodePort") or 0),
        affinity,
        tuple(sorted(targets)),
    )


def _family_of(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return 0
