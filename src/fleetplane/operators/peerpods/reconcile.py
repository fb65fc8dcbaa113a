"""Making it so: a PeerPodConfig becomes capacity on nodes, an adaptor on them, and a status that says how far that is.

Order: the status names the nodes before capacity is put on them, so that after any crash what must be taken off again is
known. Capacity comes first and waits for nothing; the adaptor, its ConfigMap and its Secret follow. Every node is written
only when its number changes, and with the version it was read at: a write that was long on its way never undoes a newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fleetplane.client.informer import Change
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller import Condition, Context, Controller, Manager, Request, Result, Watch, controller_for
from fleetplane.model.builtin.types import CONFIG_MAPS, DAEMON_SETS, NODES, RUNTIME_CLASSES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, is_deleting, metadata, resource_version
from fleetplane.operators.peerpods import adaptor
from fleetplane.operators.peerpods.kinds import CAPACITY_FINALIZER, RUNTIME_CLASS, VM_RESOURCE, PeerPodConfig
from fleetplane.operators.peerpods.plan import (
    BadLimit,
    Node,
    Plan,
    capacity_patch,
    left_behind,
    plan,
)
from fleetplane.operators.peerpods.settings import Reading

CAPACITY: Final = "CapacityAdvertised"
CONFLICT: Final = "Conflict"
CONFIGURED: Final = "ConfigurationValid"
ADAPTOR: Final = "AdaptorReady"
READY: Final = "Ready"

AT_ONCE: Final = 16
"""Nodes are written so many at a time."""
SHOWN: Final = 5
"""A message names so many nodes, and counts the others."""
NODES_DECODED: Final = 5000
SOON: Final = 0.1
SETTLED: Final = 0.5


class Configs:
    """The controller of PeerPodConfigs."""

    def __init__(self, manager: Manager, reading: Reading, image: str = adaptor.IMAGE) -> None:
        self._manager = manager
        self._reading = reading
        self._image = image
        self._nodes = manager.informer(NODES, decoded=NODES_DECODED)
        self._configs = manager.informer(PeerPodConfig)
        self._daemon_sets = manager.informer(DAEMON_SETS)
        self._runtime_classes = manager.informer(RUNTIME_CLASSES)

    def controller(self) -> Controller:
        def everyone(snapshot: Snapshot) -> Iterable[Request]:
            return [one.key for one in self._configs.snapshots(cluster=snapshot.key.cluster)]

        def others(snapshot: Snapshot) -> Iterable[Request]:
            return [one for one in everyone(snapshot) if one != snapshot.key]

        def in_its_namespace(snapshot: Snapshot) -> Iterable[Request]:
            same = self._configs.list(snapshot.key.namespace, cluster=snapshot.key.cluster)
            return [
                _request(one, snapshot.key.cluster) for one in same if snapshot.key.name == adaptor.names_of(one)[0]
            ]

        return controller_for(
            self._manager,
            PeerPodConfig,
            self.reconcile,
            name="peerpodconfigs",
            owns=[DAEMON_SETS],
            watches=[
                Watch(NODES, everyone, predicate=concerns_capacity),
                Watch(CONFIG_MAPS, in_its_namespace),
                Watch(RUNTIME_CLASSES, everyone),
                Watch(PeerPodConfig, others, predicate=claim_changed),
            ],
            finalizer=CAPACITY_FINALIZER,
            cleanup=self.cleanup,
            max_concurrent=1,  # configs share nodes
        )

    # -- a config that stays

    async def reconcile(self, context: Context[PeerPodConfig], config: PeerPodConfig) -> Result | None:
        nodes, versions = self._seen(context)
        configs = self._all(context)
        try:
            wanted = plan(context.object, configs, nodes)
        except BadLimit as error:
            await context.set_status(
                {"setupCompleted": False},
                Condition(CAPACITY, False, "InvalidLimit", f"spec.limit: {error}"),
                Condition(READY, False, "InvalidLimit", f"spec.limit: {error}"),
            )
            return None
        await self._intend(context, wanted)
        failures, conflicts = await self._write(context, wanted.changes, versions)
        await self._runtime_class(context)
        settings = await self._reading.settings(context.client, context.object)
        name = self._daemon_set_name(context)
        child = adaptor.daemon_set(context.object, name, self._image, settings.digest, sorted(wanted.lost))
        needed = settings.provider not in adaptor.WITHOUT_ADAPTOR and (wanted.shares or not wanted.lost)
        refused = ""
        try:
            await context.apply_children([child] if needed else [])
        except ApiError as error:
            if error.code not in {403, 409, 422}:
                raise
            refused = error.message
        await self._report(context, wanted, failures, settings, name, refused)
        if conflicts:
            return Result(requeue_after=SOON)
        if failures:
            raise ApiError(503, f"capacity could not be written: {_some(failures.values())}")
        if refused:
            raise ApiError(503, f"the adaptor's DaemonSet was refused: {refused}")
        return Result(requeue_after=self._reading.recheck(settings))

    async def _intend(self, context: Context[PeerPodConfig], wanted: Plan) -> None:
        """Name every node in the status before it is written; nodes that no longer are, or are another's, are dropped."""
        known = {one["name"] for one in (context.object.get("status") or {}).get("nodes") or ()}
        leaving = {name for name, share in wanted.changes.items() if share is None}
        listed = [{"name": name, "capacity": share} for name, share in wanted.shares.items()]
        listed += [{"name": name, "capacity": 0} for name in sorted(leaving & known)]
        await context.set_status({"nodes": listed, "capacity": wanted.total})

    async def _write(
        self, context: Context[Any], changes: Mapping[str, int | None], versions: Mapping[str, str]
    ) -> tuple[dict[str, str], list[str]]:
        """Write what changes; says what failed by node, and which nodes had changed meanwhile."""
        failures: dict[str, str] = {}
        conflicts: list[str] = []
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(name: str, share: int | None) -> None:
            async with turn:
                try:
                    patch = capacity_patch(share, versions[name])
                    await context.client.patch(NODES, name, patch, type="merge", subresource="status")
                except ApiError as error:
                    if error.code == 409:
                        conflicts.append(name)
                    elif error.code != 404:
                        failures[name] = f"{name}: {error.message}"

        async with asyncio.TaskGroup() as group:
            for name, share in changes.items():
                group.create_task(one(name, share))
        return failures, conflicts

    async def _runtime_class(self, context: Context[Any]) -> None:
        if self._runtime_classes.get(RUNTIME_CLASS, cluster=context.request.cluster) is None:
            try:
                await context.client.create(RUNTIME_CLASSES, adaptor.runtime_class())
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise

    def _daemon_set_name(self, context: Context[Any]) -> str:
        """The original's name where it is free; a config keeps the name it once got."""
        mine = [str(metadata(one)["name"]) for one in context.children()]
        if mine:
            return min(mine)
        taken = self._daemon_sets.get(adaptor.DAEMON_SET, context.request.namespace, cluster=context.request.cluster)
        if taken is None or getattr(controller_of(taken), "uid", "") == context.owner.uid:
            return adaptor.DAEMON_SET
        return f"{adaptor.DAEMON_SET}-{context.owner.uid[:8]}"

    async def _report(
        self,
        context: Context[PeerPodConfig],
        wanted: Plan,
        failures: Mapping[str, str],
        settings: adaptor.Settings,
        name: str,
        refused: str,
    ) -> None:
        found = self._daemon_sets.get(name, context.request.namespace, cluster=context.request.cluster)
        state = (found or {}).get("status") or {}
        desired, ready = int(state.get("desiredNumberScheduled") or 0), int(state.get("numberReady") or 0)
        conditions = [
            _capacity_condition(wanted, failures),
            _conflict_condition(wanted),
            Condition(CONFIGURED, not settings.reason, settings.reason or "Valid", "; ".join(settings.problems)),
            Condition(ADAPTOR, False, "Refused", f"the DaemonSet {name} was refused: {refused}")
            if refused
            else _adaptor_condition(settings.provider, found is not None, desired, ready, len(wanted.shares)),
        ]
        good = {CAPACITY: "True", CONFLICT: "False", CONFIGURED: "True", ADAPTOR: "True"}
        wrong = next((one for one in conditions if one.status_text != good[one.type]), None)
        conditions.append(
            Condition(READY, False, wrong.reason, wrong.message) if wrong else Condition(READY, True, "SetupCompleted")
        )
        before = {one["type"]: one for one in (context.object.get("status") or {}).get("conditions") or ()}
        status: Object = {
            "setupCompleted": wrong is None,
            "adaptor": {"name": name, "desired": desired, "ready": ready},
            "nodes": [{"name": node, "capacity": share} for node, share in wanted.shares.items()],
        }
        if failures or any(share is None for share in wanted.changes.values()):
            del status["nodes"]  # dropped by the next pass, which sees that they are clean
        await context.set_status(status, *conditions)
        for one in conditions[:-1]:
            if (before.get(one.type) or {}).get("reason") != one.reason and (
                one.status_text != good[one.type] or before
            ):
                context.event(one.reason, one.message or one.type, warning=one.status_text != good[one.type])

    # -- a config that goes

    async def cleanup(self, context: Context[PeerPodConfig], config: PeerPodConfig) -> Result | None:
        nodes, versions = self._seen(context)
        configs = self._all(context)
        written = left_behind(context.object, configs, nodes)
        if written:
            failures, _ = await self._write(context, dict.fromkeys(written), versions)
            if failures:
                raise ApiError(503, f"capacity could not be taken off: {_some(failures.values())}")
            return Result(requeue_after=SETTLED)  # a node that mirrors what it had read may put it back once
        if await self._is_last(context):
            await self._remove_runtime_class(context)
        return None

    async def _is_last(self, context: Context[Any]) -> bool:
        listed = await context.client.list(PeerPodConfig)
        return all(is_deleting(one) for one in listed.items)

    async def _remove_runtime_class(self, context: Context[Any]) -> None:
        found = self._runtime_classes.get(RUNTIME_CLASS, cluster=context.request.cluster)
        if found is None or not adaptor.is_ours(found):
            return
        try:
            await context.client.delete(RUNTIME_CLASSES, RUNTIME_CLASS, uid=metadata(found)["uid"])
        except ApiError as error:
            if error.code not in {404, 409}:
                raise

    # -- what there is

    def _seen(self, context: Context[Any]) -> tuple[list[Node], dict[str, str]]:
        """The nodes, and the version each was seen at."""
        found = [one for one in self._nodes.list(cluster=context.request.cluster) if not is_deleting(one)]
        return [Node.of(one) for one in found], {str(metadata(one)["name"]): resource_version(one) for one in found}

    def _all(self, context: Context[Any]) -> Sequence[Object]:
        """All configs, this one as it was last written."""
        own = context.owner.uid
        found = self._configs.list(cluster=context.request.cluster)
        return [*(one for one in found if metadata(one).get("uid") != own), context.object]


