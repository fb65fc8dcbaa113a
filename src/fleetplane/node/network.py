"""The network of a node's pods.

``BridgeNetwork`` gives each pod a network namespace of its own, a veth pair into one bridge, and an address of each
of the node's pod networks; what leaves the node is masqueraded by nftables. It needs root and the programs ``ip`` and
``nft``, and no other software. Where it cannot work, ``HostNetwork`` lets pods share the host's network.

The kernel is the memory: namespaces are named after their pods, so after a restart of the agent they are simply found
again; after a restart of the machine they are gone, and the pods get new ones.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import json
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fleetplane.model.networks import Network, is_within, overlap
from fleetplane.node.addresses import AddressesExhausted, AddressPool
from fleetplane.node.files import read_json, write_private
from fleetplane.node.host_ports import HostPorts
from fleetplane.node.processes import CommandFailure, run_command
from fleetplane.node.runtime import PortMapping, RuntimeFailure

NAMESPACES = Path("/run/netns")
SUBNET_PREFIX = {4: 24, 6: 80}
NO_LINK_ADDRESS = "00:00:00:00:00:00"
_CHOOSING_TRIES = 500
_CHOOSING_SECONDS = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A pod's place in the network. ``namespace`` is the path of its network namespace, empty for the host's."""

    namespace: str = ""
    addresses: tuple[str, ...] = ()


class PodNetwork(Protocol):
    """``key`` names a sandbox: letters, digits and dashes only."""

    @property
    def networks(self) -> tuple[str, ...]:
        """The node's own pod networks, for its ``podCIDRs``."""

    @property
    def gateways(self) -> tuple[str, ...]:
        """The node's addresses in them."""

    @property
    def bridge(self) -> str:
        """The interface pods' traffic comes in by; empty where they have no network of their own."""

    async def start(self) -> None:
        """Have what all pods share. Raises RuntimeFailure."""

    async def attach(self, key: str, ports: Sequence[PortMapping] = ()) -> Attachment:
        """``ports`` are ports of the host that lead to this pod. Raises RuntimeFailure."""

    async def detach(self, key: str) -> None: ...

    def attached(self) -> Mapping[str, Attachment]:
        """What there is, also from before a restart."""

    async def stop(self, *, remove: bool = False) -> None:
        """``remove`` also takes down what pods share."""


class HostNetwork:
    """Pods use the host's network; nothing to set up."""

    networks: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    bridge: str = ""

    async def start(self) -> None:
        return

    async def attach(self, key: str, ports: Sequence[PortMapping] = ()) -> Attachment:
        return Attachment()

    async def detach(self, key: str) -> None:
        return

    def attached(self) -> Mapping[str, Attachment]:
        return {}

    async def stop(self, *, remove: bool = False) -> None:
        return


def why_no_bridge() -> str:
    """Why pods cannot have a network of their own here; empty when they can."""
    if os.geteuid() != 0:
        return "pods share the host's network: setting up one of their own needs root"
    missing = [name for name in ("ip", "nft") if not shutil.which(name, path=PATH)]
    if missing:
        return f"pods share the host's network: install {' and '.join(missing)} to give them one of their own"
    return ""


PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin"])


Choose = Callable[[Sequence[Network], Sequence[Network]], tuple[Network, ...]]
"""From the networks a node had (which it keeps if it can) and those of others, the networks to have. Raises ValueError."""
Agree = Callable[[Choose], Awaitable[tuple[Network, ...]]]
"""Chooses, and returns what nobody else has chosen."""


def choose_networks(wanted: Sequence[str], used: Iterable[Network], start: int = 0) -> tuple[Network, ...]:
    """A part of each wanted network (a /24, or a /80) that overlaps nothing in use. Raises ValueError.

    ``start`` is where to begin to look, as a number of any size: machines that choose at the same moment differ in it.
    """
    taken = list(used)
    chosen: list[Network] = []
    for text in wanted:
        network = ipaddress.ip_network(text.strip())
        prefix = max(network.prefixlen, SUBNET_PREFIX[network.version])
        count = 1 << (prefix - network.prefixlen)
        for number in range(min(count, 4096)):
            candidate = _part(network, prefix, (start + number) % count)
            if not any(overlap(candidate, one) for one in taken):
                chosen.append(candidate)
                break
        else:
            raise ValueError(f"no free part of the pod network {network} is left on this machine")
    return tuple(chosen)


def _part(network: Network, prefix: int, number: int) -> Network:
    first = int(network.network_address) + (number << (network.max_prefixlen - prefix))
    made: Network = type(network)((first, prefix))
    return made


