"""VMs that nobody remembers: found by their tag, waited for, and deleted.

There should be none, as a record is written before its VM. But a call to a provider may arrive after its record is gone,
and people restore backups. A VM is an orphan when this cluster's tag is on it and no record speaks of it; it is deleted
when that has been so for the whole grace period and a fresh look at the records agrees. VMs of others are never seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.controller import Context, Controller, Manager, Result, controller_for
from fleetplane.model.objects import Object, uid
from fleetplane.operators.peerpods.clouds import Cloud, Clouds
from fleetplane.operators.peerpods.kinds import PeerPod, PeerPodConfig
from fleetplane.operators.peerpods.providers.protocol import CLUSTER_TAG, RECORD_TAG, Instance, ProviderError
from fleetplane.operators.peerpods.settings import Reading

INTERVAL: Final = 1800.0
GRACE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Sweeping:
    """Seconds between two sweeps, and how long a VM may be without a record."""

    interval: float = INTERVAL
    grace: float = GRACE


class Orphans:
    """A second controller of PeerPodConfigs: each sweeps its provider from time to time."""

    def __init__(self, manager: Manager, reading: Reading, clouds: Clouds, sweeping: Sweeping = Sweeping()) -> None:
        self._manager = manager
        self._reading = reading
        self._clouds = clouds
        self._sweeping = sweeping
        self._first_seen: dict[str, dict[str, float]] = {}

    def controller(self) -> Controller:
        return controller_for(
            self._manager, PeerPodConfig, self.reconcile, name="peerpod-orphans", max_concurrent=1, resync=None
        )

    async def reconcile(self, context: Context[PeerPodConfig], config: PeerPodConfig) -> Result | None:
        interval = self._sweeping.interval
        settings = await self._reading.settings(context.client, context.object)
        if settings.reason:
            return Result(requeue_after=min(interval, 30.0))
        try:
            await self._sweep(context, self._clouds.of(context.client, context.object, settings))
        except ProviderError:
            return Result(requeue_after=interval)  # counted; records say it in their conditions
        waiting = self._first_seen.get(config.uid)
        return Result(requeue_after=min(interval, self._sweeping.grace) if waiting else interval)

    async def _sweep(self, context: Context[Any], cloud: Cloud) -> None:
        now = self._manager.environment.monotonic()
        tags = {CLUSTER_TAG: await self._clouds.cluster_uid(context.client)}
        listed = await cloud.list(tags)
        # Listed after the VMs were: a record is older than its VM.
        records = [one async for one in context.client.iterate(PeerPod)]
        found = list(orphans(listed, records))
        before = self._first_seen.get(context.owner.uid, {})
        self._first_seen[context.owner.uid] = seen = {one.id: before.get(one.id, now) for one in found}
        for one in found:
            if now - seen[one.id] >= self._sweeping.grace and one.state != "deleting":
                await cloud.delete(one.id)
                cloud.metrics.orphans.labels(cloud.name).inc()
                context.event("OrphanDeleted", f"the VM {one.id} had no PeerPod and was deleted", warning=True)


def orphans(vms: Iterable[Instance], records: Iterable[Object]) -> Iterable[Instance]:
    """The VMs no record speaks of: none has its uid, or the one that has is another VM's. Pure."""
    ids: Mapping[str, str] = {uid(one): str((one.get("spec") or {}).get("instanceID") or "") for one in records}
    for vm in vms:
        record = vm.tags.get(RECORD_TAG, "")
        if record not in ids or ids[record] not in {"", vm.id}:
            yield vm
