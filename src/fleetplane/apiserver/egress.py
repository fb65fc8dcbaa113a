"""Which addresses the server calls for the people of virtual clusters: their webhooks and aggregated servers.

Whoever administers a virtual cluster can make the server call wherever a webhook says. The root cluster's administrators own
the machine; a tenant's do not, and what the machine itself trusts by address (loopback, a cloud's metadata service) is not
theirs. The check is made on the address that is connected to, when it is connected to: what a name meant a moment before
says nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any, Final

from fleetplane.model.networks import Network, is_within, parse_networks

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SETTING: Final = "tenant_calls"
_NEVER_BY_DEFAULT: Final[Sequence[Network]] = [
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8",  # this host, as loopback
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "224.0.0.0/4",
        "240.0.0.0/4",
        "100.100.100.200/32",  # metadata: Alibaba
        "168.63.129.16/32",  # metadata: Azure
        "192.0.0.192/32",  # metadata: Oracle
        "::/128",
        "::1/128",
        "fe80::/10",
        "ff00::/8",
        "fd00:ec2::254/128",  # metadata: AWS
        "fd20:ce::254/128",  # metadata: Google
    )
]
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


class NotAllowed(OSError):
    """An address that is not called for a virtual cluster. Its text is the same for every address."""

    def __init__(self) -> None:
        super().__init__(f"virtual clusters must not call this address; the setting {SETTING} lists what they may")


class Egress:
    """``allowed``: comma-separated CIDRs that may be called, and nothing else may; empty for everything.

    Loopback, link-local and metadata addresses may be called only where a CIDR lies within such a range: ``0.0.0.0/0`` does
    not mean them, ``127.0.0.1/32`` does.
    """

    def __init__(self, allowed: str = "") -> None:
        """Raises ValueError for what is no CIDR."""
        self._allowed = parse_networks(allowed)
        self._explicit = [one for one in self._allowed if any(is_within(one, never) for never in _NEVER_BY_DEFAULT)]

    def permits(self, host: str) -> bool:
        """Whether an IP address may be called."""
        try:
            address = _meant(ipaddress.ip_address(host.partition("%")[0]))
        except ValueError:
            return False
        if any(address in never for never in _NEVER_BY_DEFAULT):
            return any(address in one for one in self._explicit)
        return not self._allowed or any(address in one for one in self._allowed)

    def make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for an entry of ``getaddrinfo`` that is about to be connected. Raises NotAllowed."""
        family, kind, protocol, _, address = info
        if not self.permits(str(address[0])):
            raise NotAllowed
        return socket.socket(family, kind, protocol)


def _meant(address: Address) -> Address:
    """The IPv4 address that is reached by an IPv6 address which only wraps it."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    wrapped = address.ipv4_mapped or address.sixtofour
    if wrapped is not None:
        return wrapped
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
