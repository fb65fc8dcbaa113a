"""Where objects live: the contract every storage engine keeps.

A store maps a key to encoded bytes and remembers, for a while, every change in one strictly increasing order of
revisions. It knows nothing of Kubernetes: what an object means is the server's business, what must be found quickly the
server says with *terms*, what must be unique it says with *claims*.

Guarantees (the contract suite in ``tests/contract`` proves them for every engine):

* A commit is all or nothing, durable before it is acknowledged (unless ``durable=False``), and each of its changes gets
  a revision of its own, in the order given. Revisions strictly increase and become visible in order: who has seen
  revision N never later finds a change at or below N.
* ``get`` and ``list`` are linearizable with ``commit``; the pages of one list all show the revision of its first page.
* A watch delivers every matching change exactly once, in revision order; one that falls behind is cut off with
  ``SlowWatcher`` and may resume from the last revision it saw, until compaction makes that ``Expired``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

Term = tuple[str, str]
"""An index entry ``(name, value)`` written with an object; labels, owners and declared fields are all terms."""


class Key(NamedTuple):
    """The identity of an object. ``namespace`` is empty for cluster-scoped resources."""

    cluster: str
    group: str
    resource: str
    namespace: str
    name: str


class Claim(NamedTuple):
    """Something at most one object of a logical cluster may hold: an address, a port, a name.

    Claims are taken by the commit that writes them and released when the object is deleted or written without them.
    """

    scope: str
    value: str


@dataclass(slots=True)
class Record:
    """One version of an object as stored. ``value`` has no resourceVersion: readers splice ``revision`` in.

    ``rendered`` is scratch space for readers of the same in-memory record to share encodings; engines never read it.
    """

    key: Key
    uid: str
    revision: int
    created_revision: int
    encoding: str
    value: bytes
    terms: tuple[Term, ...] = ()
    rendered: dict[object, bytes] | None = field(default=None, compare=False, repr=False)


class Absent(Enum):
    """The precondition that the key holds nothing."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Expect:
    """The precondition that the key holds an object, of this revision and uid where given."""

    revision: int | None = None
    uid: str | None = None


Precondition = Absent | Expect | None
"""``None`` accepts any state."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write an object. ``encoding`` names API version and schema generation of ``value``; the store only keeps it."""

    key: Key
    uid: str
    value: bytes
    encoding: str = ""
    terms: tuple[Term, ...] = ()
    claims: tuple[Claim, ...] = ()
    precondition: Precondition = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object. ``final`` replaces the value that watchers and history see as its last state.

    Deleting what is not there is a failed precondition, whatever the precondition.
    """

    key: Key
    precondition: Precondition = None
    final: bytes | None = None


Change = Put | Delete


@dataclass(frozen=True, slots=True)
class TermMatch:
    """Objects that carry the term, exactly or (``prefix=True``) with a value that starts so."""

    name: str
    value: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects a list or watch is about: a resource, narrowed by whatever is given.

    ``cluster=None`` means every logical cluster; ``matches`` must all hold. A watch is told of a change when the version
    before or the version after it is selected.
    """

    group: str
    resource: str
    cluster: str | None = None
    namespace: str | None = None
    name: str | None = None
    matches: tuple[TermMatch, ...] = ()


@dataclass(slots=True)
class Page:
    """``next`` is the key to continue after, ``None`` at the end; ``remaining`` counts what follows, where known."""

    records: list[Record]
    revision: int
    next: Key | None = None
    remaining: int | None = None


@dataclass(slots=True)
class Event:
    """One change: ``record`` is the new version (for a deletion the last state, at the deletion's revision).

    ``previous`` is the version before, so that a watcher with a selector can tell an object that stopped matching.
    """

    deleted: bool
    record: Record
    previous: Record | None


@dataclass(slots=True)
class Batch:
    """What happened since the last batch, up to and including ``revision``; ``events`` may be empty (progress only)."""

    events: Sequence[Event]
    revision: int


