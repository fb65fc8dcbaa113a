"""The nodes a plane runs in its own process: this machine on Podman, or simulated ones.

Loaded by planes that have nodes, and by no others: all that runs containers comes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fleetplane.apiserver.streaming.protocol import PodStreams
from fleetplane.apiserver.usage import NodeUsage
from fleetplane.client.informer import Informer
from fleetplane.client.rest import RestClient
from fleetplane.local_streams import LocalStreams
from fleetplane.model.environment import Environment
from fleetplane.model.user import MASTERS_GROUP, UserInfo
from fleetplane.node.agent import NodeAgent
from fleetplane.node.fleet import SimulatedFleet
from fleetplane.node.local import choose_runtime, remove_local_node
from fleetplane.settings import Settings
from fleetplane.this_machine import ThisMachine

_WAIT_FOR_NODES = 100
_SIMULATED_PREFIX = "sim-"
FLEET_USER = UserInfo("fleetplane:simulated-nodes", groups=(MASTERS_GROUP, "system:authenticated"))


class LocalNodes:
    """``client_as`` gives clients of the plane's server; each node acts under an identity of its own.

    ``machine`` is this machine's node where it has begun already; ``pods`` the plane's informer of pods, for simulated nodes.
    """

    def __init__(
        self,
        settings: Settings,
        client_as: Callable[[UserInfo], RestClient],
        environment: Environment,
        machine: ThisMachine | None = None,
        pods: Informer | None = None,
    ) -> None:
        self._machine = machine
        self._pods = pods
        self._settings = settings
        self._client_as = client_as
        self._environment = environment
        self._streams: dict[str, PodStreams] = {}
        self._simulated: PodStreams | None = None
        self._measured: list[NodeAgent | SimulatedFleet] = []

    async def start(self, start_task: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Start them as tasks, which raise PlaneError, and wait for up to a hundred of them to be registered."""
        runtime, _reason = choose_runtime(self._settings.runtime)
        if runtime in {"podman", "cri"}:
            await self._start_this_machine(start_task)
        elif runtime == "simulated":
            await self._start_simulated(start_task)

    def streams_of(self, node: str) -> PodStreams | None:
        if self._simulated is not None and node.startswith(_SIMULATED_PREFIX):
            return self._simulated
        return self._streams.get(node)

    async def usage_of(self, node: str) -> NodeUsage | None:
        for one in self._measured:
            usage = await one.node_usage(node)
            if usage is not None:
                return usage
        return None

    async def _start_simulated(self, start_task: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        fleet = SimulatedFleet(self._client_as(FLEET_USER), self._settings.nodes, self._environment, pods=self._pods)
        start_task(fleet.run())
        self._simulated = LocalStreams(fleet.streams)
        self._measured.append(fleet)
        if self._settings.nodes <= _WAIT_FOR_NODES:
            await fleet.ready.wait()

    async def _start_this_machine(self, start_task: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        machine = self._machine or ThisMachine(self._settings, self._environment)
        machine.connect(lambda user: self._client_as(user).transport)
        start_task(machine.run())
        agent = await machine.ready
        self._streams[machine.name] = LocalStreams(agent.streams)
        self._measured.append(agent)


async def remove_local_nodes(settings: Settings, environment: Environment) -> None:
    """Remove what local nodes left on the machine. For planes that are thrown away, once they have stopped."""
    for directory in sorted((settings.data_dir / "nodes").glob("*")):
        await remove_local_node(directory, environment)
