"""Claims get their addresses as they are written; pools and claims that make no sense are refused.

Filling in here makes a lease one write: the answer to the create already holds the addresses. What is filled in is a guess
from a picture of the claims; the store refuses an address that is taken, and the write is tried again with another. Where
no such server is (this plug-in does not run, or the pool has nothing left) the controller fills in later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Elsewhere,
    Reader,
    allowed,
    changed,
    denied,
    refused,
)
from fleetplane.model.builtin.types import NAMESPACES
from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object, finalizers, is_deleting, metadata
from fleetplane.model.objects import labels as labels_of
from fleetplane.model.selectors import LabelSelector
from fleetplane.operators.network.kinds import FINALIZER, IPClaim, IPPool
from fleetplane.operators.network.plan import (
    ATTEMPT,
    Exhausted,
    Ledger,
    NotGiven,
    Pool,
    canonical,
    holder_of,
    ledger_of,
    owner_of,
    stage,
)
from fleetplane.operators.network.ranges import address, parse, text_of, usable

_FIXED: Final = ("pool", "cluster", "clusterUid", "node", "vpcRef")
_COST: Final = 20.0
"""A picture is made again at most after so many times what making it took."""


@dataclass(slots=True)
class Picture:
    """The claims of a pool as last seen, with what was given out since. ``version`` is the pool's uid and generation."""

    version: tuple[str, int]
    vpc: str
    ledger: Ledger
    again: float


class Filling:
    """Fills in addresses. Keeps a picture of each pool, which is dropped when the pool changes."""

    def __init__(self) -> None:
        self._pictures: dict[tuple[str, str], Picture] = {}

    async def fill(self, request: AdmissionRequest, reader: Reader) -> Decision:
        new = request.new or {}
        claim = _guarded(new)
        spec = claim.get("spec") or {}
        pool = await reader.get(IPPool, str(spec.get("pool") or ""))
        if pool is None or is_deleting(pool) or request.dry_run:
            return changed(claim) if claim is not new else ALLOWED
        if not await serves(pool, request.namespace, reader):
            return denied(f"pool {spec['pool']} does not serve namespace {request.namespace}", request=request)
        try:
            addresses, vpc = await self._take(request, pool, claim, reader)
        except NotGiven as refusal:
            return refused(request, [FieldError.invalid("spec.addresses", spec.get("addresses"), str(refusal))])
        except Exhausted as why:
            return changed(claim, f"pool {spec['pool']}: {why}; the claim waits until one is free")
        made = {**claim, "spec": {**spec, "addresses": addresses, "vpcRef": vpc}}
        # Where the server keeps it, this spares the controller a write; elsewhere the controller says the same.
        return changed({**made, "status": first_status(made)})

    async def _take(
        self, request: AdmissionRequest, pool: Object, claim: Object, reader: Reader
    ) -> tuple[list[str], str]:
        """The addresses, and the network they are of."""
        spec, unique = claim["spec"], str(metadata(claim).get("uid") or request.uid)

        def take(picture: Picture) -> tuple[list[str], str]:
            taken = picture.ledger.take(
                f"{holder_of(claim)}{ATTEMPT}{unique}",
                spec.get("families") or (),
                spec.get("addresses") or (),
                owner_of(claim),
                unique,
            )
            return taken, picture.vpc

        picture = await self._picture(request.cluster, pool, reader)
        try:
            return take(picture)
        except (Exhausted, NotGiven):
            if asyncio.get_running_loop().time() < picture.again:
                raise
        self._pictures.pop((request.cluster, metadata(pool)["name"]), None)
        return take(await self._picture(request.cluster, pool, reader))

    async def _picture(self, cluster: str, pool: Object, reader: Reader) -> Picture:
        meta = metadata(pool)
        key, version = (cluster, meta["name"]), (str(meta.get("uid")), int(meta.get("generation") or 0))
        known = self._pictures.get(key)
        if known is not None and known.version == version:
            return known
        now = asyncio.get_running_loop().time
        started = now()
        claims = [one for one in await reader.list(IPClaim) if (one.get("spec") or {}).get("pool") == meta["name"]]
        spec = IPPool.view(pool).spec
        ledger = ledger_of(Pool.of(spec), claims)
        made = Picture(version, spec.vpc_ref, ledger, now() + _COST * (now() - started))
        # Whoever was faster has given out addresses meanwhile that this picture does not show.
        known = self._pictures.get(key)
        if known is not None and known.version == version:
            return known
        self._pictures[key] = made
        return made


def first_status(claim: Object) -> Object:
    """What the controller would say of a claim that has just got its addresses."""
    made = str(metadata(claim).get("creationTimestamp") or "")
    first = stage(claim, False, 0.0, 0.0, 0.0, 0.0, 0)
    until = "" if first.until is None else timestamp(parse_timestamp(made) + timedelta(seconds=first.until))
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": first.phase,
        "message": "",
        "lastTransitionTime": made,
        "observedGeneration": 1,
    }
    return {"phase": first.phase, "since": made, "until": until, "observedGeneration": 1, "conditions": [ready]}


