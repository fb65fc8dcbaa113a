"""A whole plane for stories about peer pods: the real server with our admission, controllers, simulated nodes and cloud.

Everything runs on a virtual clock, so waiting costs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.operators.staging import find, told_on, until, whole_plane

from fleetplane.client.protocol import Client
from fleetplane.controller import Manager
from fleetplane.model.builtin.types import CONFIG_MAPS, NODES, SECRETS
from fleetplane.model.objects import Object, condition
from fleetplane.node.fleet import FleetSettings, SimulatedFleet
from fleetplane.operators.peerpods import peer_pods
from fleetplane.operators.peerpods.kinds import VM_RESOURCE, PeerPod, PeerPodConfig
from fleetplane.operators.peerpods.orphans import Sweeping
from fleetplane.operators.peerpods.providers import PROVIDERS
from fleetplane.operators.peerpods.providers.simulated import SimulatedCloud
from fleetplane.testing import SimulatedEnvironment, TestServer

EVERY_NODE: dict[str, str] = {}


@dataclass
class Stage:
    server: TestServer
    client: Client
    environment: SimulatedEnvironment
    manager: Manager
    fleet: SimulatedFleet
    cloud: SimulatedCloud

    until = staticmethod(until)

    async def find(self, resource: Any, name: str, namespace: str | None = "default") -> Object:
        return await find(self.client, resource, name, namespace)

    async def config(self, name: str = "one", *, namespace: str = "default", **spec: Any) -> Object:
        wanted = {"metadata": {"name": name}, "spec": {"nodeSelector": EVERY_NODE, **spec}}
        return await self.client.create(PeerPodConfig, wanted, namespace)

    async def settings(self, namespace: str = "default", provider: str = "libvirt", **data: str) -> None:
        await self.client.create(
            CONFIG_MAPS, {"metadata": {"name": "peer-pods-cm"}, "data": {"CLOUD_PROVIDER": provider, **data}}, namespace
        )
        await self.client.create(SECRETS, {"metadata": {"name": "peer-pods-secret"}}, namespace)

    async def record(self, name: str = "one", *, provider: str = "simulated", **meta: Any) -> Object:
        """A wish for a VM of two CPUs."""
        spec = {"cloudProvider": provider, "vm": {"vcpus": 2, "memoryMiB": 512}}
        return await self.client.create(PeerPod, {"metadata": {"name": name, **meta}, "spec": spec}, "default")

    async def phase(self, name: str, phase: str) -> Object:
        """Wait for a record to get there; returns it."""

        async def so() -> Object | None:
            found = await self.find(PeerPod, name)
            return found if (found.get("status") or {}).get("phase") == phase else None

        try:
            found: Object = await self.until(so)
        except TimeoutError:
            raise AssertionError(str((await self.find(PeerPod, name)).get("status"))) from None
        return found

    async def capacity(self, place: str = "capacity") -> list[str]:
        """Of the resource, by node name; ``-`` where a node has none."""
        nodes = sorted((await self.client.list(NODES)).items, key=lambda one: one["metadata"]["name"])
        return [str((one["status"].get(place) or {}).get(VM_RESOURCE, "-")) for one in nodes]

    async def has(self, *shares: str) -> None:
        """Wait until capacity and allocatable are these."""

        async def so() -> bool:
            return await self.capacity() == list(shares) == await self.capacity("allocatable")

        try:
            await self.until(so)
        except TimeoutError:
            raise AssertionError(f"{await self.capacity()}, {await self.capacity('allocatable')}") from None

    async def says(
        self, type: str, status: str, *, name: str = "one", namespace: str = "default", kind: Any = PeerPodConfig
    ) -> Object:
        """Wait for a condition; returns it."""

        async def so() -> bool:
            found = condition(await self.find(kind, name, namespace), type) or {}
            return found.get("status") == status

        try:
            await self.until(so)
        except TimeoutError:
            raise AssertionError(str((await self.find(kind, name, namespace)).get("status"))) from None
        return condition(await self.find(kind, name, namespace), type) or {}

    async def gone(self, resource: Any, name: str, namespace: str | None = "default", *, timeout: float = 120) -> None:
        async def so() -> bool:
            return not await self.find(resource, name, namespace)

        try:
            await self.until(so, timeout=timeout)
        except TimeoutError:
            raise AssertionError(str(await self.find(resource, name, namespace))) from None


@asynccontextmanager
async def stage(*, seed: int = 0, nodes: int = 3) -> AsyncIterator[Stage]:
    environment = SimulatedEnvironment(seed)
    cloud = SimulatedCloud(environment)
    peerpods = peer_pods({**PROVIDERS, "simulated": cloud.factory}, sweeping=Sweeping(interval=60, grace=120))
    async with whole_plane(peerpods, environment, nodes, FleetSettings()) as made:
        yield Stage(made.server, made.client, environment, made.manager, made.fleet, cloud)


def staged(**arguments: Any) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[], None]]:
    """Make a test of a story that wants a stage."""
    return told_on(stage, **arguments)
