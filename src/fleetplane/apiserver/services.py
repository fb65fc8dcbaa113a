"""Cluster IPs and node ports: handed out when a Service is written, unique because the store holds them as claims.

Addresses come from one range per IP family, IPv6 first where the Service lets us choose (``ipFamilyPolicy``); node ports
from one range. Picking is random, so that writers at the same moment seldom meet; when they do, the claim decides and the
loser picks again. Follows the Kubernetes Service API reference (clusterIPs, ipFamilies) and KEP-563 (dual stack).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from fleetplane.model import errors
from fleetplane.model.environment import Environment
from fleetplane.model.errors import FieldError
from fleetplane.model.networks import Network, parse_networks
from fleetplane.model.objects import Object
from fleetplane.store.protocol import Claim

ADDRESS_SCOPE = "service/spec.clusterIP"
PORT_SCOPE = "service/spec.ports.nodePort"
_TRIES = 64


class ServiceAllocator:
    """Fills in clusterIP(s), families and node ports of Services."""

    def __init__(self, networks: Sequence[Network], node_ports: range, environment: Environment) -> None:
        self._networks = {("IPv6" if net.version == 6 else "IPv4"): net for net in networks}
        self._order = ["IPv6" if net.version == 6 else "IPv4" for net in networks]
        self._node_ports = node_ports
        self._environment = environment
        self._refused: set[Claim] = set()
        self._chosen: set[Claim] = set()

    async def prepare(self, cluster: str, new: Object, old: Object | None) -> None:
        spec = new.setdefault("spec", {})
        kind = spec.get("type") or "ClusterIP"
        before = (old or {}).get("spec") or {}
        if kind == "ExternalName":
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(key, None)
            return
        self._addresses(new, spec, before)
        if kind in ("NodePort", "LoadBalancer") and not (
            kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False
        ):
            self._ports(new, spec, before)
        if (
            kind == "LoadBalancer"
            and spec.get("externalTrafficPolicy") == "Local"
            and not spec.get("healthCheckNodePort")
        ):
            spec["healthCheckNodePort"] = before.get("healthCheckNodePort") or self._free_port(set())

    # -- addresses -------------------------------------------------------------------------------------------------------

    def _addresses(self, service: Object, spec: Object, before: Object) -> None:
        if not spec.get("clusterIP") and not spec.get("clusterIPs") and before.get("clusterIPs"):
            spec["clusterIP"], spec["clusterIPs"] = before["clusterIP"], list(before["clusterIPs"])
        given = list(spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else []))
        if spec.get("clusterIP") and given and given[0] != spec["clusterIP"]:
            given[0] = spec["clusterIP"]
        families = self._families(service, spec, given)
        spec["ipFamilies"] = families
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        if given == ["None"]:
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return
        addresses = []
        for index, family in enumerate(families):
            if index < len(given) and given[index]:
                addresses.append(self._checked(service, given[index], family, index))
            else:
                addresses.append(self._free_address(family))
        spec["clusterIP"], spec["clusterIPs"] = addresses[0], addresses

    def _families(self, service: Object, spec: Object, given: Sequence[str]) -> list[str]:
        policy = spec.get("ipFamilyPolicy") or "SingleStack"
        families = [one for one in spec.get("ipFamilies") or [] if isinstance(one, str)]
        for address in given:
            family = _family(address)
            if family and family not in families:
                families.append(family)
        for index, family in enumerate(families):
            if family not in self._networks:
                cause = FieldError.invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
                raise errors.invalid("Service", service["metadata"].get("name", ""), [cause])
        if not families:
            families = [self._order[0]]
        if policy == "SingleStack":
            return families[:1]
        for family in self._order:
            if family not in families:
                families.append(family)
        if policy == "RequireDualStack" and len(families) < 2:
            cause = FieldError.invalid(
                "spec.ipFamilyPolicy", policy, "Cluster is not configured for dual-stack services"
            )
            raise errors.invalid("Service", service["metadata"].get("name", ""), [cause])
        return families[:2]

    def _checked(self, service: Object, text: str, family: str, index: int) -> str:
        network = self._networks[family]
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            cause = FieldError.invalid(f"spec.clusterIPs[{index}]", text, "must be a valid IP address")
            raise errors.invalid("Service", service["metadata"].get("name", ""), [cause]) from None
        if address not in network:
            detail = (
                "failed to allocate IP " + text + ": the provided IP is not in the valid range. "
                f"The range of valid IPs is {network}"
            )
            cause = FieldError.invalid("spec.clusterIPs", [text], detail)
            raise errors.invalid("Service", service["metadata"].get("name", ""), [cause])
        return str(address)

    def _free_address(self, family: str) -> str:
        network = self._networks[family]
        # The first sixteen are left to those who want a well-known address, as kube-apiserver does.
        low, high = 16, min(network.num_addresses - 2, 1 << 32)
        for _ in range(_TRIES):
            address = str(network[self._environment.random.randint(low, high)])
            claim = Claim(ADDRESS_SCOPE, address)
            if claim not in self._refused:
                self._note(claim)
                return address
        raise errors.internal(f"no free cluster IP found in {network}; use a larger range")

    # -- node ports ------------------------------------------------------------------------------------------------------

    def _ports(self, service: Object, spec: Object, before: Object) -> None:
        held = {_port_key(one): one["nodePort"] for one in before.get("ports") or [] if one.get("nodePort")}
        used = {one["nodePort"] for one in spec.get("ports") or [] if one.get("nodePort")}
        for index, port in enumerate(spec.get("ports") or []):
            number = port.get("nodePort")
            if number and number not in self._node_ports and number not in held.values():
                detail = (
                    "provided port is not in the valid range. "
                    f"The range of valid ports is {self._node_ports.start}-{self._node_ports.stop - 1}"
                )
                cause = FieldError.invalid(f"spec.ports[{index}].nodePort", number, detail)
                raise errors.invalid("Service", service["metadata"].get("name", ""), [cause])
        by_number: dict[tuple[Any, Any], int] = {}
        for port in spec.get("ports") or []:
            if port.get("nodePort"):
                continue
            wanted = held.get(_port_key(port))
            # TCP and UDP of the same number share a node port, as users of DNS expect.
            shared = by_number.get((port.get("port"), port.get("name")))
            if wanted is None or wanted in used:
                wanted = shared or self._free_port(used)
            port["nodePort"] = wanted
            used.add(wanted)

    def _free_port(self, used: set[int]) -> int:
        for _ in range(_TRIES):
            port = self._environment.random.choice(self._node_ports)
            claim = Claim(PORT_SCOPE, str(port))
            if port not in used and claim not in self._refused:
                self._note(claim)
                return port
        raise errors.internal("no free node port found; use a larger range")

    def _note(self, claim: Claim) -> None:
        if len(self._chosen) > 4096:
            self._chosen.clear()
        self._chosen.add(claim)

    # -- claims ----------------------------------------------------------------------------------------------------------

    def claims(self, obj: Object) -> tuple[Claim, ...]:
        spec = obj.get("spec") or {}
        held = [Claim(ADDRESS_SCOPE, one) for one in spec.get("clusterIPs") or [] if one and one != "None"]
        ports = {
            (one.get("protocol") or "TCP", one["nodePort"]) for one in spec.get("ports") or [] if one.get("nodePort")
        }
        held += [Claim(PORT_SCOPE, f"{number}") for number in sorted({number for _, number in ports})]
        if spec.get("healthCheckNodePort"):
            held.append(Claim(PORT_SCOPE, str(spec["healthCheckNodePort"])))
        return tuple(dict.fromkeys(held))

    def taken(self, claim: Claim) -> bool:
        if claim not in self._chosen:
            return False
        if len(self._refused) > 4096:
            self._refused.clear()
        self._refused.add(claim)
        return True


def _family(address: str) -> str:
    try:
        return "IPv6" if ipaddress.ip_address(address).version == 6 else "IPv4"
    except ValueError:
        return ""


def _port_key(port: Object) -> tuple[Any, Any]:
    return port.get("protocol") or "TCP", port.get("port")


def service_networks(text: str) -> list[Network]:
    """Comma-separated CIDRs, at most one per family, in order of preference. Raises ValueError."""
    networks = parse_networks(text)
    if not networks or len({net.version for net in networks}) != len(networks):
        raise ValueError("give one CIDR per IP family")
    return networks
