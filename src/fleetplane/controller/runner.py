"""One controller at work: informers on one side, workers on the other, the queue between them.

Everything that goes wrong in a reconcile ends here and concerns one key only: it is counted, logged once with what is
needed to find it, and tried again later (or not, for ``Permanent``). A runner runs once; a manager that leads again
makes a new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from fleetplane.client.cancelling import end_if_cancelled
from fleetplane.client.informer import Change, Informer
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent, QueueClosed
from fleetplane.controller.informers import Informers
from fleetplane.controller.metrics import ControllerMetrics, Metrics, QueueMetrics
from fleetplane.controller.predicates import Predicate
from fleetplane.controller.queue import WorkQueue
from fleetplane.controller.sharding import Shard
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.resources import resource_of

log = logging.getLogger(__name__)


class Runner:
    def __init__(
        self, controller: Controller, informers: Informers, environment: Environment, metrics: Metrics, shard: Shard
    ) -> None:
        self.controller = controller
        self._environment = environment
        self._shard = shard
        self._metrics = ControllerMetrics(metrics, controller.name)
        self.queue: WorkQueue[Request] = WorkQueue(environment, metrics=QueueMetrics(metrics, controller.name))
        self._resource = resource_of(controller.resource)
        self._primary = informers.get(
            controller.resource,
            namespace=controller.namespace,
            labels=controller.labels,
            fields=controller.fields,
            everywhere=controller.everywhere,
        )
        self._owned = [informers.get(resource) for resource in controller.owns]
        self._watched = [
            (
                watch,
                informers.get(
                    watch.resource,
                    namespace=watch.namespace,
                    labels=watch.labels,
                    fields=watch.fields,
                    everywhere=watch.everywhere,
                ),
            )
            for watch in controller.watches
        ]
        self._synced = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def informers(self) -> list[Informer]:
        return [self._primary, *self._owned, *(informer for _, informer in self._watched)]

    @property
    def is_ready(self) -> bool:
        """Whether it has seen everything once and works."""
        return self._synced.is_set()

    def enqueue(self, request: Request, *, low: bool = False, after: float = 0.0) -> None:
        """Have an object reconciled, for reasons of one's own."""
        if self._shard.owns(request):
            self.queue.add_after(request, after, low=low)

    async def run(self) -> None:
        """Work until ``close``; cancelling stops at once, in the middle of reconciles."""
        controller = self.controller
        self._metrics.max_concurrent.set(controller.max_concurrent)
        remove = [self._primary.add_handler(self._on_primary)]
        remove += [informer.add_handler(self._owner_handler(controller.owns_predicate)) for informer in self._owned]
        remove += [informer.add_handler(self._watch_handler(watch)) for watch, informer in self._watched]
        resync = asyncio.ensure_future(self._resync())
        try:
            if not await self._see_everything():
                return
            self._synced.set()
            async with asyncio.TaskGroup() as group:
                names = (f"{controller.name} worker {number}" for number in range(controller.max_concurrent))
                workers = [group.create_task(self._work(), name=name) for name in names]
                try:
                    await asyncio.wait(workers)
                finally:
                    self.queue.close()  # before the group waits for them: none may go back to an open queue
        finally:
            resync.cancel()
            self.queue.close()
            for take_off in remove:
                take_off()

    def close(self) -> None:
        """Finish what is being worked on and start nothing more; ``run`` returns when that is done."""
        self._closed.set()
        self.queue.close()

    async def _see_everything(self) -> bool:
        """Wait until every informer has seen everything once; false when the runner is closed before that."""
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            for informer in self.informers:
                if informer.has_synced:
                    continue
                synced = asyncio.ensure_future(informer.wait_synced())
                try:
                    await asyncio.wait([synced, closed], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    synced.cancel()
                if closed.done():
                    return False
            return not self._closed.is_set()
        finally:
            closed.cancel()

    # -- what wakes an object

    def _on_primary(self, change: Change) -> None:
        if self.controller.predicate(change):
            self.enqueue(change.new.key, low=change.initial)

    def _owner_handler(self, predicate: Predicate) -> Callable[[Change], None]:
        group, kind, namespaced = self._resource.group, self._resource.kind, self._resource.namespaced

        def owners(change: Change) -> Iterable[Request]:
            for snapshot in (change.new, change.old):
                if snapshot is None:
                    continue
                for owner in snapshot.owners:
                    if owner.controller and owner.kind == kind and owner.group == group:
                        namespace = snapshot.key.namespace if namespaced else ""
                        yield Request(snapshot.key.cluster, namespace, owner.name)

        def handler(change: Change) -> None:
            if predicate(change):
                for request in set(owners(change)):
                    self.enqueue(request, low=change.initial)

        return handler

    def _watch_handler(self, watch: Watch) -> Callable[[Change], None]:
        def handler(change: Change) -> None:
            if not watch.predicate(change):
                return
            requests = dict.fromkeys(watch.map(change.new))
            if change.old is not None:
                requests |= dict.fromkeys(watch.map(change.old))
            for request in requests:
                self.enqueue(request, low=change.initial)

        return handler

    async def _resync(self) -> None:
        if (period := self.controller.resync) is None:
            return
        while True:
            await asyncio.sleep(period * (1 + 0.1 * self._environment.random.random()))
            for key in list(self._primary):
                self.enqueue(key, low=True)

    # -- what is done about it

    async def _work(self) -> None:
        while True:
            try:
                request = await self.queue.get()
            except QueueClosed:
                return
            self._metrics.active_workers.inc()
            try:
                await self._attempt(request)
            finally:
                self._metrics.active_workers.dec()
                self.queue.done(request)

    async def _attempt(self, request: Request) -> None:
        started = self._environment.monotonic()
        limit = asyncio.timeout(self.controller.timeout)
        try:
            async with limit:
                result = await self.controller.reconcile(request)
        except Permanent as error:
            await self._give_up(request, error)
        except asyncio.CancelledError as error:
            end_if_cancelled()
            self._try_again(request, error)  # something it awaited was cancelled, not we
        except Exception as error:
            end_if_cancelled()
            if limit.expired():
                self._metrics.timeouts.inc()
            self._try_again(request, error)
        else:
            self._succeed(request, result)
        self._metrics.seconds.observe(self._environment.monotonic() - started)

    def _succeed(self, request: Request, result: Result | None) -> None:
        self.queue.forget(request)
        if result is not None and result.requeue_after is not None:
            self._metrics.requeued.inc()
            self.queue.add_after(request, max(result.requeue_after, 0.001))
        else:
            self._metrics.succeeded.inc()

    def _try_again(self, request: Request, error: BaseException) -> None:
        self._metrics.failed.inc()
        self._metrics.errors.inc()
        delay = self.queue.add_rate_limited(request)
        failures = self.queue.failures(request)
        told = {**self._about(request), "failures": failures, "retry_seconds": round(delay, 3)}
        what = f"{self.controller.name} {request}"
        if isinstance(error, ApiError):
            # Conflicts are how optimistic concurrency works, and other refusals explain themselves: no traceback.
            level = logging.DEBUG if error.code == 409 else logging.WARNING
            log.log(level, "%s was refused, again in %.3g s: %s", what, delay, error.message, extra=told)
        elif isinstance(error, TimeoutError):
            log.warning("%s took too long, again in %.3g s: %s", what, delay, error, extra=told)
        else:
            log.error("%s failed, again in %.3g s", what, delay, exc_info=error, extra=told)

    async def _give_up(self, request: Request, error: Permanent) -> None:
        self._metrics.failed.inc()
        self._metrics.errors.inc()
        self._metrics.terminal_errors.inc()
        self.queue.forget(request)
        log.info(
            "%s %s gave up until something changes: %s",
            self.controller.name,
            request,
            error.message,
            extra={**self._about(request), "reason": error.reason},
        )
        if self.controller.on_permanent is not None:
            await self._leave_word(request, self.controller.on_permanent(request, error))

    def _about(self, request: Request) -> dict[str, str]:
        """What structured logs can be searched for."""
        return {
            "controller": self.controller.name,
            "cluster": request.cluster,
            "namespace": request.namespace,
            "object": request.name,
        }

    async def _leave_word(self, request: Request, telling: Awaitable[None]) -> None:
        try:
            await telling
        except Exception as error:
            self._try_again(request, error)
