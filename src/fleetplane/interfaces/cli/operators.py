"""Operators outside a plane: run from a kubeconfig against any Kubernetes.

The same operators, the same code; what a plane does for them (kinds, account, rights) is elsewhere a set of manifests
(see ``deployment``). Their admission, which inside a plane is part of the server, is served as webhooks.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from fleetplane.client.protocol import Client
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.manager import Manager
from fleetplane.controller.metrics import Metrics
from fleetplane.controller.registration import Operator
from fleetplane.controller.serving import serving
from fleetplane.controller.sharding import Shard
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.webhooks import Serving, serving_admission
from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.operating import NAMESPACE, install_kinds

EVERYWHERE = "0.0.0.0"  # noqa: S104 - probes and API servers come from outside


@dataclass(frozen=True, slots=True)
class Ways:
    """How operators run.

    Attributes:
        install: Apply the definitions of their kinds first.
        elect: Let one of several instances work at a time.
        namespace: Where they live: their leases, Service and Secret.
        host: Address for health and webhooks.
        health_port: Serve ``/healthz``, ``/readyz`` and ``/metrics``.
        webhooks: Serve their admission.
        shard: The part of all objects that this instance looks after.
    """

    install: bool = False
    elect: bool = False
    namespace: str = NAMESPACE
    host: str = EVERYWHERE
    health_port: int | None = None
    webhooks: Serving | None = None
    shard: Shard = Shard()  # noqa: RUF009 - immutable


async def run_operators(client: Client, operators: Sequence[Operator], ways: Ways) -> None:
    """Run operators until SIGTERM or SIGINT. Raises CommandError where a port cannot be had."""
    if ways.install:
        await install_kinds(client, operators)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
    environment, metrics = SystemEnvironment(), Metrics()
    managers = [manager_of(client, one, environment, metrics, ways) for one in operators]
    try:
        async with AsyncExitStack() as stack:
            waiting = _nothing
            if ways.webhooks is not None:
                admission = serving_admission(client, operators, ways.webhooks, environment)
                waiting = (await stack.enter_async_context(admission)).waiting
            if ways.health_port is not None:
                health = serving(managers, ways.host, ways.health_port, waiting=waiting)
                await stack.enter_async_context(health)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(manager.run()) for manager in managers]
                await stop.wait()
                for manager in managers:
                    manager.stop()
                await asyncio.wait(tasks, timeout=30)
                for task in tasks:
                    task.cancel()
    except* OSError as errors:
        raise CommandError(f"cannot serve: {_first(errors)}; choose another port") from None


def _nothing() -> str:
    return ""


def _first(errors: BaseExceptionGroup[OSError]) -> OSError:
    one = errors.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one


def manager_of(client: Client, operator: Operator, environment: Environment, metrics: Metrics, ways: Ways) -> Manager:
    """A manager with the operator's controllers, not yet running."""
    election = LeaderElection(lease_of(operator), ways.namespace) if ways.elect else None
    manager = Manager(
        client,
        environment=environment,
        name=operator.name,
        cluster="root",
        metrics=metrics,
        election=election,
        shard=ways.shard,
    )
    operator.install(manager)
    return manager


def lease_of(operator: Operator) -> str:
    return f"fleetplane-{operator.name}"
