"""Services as nftables: one table, written whole, so that the kernel goes from one state to the next at once.

Connections to a Service's address and port are looked up in one map, whatever the number of Services; a chain for each
port picks an endpoint at random (or the one this client had before, with session affinity), and a chain for each
endpoint translates the destination. A pod that meets itself behind a Service is masqueraded, or it would answer itself
directly. Where no endpoint is left, connections are refused rather than lost.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from fleetplane.node.services.table import Forwarding, Target

HAIRPIN: Final = "0x4000"
OUTSIDE: Final = "0x8000"
"""Came for a NodePort from somewhere else: an endpoint on another node must answer through this one."""
_PROTOCOLS: Final = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


def service_rules(table: str, wanted: Sequence[Forwarding], bridge: str) -> str:
    """The whole ruleset, for ``nft -f``. ``bridge`` is the interface pods are behind."""
    served = [one for one in wanted if one.protocol in _PROTOCOLS]
    lines = [
        f"table inet {table} {{}}",
        f"delete table inet {table}",
        f"table inet {table} {{",
        *_maps(served),
        *_refused(served),
        *_entry_chains(bridge),
    ]
    for one in served:
        if one.targets:
            lines += _chains(one)
    lines.append("}")
    return "\n".join(lines) + "\n"


def _family(one: Forwarding) -> str:
    return "ip" if one.family == 4 else "ip6"


def _maps(served: Iterable[Forwarding]) -> list[str]:
    lines: list[str] = []
    for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        elements = [
            f"{address} . {_PROTOCOLS[one.protocol]} . {one.port} : goto {_chain(one)}"
            for one in served
            if one.family == family and one.targets
            for address in one.addresses
        ]
        ports = [
            f"{_PROTOCOLS[one.protocol]} . {one.node_port} : goto {_chain(one)}"
            for one in served
            if one.family == family and one.targets and one.node_port
        ]
        lines += _set(f"map services{family}", f"{kind} . inet_proto . inet_service : verdict", elements)
        lines += _set(f"map nodeports{family}", "inet_proto . inet_service : verdict", ports)
    return lines


def _refused(served: Iterable[Forwarding]) -> list[str]:
    lines: list[str] = []
    for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        elements = [
            f"{address} . {_PROTOCOLS[one.protocol]} . {one.port}"
            for one in served
            if one.family == family and not one.targets
            for address in one.addresses
        ]
        lines += _set(f"set empty{family}", f"{kind} . inet_proto . inet_service", elements)
    return lines


def _set(head: str, kind: str, elements: Sequence[str]) -> list[str]:
    lines = [f"  {head} {{", f"    type {kind}"]
    unique = list(dict.fromkeys(elements))
    if unique:
        lines.append("    elements = { " + ", ".join(unique) + " }")
    lines.append("  }")
    return lines


def _entry_chains(bridge: str) -> list[str]:
    """Where packets come in. Pods' own packets are told by their interface: several planes may share a machine."""
    lines = []
    for name, hook, priority, only in (
        ("prerouting", "prerouting", "dstnat", f"iifname {bridge} "),
        ("output", "output", "-100", ""),
    ):
        lines += [
            f"  chain {name} {{",
            f"    type nat hook {hook} priority {priority}; policy accept;",
            f"    {only}ip daddr . meta l4proto . th dport vmap @services4",
            f"    {only}ip6 daddr . meta l4proto . th dport vmap @services6",
            *([f"    iifname != {bridge} fib daddr type local meta mark set meta mark | {OUTSIDE}"] if only else []),
            "    fib daddr type local meta nfproto ipv4 meta l4proto . th dport vmap @nodeports4",
            "    fib daddr type local meta nfproto ipv6 meta l4proto . th dport vmap @nodeports6",
            "  }",
        ]
    for hook, only in (("forward", f"iifname {bridge} "), ("output", "")):
        lines += [
            f"  chain refuse_{hook} {{",
            f"    type filter hook {hook} priority filter; policy accept;",
            f"    {only}ip daddr . meta l4proto . th dport @empty4 reject",
            f"    {only}ip6 daddr . meta l4proto . th dport @empty6 reject",
            "  }",
        ]
    lines += [
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        f"    oifname {bridge} meta mark & {HAIRPIN} != 0 masquerade",
        f"    oifname != {bridge} meta mark & {OUTSIDE} != 0 ct status dnat masquerade",
        "  }",
    ]
    return lines


def _chains(one: Forwarding) -> list[str]:
    lines: list[str] = []
    family = _family(one)
    for target in one.targets:
        name = _target_chain(one, target)
        lines += _affinity_set(one, name)
        lines += [
            f"  chain {name} {{",
            f"    {family} saddr {target.address} meta mark set meta mark | {HAIRPIN}",
        ]
        if one.affinity_seconds:
            lines.append(f"    update @sticky_{name} {{ {family} saddr }}")
        where = f"[{target.address}]" if one.family == 6 else target.address
        lines += [f"    meta l4proto {_PROTOCOLS[one.protocol]} dnat {family} to {where}:{target.port}", "  }"]
    lines.append(f"  chain {_chain(one)} {{")
    if one.affinity_seconds:
        for target in one.targets:
            name = _target_chain(one, target)
            lines.append(f"    {family} saddr @sticky_{name} goto {name}")
    if len(one.targets) == 1:
        lines.append(f"    goto {_target_chain(one, one.targets[0])}")
    else:
        choices = ", ".join(f"{n} : goto {_target_chain(one, t)}" for n, t in enumerate(one.targets))
        lines.append(f"    numgen random mod {len(one.targets)} vmap {{ {choices} }}")
    lines.append("  }")
    return lines


def _affinity_set(one: Forwarding, name: str) -> list[str]:
    if not one.affinity_seconds:
        return []
    kind = "ipv4_addr" if one.family == 4 else "ipv6_addr"
    return [
        f"  set sticky_{name} {{",
        f"    type {kind}",
        "    flags dynamic, timeout",
        f"    timeout {one.affinity_seconds}s",
        "  }",
    ]


def _chain(one: Forwarding) -> str:
    return "svc_" + _digest(f"{one.namespace}/{one.service}/{one.port_name}/{one.protocol}/{one.port}/{one.family}")


def _target_chain(one: Forwarding, target: Target) -> str:
    address = ipaddress.ip_address(target.address).compressed
    return "ep_" + _digest(f"{_chain(one)}/{address}/{target.port}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
