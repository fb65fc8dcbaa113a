"""How commits reach the SQLite database: grouped, written on the loop, made durable elsewhere.

A commit is decided at once, in memory, on the newest state (``staging``), and joins the group being filled. A group is
written as one transaction as soon as the one before it is settled; while the disk is waited for (``disk``), the loop
goes on. Settling a group moves the snapshot that readers see and tells watchers and committers, in one step of the
loop: what can be read and what has been told are always the same state, and nobody sees a change that a power cut
could still take back (but for commits that asked for that with ``durable=False``).

A group that fails takes with it those decided on top of it, and only those. A full disk is refused until there is room;
after any other error of the disk nothing is written until the store is opened again, because what the kernel has
dropped cannot be known.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from fleetplane.store.compaction import KeepVersions
from fleetplane.store.datafile import Beginning, finish, reserve, set_meta
from fleetplane.store.disk import Checkpoints, Disk
from fleetplane.store.hub import Hub
from fleetplane.store.protocol import Change, ClaimTaken, Event, Key, PreconditionFailed, Record, StoreUnavailable
from fleetplane.store.sqlite_reads import Reader, Resources
from fleetplane.store.sqlite_writes import Group, sweep, write
from fleetplane.store.staging import ClaimKey, Held, stage

_SWEEP_STEP = 500
_PAGE_BYTES = 8192
_DISK_FULL = "the disk (or the size limit of the store) is full and nothing was written: free some space and try again"


class GroupCommit:
    """The write side of a store.

    ``snapshot`` is the connection of the ``reader``; in memory it is the writer's own. ``settled`` is told what has just
    become visible.
    """

    def __init__(
        self,
        writer: sqlite3.Connection,
        snapshot: sqlite3.Connection,
        reader: Reader,
        resources: Resources,
        beginning: Beginning,
        hub: Hub,
        keep: KeepVersions,
        disk: Disk | None,
        settled: Callable[[Sequence[Event]], None],
    ) -> None:
        self.compacted = beginning.compacted
        self.pinned: Counter[int] = Counter()
        """Revisions that lists under way still read; nothing they need is swept."""
        self.reader = reader
        self._writer = writer
        self._snapshot = snapshot
        self._resources = resources
        self._hub = hub
        self._keep = keep
        self._disk = disk
        self._settled = settled
        self._checkpoints = Checkpoints(disk) if disk else None
        self._loop = asyncio.get_running_loop()
        self._filling: Group | None = None
        self._writing: Group | None = None
        self._resting = False
        self._scheduled = False
        self._next = hub.revision + 1
        self._compact_to = beginning.compacted
        self._swept = beginning.swept
        self._reserved = beginning.reserved
        self._refusal: StoreUnavailable | None = None
        self._hold_snapshot()

    async def commit(self, changes: Sequence[Change], durable: bool) -> list[Record]:
        """See ``Store.commit``. Once decided it goes through even if the caller is cancelled."""
        self._accepting()
        if not changes:
            return []
        try:
            staged = stage(changes, self._next, self._current, self._holders)
        except PreconditionFailed as error:
            if any(error.key in group.effects.after for group in self._unsettled()):
                await self._barrier()
            raise
        except ClaimTaken as error:
            claim = (error.holder.cluster, *error.claim)
            if any(claim in group.effects.claims for group in self._unsettled()):
                await self._barrier()
            raise
        group = self._open_group()
        group.durable = group.durable or durable
        self._next += len(staged.events)
        group.effects.add(staged)
        return await self._join(group, [event.record for event in staged.events])

    def advance(self, revision: int) -> None:
        """Let the next group begin to forget changes up to ``revision``."""
        self._compact_to = max(self._compact_to, revision)

    async def compact(self, revision: int) -> None:
        """Forget changes up to ``revision``, in small steps; what lists under way still need goes later."""
        self.advance(revision)
        while self.compacted < revision or self._swept < min([revision, *self.pinned]):
            self._accepting()
            await self._barrier()

    async def close(self) -> None:
        """Settle what was accepted, accept no more."""
        self.refuse(StoreUnavailable("the store is closed"))
        while self._writing or self._filling or self._resting:
            try:
                await self._barrier()
            except StoreUnavailable:
                break
        if self._disk:
            await self._disk.close()
        if self._snapshot.in_transaction:
            self._snapshot.execute("COMMIT")
        with contextlib.suppress(sqlite3.Error):  # if it fails, the next start takes this for a crash
            finish(self._writer, self._hub.revision)

    def refuse(self, reason: StoreUnavailable) -> None:
        self._refusal = self._refusal or reason

    def _accepting(self) -> None:
        if self._refusal:
            raise StoreUnavailable(str(self._refusal))

    # --- the newest state, settled or not ---

    def _unsettled(self) -> list[Group]:
        return [group for group in (self._filling, self._writing) if group]

    def _current(self, key: Key) -> Held | None:
        for group in (self._filling, self._writing):
            if group is not None and key in group.effects.after:
                return group.effects.after[key]
        return self.reader.held(key)

    def _holders(self, claims: Sequence[ClaimKey]) -> Mapping[ClaimKey, Key | None]:
        found: dict[ClaimKey, Key | None] = {}
        for group in (self._writing, self._filling):
            if group is not None:
                found |= {claim: group.effects.claims[claim] for claim in claims if claim in group.effects.claims}
        settled = [claim for claim in claims if claim not in found] if found else claims
        return {**self.reader.holders(settled), **found} if settled else found

    # --- the life of a group: fill, write, settle ---

    def _open_group(self) -> Group:
        if self._filling is None:
            self._filling = Group()
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._write)
        return self._filling

    async def _join(self, group: Group, records: list[Record]) -> list[Record]:
        waiter: asyncio.Future[list[Record]] = self._loop.create_future()
        group.waiters.append((waiter, records))
        return await waiter

    async def _barrier(self) -> None:
        """Wait until everything staged so far is settled; raises ``StoreUnavailable`` if that fails."""
        await self._join(self._filling or self._writing or self._open_group(), [])

    def _write(self) -> None:
        self._scheduled = False
        group = self._filling
        if group is None or self._writing is not None or self._resting:
            return
        self._filling = None
        self._writing = group
        try:
            self._execute(group)
        except Exception as error:
            self._settle(error)
            return
        if self._disk and (group.durable or group.reserved):
            self._disk.sync(self._settle)
        else:
            self._settle(None)

    def _execute(self, group: Group) -> None:
        """One transaction; sweeping comes first: it makes room, if the disk is full."""
        self._writer.execute("BEGIN IMMEDIATE")
        group.compacted, group.swept = max(self.compacted, self._compact_to), self._swept
        sweepable = min([group.compacted, *self.pinned])
        if group.swept < sweepable:
            step = 2 * len(group.effects.events) + 8 if group.revision else _SWEEP_STEP
            group.swept = sweep(self._writer, self._resources, group.swept, sweepable, step, self._keep)
        if (group.compacted, group.swept) != (self.compacted, self._swept):
            set_meta(self._writer, compacted=group.compacted, swept=group.swept)
        if group.revision:
            write(self._writer, self._resources, group.effects)
            if group.revision >= self._reserved:
                group.reserved = reserve(self._writer, group.revision)
        self._writer.execute("COMMIT")

    def _settle(self, error: Exception | None) -> None:
        group, self._writing = self._writing, None
        if group is None:
            raise AssertionError("there is no group to settle")
        if error is not None:
            self._fail(group, error)
            return
        self._resources.unsaved.clear()
        self.compacted, self._swept = group.compacted, group.swept
        self._reserved = max(self._reserved, group.reserved)
        self._hold_snapshot()
        if group.revision:
            self._hub.publish(group.effects.events, group.revision)
            self._settled(group.effects.events)
        for waiter, records in group.waiters:
            if not waiter.done():
                waiter.set_result(records)
        if self._checkpoints:
            self._checkpoints.wrote(sum(len(e.record.value) + _PAGE_BYTES for e in group.effects.events))
            if self._checkpoints.rest_due and self._disk:
                self._resting = True
                self._disk.rest(self._rested)
                return
        self._go_on()

    def _rested(self, _error: OSError | None) -> None:
        """The log is back in the database as far as that went; moving the readers lets SQLite start it over."""
        self._resting = False
        if self._checkpoints:
            self._checkpoints.done()
        self._hold_snapshot()
        self._go_on()

    def _go_on(self) -> None:
        """Write the next group, once the committers just told had their turn to join it."""
        if self._filling is not None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._write)

    def _fail(self, group: Group, error: Exception) -> None:
        if self._writer.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
        failed = [group, *self._unsettled()]
        self._filling = None
        self._next = self._hub.revision + 1
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            reason = _DISK_FULL
        else:
            reason = f"writing failed ({error}): check the disk, then restart; until then the store is read-only"
            self.refuse(StoreUnavailable(reason))
        for one in failed:
            for waiter, _ in one.waiters:
                if not waiter.done():
                    failure = StoreUnavailable(reason)
                    failure.__cause__ = error
                    waiter.set_exception(failure)

    def _hold_snapshot(self) -> None:
        """Move readers to the newest settled state. The read is what makes SQLite take the snapshot."""
        if self._snapshot is self._writer:
            return
        if self._snapshot.in_transaction:
            self._snapshot.execute("COMMIT")
        self._snapshot.execute("BEGIN")
        self._snapshot.execute("SELECT 1 FROM meta WHERE name = 'compacted'").fetchone()
