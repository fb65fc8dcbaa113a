"""Runtimes that others bring to a node: found by the entry-point group ``fleetplane.node``, each for one RuntimeClass handler.

A plug-in is named after its handler. It is asked once, when the node opens its own container runtime, and gets what that node
has to share: images, the pods' network, and folders. What it makes stands beside the node's own runtime (``RoutedRuntime``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol

from fleetplane.model.environment import Environment
from fleetplane.node.network import PodNetwork
from fleetplane.node.runtime import ContainerRuntime

GROUP: Final = "fleetplane.node"


@dataclass(frozen=True, slots=True)
class Beside:
    """What a node shares with its plug-ins.

    Attributes:
        runtime: The node's own.
        instance: Which of several nodes on this machine it is.
        directory: The node's folder on disk; what pods mount of their own is below it, or below ``volatile``.
        volatile: A folder with a short path, for sockets; gone after the machine restarts.
    """

    runtime: ContainerRuntime
    network: PodNetwork
    environment: Environment
    instance: str
    directory: Path
    volatile: Path


class NodePlugin(Protocol):
    def open(self, beside: Beside) -> ContainerRuntime | None:
        """The runtime for the handler; ``None`` where there can be none beside this node's own."""

    async def remove(self, volatile: Path) -> None:
        """Remove everything it made for a node whose volatile folder this is, and that is gone for good."""


def node_plugins() -> Mapping[str, NodePlugin]:
    """Those installed, by handler."""
    found = sorted(entry_points(group=GROUP), key=lambda one: one.name)
    return {one.name: one.load() for one in found}


def opened(beside: Beside) -> dict[str, ContainerRuntime]:
    made = {handler: plugin.open(beside) for handler, plugin in node_plugins().items()}
    return {handler: runtime for handler, runtime in made.items() if runtime is not None}


async def remove_plugged(volatile: Path) -> None:
    for plugin in node_plugins().values():
        await plugin.remove(volatile)
