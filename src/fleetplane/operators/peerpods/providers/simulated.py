"""A cloud that is not there: for tests, with everything that goes wrong in real ones, from a seed.

What was asked of it is carried out even when whoever asked dies meanwhile, as with a real one: the answer is lost, the VM
is there. The cloud outlives the operators that use it; each gets it through a factory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from fleetplane.model.environment import Environment
from fleetplane.operators.peerpods.providers.protocol import (
    Failure,
    Instance,
    Provider,
    ProviderError,
    Size,
    Surroundings,
    VmSpec,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CloudFaults:
    """How likely each is, from 0 to 1 per call; a lost answer means the call was carried out."""

    lost_answer: float = 0.0
    throttled: float = 0.0
    unavailable: float = 0.0

    @classmethod
    def share(cls, share: float) -> CloudFaults:
        """All kinds together, this often."""
        return cls(share / 3, share / 3, share / 3)


@dataclass
class SimulatedCloud:
    """A Provider. ``vms`` are those not yet deleted; ``made`` counts all there ever were. Times in seconds."""

    environment: Environment
    faults: CloudFaults = CloudFaults()
    quota: int | None = None
    broken: Failure | None = None
    """While set, every call fails so."""
    call_seconds: float = 0.05
    boot_seconds: float = 2.0
    delete_seconds: float = 1.0
    vms: dict[str, Instance] = field(default_factory=dict)
    made: int = 0
    calls: int = 0

    def factory(self, _settings: Mapping[str, str], _surroundings: Surroundings) -> Provider:
        return self

    async def create(self, spec: VmSpec) -> Instance:
        return await self._call(lambda: self._create(spec))

    async def describe(self, *, id: str = "", token: str = "") -> Instance | None:
        def find() -> Instance | None:
            return self.vms.get(id) if id else self._by_token(token)

        return await self._call(find)

    async def delete(self, id: str) -> None:
        def begin() -> None:
            if id in self.vms and self.vms[id].state != "deleting":
                self.vms[id] = replace(self.vms[id], state="deleting")
                asyncio.get_running_loop().call_later(self.delete_seconds, self.vms.pop, id, None)

        await self._call(begin)

    async def list(self, tags: Mapping[str, str]) -> Sequence[Instance]:
        return await self._call(lambda: [one for one in self.vms.values() if tags.items() <= one.tags.items()])

    async def resize(self, id: str, size: Size) -> Instance:
        def change() -> Instance:
            if id not in self.vms:
                raise ProviderError(Failure.REFUSED, f"there is no VM {id}")
            self.vms[id] = replace(self.vms[id], size=replace(size, instance_type=self.vms[id].size.instance_type))
            return self.vms[id]

        return await self._call(change)

    def _create(self, spec: VmSpec) -> Instance:
        if (found := self._by_token(spec.token)) is not None:
            return found
        if self.quota is not None and len(self.vms) >= self.quota:
            raise ProviderError(Failure.QUOTA, f"the quota of {self.quota} VMs is used up")
        self.made += 1
        made = Instance(f"vm-{self.made}", "pending", spec.token, dict(spec.tags), (), spec.size)
        self.vms[made.id] = made
        address = f"10.0.{self.made >> 8 & 255}.{self.made & 255}"
        asyncio.get_running_loop().call_later(self.boot_seconds, self._booted, made.id, address)
        return made

    def _booted(self, id: str, address: str) -> None:
        if id in self.vms and self.vms[id].state == "pending":
            self.vms[id] = replace(self.vms[id], state="running", addresses=(address,))

    def _by_token(self, token: str) -> Instance | None:
        return next((one for one in self.vms.values() if one.token == token), None)

    async def _call(self, carry_out: Callable[[], T]) -> T:
        """Carry it out after half of the time, whoever waits; answer after the other half."""
        self.calls += 1
        chance = self.environment.random.random()
        faults, half = self.faults, self.call_seconds / 2
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def do() -> None:
            try:
                made = carry_out()
            except ProviderError as error:
                if not outcome.done():
                    outcome.set_exception(error)
            else:
                if not outcome.done():
                    outcome.set_result(made)

        if self.broken is not None:
            await asyncio.sleep(half)
            raise ProviderError(self.broken, f"the simulated cloud says {self.broken.value}")
        if chance < faults.throttled:
            raise ProviderError(Failure.THROTTLED, "too many calls", retry_after=1.0)
        if chance < faults.throttled + faults.unavailable:
            await asyncio.sleep(half)
            raise ProviderError(Failure.UNAVAILABLE, "the simulated cloud is not available")
        loop.call_later(half, do)
        made = await outcome
        await asyncio.sleep(half)
        if chance < faults.throttled + faults.unavailable + faults.lost_answer:
            raise ProviderError(Failure.TIMED_OUT, "no answer came in time")
        return made
