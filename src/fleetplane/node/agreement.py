"""Which pod networks a node gets: agreed on with the control plane by way of its Node object.

The Node's ``podCIDRs`` decide. A node without a memory of its own proposes networks by creating its Node with them; the
store refuses what another node has (``model.pod_networks``), and it proposes others. If its Node is there already, it has
those networks. So two nodes that join at the same moment cannot come to the same, and a node that lost its directory is
still reached by the routes of the others.

A control plane that is away keeps no node from starting: then it chooses alone, and hears at its registration if another
has the same (``Refused``).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from fleetplane.client.protocol import Client
from fleetplane.model import objects
from fleetplane.model.builtin.types import NODES
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.networks import Network
from fleetplane.model.objects import Object
from fleetplane.model.pod_networks import refused
from fleetplane.node.network import Agree, Choose
from fleetplane.node.registration import NodeDescription, node_object

SECONDS: Final = 5.0
PROPOSALS: Final = 64

_log = logging.getLogger(__name__)


class Refused(Exception):
    """Another node has a pod network of this one, which registers too late."""


def agreement(client: Client, environment: Environment, node: NodeDescription) -> Agree:
    """``node`` is what to say of this one while it is being set up: it takes no pods yet."""
    unready = replace(node, unhealthy={"Ready": ("KubeletNotReady", "the node is being set up")})

    async def agree(choose: Choose) -> tuple[Network, ...]:
        try:
            async with asyncio.timeout(SECONDS):
                return await _propose(client, environment, unready, choose)
        except (ApiError, OSError, TimeoutError) as error:
            _log.warning("this node chooses its pod networks alone: %s", str(error) or "the control plane is silent")
            return choose((), ())

    return agree


async def _propose(
    client: Client, environment: Environment, node: NodeDescription, choose: Choose
) -> tuple[Network, ...]:
    others: set[Network] = set()
    for _ in range(PROPOSALS):
        nodes = (await client.list(NODES)).items
        own = [one for one in nodes if objects.name(one) == node.name]
        others |= set(_networks(one for one in nodes if objects.name(one) != node.name))
        before = _networks(own)
        chosen = choose(before, sorted(others, key=str))
        if own:
            if before and chosen != tuple(before):
                _log.error(
                    "Node %s says that its pods are in %s, which cannot be used here: delete the Node, it registers anew",
                    node.name,
                    ", ".join(map(str, before)),
                )
            return chosen
        proposed = replace(node, pod_networks=tuple(map(str, chosen)))
        try:
            await client.create(NODES, node_object(proposed, environment.now()))
        except ApiError as error:
            if error.reason == "AlreadyExists":
                continue
            if not (taken := refused(error)):
                raise
            others |= set(map(ipaddress.ip_network, taken))
        else:
            return chosen
    raise ApiError(409, "every proposal was somebody else's")


def _networks(nodes: Iterable[Object]) -> list[Network]:
    """What is not written as a network is left out."""
    found: list[Network] = []
    for node in nodes:
        for text in (node.get("spec") or {}).get("podCIDRs") or ():
            try:
                found.append(ipaddress.ip_network(text))
            except ValueError:
                continue
    return found
