"""What the stages of all operators share: kinds that are served, tasks that end, and stories that become tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from fleetplane.client.protocol import Client
from fleetplane.controller import Manager, Operator
from fleetplane.controller.metrics import Metrics
from fleetplane.local_nodes import FLEET_USER
from fleetplane.model.builtin.types import CUSTOM_RESOURCE_DEFINITIONS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_condition_true
from fleetplane.model.resources import ResourceRef
from fleetplane.node.fleet import FleetSettings, SimulatedFleet
from fleetplane.operating import prepare_operators
from fleetplane.plane import CONTROLLER_USER
from fleetplane.testing import SimulatedEnvironment, TestServer, run_virtually, running_server
from fleetplane.workloads.assembly import controllers

Stage = TypeVar("Stage")
Found = TypeVar("Found")
Story = Callable[[Stage], Awaitable[None]]


async def until(what: Callable[[], Awaitable[Found]], *, timeout: float = 120.0) -> Found:
    """What it finds, once that is something. Raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while not (found := await what()):
            await asyncio.sleep(0.05)
    return found


async def find(client: Client, resource: ResourceRef, name: str, namespace: str | None = "default") -> Object:
    """The object, or an empty one."""
    try:
        return await client.get(resource, name, namespace)
    except ApiError as error:
        assert error.code == 404
        return {}


async def define(client: Client, operator: Operator) -> None:
    """Create the definitions of an operator's kinds and wait until they are served."""
    for manifest in operator.manifests():
        await client.create(CUSTOM_RESOURCE_DEFINITIONS, manifest)
    for manifest in operator.manifests():
        while not is_condition_true(
            await client.get(CUSTOM_RESOURCE_DEFINITIONS, manifest["metadata"]["name"]), "Established"
        ):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*runs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run them beside the story, and end them with it."""
    tasks = [asyncio.ensure_future(one) for one in runs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


@dataclass(frozen=True, slots=True)
class Whole:
    """A plane with the built-in controllers, simulated nodes, and one operator under its own account (``manager``)."""

    server: TestServer
    client: Client
    manager: Manager
    fleet: SimulatedFleet


@asynccontextmanager
async def whole_plane(
    operator: Operator,
    environment: SimulatedEnvironment,
    nodes: int,
    settings: FleetSettings | None = None,
    options: Callable[[TestServer], dict[str, Any]] = lambda _: {},
) -> AsyncIterator[Whole]:
    """``options`` are what the built-in controllers are told besides."""
    async with running_server(environment=environment, plugins=operator.admission) as server:
        client = server.client()
        await define(client, operator)
        builtin = Manager(server.client(CONTROLLER_USER), environment=environment, cluster=None)
        builtin.add(*controllers(builtin, **options(server)))
        fleet = SimulatedFleet(server.client(FLEET_USER), nodes, environment, settings)
        (manager,) = await prepare_operators(client, [operator], server.client, environment, Metrics())
        async with running(builtin.run(), fleet.run(), manager.run()):
            await fleet.ready.wait()
            yield Whole(server, client, manager, fleet)


def told_on(
    stage: Callable[..., AbstractAsyncContextManager[Stage]], **arguments: Any
) -> Callable[[Story[Stage]], Callable[[], None]]:
    """Make a test, on a virtual clock, of a story that wants a stage."""

    def decorate(story: Story[Stage]) -> Callable[[], None]:
        async def main() -> None:
            failure: BaseException | None = None
            async with stage(**arguments) as made:
                try:
                    await story(made)
                except Exception as error:
                    failure = error
            if failure is not None:
                raise failure

        @wraps(story)
        def test() -> None:
            run_virtually(main())

        del test.__wrapped__  # type: ignore[attr-defined]
        return test

    return decorate
