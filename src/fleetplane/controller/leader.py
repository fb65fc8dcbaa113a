"""Electing one leader among several instances, by a Lease, as client-go does; the two can compete for one Lease.

Nobody compares clocks: a candidate takes over when it has itself seen no renewal for the whole lease duration, and a
leader that could not renew for ``renew_deadline`` (shorter than that) stops before anyone else can start. A leader that
stops on purpose empties the Lease, and candidates that watch it take over at once.

A Lease is a hint, not a fence: a write that was already on its way when leadership ended may still arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import LEASES
from fleetplane.model.environment import Environment, micro_timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Where and how to elect; times in seconds, with client-go's defaults."""

    name: str
    namespace: str = "kube-system"
    identity: str = ""
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_duration > self.renew_deadline > self.retry_period > 0:
            raise ValueError("leader election needs lease_duration > renew_deadline > retry_period > 0")


class LeadershipLost(Exception):
    """Another instance leads, or the Lease could not be renewed in time."""


class LeaderElector:
    """One candidate."""

    def __init__(self, client: Client, election: LeaderElection, environment: Environment) -> None:
        self._client = client
        self._election = election
        self._environment = environment
        self.identity = election.identity or f"fleetplane_{environment.uuid()}"
        self._seen: Object = {}
        self._seen_at = 0.0
        self._changed = asyncio.Event()
        self.leader = ""

    @property
    def is_leader(self) -> bool:
        return self.leader == self.identity

    async def acquire(self) -> None:
        """Wait until this instance leads."""
        async with self._watching():
            while not await self._try():
                self._changed.clear()
                wait = self._election.retry_period * (1 + 0.2 * self._environment.random.random())
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        log.info("%s leads by the Lease %s", self.identity, self._election.name)

    async def hold(self) -> None:
        """Renew for as long as that works. Raises LeadershipLost."""
        deadline = self._environment.monotonic() + self._election.renew_deadline
        while True:
            left = deadline - self._environment.monotonic()
            await asyncio.sleep(min(self._election.retry_period, max(left, 0.0)))
            left = deadline - self._environment.monotonic()
            try:
                async with asyncio.timeout(max(left, 0.0)):
                    held = await self._try()
            except TimeoutError:
                held = False
            now = self._environment.monotonic()
            if held:
                deadline = now + self._election.renew_deadline
            elif self.leader not in {"", self.identity}:
                raise LeadershipLost(f"{self.leader} took the Lease {self._election.name}")
            elif now >= deadline:
                self.leader = ""
                raise LeadershipLost(f"the Lease {self._election.name} could not be renewed in time")

    async def release(self) -> None:
        """Let the next one lead at once. Never raises for what the server says: the Lease runs out anyway."""
        if not self.is_leader:
            return
        spec = {**self._spec(self._seen), "holderIdentity": "", "leaseDurationSeconds": 1}
        self.leader = ""
        try:
            await self._client.update(LEASES, {**self._seen, "spec": spec}, self._election.namespace)
        except ApiError as error:
            log.info("the Lease %s could not be released: %s", self._election.name, error.message)

    async def _try(self) -> bool:
        """One attempt to take or renew the Lease; False also when the server cannot be asked."""
        try:
            held = await self._attempt()
        except ApiError as error:
            if error.code != 409:
                log.warning("the Lease %s: %s", self._election.name, error.message)
            return False
        self.leader = self.identity if held else self._holder(self._seen)
        return held

    async def _attempt(self) -> bool:
        election = self._election
        try:
            lease = await self._client.get(LEASES, election.name, election.namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            lease = await self._client.create(LEASES, self._first(), election.namespace)
            self._note(lease)
            return True
        if lease.get("spec") != self._seen.get("spec"):
            self._note(lease)
        holder = self._holder(lease)
        if holder not in {"", self.identity} and not self._has_run_out(lease):
            return False
        now = micro_timestamp(self._environment.now())
        spec = self._spec(lease)
        if holder != self.identity:
            transitions = int(spec.get("leaseTransitions") or 0) + 1
            spec |= {"holderIdentity": self.identity, "acquireTime": now, "leaseTransitions": transitions}
        spec |= {"renewTime": now, "leaseDurationSeconds": self._whole_duration()}
        self._note(await self._client.update(LEASES, {**lease, "spec": spec}, election.namespace))
        return True

    def _note(self, lease: Object) -> None:
        self._seen = lease
        self._seen_at = self._environment.monotonic()

    def _has_run_out(self, lease: Object) -> bool:
        duration = float(self._spec(lease).get("leaseDurationSeconds") or self._election.lease_duration)
        return self._environment.monotonic() - self._seen_at >= duration

    def _first(self) -> Object:
        now = micro_timestamp(self._environment.now())
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._election.name, "namespace": self._election.namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": self._whole_duration(),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }

    def _whole_duration(self) -> int:
        return max(1, round(self._election.lease_duration))

    @staticmethod
    def _spec(lease: Object) -> Object:
        return dict(lease.get("spec") or {})

    @classmethod
    def _holder(cls, lease: Object) -> str:
        return str(cls._spec(lease).get("holderIdentity") or "")

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        """Be woken when the Lease changes. Without the right to watch it, polling alone still works."""
        informer = Informer(
            self._client,
            LEASES,
            self._environment,
            namespace=self._election.namespace,
            fields=f"metadata.name={self._election.name}",
        )
        informer.add_handler(lambda _change: self._changed.set())
        task = asyncio.ensure_future(informer.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
