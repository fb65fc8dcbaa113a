"""Ports of the host that lead into pods (``hostPort``), kept by the kernel alone.

Two maps of nftables hold them, by protocol and port. They are added to and taken from one element at a time and never
written whole, so they outlive the agent as the pods do. A port that is taken already is refused, not taken over.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from typing import Any

from fleetplane.node.processes import CommandFailure, run_command
from fleetplane.node.runtime import PortMapping


class HostPorts:
    """The maps of one node. ``start`` before anything else."""

    def __init__(self, table: str, nft: str) -> None:
        self.table = table
        self._nft = nft

    async def start(self, bridge: str) -> None:
        """Make the table if it is not there; what it holds stays. Raises CommandFailure."""
        try:
            await run_command([self._nft, "list", "table", "inet", self.table])
        except CommandFailure:
            await run_command([self._nft, "-f", "-"], stdin=_rules(self.table, bridge).encode())

    async def open(self, addresses: Sequence[str], ports: Sequence[PortMapping]) -> None:
        """Lead these ports to the pod. Raises CommandFailure when one is taken."""
        for port in ports:
            lines = []
            for address in addresses:
                family = ipaddress.ip_address(address).version
                if port.host_ip and ipaddress.ip_address(port.host_ip).version != family:
                    continue
                key = f"{port.protocol.lower()} . {port.host_port}"
                lines.append(
                    f"create element inet {self.table} ports{family} {{ {key} : {address} . {port.container_port} }}"
                )
            try:
                await run_command([self._nft, "-f", "-"], stdin="\n".join([*lines, ""]).encode())
            except CommandFailure as error:
                if "exists" not in str(error).lower():
                    raise
                await self.close(addresses)
                taken = f"host port {port.host_port}/{port.protocol} is already in use by another pod"
                raise CommandFailure(taken) from error

    async def close(self, addresses: Sequence[str]) -> None:
        """Take away every port that leads to these addresses."""
        wanted = set(addresses)
        for family in (4, 6):
            try:
                shown = await run_command([self._nft, "-j", "list", "map", "inet", self.table, f"ports{family}"])
            except CommandFailure:
                continue
            for key, address in _elements(json.loads(shown)):
                if address in wanted:
                    words = f"delete element inet {self.table} ports{family} {{ {key} }}\n"
                    await run_command([self._nft, "-f", "-"], stdin=words.encode())


def _elements(shown: Any) -> list[tuple[str, str]]:
    """Key (``tcp . 80``) and address of each element of a map as nft shows it in JSON."""
    found = []
    for entry in shown.get("nftables") or []:
        for element in (entry.get("map") or {}).get("elem") or []:
            key, value = element
            found.append((" . ".join(str(one) for one in key["concat"]), str(value["concat"][0])))
    return found


def _rules(table: str, bridge: str) -> str:
    look_up = """    fib daddr type local meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports4
    fib daddr type local meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @ports6"""
    return f"""table inet {table} {{
  map ports4 {{
    type inet_proto . inet_service : ipv4_addr . inet_service
  }}
  map ports6 {{
    type inet_proto . inet_service : ipv6_addr . inet_service
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat - 5; policy accept;
{look_up}
  }}
  chain output {{
    type nat hook output priority -105; policy accept;
{look_up}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat - 5; policy accept;
    oifname {bridge} ip saddr 127.0.0.0/8 masquerade
  }}
}}
"""
