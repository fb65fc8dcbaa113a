"""IP networks of either family beside each other: the standard library refuses to compare those of different families."""

from __future__ import annotations

import ipaddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(text: str) -> list[Network]:
    """Comma-separated CIDRs without host bits, in their order. Raises ValueError for what is none."""
    return [ipaddress.ip_network(one.strip()) for one in text.split(",") if one.strip()]


def is_within(one: Network, other: Network) -> bool:
    """Whether all of ``one`` lies in ``other``."""
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and one.subnet_of(other)


def overlap(one: Network, other: Network) -> bool:
    """Whether they have an address in common."""
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.overlaps(other)
    return isinstance(other, ipaddress.IPv6Network) and one.overlaps(other)