def _parts(networks: Sequence[Network], wanted: Sequence[Network]) -> bool:
    """Whether these are a part of each wanted network, in the same order."""
    return len(networks) == len(wanted) and all(
        is_within(one, whole) for one, whole in zip(networks, wanted, strict=True)
    )


class BridgeNetwork:
    """See the module. ``instance`` keeps several agents on one machine apart.

    ``kept`` is a file that remembers the networks over restarts of the machine, because a node's do not change; ``agree``
    sees to it that no other node has them too, when this one chooses for the first time.
    """

    def __init__(
        self,
        instance: str,
        wanted: Sequence[str],
        kept: Path | None = None,
        agree: Agree | None = None,
    ) -> None:
        self._kept = kept
        self._agree = agree
        self._peers: tuple[str, ...] = ()
        self._wanted = [text for text in wanted if text.strip()]
        self.bridge = self._bridge = f"fp{instance[:10]}"
        self._prefix = f"fp{instance[:10]}-"
        self._table = f"fleetplane_{instance[:10]}"
        self._ip = shutil.which("ip", path=PATH) or "ip"
        self._nft = shutil.which("nft", path=PATH) or "nft"
        self._ports = HostPorts(f"fleetplane_ports_{instance[:10]}", self._nft)
        self._pool = AddressPool([])
        self._attached: dict[str, Attachment] = {}

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(str(network) for network in self._pool.networks)

    @property
    def gateways(self) -> tuple[str, ...]:
        return tuple(str(network.network_address + 1) for network in self._pool.networks)

    async def start(self) -> None:
        try:
            async with _choosing():
                networks = await self._existing_networks()
                if not networks:
                    networks = await self._chosen()
                    await self._make_bridge(networks)
            await self._keep_link_address()
            self._pool = AddressPool(networks)
            await self._masquerade()
            await self._ports.start(self._bridge)
            await self._find_attached()
        except (CommandFailure, ValueError, OSError) as error:
            raise RuntimeFailure(f"the pod network cannot be set up: {error}") from error

    async def _chosen(self) -> tuple[Network, ...]:
        """The networks of an earlier start where they are still free, else new ones."""
        used = await self._used_networks()
        if self._kept is not None and (known := await asyncio.to_thread(read_json, self._kept)) is not None:
            found = tuple(ipaddress.ip_network(one) for one in known.get(",".join(self._usable())) or ())
            if found and not any(overlap(one, other) for one in found for other in used):
                return found
        # Others may choose at this very moment: begin somewhere else than they.
        number = int.from_bytes(hashlib.sha256(self._bridge.encode()).digest()[:6], "big")
        start = 0 if self._agree is None else number

        def choose(own: Sequence[Network], others: Sequence[Network]) -> tuple[Network, ...]:
            wanted = [ipaddress.ip_network(one) for one in self._usable()]
            if own and _parts(own, wanted) and not any(overlap(one, other) for one in own for other in used):
                return tuple(own)
            return choose_networks(self._usable(), [*used, *others], start)

        networks = choose((), ()) if self._agree is None else await self._agree(choose)
        if self._kept is not None:
            made = {",".join(self._usable()): [str(one) for one in networks]}
            await asyncio.to_thread(write_private, self._kept, json.dumps(made).encode())
        return networks

    async def set_peers(self, networks: Sequence[str]) -> None:
        """Pod networks of other nodes: pods show their own addresses there. Raises CommandFailure."""
        if tuple(networks) != self._peers:
            self._peers = tuple(networks)
            await self._masquerade()

    def _usable(self) -> list[str]:
        """Without IPv6 in the kernel, only the IPv4 networks."""
        if Path("/proc/net/if_inet6").exists():
            return self._wanted
        return [text for text in self._wanted if ":" not in text]

    async def _existing_networks(self) -> tuple[Network, ...]:
        """The networks of our bridge, if it is there: order as wanted."""
        if self._bridge not in _interfaces():
            return ()
        shown = json.loads(await run_command([self._ip, "-json", "addr", "show", "dev", self._bridge]) or b"[]")
        found: list[Network] = []
        for entry in shown[0].get("addr_info") or []:
            if entry.get("scope") == "global":
                interface = ipaddress.ip_interface(f"{entry['local']}/{entry['prefixlen']}")
                found.append(interface.network)
        versions = [ipaddress.ip_network(text).version for text in self._usable()]
        return tuple(sorted(found, key=lambda network: versions.index(network.version)))

    async def _used_networks(self) -> list[Network]:
        used: list[Network] = []
        for family in ("-4", "-6"):
            routes = json.loads(await run_command([self._ip, "-json", family, "route", "show"]) or b"[]")
            for route in routes:
                try:
                    used.append(ipaddress.ip_network(route.get("dst", "")))
                except ValueError:
                    continue  # "default" and the like
        return used

    async def _make_bridge(self, networks: Sequence[Network]) -> None:
        lines = [f"link add {self._bridge} address {_link_address(self._bridge)} type bridge"]
        for network in networks:
            gateway = f"{network.network_address + 1}/{network.prefixlen}"
            lines.append(f"addr add {gateway} dev {self._bridge}" + (" nodad" if network.version == 6 else ""))
        lines.append(f"link set {self._bridge} up")
        await self._batch(lines)
        for path in (
            "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/net/ipv6/conf/all/forwarding",
            f"/proc/sys/net/ipv4/conf/{self._bridge}/route_localnet",
        ):
            await asyncio.to_thread(_write_one, Path(path))

    async def _keep_link_address(self) -> None:
        """Else a bridge takes the lowest of its ports', so that each new pod may cut off those that know the old one."""
        shown = json.loads(await run_command([self._ip, "-json", "link", "show", "dev", self._bridge]))
        current = shown[0].get("address", NO_LINK_ADDRESS)
        if current == NO_LINK_ADDRESS:
            current = _link_address(self._bridge)
        await run_command([self._ip, "link", "set", "dev", self._bridge, "address", current])

    async def _masquerade(self) -> None:
        """One table of ours, replaced as a whole, so that starting twice changes nothing."""
        rules = []
        for network in self._pool.networks:
            family = "ip" if network.version == 4 else "ip6"
            near = [network, *(one for one in map(ipaddress.ip_network, self._peers) if one.version == network.version)]
            merged = ipaddress.collapse_addresses(near)  # type: ignore[type-var]
            where = ", ".join(str(one) for one in merged)
            rules.append(f"    {family} saddr {network} {family} daddr != {{ {where} }} masquerade")
        text = "\n".join(
            [
                f"table inet {self._table} {{}}",
                f"delete table inet {self._table}",
                f"table inet {self._table} {{",
                "  chain postrouting {",
                "    type nat hook postrouting priority srcnat; policy accept;",
                *rules,
                "  }",
                "  chain output {",
                "    type filter hook output priority filter; policy accept;",
                # Pods must go on talking through the node: never tell them of a shorter way.
                f"    oifname {self._bridge} icmp type redirect drop",
                f"    oifname {self._bridge} icmpv6 type nd-redirect drop",
                "  }",
                "  chain prerouting {",
                "    type filter hook prerouting priority raw; policy accept;",
                # The node's loopback is open to pods where a Service leads there, and nowhere else.
                f"    iifname {self._bridge} ip daddr 127.0.0.0/8 drop",
                "  }",
                "}",
            ]
        )
        await run_command([self._nft, "-f", "-"], stdin=text.encode())

    async def _find_attached(self) -> None:
        for name in _names_in(NAMESPACES):
            if not name.startswith(self._prefix):
                continue
            key = name.removeprefix(self._prefix)
            try:
                shown = await run_command([self._ip, "-json", "-n", name, "addr", "show", "dev", "eth0"])
            except CommandFailure:
                await self._drop_namespace(name)
                continue
            addresses = self._in_order(
                [one["local"] for one in json.loads(shown)[0].get("addr_info") or [] if one.get("scope") == "global"]
            )
            self._pool.reserve(key, addresses)
            self._attached[key] = Attachment(str(NAMESPACES / name), addresses)

    def _in_order(self, addresses: Sequence[str]) -> tuple[str, ...]:
        parsed = [ipaddress.ip_address(address) for address in addresses]
        return tuple(str(one) for network in self._pool.networks for one in parsed if one in network)

    async def attach(self, key: str, ports: Sequence[PortMapping] = ()) -> Attachment:
        if (known := self._attached.get(key)) is not None:
            return known
        name = self._prefix + key
        try:
            addresses = self._pool.take(key)
        except AddressesExhausted as error:
            raise RuntimeFailure(str(error)) from error
        try:
            await run_command([self._ip, "netns", "add", name])
            await self._wire(name, addresses)
            if ports:
                await self._ports.open(addresses, ports)
        except CommandFailure as error:
            self._pool.give_back(key)
            await self._drop_namespace(name)
            raise RuntimeFailure(f"failed to set up the pod's network: {error}") from error
        made = Attachment(str(NAMESPACES / name), addresses)
        self._attached[key] = made
        return made

    async def _wire(self, name: str, addresses: Sequence[str]) -> None:
        outside = _interface_name(name)
        await self._batch(
            [
                f"link add {outside} type veth peer name eth0 netns {name}",
                f"link set {outside} master {self._bridge} up",
            ]
        )
        # Each pod is alone on its network and knows only the way to its gateway: then traffic between pods passes the
        # node's routing too, and what Services translate on the way there is translated back on the way home.
        lines = ["link set lo up"]
        for address, network in zip(addresses, self._pool.networks, strict=True):
            lines.append(
                f"addr add {address}/32 dev eth0" if network.version == 4 else f"addr add {address}/128 dev eth0 nodad"
            )
        lines.append("link set eth0 up")
        for network in self._pool.networks:
            gateway = network.network_address + 1
            lines.append(f"route add {gateway} dev eth0")
            lines.append(f"route add default via {gateway} dev eth0")
        await self._batch(lines, namespace=name)

    async def _batch(self, lines: Sequence[str], namespace: str = "") -> None:
        where = ["-n", namespace] if namespace else []
        await run_command([self._ip, *where, "-batch", "-"], stdin="\n".join([*lines, ""]).encode())

    async def detach(self, key: str) -> None:
        attachment = self._attached.pop(key, None)
        if attachment is not None:
            await self._ports.close(attachment.addresses)
            await self._drop_namespace(self._prefix + key)
            self._pool.give_back(key)

    async def _drop_namespace(self, name: str) -> None:
        """Its end of the veth pair goes with it; ours first, as the kernel takes its time over namespaces."""
        try:
            outside = _interface_name(name)
            if outside in _interfaces():
                await run_command([self._ip, "link", "delete", outside])
            await run_command([self._ip, "netns", "delete", name])
        except CommandFailure as error:
            if name in _names_in(NAMESPACES):
                _log.warning("a pod's network namespace is left over: %s", error)

    def attached(self) -> Mapping[str, Attachment]:
        return dict(self._attached)

    async def stop(self, *, remove: bool = False) -> None:
        if not remove:
            return
        for key in list(self._attached):
            await self.detach(key)
        await self.remove_all()

    async def remove_all(self) -> None:
        """Take down everything named after this instance, whether this object knows of it or not."""
        for name in _names_in(NAMESPACES):
            if name.startswith(self._prefix):
                await self._drop_namespace(name)
        for words in (
            [self._ip, "link", "delete", self._bridge],
            [self._nft, "delete", "table", "inet", self._table],
            [self._nft, "delete", "table", "inet", self._ports.table],
        ):
            try:
                await run_command(words)
            except CommandFailure as error:
                _log.info("pod network not removed: %s", error)


