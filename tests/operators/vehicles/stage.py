"""A whole plane for stories about vehicles: the real server with our admission, the built-in controllers, simulated nodes.

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
from fleetplane.model.builtin.types import PODS
from fleetplane.model.objects import Object, condition
from fleetplane.model.user import UserInfo
from fleetplane.node.fleet import FleetSettings, SimulatedFleet
from fleetplane.operators.vehicles import OPERATOR
from fleetplane.operators.vehicles.kinds import DevRes, VehContainerConfig, VehDeployment, VehPod
from fleetplane.operators.vehicles.scheduling import Criticality
from fleetplane.testing import SimulatedEnvironment, TestServer
from fleetplane.workloads.scheduler.plugins import Plugins

DEVELOPER = UserInfo("developer", groups=("system:authenticated",))


@dataclass
class Stage:
    server: TestServer
    client: Client
    environment: SimulatedEnvironment
    manager: Manager
    fleet: SimulatedFleet

    until = staticmethod(until)

    async def pod(self, name: str, namespace: str = "system-application") -> Object | None:
        return await find(self.client, PODS, name, namespace) or None

    async def pods(self, namespace: str = "system-application") -> list[Object]:
        return (await self.client.list(PODS, namespace)).items

    async def phase(self, name: str, kind: Any = VehPod) -> str:
        return str(((await self.client.get(kind, name, "default")).get("status") or {}).get("phase") or "")

    async def running(self, name: str, kind: Any = VehPod) -> None:
        async def runs() -> bool:
            return await self.phase(name, kind) == "Running"

        await self.until(runs)

    async def condition(self, name: str, type: str, kind: Any = VehPod) -> Object:
        return condition(await self.client.get(kind, name, "default"), type) or {}

    async def says(self, name: str, type: str, status: str, kind: Any = VehPod) -> Object:
        async def so() -> bool:
            return (await self.condition(name, type, kind)).get("status") == status

        await self.until(so)
        return await self.condition(name, type, kind)

    def runs(self, pod: Object) -> bool:
        """Whether a container of the pod executes on its node right now: neither ended nor frozen."""
        found = self.fleet.runtime._by_pod.get(pod["metadata"]["uid"], {})
        return any(one.phase == "running" for one in found.values())

    def crash(self, pod: Object, code: int = 1) -> None:
        """End a pod's containers on its node, as a fault would."""
        for container in list(self.fleet.runtime._by_pod.get(pod["metadata"]["uid"], {})):
            self.fleet.runtime.crash(container, code)


@asynccontextmanager
async def stage(*, seed: int = 0, nodes: int = 2, settings: FleetSettings | None = None) -> AsyncIterator[Stage]:
    environment = SimulatedEnvironment(seed)
    options = {"scheduler_plugins": Plugins.of([Criticality()])}
    async with whole_plane(OPERATOR, environment, nodes, settings, lambda _: options) as made:
        yield Stage(made.server, made.client, environment, made.manager, made.fleet)


def staged(**arguments: Any) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[], None]]:
    """Make a test of a story that wants a stage."""
    return told_on(stage, **arguments)


def device(name: str, path: Any = "/dev/video0", **more: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"devType": "front-camera", "path": path, **more}}


def config(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": spec}


def pod_spec(**more: Any) -> Object:
    return {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "app:1"}], **more}


def veh_pod(name: str, app_type: str = "system", **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"appType": app_type, "podSpec": pod_spec(), **spec}}


def veh_deployment(name: str, policy: str, app_type: str = "system", **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"appType": app_type, "deploymentPolicy": policy, "podSpec": pod_spec(), **spec},
    }


__all__ = [
    "DEVELOPER",
    "DevRes",
    "Stage",
    "VehContainerConfig",
    "VehDeployment",
    "VehPod",
    "config",
    "device",
    "pod_spec",
    "stage",
    "staged",
    "veh_deployment",
    "veh_pod",
]