def concerns_capacity(change: Change) -> bool:
    """A node came or went, has other labels, or another amount of the resource: not its heartbeats."""
    old, new = change.old, change.new
    if change.event != "MODIFIED" or old is None:
        return True
    if old.labels != new.labels or old.is_deleting != new.is_deleting:
        return True
    return _amounts(old.object) != _amounts(new.object)


def claim_changed(change: Change) -> bool:
    """Another config came or went, or selects other nodes: not its status."""
    old, new = change.old, change.new
    return (
        change.event != "MODIFIED"
        or old is None
        or old.generation != new.generation
        or old.is_deleting != new.is_deleting
    )


def _amounts(node: Mapping[str, Any]) -> tuple[Any, Any]:
    status = node.get("status") or {}
    return (status.get("capacity") or {}).get(VM_RESOURCE), (status.get("allocatable") or {}).get(VM_RESOURCE)


def _capacity_condition(wanted: Plan, failures: Mapping[str, str]) -> Condition:
    if failures:
        return Condition(CAPACITY, False, "NodePatchFailed", _some(failures.values()))
    if not wanted.shares:
        return Condition(CAPACITY, False, "NoNodes", "no node matches nodeSelector that no older config has")
    return Condition(CAPACITY, True, "Advertised", f"{wanted.total} pod VMs on {len(wanted.shares)} nodes")


