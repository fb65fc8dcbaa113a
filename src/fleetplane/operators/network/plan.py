"""Which addresses a pool has, who has which, and who gets the next: the allocator. Pure, and without a clock.

A ``Ledger`` is only ever a picture of the claims: it is made from them, and made again from them when in doubt. That no
address has two claims is the store's promise; the ledger's business is to seldom ask for one that is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fleetplane.model.objects import Object, is_deleting, metadata
from fleetplane.operators.network.kinds import IPPoolSpec
from fleetplane.operators.network.ranges import FAMILIES, Family, Interval, Space, address, parse, text_of, usable

ATTEMPT: Final = "#"
"""In a holder, before what tells one attempt to write a claim from the next."""
UNKNOWN: Final = "?"
"""Holder of an address that the store says is taken and our picture does not show."""


class Exhausted(Exception):
    """No address of this family is free."""


class NotGiven(Exception):
    """An address that was asked for is not to be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool's addresses: those anybody may get (``spaces``), and those kept for somebody (``kept``: address to owner)."""

    spaces: Mapping[Family, Space]
    kept: Mapping[str, str] = field(default_factory=dict)
    allocation: str = "Sequential"

    @classmethod
    def of(cls, spec: IPPoolSpec) -> Pool:
        """Raises ValueError for what admission would have refused."""
        given = [usable(spec.cidr)] if spec.cidr else []
        given += [parse(one) for one in spec.ranges]
        without = [parse(one) for one in spec.exclude]
        if spec.gateway:
            without.append(parse(spec.gateway))
        kept = {canonical(one.ip): one.owner for one in spec.reserved}
        without_kept = [*without, *(parse(one) for one in kept)]
        spaces = {
            family: Space(_of(family, given), _of(family, without_kept)) for family in FAMILIES if _of(family, given)
        }
        return cls(spaces, kept, spec.allocation)

    @property
    def families(self) -> tuple[Family, ...]:
        reserved = {address(one)[0] for one in self.kept}
        return tuple(one for one in FAMILIES if one in self.spaces or one in reserved)

    @property
    def capacity(self) -> int:
        """Addresses that somebody may get."""
        return sum(space.size for space in self.spaces.values()) + sum(bool(owner) for owner in self.kept.values())


def _of(family: Family, intervals: Iterable[Interval]) -> list[Interval]:
    return [one for one in intervals if one.family == family]


def canonical(text: str) -> str:
    """Raises ValueError."""
    return text_of(*address(text))