def _guarded(claim: Object) -> Object:
    """With the finalizer that keeps its address until it has rested."""
    if FINALIZER in finalizers(claim):
        return claim
    return {**claim, "metadata": {**metadata(claim), "finalizers": [*finalizers(claim), FINALIZER]}}


async def serves(pool: Mapping[str, Any], namespace: str, reader: Reader) -> bool:
    """Whether a pool is for claims of a namespace."""
    selector = (pool.get("spec") or {}).get("namespaces")
    if selector is None:
        return True
    found = await reader.get(NAMESPACES, namespace)
    return found is not None and LabelSelector.from_object(selector).matches(labels_of(found))


# -- what is refused


def pool_problems(spec: Mapping[str, Any]) -> Iterator[FieldError]:
    """Everything that is wrong with a pool."""
    if not spec.get("cidr") and not spec.get("ranges"):
        yield FieldError.required("spec.cidr", "a pool needs a cidr or ranges")
    given = []
    for path, value, read in _texts(spec):
        try:
            found = read(value)
        except ValueError as error:
            yield FieldError.invalid(path, value, f"must be an address, a network or first-last: {error}")
            continue
        if path == "spec.cidr" or path.startswith("spec.ranges"):
            given.append(found)
    seen: set[str] = set()
    for index, one in enumerate(spec.get("reserved") or ()):
        path, text = f"spec.reserved[{index}].ip", str(one.get("ip") or "")
        try:
            family, number = address(text)
        except ValueError as error:
            yield FieldError.invalid(path, text, str(error))
            continue
        if canonical(text) in seen:
            yield FieldError.duplicate(path, text)
        seen.add(canonical(text))
        if not any(other.family == family and other.first <= number <= other.last for other in given):
            yield FieldError.invalid(path, text, "must be an address of the pool")


def _texts(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, Callable[[str], Any]]]:
    if spec.get("cidr"):
        yield "spec.cidr", str(spec["cidr"]), usable
    for key in ("ranges", "exclude"):
        for index, value in enumerate(spec.get(key) or ()):
            yield f"spec.{key}[{index}]", str(value), parse
    if spec.get("gateway"):
        yield "spec.gateway", str(spec["gateway"]), address


def overlaps(pool: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of pools of the same network that have an address with this one in common."""
    try:
        mine = Pool.of(IPPool.view(pool).spec)
    except ValueError:
        return []
    found = []
    for other in others:
        spec = other.get("spec") or {}
        same_network = (spec.get("vpcRef") or "") == ((pool.get("spec") or {}).get("vpcRef") or "")
        if metadata(other)["name"] == metadata(pool).get("name") or not same_network:
            continue
        try:
            theirs = Pool.of(IPPool.view(other).spec)
        except ValueError:
            continue
        if any(
            family in theirs.spaces and space.overlap(theirs.spaces[family]) for family, space in mine.spaces.items()
        ):
            found.append(str(metadata(other)["name"]))
    return sorted(found)


async def _check_pool(request: AdmissionRequest, reader: Reader) -> Decision:
    new = request.new or {}
    found = list(pool_problems(new.get("spec") or {}))
    if found:
        return refused(request, found)
    others = overlaps(new, await reader.list(IPPool))
    return allowed(f"has addresses in common with {', '.join(others)}; each is given out once") if others else ALLOWED


async def _check_claim(request: AdmissionRequest, _reader: Reader) -> Decision:
    new, old = request.new or {}, request.old
    spec = new.get("spec") or {}
    found = []
    families = set()
    for index, text in enumerate(spec.get("addresses") or ()):
        path = f"spec.addresses[{index}]"
        try:
            family, number = address(str(text))
        except ValueError as error:
            found.append(FieldError.invalid(path, text, str(error)))
            continue
        if text_of(family, number) != text:
            found.append(FieldError.invalid(path, text, f"must be written as {text_of(family, number)}"))
        if family in families:
            found.append(FieldError.invalid(path, text, "a claim has one address of each family"))
        families.add(family)
    if old is not None and not is_deleting(new):
        before = old.get("spec") or {}
        wrong = [key for key in _FIXED if before.get(key) and spec.get(key) != before[key]]
        if before.get("addresses") and spec.get("addresses") != before["addresses"]:
            wrong.append("addresses")
        found += [FieldError.forbidden(f"spec.{key}", "is fixed; make another claim") for key in wrong]
    return refused(request, found)


def plugins() -> tuple[AdmissionPlugin, ...]:
    """Made for each server: the filling plug-in remembers what it has given out."""
    return (
        AdmissionPlugin(
            "fill.ipclaims.fleetplane.io",
            "mutate",
            [AdmissionRule([IPClaim], ["CREATE"])],
            Filling().fill,
            timeout=0,
            elsewhere=Elsewhere(served=False),  # only where the store keeps addresses apart; else one controller does
            reads=[IPPool, NAMESPACES],
        ),
        AdmissionPlugin("check.ippools.fleetplane.io", "validate", [AdmissionRule([IPPool])], _check_pool),
        AdmissionPlugin(
            "check.ipclaims.fleetplane.io", "validate", [AdmissionRule([IPClaim])], _check_claim, timeout=0
        ),
    )
