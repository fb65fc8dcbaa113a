"""Routes from this node to the pods of others: each node's pod networks by way of that node's address.

A node that stands in the same network as ours is its pods' gateway; where a router is between, that router would have to
know them, so nothing is done and it is said once. The kernel is the memory: our routes carry a protocol number and, as
metric, a number of this instance, and what is not wanted any more is removed whoever made it. Routes stay when the agent
ends, as pods do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.model import objects
from fleetplane.model.builtin.types import NODES
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.schema.formats import is_ip
from fleetplane.node.network import PATH, BridgeNetwork
from fleetplane.node.processes import CommandFailure, run_command

PROTOCOL: Final = "214"
GATHER_SECONDS: Final = 0.2
RETRY_SECONDS: Final = 5.0
CHECK_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node: its own addresses and the networks of its pods."""

    name: str
    addresses: tuple[str, ...]
    networks: tuple[str, ...]

    def ways(self) -> list[tuple[str, str]]:
        """Each of its networks with the first of its addresses of the same family."""
        found = []
        for network in self.networks:
            version = ipaddress.ip_network(network).version
            via = [one for one in self.addresses if ipaddress.ip_address(one).version == version]
            if via:
                found.append((network, via[0]))
        return found


def peers_of(nodes: Iterable[Object], own: str) -> list[Peer]:
    """The other nodes, by name; what is not written as addresses is left out."""
    found = []
    for node in nodes:
        name = objects.name(node)
        if name == own:
            continue
        addresses = [
            str(one.get("address"))
            for one in (node.get("status") or {}).get("addresses") or []
            if one.get("type") == "InternalIP"
        ]
        networks = [str(one) for one in (node.get("spec") or {}).get("podCIDRs") or []]
        found.append(Peer(name, tuple(filter(is_ip, addresses)), tuple(filter(_is_network, networks))))
    return sorted(found, key=lambda peer: peer.name)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def metric_of(instance: str) -> str:
    """What tells the routes of several agents on one machine apart."""
    return str(1024 + int.from_bytes(instance.encode()[:8], "big") % 60_000)


class NodeRoutes:
    """See the module. ``run`` until cancelled."""

    def __init__(
        self, client: Client, environment: Environment, name: str, instance: str, network: BridgeNetwork
    ) -> None:
        self._nodes = Informer(client, NODES, environment, decoded_limit=10_000)
        self._name = name
        self._metric = metric_of(instance)
        self._network = network
        self._ip = shutil.which("ip", path=PATH) or "ip"
        self._changed = asyncio.Event()
        self._beyond: set[str] = set()

    async def run(self) -> None:
        self._nodes.add_handler(lambda _: self._changed.set())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run())
            await self._nodes.wait_synced()
            while True:
                self._changed.clear()
                try:
                    await self._write(peers_of(self._nodes.list(), self._name))
                except CommandFailure as error:
                    _log.error("the routes to other nodes' pods were not written: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                # Also from time to time: somebody may have taken the link down and up again, which forgets routes.
                try:
                    async with asyncio.timeout(CHECK_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(GATHER_SECONDS)

    async def _write(self, peers: Sequence[Peer]) -> None:
        wanted: dict[str, str] = {}
        own = set(self._network.networks)
        for peer in peers:
            for network, via in peer.ways():
                if own & {network}:
                    self._say_once(f"node {peer.name} has the same pod network as this one: {network}")
                elif await self._is_beside(via):
                    wanted[network] = via
                elif not await self._is_local(via):
                    self._say_once(
                        f"the pods of node {peer.name} ({network}) are not reached: {via} is behind a router"
                    )
        present = await self._present()
        await self._network.set_peers(sorted({network for peer in peers for network in peer.networks}))
        for network, via in sorted(wanted.items()):
            if present.get(network) != via:
                await run_command([self._ip, "route", "replace", network, "via", via, *self._ours()])
        for network in sorted(present.keys() - wanted.keys()):
            await run_command([self._ip, "route", "delete", network, *self._ours()])

    def _ours(self) -> list[str]:
        return ["proto", PROTOCOL, "metric", self._metric]

    async def _present(self) -> dict[str, str]:
        return await routes_of(self._ip, self._metric)

    async def _route_to(self, address: str) -> Mapping[str, Any]:
        try:
            found = json.loads(await run_command([self._ip, "-json", "route", "get", address]) or b"[]")
        except (CommandFailure, ValueError):
            return {"gateway": "unreachable"}
        return found[0] if found else {"gateway": "unreachable"}

    async def _is_beside(self, address: str) -> bool:
        route = await self._route_to(address)
        return "gateway" not in route and route.get("type", "unicast") == "unicast" and route.get("dev") != "lo"

    async def _is_local(self, address: str) -> bool:
        """Another node of this very machine: its bridge is the way already."""
        route = await self._route_to(address)
        return route.get("type") == "local" or route.get("dev") == "lo"

    def _say_once(self, words: str) -> None:
        if words not in self._beyond:
            self._beyond.add(words)
            _log.warning("%s", words)


async def routes_of(ip: str, metric: str) -> dict[str, str]:
    """Our routes: network and gateway. Raises CommandFailure."""
    found = {}
    for family in ("-4", "-6"):
        shown = json.loads(await run_command([ip, "-json", family, "route", "show", "proto", PROTOCOL]) or b"[]")
        for route in shown:
            if str(route.get("metric")) == metric and route.get("gateway"):
                network = str(route["dst"])
                found[network if "/" in network else str(ipaddress.ip_network(network))] = str(route["gateway"])
    return found


async def remove_routes(instance: str) -> None:
    """Take them away: for a node that is given up."""
    ip = shutil.which("ip", path=PATH) or "ip"
    metric = metric_of(instance)
    try:
        for network in await routes_of(ip, metric):
            await run_command([ip, "route", "delete", network, "proto", PROTOCOL, "metric", metric])
    except CommandFailure as error:
        _log.info("routes to other nodes' pods are left over: %s", error)