@asynccontextmanager
async def _choosing() -> AsyncIterator[None]:
    """One agent at a time, of all that share this network: two that look at the same moment would choose the same.

    An abstract socket's name belongs to a network namespace, as bridges do, and ends with the process that holds it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        for _ in range(_CHOOSING_TRIES):
            try:
                held.bind("\0fleetplane-pod-networks")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                await asyncio.sleep(_CHOOSING_SECONDS)
        else:
            _log.warning(
                "another agent of this machine has been choosing its pod networks for long; not waiting for it"
            )
        yield


def _link_address(bridge: str) -> str:
    """One of the locally administered addresses of IEEE 802."""
    return "02:" + hashlib.sha256(bridge.encode()).digest()[:5].hex(":")


def _interface_name(namespace: str) -> str:
    """The node's end of a pod's veth pair; Linux allows 15 letters. Pods of the same name on two agents differ."""
    return "v" + hashlib.sha256(namespace.encode()).hexdigest()[:14]


def _names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []


def _interfaces() -> list[str]:
    return _names_in(Path("/sys/class/net"))


def _write_one(path: Path) -> None:
    if path.exists() and path.read_text().strip() != "1":
        path.write_text("1")


def pod_network(
    instance: str,
    wanted: Sequence[str],
    kept: Path | None = None,
    agree: Agree | None = None,
) -> tuple[PodNetwork, str]:
    """The best network this host allows, and why it is not a better one."""
    reason = why_no_bridge()
    network: Any = HostNetwork() if reason else BridgeNetwork(instance, wanted, kept, agree)
    return network, reason
