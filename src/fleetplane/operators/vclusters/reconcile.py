"""Making it so: the controller of virtual clusters, which leaves each mode to its own module."""

from __future__ import annotations

from fleetplane.controller import Context, Controller, Manager, Result, controller_for
from fleetplane.model.builtin.types import CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, PODS, SECRETS, SERVICES
from fleetplane.model.objects import is_deleting
from fleetplane.operators.vclusters.guests import Guests, delete
from fleetplane.operators.vclusters.kinds import FINALIZER, OWNER_UID, Vk8s
from fleetplane.operators.vclusters.logical import LogicalMode

AGAIN = 0.5


class VirtualClusters:
    def __init__(self, manager: Manager, guests: Guests) -> None:
        self._manager = manager
        self._guests = guests
        self.logical = LogicalMode(manager)

    def controller(self) -> Controller:
        return controller_for(
            self._manager,
            Vk8s,
            self.reconcile,
            name="vclusters",
            watches=self.logical.watches(),
            finalizer=FINALIZER,
            cleanup=self.cleanup,
            max_concurrent=16,
        )

    async def reconcile(self, context: Context[Vk8s], vcluster: Vk8s) -> Result | None:
        return await self.logical.reconcile(context, vcluster)

    async def cleanup(self, context: Context[Vk8s], vcluster: Vk8s) -> Result | None:
        await context.set_status({"phase": "Terminating", "message": ""})
        if not await self._copies_gone(context, vcluster):
            return Result(requeue_after=AGAIN)
        gone = await self.logical.cleanup(context, vcluster)
        return None if gone else Result(requeue_after=AGAIN)

    async def _copies_gone(self, context: Context[Vk8s], vcluster: Vk8s) -> bool:
        """Delete what runs and lies on the host for the cluster, pods first; true when nothing is left."""
        for resource in (PODS, SERVICES, PERSISTENT_VOLUME_CLAIMS, CONFIG_MAPS, SECRETS):
            selector = f"{OWNER_UID}={vcluster.uid}"
            found = (await context.client.list(resource, vcluster.namespace, labels=selector)).items
            for one in found:
                if not is_deleting(one):
                    await delete(context.client, resource, one)
            if found:
                return False
        return True
