"""Claims through their lives, and pools that say how full they are.

What a claim is follows from facts: whether it has addresses, whether a pod uses them, whether it is going, and how long any
of that has lasted. A claim that waits gets its addresses here, when one is free again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Final

import msgspec

from fleetplane.client.informer import Change
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller import Condition, Context, Controller, Manager, Request, Result, Watch, controller_for
from fleetplane.controller.predicates import content_changed
from fleetplane.controller.reader import ClientReader
from fleetplane.model.builtin.types import PODS
from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, metadata
from fleetplane.operators.network.admission import overlaps, serves
from fleetplane.operators.network.kinds import FINALIZER, IPClaim, IPPool
from fleetplane.operators.network.plan import (
    Exhausted,
    Ledger,
    NotGiven,
    Pool,
    Stage,
    holder_of,
    ledger_of,
    owner_of,
    stage,
)
from fleetplane.operators.network.ranges import FAMILIES, Family

NODE_PODS: Final = "vnode"
"""Label of pods whose addresses may be claimed: the nodes of virtual clusters."""
TRIES: Final = 16
COUNT_EVERY: Final = 1.0
MAX_COUNT: Final = (1 << 31) - 1
"""Larger numbers are told as this one: nobody counts a /64."""
WAIT: Final = 10.0
_BY_ADDRESS: Final = "address"
_BY_PHASE: Final = "phase"
_FAMILIES: Final[Mapping[str, Sequence[Family]]] = {"IPv4": ("IPv4",), "IPv6": ("IPv6",), "IPv4+IPv6": FAMILIES}
"""What addresses a claim can have."""
_PHASES: Final = ("Reserved", "Allocated", "Held", "Quarantined", "Conflict")
"""Of claims with addresses."""


class Claims:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._pools = manager.informer(IPPool)
        self._claims = claims_informer(manager)
        self._pods = manager.informer(PODS, labels=NODE_PODS)
        self._pods.add_index(_BY_ADDRESS, _pod_addresses)
        self._pictures: dict[tuple[str, str], tuple[float, Ledger]] = {}

    def controller(self) -> Controller:
        return controller_for(
            self._manager,
            IPClaim,
            self.reconcile,
            name="ipclaims",
            watches=[
                Watch(PODS, self._claims_of_pod, labels=NODE_PODS),
                Watch(IPPool, self._waiting),
                Watch(IPClaim, self._waiting_for, predicate=lambda change: change.event == "DELETED"),
            ],
            finalizer=FINALIZER,
            cleanup=self.cleanup,
            predicate=_is_worth_a_look,
            max_concurrent=4,
            resync=None,
        )

    async def reconcile(self, context: Context[IPClaim], claim: IPClaim) -> Result | None:
        why = ""
        if not claim.spec.addresses:
            why = await self._fill(context)
        elif self._is_younger(context.request.cluster, context.object):
            conflict = Condition("Ready", False, "Conflict", "an older claim has the same address; make another claim")
            await context.set_status({"phase": "Conflict", "until": ""}, conflict)
            return None
        now = self._stage(context)
        await self._report(context, now, why)
        if now.phase == "Pending":
            return Result(requeue_after=WAIT)
        if now.until is not None and now.until <= 0:
            await _delete(context)
            return None
        return Result(requeue_after=now.until) if now.until is not None else None

    async def cleanup(self, context: Context[IPClaim], claim: IPClaim) -> Result | None:
        """Let the addresses rest. The store holds them for as long as the claim is there."""
        now = self._stage(context)
        if not now.until:
            return None
        await self._report(context, now, "")
        return Result(requeue_after=now.until)

    def _stage(self, context: Context[IPClaim]) -> Stage:
        obj, now = context.object, context.now()
        status, meta = obj.get("status") or {}, metadata(obj)
        pool = self._pools.get_key(ObjectKey(context.request.cluster, "", str(obj["spec"].get("pool"))))
        rest = IPPool.view(pool).spec.quarantine_seconds if pool is not None else 0

        def seconds(text: Any) -> float:
            return (parse_timestamp(text) if text else now).timestamp()

        return stage(
            obj,
            self._in_use(context.request.cluster, obj),
            now.timestamp(),
            seconds(meta.get("creationTimestamp")),
            seconds(status.get("since")),
            seconds(meta.get("deletionTimestamp")),
            rest,
        )

    async def _report(self, context: Context[IPClaim], now: Stage, why: str) -> None:
        was = (context.object.get("status") or {}).get("phase")
        until = "" if now.until is None else timestamp(context.now() + timedelta(seconds=now.until))
        status: Object = {"phase": now.phase, "until": until}
        if was != now.phase:
            status["since"] = timestamp(context.now())
        has_one = bool(context.object["spec"].get("addresses")) and now.phase != "Quarantined"
        await context.set_status(status, Condition("Ready", has_one, now.phase, why))

    # -- addresses that admission did not fill in

    async def _fill(self, context: Context[IPClaim]) -> str:
        """Choose and write addresses; what keeps us from it otherwise."""
        claim, cluster = context.object, context.request.cluster
        name = str(claim["spec"].get("pool"))
        pool = self._pools.get_key(ObjectKey(cluster, "", name))
        if pool is None or is_deleting(pool):
            return f"there is no IPPool {name}"
        if not await serves(pool, context.request.namespace, ClientReader(context.client)):
            return f"pool {name} does not serve namespace {context.request.namespace}"
        view = IPPool.view(pool).spec
        spec = claim["spec"]
        try:
            ledger = self._picture(cluster, pool)
            for _ in range(TRIES):
                chosen = ledger.take(
                    holder_of(claim), spec.get("families") or (), (), owner_of(claim), metadata(claim)["uid"]
                )
                refused = await self._write(context, chosen, view.vpc_ref)
                if not refused:
                    return ""
                ledger.drop(holder_of(claim))
                for one in refused:
                    ledger.refused(one)
        except (Exhausted, NotGiven, ValueError) as error:
            return f"pool {name}: {error}"
        return f"pool {name}: addresses are taken faster than they can be found"

    def _picture(self, cluster: str, pool: Object) -> Ledger:
        """What claims a pool has, made anew at most once a second: many may wait for the same pool."""
        key, now = (cluster, metadata(pool)["name"]), self._manager.environment.monotonic()
        known = self._pictures.get(key)
        if known is None or now >= known[0] + COUNT_EVERY:
            values = [f"{cluster}/{key[1]}/{phase}/{families}" for phase in _PHASES for families in _FAMILIES]
            claims = (claim for value in values for claim in self._claims.by_index(_BY_PHASE, value))
            known = self._pictures[key] = (now, ledger_of(Pool.of(IPPool.view(pool).spec), claims))
        return known[1]

    async def _write(self, context: Context[IPClaim], chosen: list[str], vpc: str) -> list[str]:
        """Returns the addresses that the store says are taken."""
        meta = metadata(context.object)
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"addresses": chosen, "vpcRef": vpc}}
        try:
            context.object = await context.client.patch(IPClaim, meta["name"], patch, meta["namespace"])
        except ApiError as error:
            taken = [one for one in chosen if any(f'/{one}"' in str(cause) for cause in error.causes)]
            if error.code != 422 or not taken:
                raise
            return taken
        return []

    def _is_younger(self, cluster: str, claim: Object) -> bool:
        """Whether an older claim has an address of this one, as can be only where no store of ours keeps them apart."""
        same = [other for one in _addresses(claim) for other in self._claims.by_index(_BY_ADDRESS, f"{cluster}/{one}")]
        return len(same) > len(_addresses(claim)) and any(_age(other) < _age(claim) for other in same)

    # -- who is to be looked at

    def _in_use(self, cluster: str, claim: Object) -> bool:
        return any(
            not is_deleting(pod)
            for one in claim["spec"].get("addresses") or ()
            for pod in self._pods.by_index(_BY_ADDRESS, f"{cluster}/{one}")
        )

    def _claims_of_pod(self, pod: Snapshot) -> Iterable[Request]:
        cluster = pod.key.cluster
        for value in _pod_addresses(pod):
            for found in self._claims.snapshots_by_index(_BY_ADDRESS, f"{cluster}//{value.partition('/')[2]}"):
                yield found.key

    def _waiting(self, pool: Snapshot) -> Iterable[Request]:
        """Claims of a pool that have no address yet."""
        self._pictures.pop((pool.key.cluster, pool.key.name), None)
        value = f"{pool.key.cluster}/{pool.key.name}/Pending"
        return [one.key for one in self._claims.snapshots_by_index(_BY_PHASE, value)]

    def _waiting_for(self, gone: Snapshot) -> Iterable[Request]:
        """One of those that wait for what a claim has given back."""
        pool = str((gone.object.get("spec") or {}).get("pool"))
        self._pictures.pop((gone.key.cluster, pool), None)
        waiting = self._claims.snapshots_by_index(_BY_PHASE, f"{gone.key.cluster}/{pool}/Pending")
        return [one.key for one in islice(waiting, 1)]


class Pools:
    """Counts, at most once a second for each pool."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._pools = manager.informer(IPPool)
        self._claims = claims_informer(manager)
        self._counted: dict[Request, float] = {}
        self._due: set[Request] = set()

    def controller(self) -> Controller:
        def pool_of(claim: Snapshot) -> Iterable[Request]:
            """Nothing for a pool that is going to be counted anyway: claims come by the thousand."""
            pool = Request(claim.key.cluster, "", str(_decode(claim.encoded).spec.pool or ""))
            if pool in self._due or self._pools.snapshot(pool) is None:
                return ()
            self._due.add(pool)
            return (pool,)

        def everyone(_: Snapshot) -> Iterable[Request]:
            return [one.key for one in self._pools.snapshots()]

        return controller_for(
            self._manager,
            IPPool,
            self.reconcile,
            name="ippools",
            watches=[Watch(IPClaim, pool_of), Watch(IPPool, everyone)],
            max_concurrent=1,
            resync=None,
        )

    async def reconcile(self, context: Context[IPPool], pool: IPPool) -> Result | None:
        now = self._manager.environment.monotonic()
        left = self._counted.get(context.request, now - COUNT_EVERY) + COUNT_EVERY - now
        if left > 0:
            return Result(requeue_after=left)
        self._due.discard(context.request)
        self._counted[context.request] = now
        counts, used = self._count(context.request)
        sizes = Pool.of(pool.spec).sizes()
        free = min((size - used[family] for family, size in sizes.items()), default=0)
        conflicts = overlaps(context.object, [one.object for one in self._pools.snapshots()])
        why = f"has addresses in common with {', '.join(conflicts)}" if conflicts else ""
        await context.set_status(
            {
                "capacity": min(min(sizes.values(), default=0), MAX_COUNT),
                "used": sum(counts.values()),
                "free": min(max(0, free), MAX_COUNT),
                "reserved": counts["Reserved"],
                "allocated": counts["Allocated"],
                "held": counts["Held"],
                "quarantined": counts["Quarantined"],
                "conflicts": conflicts,
            },
            Condition("Ready", True, "Conflicts" if conflicts else "Ready", why),
        )
        return None

    def _count(self, request: Request) -> tuple[dict[str, int], dict[Family, int]]:
        """Claims by phase, and addresses by family. Asked of the index alone: decoding all each second would be felt."""
        counts = dict.fromkeys(("Reserved", "Allocated", "Held", "Quarantined"), 0)
        used: dict[Family, int] = dict.fromkeys(FAMILIES, 0)
        for phase in counts:
            for families, each in _FAMILIES.items():
                found = self._claims.count_by_index(_BY_PHASE, f"{request.cluster}/{request.name}/{phase}/{families}")
                counts[phase] += found
                for family in each:
                    used[family] += found
        return counts, used


