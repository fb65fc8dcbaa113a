"""Kubernetes' IP and CIDR libraries.

Strict as Go's ``netip`` is: no leading zeros in IPv4, no zones, and no IPv4 addresses dressed as IPv6.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from fleetplane.model.cel.cost import NOMINAL, ONE, TRAVERSAL, Estimate, Operand, Price, Range, scaled, traversal
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BOOL, INT, STRING, Type, opaque
from fleetplane.model.cel.values import size_of

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_PREFIX_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,2}")
_LONGEST: Final = 64


@dataclass(frozen=True, slots=True)
class IP:
    cel_type_name: ClassVar[str] = "net.IP"
    address: Address

    @property
    def cel_size(self) -> int:
        return self.address.max_prefixlen // 8

    @property
    def cel_string(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class CIDR:
    """An address and the length of a prefix; bits behind the prefix are kept."""

    cel_type_name: ClassVar[str] = "net.CIDR"
    address: Address
    length: int

    @property
    def cel_size(self) -> int:
        return (self.length + 7) // 8

    @property
    def cel_string(self) -> str:
        return f"{self.address}/{self.length}"

    @property
    def network(self) -> Network:
        return ipaddress.ip_network((self.address, self.length), strict=False)


def parse_ip(text: str) -> IP:
    """Raises CelError."""
    try:
        if len(text) > _LONGEST or "%" in text:
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        raise CelError(f'IP Address "{text[:_LONGEST]}" parse error during conversion from string') from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise CelError("IPv4-mapped IPv6 address is not allowed")
    return IP(address)


def parse_cidr(text: str) -> CIDR:
    """Raises CelError."""
    address, slash, length = text.partition("/")
    if slash and _PREFIX_LENGTH.fullmatch(length):
        ip = parse_ip(address)
        if int(length) <= ip.address.max_prefixlen:
            return CIDR(ip.address, int(length))
    raise CelError(f'network address parse error during conversion from string: "{text[:_LONGEST]}" is no CIDR')


def _valid(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def valid(text: str) -> bool:
        try:
            parse(text)
        except CelError:
            return False
        return True

    return valid


def is_canonical(text: str) -> bool:
    return parse_ip(text).cel_string == text


def _is_global_unicast(ip: IP) -> bool:
    address = ip.address
    broadcast = isinstance(address, ipaddress.IPv4Address) and int(address) == 0xFFFFFFFF
    special = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not (broadcast or special)


def _is_link_local_multicast(ip: IP) -> bool:
    if isinstance(ip.address, ipaddress.IPv4Address):
        return int(ip.address) >> 8 == 0xE00000
    return int(ip.address) >> 112 & 0xFF0F == 0xFF02


def contains_ip(cidr: CIDR, other: IP | str) -> bool:
    ip = parse_ip(other) if isinstance(other, str) else other
    return ip.address in cidr.network


def contains_cidr(cidr: CIDR, other: CIDR | str) -> bool:
    inner = parse_cidr(other) if isinstance(other, str) else other
    return inner.length >= cidr.length and inner.network.network_address in cidr.network


def masked(cidr: CIDR) -> CIDR:
    return CIDR(cidr.network.network_address, cidr.length)


def _containing(*, subnet: bool, text: bool) -> Price:
    """Comparing the prefix, once more for a subnet; and parsing what is text."""

    def actual(arguments: Sequence[Any], _result: Any) -> int:
        size = size_of(arguments[0])
        cost = scaled(2 * size, TRAVERSAL)
        if subnet:
            cost += scaled(size, TRAVERSAL) + 1
        return cost + (scaled(size_of(arguments[1]), TRAVERSAL) if text else 0)

    def estimate(operands: Sequence[Operand]) -> Estimate:
        size = Range(4, 16)
        cost = size.plus(size).scaled(TRAVERSAL)
        if subnet:
            cost = cost.plus(size.scaled(TRAVERSAL)).plus(ONE)
        return Estimate(cost.plus(operands[1].size.scaled(TRAVERSAL)) if text else cost)

    return Price(actual, estimate)


IP_TYPE: Final = opaque("net.IP")
CIDR_TYPE: Final = opaque("net.CIDR")


def _of_ip(name: str, result: Type, call: Callable[[IP], Any]) -> tuple[Overload, ...]:
    return (Overload(name, (IP_TYPE,), result, call, member=True),)


FUNCTIONS: Final[Functions] = {
    "ip": (
        Overload("string_to_ip", (STRING,), IP_TYPE, parse_ip, price=traversal()),
        Overload("cidr_ip", (CIDR_TYPE,), IP_TYPE, lambda cidr: IP(cidr.address), member=True),
    ),
    "isIP": (Overload("is_ip", (STRING,), BOOL, _valid(parse_ip), price=traversal()),),
    "ip.isCanonical": (
        Overload("ip_is_canonical", (STRING,), BOOL, is_canonical, price=traversal(factor=2 * TRAVERSAL)),
    ),
    "family": _of_ip("family", INT, lambda ip: ip.address.version),
    "isUnspecified": _of_ip("is_unspecified", BOOL, lambda ip: ip.address.is_unspecified),
    "isLoopback": _of_ip("is_loopback", BOOL, lambda ip: ip.address.is_loopback),
    "isLinkLocalMulticast": _of_ip("is_link_local_multicast", BOOL, _is_link_local_multicast),
    "isLinkLocalUnicast": _of_ip("is_link_local_unicast", BOOL, lambda ip: ip.address.is_link_local),
    "isGlobalUnicast": _of_ip("is_global_unicast", BOOL, _is_global_unicast),
    "cidr": (Overload("string_to_cidr", (STRING,), CIDR_TYPE, parse_cidr, price=traversal()),),
    "isCIDR": (Overload("is_cidr", (STRING,), BOOL, _valid(parse_cidr), price=traversal()),),
    "containsIP": (
        Overload(
            "cidr_contains_ip_string",
            (CIDR_TYPE, STRING),
            BOOL,
            contains_ip,
            member=True,
            price=_containing(subnet=False, text=True),
        ),
        Overload(
            "cidr_contains_ip_ip",
            (CIDR_TYPE, IP_TYPE),
            BOOL,
            contains_ip,
            member=True,
            price=_containing(subnet=False, text=False),
        ),
    ),
    "containsCIDR": (
        Overload(
            "cidr_contains_cidr_string",
            (CIDR_TYPE, STRING),
            BOOL,
            contains_cidr,
            member=True,
            price=_containing(subnet=True, text=True),
        ),
        Overload(
            "cidr_contains_cidr",
            (CIDR_TYPE, CIDR_TYPE),
            BOOL,
            contains_cidr,
            member=True,
            price=_containing(subnet=True, text=False),
        ),
    ),
    "masked": (Overload("cidr_masked", (CIDR_TYPE,), CIDR_TYPE, masked, member=True),),
    "prefixLength": (Overload("cidr_prefix_length", (CIDR_TYPE,), INT, lambda cidr: cidr.length, member=True),),
    "string": (
        Overload("ip_to_string", (IP_TYPE,), STRING, lambda ip: ip.cel_string, price=NOMINAL),
        Overload("cidr_to_string", (CIDR_TYPE,), STRING, lambda cidr: cidr.cel_string, price=NOMINAL),
    ),
}
