"""Making it so: the controller of virtual clusters, which leaves each mode to its own module."""

from __future__ import annotations

from fleetplane.controller import Context, Controller, Manager, Result, controller_for
from fleetplane.operators.vclusters.kinds import FINALIZER, Vk8s
from fleetplane.operators.vclusters.logical import LogicalMode

AGAIN = 1.0


class VirtualClusters:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
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
        gone = await self.logical.cleanup(context, vcluster)
        return None if gone else Result(requeue_after=AGAIN)