class _Spec(msgspec.Struct, rename="camel"):
    pool: Any = None
    addresses: Any = None
    vpc_ref: Any = None
    use: Any = None


class _Status(msgspec.Struct, rename="camel"):
    phase: Any = None
    until: Any = None
    observed_generation: Any = None


class _Claim(msgspec.Struct):
    """As much of a claim as indexes and predicates ask for: a fraction of what decoding all of it takes."""

    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_decode: Final = msgspec.json.Decoder(_Claim).decode


def claims_informer(manager: Manager) -> Any:
    """The claims, to be found by pool and phase, and by address."""
    informer = manager.informer(IPClaim)
    informer.add_index(_BY_ADDRESS, _address_values)
    informer.add_index(_BY_PHASE, _phase_values)
    return informer


def _is_worth_a_look(change: Change) -> bool:
    return _has_to_do(change.new) if change.event == "ADDED" else content_changed(change)


def _has_to_do(snapshot: Snapshot) -> bool:
    """Not so a new claim whose admission said everything already: most of them."""
    claim = _decode(snapshot.encoded)
    settled = "Allocated" if claim.spec.use == "Allocated" else "Reserved"
    return (
        snapshot.is_deleting
        or claim.status.phase != settled
        or bool(claim.status.until)
        or claim.status.observed_generation != snapshot.generation
    )


