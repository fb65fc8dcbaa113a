"""What the steps share: the plane, a client to it, and ways to look whether something came true."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import load
from fleetplane.client.protocol import Client
from fleetplane.interfaces.cli.connection import FIELD_MANAGER
from fleetplane.interfaces.cli.demonstration import processes
from fleetplane.interfaces.cli.demonstration.containers import Containers
from fleetplane.interfaces.cli.demonstration.place import Place
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.builtin.types import CONFIG_MAPS, DEPLOYMENTS, SECRETS
from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.model.objects import Object, namespace
from fleetplane.model.resources import ResourceRef
from fleetplane.operators.peerpods.kinds import PeerPodConfig
from fleetplane.operators.vclusters.kinds import Vk8s
from fleetplane.operators.vehicles.kinds import DevRes, VehContainerConfig, VehDeployment, VehPod

_KINDS: Final[Mapping[str, ResourceRef]] = {
    "ConfigMap": CONFIG_MAPS,
    "Deployment": DEPLOYMENTS,
    "DevRes": DevRes,
    "PeerPodConfig": PeerPodConfig,
    "Secret": SECRETS,
    "VehContainerConfig": VehContainerConfig,
    "VehDeployment": VehDeployment,
    "VehPod": VehPod,
    "Vk8s": Vk8s,
}


@dataclass(slots=True)
class Stage:
    """``containers`` looks at what really runs; None where containers are simulated, and ``why`` says why they are."""

    place: Place
    containers: Containers | None
    why: str
    port: int = field(default_factory=lambda: free_port())  # noqa: PLW0108 - defined below
    environment: Environment = field(default_factory=SystemEnvironment)
    plane: processes.Child | None = None
    workers: processes.Child | None = None
    _client: Client | None = None

    @property
    def client(self) -> Client:
        assert self._client is not None, "the plane was not started"
        return self._client

    @property
    def runtime(self) -> str:
        return "simulated" if self.containers is None else "podman"

    async def start_plane(self) -> float:
        """Start the plane, or start it again; seconds until it said that it is ready."""
        nodes = 2 if self.containers is None else 1
        self.plane = processes.plane(self.place.plane, self.port, self.runtime, nodes, self.place.log)
        started = time.perf_counter()
        await self.plane.start()
        took = time.perf_counter() - started
        self.place.remember(plane=self.plane.pid)
        await self.close_client()
        self._client = await self.connect(self.place.kubeconfig)
        return took

    async def start_workers(self) -> None:
        self.workers = processes.simulated_nodes(self.place.kubeconfig, self.place.log)
        await self.workers.start()
        self.place.remember(workers=self.workers.pid)

    async def connect(self, kubeconfig: Path) -> Client:
        return await connect_to(load([kubeconfig]).access(), self.environment)

    async def close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def stop(self) -> None:
        """End the processes."""
        await self.close_client()
        for one in (self.workers, self.plane):
            if one is not None:
                await one.stop()

    async def apply(self, file: Path, client: Client | None = None) -> list[Object]:
        """Apply every object of a file, as ``fleetplane apply -f`` does."""
        made = []
        for document in kube_yaml.load_all(await asyncio.to_thread(file.read_bytes)):
            obj: Object = document.value
            resource = _KINDS[obj["kind"]]
            where = namespace(obj) or "default"
            made.append(await (client or self.client).apply(resource, obj, where, field_manager=FIELD_MANAGER))
        return made


async def until(true: Callable[[], Awaitable[Any]], every: float = 0.02) -> Any:
    """What ``true`` answers, once that counts as true. A tour looks like a user does, by asking again."""
    while not (answer := await true()):  # noqa: ASYNC110
        await asyncio.sleep(every)
    return answer


def free_port() -> int:
    """A port that is free now; the plane must come back on the one it had."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
