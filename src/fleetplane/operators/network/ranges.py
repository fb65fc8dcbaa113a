"""Sets of addresses as sorted intervals of integers, one set for each family. Pure.

A /64 costs as much as a single address: nothing is ever expanded. An address is found by its rank, so that any of them can
be the first one that an allocator looks at.
"""

from __future__ import annotations

import ipaddress
import socket
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

Family = Literal["IPv4", "IPv6"]
FAMILIES: Final[tuple[Family, ...]] = ("IPv4", "IPv6")
_LAST: Final = {"IPv4": (1 << 32) - 1, "IPv6": (1 << 128) - 1}


class Interval(NamedTuple):
    """From ``first`` to ``last``, both included."""

    family: Family
    first: int
    last: int


def parse(text: str) -> Interval:
    """An address, a network, or first-last. Raises ValueError that says what is wrong."""
    first, dash, last = text.strip().partition("-")
    if dash:
        low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
        if low.version != high.version:
            raise ValueError("both ends of a range must be of one family")
        if int(low) > int(high):
            raise ValueError("the first address of a range must not be above the last")
        return Interval(_family(low.version), int(low), int(high))
    network = ipaddress.ip_network(first, strict=True)
    return Interval(_family(network.version), int(network.network_address), int(network.broadcast_address))


def usable(cidr: str) -> Interval:
    """The addresses of a network that hosts may have: without its own and the broadcast address (RFC 919, RFC 4291 2.6.1).

    Networks of one or two addresses (RFC 3021, RFC 6164) are usable whole.
    """
    family, first, last = parse(cidr)
    if last - first < 2:
        return Interval(family, first, last)
    return Interval(family, first + 1, last - 1 if family == "IPv4" else last)


def address(text: str) -> tuple[Family, int]:
    """Raises ValueError. What the C library reads it reads the same way; the rest, and every refusal, is ``ipaddress``'s."""
    try:
        if ":" in text:
            return "IPv6", int.from_bytes(socket.inet_pton(socket.AF_INET6, text))
        return "IPv4", int.from_bytes(socket.inet_pton(socket.AF_INET, text))
    except (OSError, ValueError):
        found = ipaddress.ip_address(text)
        return _family(found.version), int(found)


def text_of(family: Family, number: int) -> str:
    """The canonical text (RFC 5952), except that an IPv6 address with an IPv4 one in it is written as Python does."""
    if family == "IPv4":
        return socket.inet_ntop(socket.AF_INET, number.to_bytes(4))
    if number >> 48:
        return socket.inet_ntop(socket.AF_INET6, number.to_bytes(16))
    return str(ipaddress.IPv6Address(number))


def _family(version: int) -> Family:
    return "IPv6" if version == 6 else "IPv4"


class Space:
    """The addresses of one family, in order."""

    __slots__ = ("_before", "_firsts", "intervals", "size")

    def __init__(self, intervals: Iterable[Interval], without: Iterable[Interval] = ()) -> None:
        kept = subtract(merge(intervals), merge(without))
        self.intervals: Sequence[Interval] = kept
        self._firsts = [one.first for one in kept]
        self._before: list[int] = []
        self.size = 0
        for one in kept:
            self._before.append(self.size)
            self.size += one.last - one.first + 1

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.find(number) is not None

    def at(self, rank: int) -> int:
        """The address that has so many below it. Raises IndexError."""
        if not 0 <= rank < self.size:
            raise IndexError(rank)
        index = bisect_right(self._before, rank) - 1
        return self._firsts[index] + rank - self._before[index]

    def find(self, number: int) -> int | None:
        """The rank of an address, which is how many are below it; ``None`` if it is not ours."""
        index = bisect_right(self._firsts, number) - 1
        if index < 0 or number > self.intervals[index].last:
            return None
        return self._before[index] + number - self._firsts[index]

    def overlap(self, other: Space) -> Interval | None:
        """Some addresses that are in both."""
        for mine in self.intervals:
            for theirs in other.intervals:
                first, last = max(mine.first, theirs.first), min(mine.last, theirs.last)
                if first <= last:
                    return Interval(mine.family, first, last)
        return None


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """Sorted, disjoint, not even touching. All of one family."""
    merged: list[Interval] = []
    for one in sorted(intervals, key=lambda interval: interval.first):
        if merged and one.first <= merged[-1].last + 1:
            merged[-1] = merged[-1]._replace(last=max(merged[-1].last, one.last))
        else:
            merged.append(one)
    return merged


def subtract(intervals: Sequence[Interval], without: Sequence[Interval]) -> list[Interval]:
    """Both merged; so is the result."""
    left: list[Interval] = []
    for one in intervals:
        first = one.first
        for hole in without:
            if hole.last < first or hole.first > one.last:
                continue
            if hole.first > first:
                left.append(one._replace(first=first, last=hole.first - 1))
            first = hole.last + 1
        if first <= one.last:
            left.append(one._replace(first=first))
    return left
