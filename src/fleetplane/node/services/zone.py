"""What names mean inside the cluster: Kubernetes' DNS-based service discovery, version 1.1.0. Pure functions.

A zone is built whole from Services and EndpointSlices and answers by dictionary. It knows only the cluster's own
domain and the reverse names of its own addresses; everything else is somebody else's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fleetplane.model import objects
from fleetplane.model.objects import Object
from fleetplane.node.services.table import Endpoint, by_service, cluster_addresses, endpoints_of, usable

SCHEMA_VERSION: Final = "1.1.0"
Kind = Literal["A", "AAAA", "SRV", "PTR", "CNAME", "TXT"]


@dataclass(frozen=True, slots=True)
class Record:
    """``value`` is an address, a name with its final dot, or text; ``port`` is only for SRV."""

    name: str
    kind: Kind
    value: str
    port: int = 0


@dataclass(slots=True)
class Zone:
    """Names are in lower case with their final dot."""

    domain: str
    records: dict[str, list[Record]] = field(default_factory=dict)

    def covers(self, name: str) -> bool:
        """Whether this zone is the one to ask."""
        return name == self.domain or name.endswith("." + self.domain) or name in self.records

    def find(self, name: str, kind: str) -> list[Record] | None:
        """The answers; empty when the name has none of this kind, None when there is no such name."""
        found = self.records.get(name)
        if found is None:
            return _pod_record(name, kind, self.domain)
        return [one for one in found if one.kind in {kind, "CNAME"} or kind == "ANY"]

    def add(self, record: Record) -> None:
        known = self.records.setdefault(record.name, [])
        if record not in known:
            known.append(record)
        parent = record.name.partition(".")[2]
        # What lies above a name exists too, though it says nothing.
        while parent.endswith("." + self.domain) and parent not in self.records:
            self.records[parent] = []
            parent = parent.partition(".")[2]


def build_zone(domain: str, services: Iterable[Object], slices: Iterable[Object]) -> Zone:
    """``domain`` without final dot."""
    zone = Zone(domain.lower().rstrip(".") + ".")
    zone.records[zone.domain] = []
    zone.add(Record(f"dns-version.{zone.domain}", "TXT", SCHEMA_VERSION))
    parts = by_service(slices)
    for service in services:
        spec = service.get("spec") or {}
        key = (objects.namespace(service), objects.name(service))
        name = f"{key[1]}.{key[0]}.svc.{zone.domain}"
        if spec.get("type") == "ExternalName":
            zone.add(Record(name, "CNAME", str(spec.get("externalName") or "").rstrip(".") + "."))
            continue
        own = cluster_addresses(service)
        if own:
            _add_service(zone, name, own, spec)
        else:
            publish = bool(spec.get("publishNotReadyAddresses"))
            _add_headless(zone, name, usable(endpoints_of(parts.get(key, [])), publish_not_ready=publish))
    return zone


def _add_service(zone: Zone, name: str, addresses: Iterable[str], spec: Mapping[str, Any]) -> None:
    for address in addresses:
        _add_address(zone, name, address)
        zone.add(Record(reverse_name(address), "PTR", name))
    for port in spec.get("ports") or []:
        if port_name := port.get("name"):
            protocol = str(port.get("protocol") or "TCP").lower()
            zone.add(Record(f"_{port_name}._{protocol}.{name}", "SRV", name, int(port["port"])))


def _add_headless(zone: Zone, name: str, endpoints: Iterable[Endpoint]) -> None:
    zone.records.setdefault(name, [])
    for endpoint in endpoints:
        host = f"{endpoint.host or _dashed(endpoint.address)}.{name}"
        _add_address(zone, name, endpoint.address)
        _add_address(zone, host, endpoint.address)
        if endpoint.host:
            zone.add(Record(reverse_name(endpoint.address), "PTR", host))
        for port_name, protocol, number in endpoint.ports:
            if port_name:
                zone.add(Record(f"_{port_name}._{protocol.lower()}.{name}", "SRV", host, number))


def _add_address(zone: Zone, name: str, address: str) -> None:
    kind: Kind = "AAAA" if ":" in address else "A"
    zone.add(Record(name, kind, address))


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def reverse_name(address: str) -> str:
    return ipaddress.ip_address(address).reverse_pointer.lower() + "."


def _pod_record(name: str, kind: str, domain: str) -> list[Record] | None:
    """``10-0-0-2.namespace.pod.cluster.local``: the address stands in the name."""
    labels = name.removesuffix("." + domain).split(".")
    if len(labels) != 3 or labels[2] != "pod" or not name.endswith("." + domain):
        return None
    for text in (labels[0].replace("-", "."), labels[0].replace("-", ":")):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        own: Kind = "A" if address.version == 4 else "AAAA"
        return [Record(name, own, str(address))] if kind in {own, "ANY"} else []
    return None
