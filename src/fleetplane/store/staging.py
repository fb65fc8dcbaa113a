"""What a commit would do, worked out before anything is written.

Preconditions and claims are decided here, in memory, on the newest state that earlier commits have staged; the engine
then only writes the outcome. So a commit that is refused never touches the database, and commits that share one
database transaction never share their fate. Staging must never change the state it reads: an engine adopts a
``Staged`` as a whole or drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fleetplane.store.protocol import (
    ABSENT,
    Change,
    Claim,
    ClaimTaken,
    Delete,
    Event,
    Expect,
    Key,
    Precondition,
    PreconditionFailed,
    Put,
    Record,
    Term,
)


class Held(NamedTuple):
    """What a key holds: the record, and the claims that live and die with it."""

    record: Record
    claims: tuple[Claim, ...]


MAX_INDEXED: Final = 1024
"""Bytes of a key, or of a term or claim with its name: what fits the indexes of every engine."""

ClaimKey = tuple[str, str, str]
"""``(cluster, scope, value)``: what is unique."""
Holders = Callable[[Sequence[ClaimKey]], Mapping[ClaimKey, Key | None]]
"""Who holds each of some claims; what nobody holds is absent or ``None``."""


@dataclass(slots=True)
class Staged:
    """The outcome of one commit: events in order, and the net effect on keys and claims (``None``: gone)."""

    events: list[Event] = field(default_factory=list)
    keys: dict[Key, Held | None] = field(default_factory=dict)
    claims: dict[ClaimKey, Key | None] = field(default_factory=dict)


@dataclass(slots=True)
class Effects:
    """The net effect of commits that are written together, however often they changed the same things.

    ``before`` and ``after`` have the same keys; ``after`` is ``None`` for what is gone.
    """

    events: list[Event] = field(default_factory=list)
    before: dict[Key, Record | None] = field(default_factory=dict)
    after: dict[Key, Held | None] = field(default_factory=dict)
    claims: dict[ClaimKey, Key | None] = field(default_factory=dict)

    def add(self, staged: Staged) -> None:
        for event in staged.events:
            self.before.setdefault(event.record.key, event.previous)
        self.events += staged.events
        self.after.update(staged.keys)
        self.claims.update(staged.claims)

    def terms(self) -> tuple[list[tuple[Key, Term]], list[tuple[Key, Term]]]:
        """The terms that are gone, and those that are new."""
        gone: list[tuple[Key, Term]] = []
        new: list[tuple[Key, Term]] = []
        for key, held in self.after.items():
            before = self.before[key]
            old_terms = before.terms if before else ()
            new_terms = held.record.terms if held else ()
            if old_terms != new_terms:
                gone += [(key, term) for term in set(old_terms).difference(new_terms)]
                new += [(key, term) for term in set(new_terms).difference(old_terms)]
        return gone, new


def inherits_value(event: Event) -> bool:
    """Whether this is a deletion that left the last state as it was, so that its value need not be written again."""
    return event.deleted and event.previous is not None and event.previous.value is event.record.value


def stage(
    changes: Sequence[Change],
    revision: int,
    current: Callable[[Key], Held | None],
    holders: Holders,
) -> Staged:
    """Work out a commit whose first change gets ``revision``.

    ``current`` and ``holders`` tell the state before the commit.

    Raises:
        PreconditionFailed, ClaimTaken: the commit is refused.
        ValueError: a change cannot be stored at all.
    """
    staged = Staged()
    for change in changes:
        key = change.key
        before = staged.keys[key] if key in staged.keys else current(key)
        _check(key, change.precondition, before)
        if isinstance(change, Put):
            after = _written(change, before, revision)
            staged.events.append(Event(False, after.record, before.record if before else None))
            staged.keys[key] = after
            _move_claims(staged, key, before, after, holders)
        else:
            if before is None:
                raise PreconditionFailed(key, None)
            staged.events.append(Event(True, _last_state(change, before.record, revision), before.record))
            staged.keys[key] = None
            _move_claims(staged, key, before, None, holders)
        revision += 1
    return staged


def _check(key: Key, precondition: Precondition, held: Held | None) -> None:
    if precondition is None:
        return
    current = held.record if held else None
    if precondition is ABSENT:
        if current is not None:
            raise PreconditionFailed(key, current)
    elif isinstance(precondition, Expect) and (
        current is None
        or (precondition.revision is not None and precondition.revision != current.revision)
        or (precondition.uid is not None and precondition.uid != current.uid)
    ):
        raise PreconditionFailed(key, current)


def _written(change: Put, before: Held | None, revision: int) -> Held:
    if type(change.value) is not bytes:
        raise ValueError(f"the value of {'/'.join(change.key)} must be bytes, not {type(change.value).__name__}")
    _storable(change)
    same = before is not None and before.record.uid == change.uid
    created = before.record.created_revision if before and same else revision
    return Held(
        Record(change.key, change.uid, revision, created, change.encoding, change.value, change.terms), change.claims
    )


def _storable(change: Put) -> None:
    """Refuse text no engine can store, before it can spoil the transaction it would share with others."""
    key = "".join(change.key)
    _fits(key, "the key", change)
    texts = [key, change.uid, change.encoding]
    for pair in (*change.terms, *change.claims):
        text = "".join(pair)
        _fits(text, f"{pair[0]!r} with its value", change)
        texts.append(text)
    if any("\0" in text for text in texts):
        raise ValueError(f"NUL in key, uid, encoding, terms or claims of {'/'.join(change.key)!r}")
    for text in texts:
        if not text.isascii():
            text.encode()  # lone surrogates raise UnicodeEncodeError, a ValueError


def _fits(text: str, what: str, change: Put) -> None:
    size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    if size > MAX_INDEXED:
        raise ValueError(f"{what} in {'/'.join(change.key)} takes {size} bytes: at most {MAX_INDEXED} can be indexed")


def _last_state(change: Delete, record: Record, revision: int) -> Record:
    value = record.value if change.final is None else change.final
    return Record(record.key, record.uid, revision, record.created_revision, record.encoding, value, record.terms)


def _move_claims(staged: Staged, key: Key, before: Held | None, after: Held | None, holders: Holders) -> None:
    old = before.claims if before else ()
    new = after.claims if after else ()
    if old == new:
        return
    for claim in old:
        if claim not in new:
            staged.claims[(key.cluster, *claim)] = None
    added = {(key.cluster, *claim): claim for claim in new if claim not in old}
    settled = holders([wanted for wanted in added if wanted not in staged.claims]) if added else {}
    for wanted, claim in added.items():
        taken_by = staged.claims[wanted] if wanted in staged.claims else settled.get(wanted)
        if taken_by is not None and taken_by != key:
            raise ClaimTaken(claim, taken_by)
        staged.claims[wanted] = key
