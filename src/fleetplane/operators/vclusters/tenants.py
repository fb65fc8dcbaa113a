"""Policies of tenants tell in their status how much is used of what they limit."""

from __future__ import annotations

from collections.abc import Iterable

from fleetplane.client.snapshot import Snapshot
from fleetplane.controller import Condition, Context, Controller, Manager, Request, Result, Watch, controller_for
from fleetplane.controller.predicates import generation_changed
from fleetplane.operators.vclusters import policy
from fleetplane.operators.vclusters.kinds import Vk8s, Vk8sPolicy


class Tenants:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._policies = manager.informer(Vk8sPolicy)
        self._vclusters = manager.informer(Vk8s)

    def controller(self) -> Controller:
        watches = [Watch(Vk8s, self._policies_beside, predicate=generation_changed)]
        return controller_for(self._manager, Vk8sPolicy, self.reconcile, name="vcluster-policies", watches=watches)

    async def reconcile(self, context: Context[Vk8sPolicy], tenant: Vk8sPolicy) -> Result | None:
        here = [
            one.object
            for one in self._vclusters.snapshots()
            if (one.key.cluster, one.key.namespace) == (context.request.cluster, tenant.namespace)
        ]
        unknown = sorted(set(tenant.spec.hard) - set(policy.RESOURCES))
        why = f"nothing is known of {', '.join(unknown)}; there are {', '.join(policy.RESOURCES)}" if unknown else ""
        used = policy.status_of(context.object, here)
        known = (context.object.get("status") or {}).get("used") or {}
        gone = dict.fromkeys(set(known) - set(used))
        ready = Condition("Ready", not unknown, "UnknownResource" if unknown else "Counted", why)
        await context.set_status({"used": used | gone}, ready)
        return None

    def _policies_beside(self, snapshot: Snapshot) -> Iterable[Request]:
        here = (snapshot.key.cluster, snapshot.key.namespace)
        return [one.key for one in self._policies.snapshots() if (one.key.cluster, one.key.namespace) == here]
