"""VMs that cannot be forgotten: a PeerPod is the wish for one, written before it is made, and stays until it is gone.

Order: the finalizer, a status that says Creating (written with the version that was read, so nobody acts for a record that
is no more), the VM under the record's uid as token, its id in the record. A crash between any two of these finds the same
VM again by the token. The way back is deleting until the provider no longer knows it; gone already is success.

A failure of the provider becomes a condition and an event in plain words, and a wait: half as long as it has lasted,
within bounds, so there is no hot loop and nothing to remember.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fleetplane.client.snapshot import Snapshot
from fleetplane.controller import Condition, Context, Controller, Manager, Result, controller_for
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, condition, finalizers, is_deleting, metadata, owner_references
from fleetplane.operators.peerpods.clouds import Cloud, Clouds
from fleetplane.operators.peerpods.kinds import FINALIZER, PeerPod
from fleetplane.operators.peerpods.providers.protocol import (
    CLUSTER_TAG,
    RECORD_TAG,
    Failure,
    Instance,
    ProviderError,
    Size,
    VmSpec,
)

READY: Final = "Ready"
ANSWERS: Final = "ProviderAnswers"

_OWNER: Final = "peerpods.owner"
POLL: Final = 1.0
LOOK_AGAIN: Final = 300.0
AT_ONCE: Final = 12
"""Records are looked after so many at a time: enough to keep a slow cloud busy, few enough not to stand in each other's way."""
_WAITS: Final[Mapping[Failure, tuple[float, float]]] = {
    Failure.THROTTLED: (1.0, 60.0),
    Failure.TIMED_OUT: (2.0, 120.0),
    Failure.UNAVAILABLE: (2.0, 120.0),
    Failure.QUOTA: (15.0, 300.0),
    Failure.CREDENTIALS: (30.0, 300.0),
    Failure.REFUSED: (60.0, 600.0),
    Failure.UNSUPPORTED: (60.0, 600.0),
}
"""The shortest and the longest wait, in seconds."""


