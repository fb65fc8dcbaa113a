"""What runs controllers: shared informers, leadership, a graceful end.

::

    manager = Manager(client, environment=SystemEnvironment())
    manager.add(Controller("greetings", GREETINGS, reconcile, owns=[CONFIG_MAPS]))
    await manager.run()

``run`` returns after ``stop``: no reconcile is begun, those at work have ``grace`` seconds to finish, then leadership is
handed over. Cancelling ``run`` is the abrupt form of the same. A manager that loses its lease stops its controllers at
once and becomes a candidate again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.controller.controller import Controller
from fleetplane.controller.events import EventRecorder
from fleetplane.controller.informers import Informers
from fleetplane.controller.leader import LeaderElection, LeaderElector, LeadershipLost
from fleetplane.controller.metrics import Metrics
from fleetplane.controller.runner import Runner
from fleetplane.controller.sharding import Shard
from fleetplane.model.environment import Environment
from fleetplane.model.resources import ResourceRef

log = logging.getLogger(__name__)

RELEASE_SECONDS = 3.0


class Manager:
    """See the module.

    Args:
        client: How to reach the server. Controllers read and write through ``manager.client``, which tells the
            informers what it wrote.
        name: Names the field manager, the source of events and the default lease.
        cluster: The logical cluster to look after; ``None``: all of them, which takes rights in all of them. Roles
            inside one cluster reach no further: an operator that has only those names its cluster (``root``).
        election: Run controllers only while leading; ``None``: always.
        grace: Seconds that reconciles may take to finish when stopping.
    """

    def __init__(
        self,
        client: Client,
        *,
        environment: Environment,
        name: str = "fleetplane",
        cluster: str | None = None,
        metrics: Metrics | None = None,
        election: LeaderElection | None = None,
        shard: Shard = Shard(),  # noqa: B008 - immutable
        grace: float = 30.0,
    ) -> None:
        self.name = name
        self.environment = environment
        self.metrics = metrics if metrics is not None else Metrics()
        reading = client.in_cluster(cluster)
        self.informers = Informers(reading, environment)
        self.client: Client = reading.observed_by(self.informers.observe)
        self.events = EventRecorder(client, environment, name)
        self._shard = shard
        self._grace = grace
        self._controllers: dict[str, Controller] = {}
        self._runners: dict[str, Runner] = {}
        self._stopping = asyncio.Event()
        self._elector: LeaderElector | None = None
        if election is not None:
            election = replace(election, name=shard.lease_name(election.name))
            self._elector = LeaderElector(client, election, environment)
            self.metrics.leader.labels(election.name).set_function(lambda: float(self.is_leading))

    # -- before running

    def add(self, *controllers: Controller) -> None:
        """Register controllers. Raises ValueError for a name that is taken and RuntimeError once running."""
        if self._runners:
            raise RuntimeError("controllers are added before the manager runs")
        for controller in controllers:
            if controller.name in self._controllers:
                raise ValueError(f"there is already a controller named {controller.name!r}")
            self._controllers[controller.name] = controller

    def informer(
        self,
        resource: ResourceRef,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        everywhere: bool = False,
        decoded: int = 0,
    ) -> Informer:
        """The shared informer of a resource.

        ``everywhere``: of all logical clusters. ``decoded``: keep at least so many of its objects decoded.
        """
        return self.informers.get(
            resource, namespace=namespace, labels=labels, fields=fields, decoded=decoded, everywhere=everywhere
        )

    # -- looking

    @property
    def controllers(self) -> Sequence[Controller]:
        return tuple(self._controllers.values())

    def runner(self, name: str) -> Runner:
        """The controller at work, to enqueue something for it. Raises KeyError when it does not run."""
        return self._runners[name]

    @property
    def is_leading(self) -> bool:
        return self._elector is None or self._elector.is_leader

    @property
    def is_ready(self) -> bool:
        """All caches are filled. A candidate that waits to lead is ready."""
        return not self._stopping.is_set() and bool(self.informers.all) and self.informers.have_synced

    @property
    def is_idle(self) -> bool:
        """No controller has anything to do now (delayed work aside). For tests and orderly shutdown."""
        return all(runner.is_ready and runner.queue.is_idle for runner in self._runners.values())

    def observe(self) -> None:
        """Bring gauges up to date before metrics are read."""
        for runner in self._runners.values():
            runner.queue.observe()

    # -- running

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        anywhere = [one for one in self._controllers.values() if not one.needs_leader or self._elector is None]
        led = [one for one in self._controllers.values() if one.needs_leader and self._elector is not None]
        for controller in led:  # a candidate keeps its caches warm
            self._make_runner(controller)
        async with asyncio.TaskGroup() as group:
            self.informers.start(group)
            events = group.create_task(self.events.run(), name="events")
            tasks = [group.create_task(self._run_controllers(anywhere), name="controllers")]
            if self._elector is not None:
                tasks.append(group.create_task(self._lead(self._elector, led), name="leader election"))
            try:
                await asyncio.wait(tasks, return_when=asyncio.ALL_COMPLETED)
            finally:
                self.events.close()
                with suppress(TimeoutError):
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await asyncio.shield(events)
                events.cancel()
                self.informers.stop()

    async def _lead(self, elector: LeaderElector, controllers: Sequence[Controller]) -> None:
        while not self._stopping.is_set():
            if not await self._until_stopped(elector.acquire()):
                return
            try:
                async with asyncio.TaskGroup() as group:
                    holding = group.create_task(elector.hold(), name="hold lease")
                    await self._run_controllers(controllers)
                    holding.cancel()
            except* LeadershipLost as lost:
                log.warning("no longer leading, controllers stopped: %s", lost.exceptions[0])
            finally:
                with suppress(TimeoutError):
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await elector.release()

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Await something unless stopping comes first; says whether it finished."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            for one in (task, stopping):
                one.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    async def _run_controllers(self, controllers: Sequence[Controller]) -> None:
        """Run until stopping, then let them finish within the grace period."""
        runners = [self._make_runner(controller) for controller in controllers]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(runner.run(), name=runner.controller.name) for runner in runners]
            await self._stopping.wait()
            for runner in runners:
                runner.close()
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=self._grace)
                for task in late:
                    log.warning("%s did not finish in time and is cancelled", task.get_name())
                    task.cancel()

    def _make_runner(self, controller: Controller) -> Runner:
        runner = Runner(controller, self.informers, self.environment, self.metrics, self._shard)
        self._runners[controller.name] = runner
        return runner
