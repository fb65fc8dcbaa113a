"""A plane for stories about addresses: the real server with our admission, and our operator, on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.operators.staging import define, find, running, told_on, until

from fleetplane.client.protocol import Client
from fleetplane.controller.metrics import Metrics
from fleetplane.model.objects import Object
from fleetplane.operating import prepare_operators
from fleetplane.operators.network import network
from fleetplane.operators.network.kinds import IPClaim, IPPool
from fleetplane.testing import SimulatedEnvironment, TestServer, running_server


@dataclass
class Stage:
    server: TestServer
    client: Client
    environment: SimulatedEnvironment

    until = staticmethod(until)

    async def find(self, resource: Any, name: str, namespace: str | None = "default") -> Object:
        return await find(self.client, resource, name, namespace)

    async def pool(self, name: str = "pool", **spec: Any) -> Object:
        return await self.client.create(IPPool, {"metadata": {"name": name}, "spec": spec})

    async def claim(self, name: str, pool: str = "pool", **spec: Any) -> Object:
        wanted = {"metadata": {"name": name}, "spec": {"pool": pool, **spec}}
        return await self.client.create(IPClaim, wanted, "default")

    async def phase(self, name: str, phase: str, *, timeout: float = 120.0) -> Object:
        async def so() -> Object | None:
            found = await self.find(IPClaim, name)
            return found if (found.get("status") or {}).get("phase") == phase else None

        try:
            found: Object = await self.until(so, timeout=timeout)
        except TimeoutError:
            raise AssertionError(f"{name} is not {phase} but {await self.find(IPClaim, name)}") from None
        return found

    async def gone(self, name: str, *, timeout: float = 120.0) -> None:
        async def so() -> bool:
            return not await self.find(IPClaim, name)

        await self.until(so, timeout=timeout)


@asynccontextmanager
async def stage(*, seed: int = 0, admission: bool = True) -> AsyncIterator[Stage]:
    operator = network()
    environment = SimulatedEnvironment(seed)
    plugins = operator.admission if admission else ()
    async with running_server(environment=environment, plugins=plugins) as server:
        client = server.client()
        await define(client, operator)
        (manager,) = await prepare_operators(client, [operator], server.client, environment, Metrics())
        async with running(manager.run()):
            yield Stage(server, client, environment)


def staged(**arguments: Any) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[], None]]:
    """Make a test of a story that wants a stage."""
    return told_on(stage, **arguments)