def _phase_values(snapshot: Snapshot) -> Iterable[str]:
    """``cluster/pool/Pending``, or ``cluster/pool/phase/families``; what nobody has looked at yet counts as reserved."""
    claim = _decode(snapshot.encoded)
    pool, found = f"{snapshot.key.cluster}/{claim.spec.pool}", claim.spec.addresses
    if not found:
        return (f"{pool}/Pending",)
    phase = claim.status.phase
    six = [":" in one for one in found]
    families = "IPv4+IPv6" if any(six) and not all(six) else "IPv6" if six[0] else "IPv4"
    return (f"{pool}/{phase if phase in _PHASES else 'Reserved'}/{families}",)


def _address_values(snapshot: Snapshot) -> Iterable[str]:
    """``cluster/network/address`` of each."""
    spec = _decode(snapshot.encoded).spec
    return [f"{snapshot.key.cluster}/{spec.vpc_ref or ''}/{one}" for one in spec.addresses or ()]


def _addresses(claim: Mapping[str, Any]) -> list[str]:
    """``network/address`` of each."""
    spec = claim.get("spec") or {}
    return [f"{spec.get('vpcRef') or ''}/{one}" for one in spec.get("addresses") or ()]


def _pod_addresses(snapshot: Snapshot) -> Iterable[str]:
    status = snapshot.object.get("status") or {}
    found = {one.get("ip") for one in status.get("podIPs") or ()} | {status.get("podIP")}
    if status.get("phase") in {"Succeeded", "Failed"}:
        return []
    return [f"{snapshot.key.cluster}/{one}" for one in sorted(filter(None, found))]


def _age(claim: Mapping[str, Any]) -> tuple[str, str]:
    meta = metadata(claim)
    return str(meta.get("creationTimestamp")), str(meta.get("uid"))


async def _delete(context: Context[IPClaim]) -> None:
    meta = metadata(context.object)
    try:
        await context.client.delete(
            IPClaim, meta["name"], meta["namespace"], uid=meta["uid"], resource_version=meta["resourceVersion"]
        )
    except ApiError as error:
        if error.code not in {404, 409}:
            raise
