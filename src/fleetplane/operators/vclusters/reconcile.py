"""Making it so: the controller of virtual clusters, which leaves each mode to its own module."""

from __future__ import annotations

from collections.abc import Iterable

from fleetplane.client.snapshot import Snapshot
from fleetplane.controller import Context, Controller, Manager, Request, Result, Watch, controller_for
from fleetplane.model.builtin.types import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
)
from fleetplane.model.objects import is_deleting
from fleetplane.operators.vclusters.addresses import addresses_for
from fleetplane.operators.vclusters.guests import Guests, delete
from fleetplane.operators.vclusters.kinds import FINALIZER, OWNER_UID, Vk8s, mode_of
from fleetplane.operators.vclusters.logical import LogicalMode
from fleetplane.operators.vclusters.podsmode import PodsMode
from fleetplane.operators.vclusters.resting import ROOM_AGAIN, Resting
from fleetplane.operators.vclusters.steps import Machines

AGAIN = 0.5


class VirtualClusters:
    def __init__(self, manager: Manager, guests: Guests, machines: Machines | None = None) -> None:
        self._manager = manager
        self._guests = guests
        self.logical = LogicalMode(manager)
        self.pods = PodsMode(manager, machines)
        self.resting = Resting(manager, self.logical, self.pods)

    def controller(self) -> Controller:
        return controller_for(
            self._manager,
            Vk8s,
            self.reconcile,
            name="vclusters",
            owns=[STATEFUL_SETS, SERVICES, PODS],
            watches=[*self.logical.watches(), Watch(PODS, _node_pod)],
            finalizer=FINALIZER,
            cleanup=self.cleanup,
            max_concurrent=50,
            timeout=2400.0,
        )

    async def reconcile(self, context: Context[Vk8s], vcluster: Vk8s) -> Result | None:
        if not await self.resting.has_room(context, vcluster):
            return Result(requeue_after=ROOM_AGAIN)
        rest = await self.resting.rest(context, vcluster)
        if rest.ended:
            return None
        vcluster = Vk8s.view(context.object)
        return sooner(await self._reconcile(context, vcluster), rest.again)

    async def _reconcile(self, context: Context[Vk8s], vcluster: Vk8s) -> Result | None:
        if mode_of(vcluster.spec) == "logical":
            return await self.logical.reconcile(context, vcluster)
        addresses, again = await addresses_for(context, vcluster)
        result = await self.pods.reconcile(context, vcluster, addresses)
        return sooner(result, again)

    async def cleanup(self, context: Context[Vk8s], vcluster: Vk8s) -> Result | None:
        self.resting.forget(vcluster)
        await context.set_status({"phase": "Terminating", "message": ""})
        if mode_of(vcluster.spec) == "pods":
            gone = await self.pods.cleanup(context, vcluster)
        else:
            gone = await self._copies_gone(context, vcluster) and await self.logical.cleanup(context, vcluster)
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


def sooner(result: Result | None, again: float | None) -> Result | None:
    """The result, looked at again no later than in ``again`` seconds."""
    if again is None or (result is not None and result.requeue_after is not None and result.requeue_after <= again):
        return result
    return Result(requeue_after=again)


def _node_pod(snapshot: Snapshot) -> Iterable[Request]:
    """A node's pod belongs to its StatefulSet; the cluster's name is a label.

    Every pod is looked at here, not only those selected by label: what wakes must be what the reconcile then reads.
    """
    cluster = snapshot.labels.get("clusterName")
    is_node = cluster and snapshot.labels.get("app") == "vk8s"
    return [Request(snapshot.key.cluster, snapshot.key.namespace, str(cluster))] if is_node else []
