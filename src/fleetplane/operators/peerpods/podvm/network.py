"""A VM in a pod's place in the network: a tap beside the pod's interface, each handing on what the other receives.

So the VM has the pod's own address and hardware address, and everything around (Services, names, host ports) is as for any pod.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetplane.node.network import PATH, Attachment
from fleetplane.node.processes import CommandFailure, run_command
from fleetplane.node.runtime import RuntimeFailure

TAP: Final = "tap0"
_INTERFACE: Final = "eth0"


@dataclass(frozen=True, slots=True)
class Place:
    """What a VM is told of its network. ``routes`` are words for ``ip``."""

    namespace: str = ""
    mac: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()
    routes: tuple[tuple[str, ...], ...] = ()


async def place_for_vm(attachment: Attachment) -> Place:
    """Make the tap where there is none yet. Raises RuntimeFailure."""
    if not attachment.namespace:
        return Place()
    name = Path(attachment.namespace).name
    ip, tc = (shutil.which(one, path=PATH) for one in ("ip", "tc"))
    if ip is None or tc is None:
        raise RuntimeFailure("a pod VM's network takes the programs ip and tc; install iproute2")
    try:
        links = {one["ifname"]: one for one in json.loads(await run_command([ip, "-json", "-n", name, "link", "show"]))}
        if TAP not in links:
            await run_command([ip, "-n", name, "tuntap", "add", "dev", TAP, "mode", "tap"])
            await run_command([ip, "-n", name, "link", "set", TAP, "mtu", str(links[_INTERFACE]["mtu"]), "up"])
        for here, there in ((_INTERFACE, TAP), (TAP, _INTERFACE)):
            await run_command([tc, "-n", name, "qdisc", "replace", "dev", here, "ingress"])
            rule = [
                "filter",
                "replace",
                "dev",
                here,
                "parent",
                "ffff:",
                "protocol",
                "all",
                "prio",
                "1",
                "handle",
                "800::800",
            ]
            matching = ["u32", "match", "u8", "0", "0", "action", "mirred", "egress", "redirect", "dev", there]
            await run_command([tc, "-n", name, *rule, *matching])
        routes: list[dict[str, Any]] = []
        for family in ("-4", "-6"):
            routes += json.loads(await run_command([ip, "-json", family, "-n", name, "route", "show"]) or b"[]")
    except (CommandFailure, KeyError, ValueError) as error:
        raise RuntimeFailure(f"the pod VM's network cannot be set up: {error}") from None
    link = links[_INTERFACE]
    own = tuple(f"{one}/{ipaddress.ip_address(one).max_prefixlen}" for one in attachment.addresses)
    return Place(
        attachment.namespace, str(link["address"]), int(link["mtu"]), own, _routes(routes, attachment.addresses)
    )


def _routes(found: Sequence[dict[str, Any]], own: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The ways to the gateways first, then those by them."""
    direct, onward = [], []
    for route in found:
        destination, gateway = str(route.get("dst") or ""), route.get("gateway")
        if (
            route.get("dev") != _INTERFACE
            or destination in own
            or destination.startswith(("fe80", "ff00", "multicast"))
        ):
            continue
        if gateway:
            family = ["-6"] if ":" in str(gateway) else []
            onward.append((*family, "route", "add", destination, "via", str(gateway), "dev", _INTERFACE))
        else:
            family = ["-6"] if ":" in destination else []
            direct.append((*family, "route", "add", destination, "dev", _INTERFACE))
    return (*direct, *onward)
