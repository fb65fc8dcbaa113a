"""What a Service sees of its pods: addresses, ports, and whether they serve. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from fleetplane.model.objects import Object

HEADLESS: Final = "service.kubernetes.io/headless"


class Port(NamedTuple):
    """One port as endpoints publish it. ``number`` is None in a Service that names no port."""

    name: str
    protocol: str
    number: int
    app_protocol: str = ""

    def to_object(self, *, with_empty_name: bool) -> Object:
        made: Object = {"port": self.number, "protocol": self.protocol}
        if self.name or with_empty_name:
            made["name"] = self.name
        if self.app_protocol:
            made["appProtocol"] = self.app_protocol
        return made


class _ContainerPort(msgspec.Struct, rename="camel", frozen=True, gc=False):
    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"


class _Container(msgspec.Struct, rename="camel", frozen=True, gc=False):
    ports: list[_ContainerPort] | None = None
    restart_policy: str | None = None


class _Spec(msgspec.Struct, rename="camel", frozen=True, gc=False):
    node_name: str = ""
    hostname: str = ""
    subdomain: str = ""
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None


class _Ip(msgspec.Struct, frozen=True, gc=False):
    ip: str = ""


class _Condition(msgspec.Struct, frozen=True, gc=False):
    type: str = ""
    status: str = ""


class _Status(msgspec.Struct, rename="camel", frozen=True, gc=False):
    phase: str = "Pending"
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[_Ip] | None = msgspec.field(default=None, name="podIPs")
    conditions: list[_Condition] | None = None


class _Meta(msgspec.Struct, rename="camel", frozen=True, gc=False):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    deletion_timestamp: str | None = None


class _Pod(msgspec.Struct, frozen=True, gc=False):
    metadata: _Meta
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)


_decode: Final = msgspec.json.Decoder(_Pod).decode


@dataclass(frozen=True, slots=True)
class Backend:
    """One pod that can be reached, or will be. ``zone`` is its node's."""

    name: str
    namespace: str
    uid: str
    addresses: tuple[str, ...]
    node: str
    zone: str
    hostname: str
    subdomain: str
    serving: bool
    terminating: bool
    named_ports: Mapping[tuple[str, str], int]

    def address(self, family: str) -> str:
        """The address of this family (``IPv4`` or ``IPv6``), if it has one."""
        return next((one for one in self.addresses if family_of(one) == family), "")


def family_of(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def backend(encoded: bytes, zones: Mapping[str, str]) -> Backend | None:
    """From a pod's JSON; None for one that has no address or has ended. ``zones`` by node name."""
    pod = _decode(encoded)
    status, spec = pod.status, pod.spec
    addresses = [one.ip for one in status.pod_ips or () if one.ip] or ([status.pod_ip] if status.pod_ip else [])
    if not addresses or status.phase in {"Succeeded", "Failed"}:
        return None
    sidecars = [one for one in spec.init_containers or () if one.restart_policy == "Always"]
    named = {
        (port.name, port.protocol or "TCP"): port.container_port
        for container in (*sidecars, *(spec.containers or ()))
        for port in container.ports or ()
        if port.name
    }
    return Backend(
        name=pod.metadata.name,
        namespace=pod.metadata.namespace,
        uid=pod.metadata.uid,
        addresses=tuple(_valid(addresses)),
        node=spec.node_name,
        zone=zones.get(spec.node_name, ""),
        hostname=spec.hostname,
        subdomain=spec.subdomain,
        serving=any(one.type == "Ready" and one.status == "True" for one in status.conditions or ()),
        terminating=pod.metadata.deletion_timestamp is not None,
        named_ports=named,
    )


def _valid(addresses: Iterable[str]) -> Iterable[str]:
    for one in addresses:
        try:
            ipaddress.ip_address(one)
        except ValueError:
            continue
        yield one


def ports_of(service: Mapping[str, Any], pod: Backend) -> tuple[Port, ...]:
    """The Service's ports as this pod has them; a named port it does not have is left out."""
    found = []
    for one in service["spec"].get("ports") or ():
        protocol = str(one.get("protocol") or "TCP")
        number = _target(one, protocol, pod)
        if number:
            found.append(Port(str(one.get("name") or ""), protocol, number, str(one.get("appProtocol") or "")))
    return tuple(found)


def _target(port: Mapping[str, Any], protocol: str, pod: Backend) -> int:
    target = port.get("targetPort")
    if target in {None, 0, ""}:
        return int(port.get("port") or 0)
    if isinstance(target, str) and not target.isdigit():
        return pod.named_ports.get((target, protocol), 0)
    return int(target)


def families(service: Mapping[str, Any], pods: Sequence[Backend]) -> list[str]:
    """The address families the Service publishes, the primary one first."""
    spec = service["spec"]
    if spec.get("ipFamilies"):
        return list(spec["ipFamilies"])
    cluster_ip = str(spec.get("clusterIP") or "")
    if cluster_ip and cluster_ip != "None":
        return [family_of(cluster_ip)]
    return [family_of(pods[0].addresses[0])] if pods and pods[0].addresses else ["IPv4"]


def is_headless(service: Mapping[str, Any]) -> bool:
    return str(service["spec"].get("clusterIP")) == "None"


def has_selector(service: Mapping[str, Any]) -> bool:
    """Whether its endpoints are ours to keep."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"