class Ledger:
    """Who has which address of a pool. ``holder`` is any text that tells claims apart."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._holders: dict[Family, dict[int, str]] = {family: {} for family in FAMILIES}
        self._held: dict[str, list[tuple[Family, int]]] = {}
        self._next: dict[Family, int] = dict.fromkeys(FAMILIES, 0)

    # -- what is

    def holder(self, text: str) -> str:
        """Empty if nobody has it."""
        family, number = address(text)
        return self._holders[family].get(number, "")

    def of(self, holder: str) -> list[str]:
        return [text_of(*one) for one in self._held.get(holder, ())]

    def used(self, family: Family) -> int:
        return len(self._holders[family])

    # -- what changes

    def put(self, holder: str, addresses: Iterable[str]) -> None:
        """These are the holder's, as its claim says."""
        for one in addresses:
            family, number = address(one)
            self._holders[family][number] = holder
            self._held.setdefault(holder, []).append((family, number))

    def drop(self, holder: str) -> None:
        for family, number in self._held.pop(holder, ()):
            if self._holders[family].get(number) == holder:
                del self._holders[family][number]

    def refused(self, text: str) -> None:
        """The store says that somebody has it."""
        family, number = address(text)
        self._holders[family][number] = UNKNOWN

    def take(
        self, holder: str, families: Sequence[Family] = (), wanted: Sequence[str] = (), owner: str = "", seed: str = ""
    ) -> list[str]:
        """An address of each family, of each the pool has unless told; all or none.

        Args:
            wanted: Addresses that are asked for; the other families are chosen for.
            owner: ``cluster/node``: gets what is reserved for it, and chooses where ``Sticky`` looks first.
            seed: Chooses where ``Random`` looks first.

        Raises:
            Exhausted: a family has nothing left, or the pool has none of it.
            NotGiven: what was asked for is somebody else's, or not the pool's.
        """
        given = {address(one)[0]: canonical(one) for one in wanted}
        for one in given.values():
            self._check(one, holder, owner)
        kept = {address(one)[0]: one for one, whose in self.pool.kept.items() if owner and whose == owner}
        chosen = []
        for family in families or self.pool.families:
            mine = given.get(family) or kept.get(family, "")
            if mine and self.holder(mine) not in {"", holder}:
                mine = ""
            chosen.append(mine or text_of(family, self._choose(family, owner, seed)))
        self.put(holder, chosen)
        return chosen

    def _check(self, text: str, holder: str, owner: str) -> None:
        family, number = address(text)
        if text in self.pool.kept:
            if not owner or self.pool.kept[text] != owner:
                raise NotGiven(f"{text} is reserved for {self.pool.kept[text] or 'nobody'}")
        elif family not in self.pool.spaces or number not in self.pool.spaces[family]:
            raise NotGiven(f"{text} is not an address that the pool gives out")
        whose = self.holder(text)
        if whose not in {"", holder, UNKNOWN}:
            raise NotGiven(f"{text} is held by {whose.partition(ATTEMPT)[0]}")

    def _choose(self, family: Family, owner: str, seed: str) -> int:
        space, taken = self.pool.spaces.get(family), self._holders[family]
        if space is None or not space.size:
            raise Exhausted(f"the pool has no {family} addresses")
        if self.pool.allocation == "Sequential":
            start = self._next[family] % space.size
        else:
            start = _number(seed if self.pool.allocation == "Random" else owner or seed) % space.size
        for rank in _around(start, space.size, len(taken) + 1):
            number = space.at(rank)
            if number not in taken:
                self._next[family] = rank + 1
                return number
        raise Exhausted(f"all {space.size} {family} addresses are taken")


def _around(start: int, size: int, enough: int) -> Iterable[int]:
    """Ranks from ``start`` round to it again, but no more than can be taken and one."""
    for step in range(min(size, enough)):
        yield (start + step) % size


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


# -- claims


def owner_of(claim: Mapping[str, Any]) -> str:
    """``cluster/node``; empty for claims that do not say."""
    spec = claim.get("spec") or {}
    cluster, node = spec.get("cluster") or "", spec.get("node") or ""
    return f"{cluster}/{node}" if cluster or node else ""


def holder_of(claim: Mapping[str, Any]) -> str:
    """How messages and ledgers name a claim."""
    meta = metadata(claim)
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}"


def ledger_of(pool: Pool, claims: Iterable[Mapping[str, Any]]) -> Ledger:
    """The picture that claims give. Addresses that are no longer the pool's are held all the same."""
    ledger = Ledger(pool)
    for claim in claims:
        ledger.put(holder_of(claim), (claim.get("spec") or {}).get("addresses") or ())
    return ledger


@dataclass(frozen=True, slots=True)
class Stage:
    """What a claim is now. ``until`` are seconds from now after which it ends by itself."""

    phase: str
    until: float | None = None


def stage(claim: Object, in_use: bool, now: float, created: float, since: float, deleted: float, rest: int) -> Stage:
    """The phase of a claim. ``since`` is when the phase it has began; times are in seconds of one clock.

    Pending: no address yet. Reserved: nobody has used it. Allocated: in use. Held: it was in use and is kept. Quarantined:
    given back, and resting for ``rest`` seconds.
    """
    spec, was = claim.get("spec") or {}, (claim.get("status") or {}).get("phase") or ""
    if is_deleting(claim):
        used = was not in {"", "Pending", "Reserved", "Conflict"}
        return Stage("Quarantined", max(0.0, deleted + rest - now) if used and spec.get("addresses") else 0.0)
    if not spec.get("addresses"):
        return Stage("Pending")
    if in_use or spec.get("use") == "Allocated":
        return Stage("Allocated")
    if spec.get("use") == "Held" or was in {"Allocated", "Held"}:
        began = since if was == "Held" else now
        hold = spec.get("holdSeconds")
        return Stage("Held", None if hold is None else max(0.0, began + hold - now))
    ttl = spec.get("ttlSeconds")
    return Stage("Reserved", None if ttl is None else max(0.0, created + ttl - now))
