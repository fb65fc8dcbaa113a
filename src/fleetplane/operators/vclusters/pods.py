"""Guests' pods on the host: down goes what should run, up comes what became of it.

One key is one pod of a guest; both sides wake it. The host's pod is made with all it needs in one commit, the host's
scheduler places it, and its node becomes the guest's by a binding, as if the guest had a scheduler of its own. Whoever
deletes a pod up there waits for the one down here; a pod that the host has lost is deleted up there too, so that its
controller makes another. Nothing is deleted that is not exactly what was meant: by uid, always.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from fleetplane.client.protocol import CLUSTER_ANNOTATION, ClientChange
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller import Condition, Controller, Manager, Request, Result, Watch
from fleetplane.controller.conditions import with_conditions
from fleetplane.controller.predicates import any_change
from fleetplane.controller.status import update_status
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata, name, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.operators.vclusters import names
from fleetplane.operators.vclusters.copies import Copies
from fleetplane.operators.vclusters.guests import (
    OF_HOST,
    ROOT,
    Guests,
    delete,
    guest_key,
    is_copy_of,
    to_guest,
    woken_by_vcluster,
)
from fleetplane.operators.vclusters.kinds import OWNER_UID, Vk8s
from fleetplane.operators.vclusters.translate import (
    HOST_POD,
    VIRTUAL_NODE,
    Guest,
    NotAllowed,
    Translation,
    marks,
    status_up,
    translate,
    virtual_node,
)

AGAIN: Final = 5.0
_ENDED: Final = frozenset({"Succeeded", "Failed"})


class Pods:
    def __init__(self, manager: Manager, guests: Guests, copies: Copies) -> None:
        self._manager = manager
        self._guests = guests
        self._copies = copies
        self._nodes = manager.informer(NODES)
        self._placed: dict[tuple[str, str], set[str]] = {}
        """Uids of the pods we know to be on a guest's node, before our cache does."""
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._looked: dict[str, float] = {}
        """When what a pod names was last compared with what it was given (monotonic seconds), by the pod's uid."""

    def controller(self) -> Controller:
        return Controller(
            "vcluster-pods",
            PODS,
            self.reconcile,
            watches=[
                Watch(PODS, to_guest, labels=OWNER_UID),
                Watch(Vk8s, woken_by_vcluster(self._guests.pods, self._guests.clusters)),
            ],
            predicate=any_change,
            fields=OF_HOST,
            everywhere=True,
            max_concurrent=32,
            resync=None,
            timeout=60.0,
        )

    async def reconcile(self, request: Request) -> Result | None:
        if request.cluster == ROOT:
            return None
        guest = self._guests.guest(request.cluster)
        if guest is None:
            return None  # the Vk8s' own clean-up takes care of what is left
        pod = self._guests.pods.get_key(request)
        copy = self._copy(guest, request)
        if pod is None:
            if copy is not None:
                await self._remove(copy, None)
                await self._tidy(guest, annotations_of(copy).get(names.GUEST_UID, ""), copy.get("spec") or {})
            return None
        if copy is not None and not is_copy_of(copy, pod):
            await self._remove(copy, None)  # of a pod that had the name before; its end wakes us
            return None
        if is_deleting(pod):
            return await self._end(guest, pod, copy)
        if self._guests.is_asleep(request.cluster):
            await self._sleep(guest, pod, copy)
            return None
        if copy is None:
            return await self._start(guest, pod)
        return await self._follow(guest, pod, copy)

    # -- one situation each

    async def _start(self, guest: Guest, pod: Object) -> Result | None:
        if (pod.get("status") or {}).get("phase") in _ENDED:
            return None
        if (pod.get("spec") or {}).get("nodeName"):
            return await self._lost(guest, pod)
        if (pod.get("spec") or {}).get("schedulingGates"):
            return None
        try:
            needs = translate(pod, guest)
        except NotAllowed as refusal:
            await self._refuse(guest, pod, "NotAllowedOnHost", str(refusal))
            return None
        try:
            self._looked[uid(pod)] = self._manager.environment.monotonic()
            missing = await self._copies.missing(pod, guest, needs)
            await self._create(needs, missing)
        except ApiError as error:
            if error.code in {403, 404, 422} and error.reason != "AlreadyExists":
                await self._refuse(guest, pod, "HostRefused", error.message)
                return Result(requeue_after=AGAIN)
            raise
        return None

    async def _create(self, needs: Translation, missing: list[Any]) -> None:
        """The pod and what it needs, as one commit where the host can."""
        client = self._guests.root
        if client.can_commit:
            changes = [ClientChange("create", resource, obj) for resource, obj in (*missing, (PODS, needs.pod))]
            try:
                await client.commit(changes)
            except ApiError as error:
                if error.reason not in {"AlreadyExists", "Conflict"}:
                    raise
            else:
                return
        await self._copies.create(missing)
        try:
            await client.create(PODS, needs.pod)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def _follow(self, guest: Guest, pod: Object, copy: Object) -> Result | None:
        node = (copy.get("spec") or {}).get("nodeName")
        if node and not (pod.get("spec") or {}).get("nodeName"):
            pod = await self._bind(guest, pod, copy, node)
        await self._report(guest, pod, copy)
        wanted = marks(guest, pod)["labels"]
        if labels(copy) != wanted and not is_deleting(copy):
            gone = dict.fromkeys(set(labels(copy)) - set(wanted))
            await self._guests.root.patch(PODS, name(copy), {"metadata": {"labels": gone | wanted}}, guest.namespace)
        if is_deleting(copy) or (copy.get("status") or {}).get("phase") in _ENDED:
            return None
        try:
            needs = translate(pod, guest)
        except NotAllowed:
            return None
        waits = (copy.get("status") or {}).get("phase") in {None, "Pending"}
        left = await self._refresh(guest, pod, needs, waits)
        return Result(requeue_after=left) if left is not None else None

    async def _refresh(self, guest: Guest, pod: Object, needs: Translation, waits: bool) -> float | None:
        """Bring what a pod reads up to date where that is due; returns seconds until it is due again."""
        period = self._copies.refresh_after(pod, guest, needs, waits=waits)
        if period is None:
            return None
        now = self._manager.environment.monotonic()
        left = self._looked.get(uid(pod), now - period) + period - now
        if left <= 0:
            self._looked[uid(pod)] = now
            await self._copies.create(await self._copies.missing(pod, guest, needs))
            left = self._copies.refresh_after(pod, guest, needs, waits=waits) or period
        return max(1.0, left)

    async def _end(self, guest: Guest, pod: Object, copy: Object | None) -> Result | None:
        if copy is None:
            if await self._is_there(guest, pod):
                return Result(requeue_after=0.05)  # our cache is a moment behind
            await self._give_up(guest, pod)
            return None
        await self._report(guest, pod, copy)
        await self._remove(copy, int(metadata(pod).get("deletionGracePeriodSeconds") or 0))
        return None

    async def _lost(self, guest: Guest, pod: Object) -> Result | None:
        """It ran and its pod on the host is gone: evicted, or taken with its node."""
        if await self._is_there(guest, pod):
            return Result(requeue_after=0.05)
        self._tell(guest, pod, "HostPodLost", "the host has removed the pod that ran for this one")
        await self._give_up(guest, pod)
        return None

    async def _sleep(self, guest: Guest, pod: Object, copy: Object | None) -> None:
        """A sleeping cluster keeps its objects; what runs is stopped, and controllers' new pods wait."""
        if copy is not None:
            await self._remove(copy, None)
        elif (pod.get("spec") or {}).get("nodeName") and (pod.get("status") or {}).get("phase") not in _ENDED:
            if not await self._is_there(guest, pod):
                await self._give_up(guest, pod)
        else:
            await self._refuse(guest, pod, "ClusterPaused", "the virtual cluster is paused", quietly=True)

    # -- down

    def _copy(self, guest: Guest, request: Request) -> Object | None:
        key = ObjectKey(ROOT, guest.namespace, guest.host_name(request.name, request.namespace))
        found = self._guests.host_pods.get_key(key)
        return found if found is not None and guest_key(found) == request else None

    async def _is_there(self, guest: Guest, pod: Object) -> bool:
        """Asked of the server itself, before anything is given up for lost."""
        meta = metadata(pod)
        try:
            found = await self._guests.root.get(PODS, guest.host_name(meta["name"], meta["namespace"]), guest.namespace)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return is_copy_of(found, pod)

    async def _remove(self, copy: Object, grace: int | None) -> None:
        known = metadata(copy).get("deletionGracePeriodSeconds")
        if not is_deleting(copy) or (grace is not None and known is not None and grace < int(known)):
            await delete(self._guests.root, PODS, copy, grace)

    async def _give_up(self, guest: Guest, pod: Object) -> None:
        """The guest's pod, for which nothing runs any more, and what was there for it."""
        try:
            spec = translate(pod, guest).pod["spec"] | {"nodeName": (pod.get("spec") or {}).get("nodeName")}
        except NotAllowed:
            spec = {}
        await delete(self._guests.client(guest.cluster), PODS, pod, grace=0)
        await self._tidy(guest, uid(pod), spec)

    async def _tidy(self, guest: Guest, pod_uid: str, spec: Mapping[str, Any]) -> None:
        self._looked.pop(pod_uid, None)
        await self._copies.sweep(guest, pod_uid, spec)
        await self._forget_node(guest, pod_uid, str(spec.get("nodeName") or ""))

    # -- up

    async def _bind(self, guest: Guest, pod: Object, copy: Object, node: str) -> Object:
        client = self._guests.client(guest.cluster)
        meta = metadata(pod)
        await self._show_node(guest, node, meta["uid"])
        where = {HOST_POD: f"{guest.namespace}/{name(copy)}"}
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "uid": meta["uid"], "annotations": where},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await client.create(PODS, binding, meta["namespace"], subresource="binding", name=meta["name"])
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
        return await client.get(PODS, meta["name"], meta["namespace"])

    async def _report(self, guest: Guest, pod: Object, copy: Object) -> None:
        wanted = status_up(copy, pod)
        try:
            await update_status(self._guests.client(guest.cluster), PODS, pod, lambda _: wanted)
        except ApiError as error:
            if error.code != 404:
                raise

    async def _refuse(self, guest: Guest, pod: Object, reason: str, message: str, *, quietly: bool = False) -> None:
        """Said on the pod itself, in the words its owner reads anyway."""
        known = (pod.get("status") or {}).get("conditions") or []
        said = any(one.get("reason") == reason and one.get("message") == message for one in known)
        if said:
            return
        now = self._manager.environment.now()
        wanted = {"conditions": with_conditions(known, [Condition("PodScheduled", False, reason, message)], now=now)}
        try:
            await update_status(self._guests.client(guest.cluster), PODS, pod, lambda _: wanted)
        except ApiError as error:
            if error.code != 404:
                raise
        if not quietly:
            self._tell(guest, pod, reason, message)

    def _tell(self, guest: Guest, pod: Object, reason: str, message: str) -> None:
        self._manager.events.event(at_cluster(pod, guest.cluster), "Warning", reason, message)

    # -- nodes as the guest sees them

    async def _show_node(self, guest: Guest, node: str, pod_uid: str) -> None:
        found = self._nodes.get_key(ObjectKey(ROOT, "", node))
        if found is None:
            return
        async with self._locks.setdefault((guest.cluster, node), asyncio.Lock()):
            placed = self._placed.setdefault((guest.cluster, node), set())
            is_shown = bool(placed)
            placed.add(pod_uid)
            if is_shown:
                return
            client = self._guests.client(guest.cluster)
            obj, status = virtual_node(found)
            try:
                await client.create(NODES, obj)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
            await client.patch(NODES, node, {"status": status}, subresource="status")

    async def _forget_node(self, guest: Guest, pod_uid: str, node: str) -> None:
        """A node without pods of the guest is not the guest's any more."""
        if not node:
            return
        key = (guest.cluster, node)
        async with self._locks.setdefault(key, asyncio.Lock()):
            placed = self._placed.setdefault(key, set())
            placed.discard(pod_uid)
            if placed or any(one.uid != pod_uid for one in self._guests.on_node(guest.cluster, node)):
                return
            client = self._guests.client(guest.cluster)
            try:
                found = await client.get(NODES, node)
            except ApiError as error:
                if error.code != 404:
                    raise
            else:
                if VIRTUAL_NODE in labels(found):
                    await delete(client, NODES, found)
            self._placed.pop(key, None)
        self._locks.pop(key, None)


def at_cluster(obj: Object, cluster: str) -> Object:
    """The object as a reader of all clusters sees it, so that events about it go where it is."""
    meta = metadata(obj)
    return {
        **obj,
        "metadata": {**meta, "annotations": {**(meta.get("annotations") or {}), CLUSTER_ANNOTATION: cluster}},
    }
