"""Which pod has which IP address on one node.

A pool hands out one address of each of the node's pod networks (dual stack: the first network's comes first). Freed
addresses go to the back of the line, so that a new pod does not at once inherit the traffic of a dead one. The pool is
memory only: after a restart, ``reserve`` repeats what the runtime still holds.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Sequence

from fleetplane.model.networks import Network

HARD_LIMIT = 65_534
"""Addresses used of one network: pods per node are few, and a /64 has more than memory."""


class AddressesExhausted(Exception):
    """No address is left for another pod."""


class _Line:
    """One network's free addresses: those never used are a counter, those given back a queue."""

    def __init__(self, network: Network) -> None:
        self._base = int(network.network_address)
        self._make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
        usable = network.num_addresses - (2 if network.version == 4 else 1)
        self._last = min(usable, HARD_LIMIT)
        self._next = 2  # .0 is the network, .1 its gateway
        self._free: deque[str] = deque()
        self._taken: set[str] = set()

    def take(self) -> str:
        while self._next <= self._last:
            address = str(self._make(self._base + self._next))
            self._next += 1
            if address not in self._taken:
                self._taken.add(address)
                return address
        while self._free:
            address = self._free.popleft()
            if address not in self._taken:  # it may have been reserved while it rested
                self._taken.add(address)
                return address
        raise AddressesExhausted("no pod address is left on this node; remove pods or give it a larger pod network")

    def reserve(self, address: str) -> None:
        self._taken.add(address)

    def give_back(self, address: str) -> None:
        if address in self._taken:
            self._taken.discard(address)
            offset = int(ipaddress.ip_address(address)) - self._base
            if 2 <= offset < self._next:
                self._free.append(address)


class AddressPool:
    """Addresses of one node's pods. ``owner`` is any key, here the sandbox's id or the pod's uid."""

    def __init__(self, networks: Sequence[Network | str]) -> None:
        parsed = [ipaddress.ip_network(n) if isinstance(n, str) else n for n in networks]
        self.networks: tuple[Network, ...] = tuple(parsed)
        self._lines = [_Line(network) for network in self.networks]
        self._owned: dict[str, tuple[str, ...]] = {}

    def take(self, owner: str) -> tuple[str, ...]:
        """One address of each network; the same again for the same owner. Raises AddressesExhausted."""
        if (held := self._owned.get(owner)) is not None:
            return held
        taken: list[str] = []
        try:
            for line in self._lines:
                taken.append(line.take())
        except AddressesExhausted:
            for line, address in zip(self._lines, taken, strict=False):
                line.give_back(address)
            raise
        self._owned[owner] = tuple(taken)
        return tuple(taken)

    def reserve(self, owner: str, addresses: Sequence[str]) -> None:
        """Remember addresses that are in use already."""
        self._owned[owner] = tuple(addresses)
        for line, network in zip(self._lines, self.networks, strict=True):
            for address in addresses:
                if ipaddress.ip_address(address) in network:
                    line.reserve(address)

    def give_back(self, owner: str) -> None:
        for address in self._owned.pop(owner, ()):
            for line, network in zip(self._lines, self.networks, strict=True):
                if ipaddress.ip_address(address) in network:
                    line.give_back(address)