def _conflict_condition(wanted: Plan) -> Condition:
    if not wanted.lost:
        return Condition(CONFLICT, False, "NoConflict")
    shown = _some(f"{node}: {owner}" for node, owner in sorted(wanted.lost.items()))
    return Condition(
        CONFLICT, True, "NodesTaken", f"nodes of an older config are left to it ({shown}); narrow a nodeSelector"
    )


def _adaptor_condition(provider: str, there: bool, desired: int, ready: int, nodes: int) -> Condition:
    if provider in adaptor.WITHOUT_ADAPTOR:
        return Condition(ADAPTOR, True, "NotNeeded", f"nodes make their VMs themselves with {provider}")
    if not there:
        return Condition(ADAPTOR, False, "NotCreated", "the adaptor's DaemonSet is not there yet")
    if nodes and desired == 0:
        return Condition(ADAPTOR, False, "NotScheduled", "the adaptor runs on no node yet")
    if ready < desired:
        return Condition(ADAPTOR, False, "Starting", f"the adaptor is ready on {ready} of {desired} nodes")
    return Condition(ADAPTOR, True, "Ready", f"the adaptor is ready on {ready} nodes")


def _some(parts: Iterable[str]) -> str:
    listed = list(parts)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def _request(obj: Mapping[str, Any], cluster: str) -> Request:
    meta = metadata(obj)
    return Request(cluster, str(meta["namespace"]), str(meta["name"]))
