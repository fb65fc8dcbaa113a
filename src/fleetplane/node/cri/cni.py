"""What a CRI runtime's network gives its pods: the bridge they are behind, their subnets, the node's addresses there.

Read from the runtime's own verbose status, where containerd shows the CNI configuration it uses. Networks without a
bridge (overlays, ``ptp``) are left to whoever made them: pods have addresses, and the node's Services and DNS stay away.

Source: the CNI specification, plug-ins ``bridge`` and ``host-local``.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CniNetwork:
    """``networks`` are subnets, ``gateways`` the node's address in each; all empty where there is no bridge."""

    bridge: str = ""
    networks: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()


def read_network(info: Mapping[str, str]) -> CniNetwork:
    """``info`` is that of a verbose status. What cannot be understood counts as no bridge."""
    try:
        found = json.loads(info.get("cniconfig") or "{}")
        plugins = [plugin for network in found.get("Networks") or [] for plugin in _plugins(network)]
        bridges = [plugin for plugin in plugins if plugin.get("type") == "bridge"]
        return _of_bridge(bridges[0]) if bridges else CniNetwork()
    except (ValueError, TypeError, AttributeError, KeyError):
        return CniNetwork()


def _plugins(network: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for plugin in (network.get("Config") or {}).get("Plugins") or []:
        yield json.loads(plugin.get("Source") or "{}")


def _of_bridge(plugin: Mapping[str, Any]) -> CniNetwork:
    ipam = plugin.get("ipam") or {}
    ranges = [one[0] for one in ipam.get("ranges") or [] if one]
    if ipam.get("subnet"):
        ranges.insert(0, ipam)
    networks, gateways = [], []
    for one in ranges:
        network = ipaddress.ip_network(one["subnet"], strict=False)
        networks.append(str(network))
        gateways.append(str(one.get("gateway") or network.network_address + 1))
    gateway = plugin.get("isGateway") or plugin.get("isDefaultGateway")
    return CniNetwork(str(plugin.get("bridge") or "cni0"), tuple(networks), tuple(gateways) if gateway else ())
