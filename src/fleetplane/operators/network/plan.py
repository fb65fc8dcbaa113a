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
MARKED: Final = 1 << 20
"""Spaces up to this size have a byte for each address, in which the next free one is found at once."""
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
    kept: Mapping[tuple[Family, int], str] = field(default_factory=dict)
    allocation: str = "Sequential"

    @classmethod
    def of(cls, spec: IPPoolSpec) -> Pool:
        """Raises ValueError for what admission would have refused."""
        given = [usable(spec.cidr)] if spec.cidr else []
        given += [parse(one) for one in spec.ranges]
        without = [parse(one) for one in spec.exclude]
        if spec.gateway:
            without.append(parse(spec.gateway))
        kept = {address(one.ip): one.owner for one in spec.reserved}
        without_kept = [*without, *(Interval(family, number, number) for family, number in kept)]
        spaces = {
            family: Space(_of(family, given), _of(family, without_kept)) for family in FAMILIES if _of(family, given)
        }
        return cls(spaces, kept, spec.allocation)

    def kept_for(self, owner: str) -> dict[Family, int]:
        return {family: number for (family, number), whose in self.kept.items() if whose == owner}

    @property
    def families(self) -> tuple[Family, ...]:
        return tuple(self.spaces)

    def sizes(self) -> dict[Family, int]:
        """How many addresses somebody may get."""
        sizes = {family: space.size for family, space in self.spaces.items()}
        for (family, _), owner in self.kept.items():
            sizes[family] += bool(owner)
        return sizes


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
        self._marks: dict[Family, bytearray] = {
            family: bytearray(space.size) for family, space in pool.spaces.items() if space.size <= MARKED
        }

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
            self._put(family, number, holder)
            self._held.setdefault(holder, []).append((family, number))

    def drop(self, holder: str) -> None:
        for family, number in self._held.pop(holder, ()):
            if self._holders[family].get(number) == holder:
                del self._holders[family][number]
                self._mark(family, number, 0)

    def refused(self, text: str) -> None:
        """The store says that somebody has it."""
        self._put(*address(text), UNKNOWN)

    def _put(self, family: Family, number: int, holder: str) -> None:
        self._holders[family][number] = holder
        self._mark(family, number, 1)

    def _mark(self, family: Family, number: int, taken: int) -> None:
        marks = self._marks.get(family)
        if marks is not None and (rank := self.pool.spaces[family].find(number)) is not None:
            marks[rank] = taken

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
        if holder in self._held:
            return self.of(holder)  # asked once more for the same write
        given = dict(map(address, wanted))
        for family, number in given.items():
            self._check(family, number, owner)
        kept = self.pool.kept_for(owner) if owner and self.pool.kept else {}
        chosen: list[tuple[Family, int]] = []
        for family in families or self.pool.families:
            mine = given.get(family)
            if mine is None and kept and kept.get(family) not in self._holders[family]:
                mine = kept.get(family)
            chosen.append((family, self._choose(family, owner, seed) if mine is None else mine))
        for family, number in chosen:
            self._put(family, number, holder)
        self._held[holder] = chosen
        return [text_of(*one) for one in chosen]

    def _check(self, family: Family, number: int, owner: str) -> None:
        reserved_for = self.pool.kept.get((family, number))
        if reserved_for is not None:
            if not owner or reserved_for != owner:
                raise NotGiven(f"{text_of(family, number)} is reserved for {reserved_for or 'nobody'}")
        elif family not in self.pool.spaces or number not in self.pool.spaces[family]:
            raise NotGiven(f"{text_of(family, number)} is not an address that the pool gives out")
        whose = self._holders[family].get(number, "")
        if whose not in {"", UNKNOWN}:
            raise NotGiven(f"{text_of(family, number)} is held by {whose.partition(ATTEMPT)[0]}")

    def _choose(self, family: Family, owner: str, seed: str) -> int:
        space = self.pool.spaces.get(family)
        if space is None or not space.size:
            raise Exhausted(f"the pool has no {family} addresses")
        if self.pool.allocation == "Sequential":
            start = self._next[family] % space.size
        else:
            start = _number(seed if self.pool.allocation == "Random" else owner or seed) % space.size
        rank = self._first_free(family, space, start)
        if rank is None:
            raise Exhausted(f"all {space.size} {family} addresses are taken")
        self._next[family] = rank + 1
        return space.at(rank)

    def _first_free(self, family: Family, space: Space, start: int) -> int | None:
        """The first rank from ``start`` on, round to it again, that nobody has."""
        marks, taken = self._marks.get(family), self._holders[family]
        if marks is not None:
            found = marks.find(0, start)
            found = found if found >= 0 else marks.find(0, 0, start)
            return found if found >= 0 else None
        # So large that hardly anything is taken; in no case are there more to pass by than are taken.
        for step in range(min(space.size, len(taken) + 1)):
            rank = (start + step) % space.size
            if space.at(rank) not in taken:
                return rank
        return None


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