class Records:
    """The controller of PeerPods."""

    def __init__(self, manager: Manager, clouds: Clouds) -> None:
        self._manager = manager
        self._clouds = clouds
        self._records = manager.informer(PeerPod)
        self._records.add_index(_OWNER, _owner_uids)

    def controller(self) -> Controller:
        return controller_for(
            self._manager,
            PeerPod,
            self.reconcile,
            name="peerpods",
            finalizer=FINALIZER,
            cleanup=self.cleanup,
            max_concurrent=AT_ONCE,
        )

    async def reconcile(self, context: Context[PeerPod], record: PeerPod) -> Result | None:
        await self._delete_older_twins(context)
        if record.spec.vm is None:
            await context.set_status({"phase": "Recorded"})
            return None
        try:
            return await self._provide(context, record)
        except ProviderError as error:
            return await self._failed(context, error)

    async def _provide(self, context: Context[PeerPod], record: PeerPod) -> Result | None:
        cloud = await self._clouds.find(context.client, record.spec.cloud_provider, record.namespace)
        id = record.spec.instance_id
        if id:
            found = await cloud.describe(id=id)
        else:
            await context.set_status({"phase": "Creating"}, Condition(READY, False, "Creating", "the VM is being made"))
            if is_deleting(context.object) or FINALIZER not in finalizers(context.object):
                return Result(requeue_after=POLL)
            if (id := str(context.object["spec"].get("instanceID") or "")) == "":
                found = await cloud.create(await self._wish(context, record, cloud))
                await self._remember(context, found)
            else:
                found = await cloud.describe(id=id)
        if found is None or found.is_gone or found.state == "deleting":
            await context.set_status(
                {"phase": "Failed", "addresses": []},
                Condition(ANSWERS, True, "Answers"),
                Condition(READY, False, "VmLost", f"the VM {id} is gone; delete this PeerPod"),
            )
            return None
        return await self._sized(context, record, cloud, found)

    async def _sized(self, context: Context[PeerPod], record: PeerPod, cloud: Cloud, found: Instance) -> Result | None:
        """Give a running VM the size it should have, and say how it is."""
        wanted = _size(record)
        before = context.object.get("status") or {}
        had = Size(int(before.get("vcpus") or 0), int(before.get("memoryMiB") or 0))
        differs = (wanted.vcpus, wanted.memory_mib) != (had.vcpus, had.memory_mib)
        if found.state == "running" and before.get("phase") == "Running" and differs:
            found = await cloud.resize(found.id, wanted)
            context.event("VmResized", f"the VM {found.id} has {wanted.vcpus} CPUs and {wanted.memory_mib} MiB")
            had = wanted
        if before.get("phase") in {None, "", "Creating"}:
            had = wanted
        is_up = found.state == "running"
        await context.set_status(
            {
                "phase": "Running" if is_up else "Creating",
                "addresses": list(found.addresses),
                "instanceType": found.size.instance_type,
                "vcpus": had.vcpus,
                "memoryMiB": had.memory_mib,
            },
            Condition(ANSWERS, True, "Answers"),
            Condition(READY, is_up, "Running" if is_up else "Starting", "" if is_up else f"the VM is {found.state}"),
        )
        return Result(requeue_after=LOOK_AGAIN if is_up else POLL)

    async def _wish(self, context: Context[Any], record: PeerPod, cloud: Cloud) -> VmSpec:
        tags = {CLUSTER_TAG: await self._clouds.cluster_uid(context.client), RECORD_TAG: record.uid}
        name = f"podvm-{record.name}"[:54].rstrip("-.") + f"-{record.uid[:8]}"
        size, image = _size(record), record.spec.vm.image if record.spec.vm is not None else ""
        if not size.instance_type and not (size.vcpus or size.memory_mib or size.gpus):
            size = Size(instance_type=cloud.default_type)
        return VmSpec(record.uid, name, tags, size, image)

    async def _remember(self, context: Context[Any], made: Instance) -> None:
        meta = metadata(context.object)
        patch = {"metadata": {"uid": meta["uid"]}, "spec": {"instanceID": made.id}}
        context.object = await context.client.patch(PeerPod, meta["name"], patch, meta["namespace"])
        context.event("VmCreated", f"the VM {made.id} is this pod's")

    async def _delete_older_twins(self, context: Context[Any]) -> None:
        """Of several records of one pod the youngest counts: the others are of sandboxes that are no more."""
        mine = _age(context.object)
        for owner in _owner_uids_of(context.object):
            for twin in self._records.by_index(_OWNER, owner):
                if _age(twin) < mine and not is_deleting(twin):
                    meta = metadata(twin)
                    try:
                        await context.client.delete(PeerPod, meta["name"], meta["namespace"], uid=meta["uid"])
                    except ApiError as error:
                        if error.code not in {404, 409}:
                            raise

    # -- a record that goes

    async def cleanup(self, context: Context[PeerPod], record: PeerPod) -> Result | None:
        if not record.spec.instance_id and record.spec.vm is None:
            return None  # it never spoke of any VM
        try:
            cloud = await self._clouds.find(context.client, record.spec.cloud_provider, record.namespace)
            by = {"id": record.spec.instance_id} if record.spec.instance_id else {"token": record.uid}
            found = await cloud.describe(**by)
            if found is None or found.is_gone:
                return None
            if found.tags.get(RECORD_TAG, record.uid) != record.uid:
                context.event("VmOfAnother", f"the VM {found.id} belongs to another PeerPod and stays", warning=True)
                return None  # whoever may write a record must not delete anybody's VM with it
            if found.state != "deleting":
                await cloud.delete(found.id)
        except ProviderError as error:
            return await self._failed(context, error)
        gone = Condition(READY, False, "Deleting", f"the VM {found.id} is being deleted")
        await context.set_status({"phase": "Deleting"}, Condition(ANSWERS, True, "Answers"), gone)
        return Result(requeue_after=POLL)

    async def _failed(self, context: Context[Any], error: ProviderError) -> Result:
        """Say it, once, and wait."""
        before = condition(context.object, ANSWERS) or {}
        reason = error.failure.value
        if before.get("reason") != reason:
            context.event(reason, error.message, warning=True)
        said = Condition(ANSWERS, False, reason, error.message)
        await context.set_status(None, said, Condition(READY, False, reason, error.message))
        since = condition(context.object, ANSWERS) or {}
        lasted = (context.now() - parse_timestamp(since["lastTransitionTime"])).total_seconds()
        shortest, longest = _WAITS[error.failure]
        wait = min(longest, max(shortest, lasted / 2, error.retry_after or 0.0))
        return Result(requeue_after=wait * (1 + 0.2 * self._manager.environment.random.random()))


def _size(record: PeerPod) -> Size:
    vm = record.spec.vm
    return Size() if vm is None else Size(vm.vcpus, vm.memory_mib, vm.gpus, vm.instance_type)


def _age(obj: Object) -> tuple[str, str]:
    """Records by age; those of one second, and there are such, by uid."""
    meta = metadata(obj)
    return str(meta.get("creationTimestamp") or ""), str(meta.get("uid") or "")


def _owner_uids_of(obj: Object) -> list[str]:
    return [one.uid for one in owner_references(obj) if one.kind == "Pod" and one.uid]


def _owner_uids(snapshot: Snapshot) -> Iterable[str]:
    return [one.uid for one in snapshot.meta.owner_references or () if one.kind == "Pod" and one.uid]