class Watch(Protocol):
    async def next(self) -> Batch:
        """Wait for the next non-empty batch. Cancellation loses nothing.

        Raises:
            SlowWatcher: more changes are pending than the engine buffers for one watcher.
            Expired: the changes to replay were compacted away meanwhile.
            StoreUnavailable: the watch or the store has been closed.
        """

    @property
    def progress(self) -> int:
        """The revision up to which everything that matches has been returned by ``next``."""

    def close(self) -> None: ...


class Store(Protocol):
    async def commit(self, changes: Sequence[Change], *, durable: bool = True) -> list[Record]:
        """Apply all changes or none; returns the record each change wrote (for a deletion, its final state).

        Concurrent commits may share one database transaction, never each other's fate.

        Raises:
            PreconditionFailed, ClaimTaken: nothing of this commit was written.
            StoreUnavailable: disk full, connection lost; it is not known to be written unless it says so.
            ValueError: text with NUL or lone surrogates, a value that is not bytes, or more than 1 KiB in a key, or in a
                term or claim with its name.
        """

    async def get(self, key: Key) -> Record | None: ...

    async def list(
        self,
        selection: Selection,
        *,
        limit: int | None = None,
        after: Key | None = None,
        revision: int | None = None,
        offset: int = 0,
        count_remaining: bool = False,
    ) -> Page:
        """Records in key order. ``revision`` reads the past: ``Expired`` once compacted, ``FutureRevision`` beyond now.

        ``offset`` is answered at the newest revision for selections with at most one match, an exact one, and without
        ``after``; ``ValueError`` elsewhere.
        """

    def stream(self, selection: Selection, *, chunk: int = 500) -> AsyncIterator[Page]:
        """All matching records in pages of ``chunk``, at one revision, in constant memory.

        Raises ``Expired`` when compaction overtakes a slow reader.
        """

    async def count(self, selection: Selection) -> int: ...

    async def watch(self, selection: Selection, after: int | None = None) -> Watch:
        """Changes after revision ``after`` (``None``: from now).

        Raises ``Expired`` when they are compacted, ``FutureRevision`` when that is not reached yet.
        """

    async def history(self, key: Key, *, limit: int = 100) -> Sequence[Event]:
        """Changes of a key that retention still holds, newest first, the current version among them.

        A deletion takes the history before it along when it is compacted.
        """

    async def revision(self) -> int:
        """The newest visible revision."""

    async def compact(self, revision: int) -> None:
        """Forget changes at or below ``revision`` that history retention does not keep; current objects stay."""

    @property
    def compacted(self) -> int: ...

    async def drop_cluster(self, cluster: str) -> int:
        """Delete every object and claim of a logical cluster, in steps; returns how many objects there were.

        Watchers are told each deletion. The past of the cluster goes with compaction, whatever retention says.
        """

    async def close(self) -> None: ...


class StoreError(Exception):
    """Base of everything a store raises on purpose."""


class PreconditionFailed(StoreError):
    """``current`` is what the key holds, ``None`` for nothing."""

    def __init__(self, key: Key, current: Record | None) -> None:
        super().__init__(f"precondition failed for {'/'.join(key)}")
        self.key = key
        self.current = current


class ClaimTaken(StoreError):
    def __init__(self, claim: Claim, holder: Key) -> None:
        super().__init__(f"{claim.scope} {claim.value} is held by {'/'.join(holder)}")
        self.claim = claim
        self.holder = holder


class Expired(StoreError):
    """The revision asked for has been compacted; ``compacted`` is the oldest that has gone."""

    def __init__(self, revision: int, compacted: int) -> None:
        super().__init__(f"revision {revision} has been compacted (up to {compacted})")
        self.revision = revision
        self.compacted = compacted


class FutureRevision(StoreError):
    def __init__(self, revision: int, current: int) -> None:
        super().__init__(f"revision {revision} is in the future (now {current})")
        self.revision = revision
        self.current = current


class SlowWatcher(StoreError):
    """The watcher did not keep up and was cut off; resume from the last revision seen."""


class StoreUnavailable(StoreError):
    """The engine cannot serve the request now: disk full, connection lost, closing."""


class StoreLocked(StoreError):
    """Another store, most likely in another process, has this data open."""
