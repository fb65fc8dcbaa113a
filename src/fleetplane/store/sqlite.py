"""The embedded engine: one process, one SQLite database, nothing to operate.

Writes go through ``group_commit``; reads run on the event loop, on a connection that holds the newest settled state, in
bounded steps; watchers hang on the ``hub``. The three show the same revision at any moment.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.store import datafile
from fleetplane.store.compaction import ADVANCE, CompactionClock, CompactionPolicy, KeepVersions, keep_versions
from fleetplane.store.disk import Disk
from fleetplane.store.group_commit import GroupCommit
from fleetplane.store.hub import Hub, Watcher
from fleetplane.store.protocol import (
    Change,
    Delete,
    Event,
    Expired,
    FutureRevision,
    Key,
    Page,
    PreconditionFailed,
    Record,
    Selection,
    StoreUnavailable,
)
from fleetplane.store.queries import rankable
from fleetplane.store.ranks import Ranks
from fleetplane.store.sqlite_reads import Reader, Resources

MEMORY: Final = ":memory:"
_CHUNK: Final = 500
_REPLAY_SPAN: Final = 1_000
_DROP_STEP: Final = 200

T = TypeVar("T")


class SqliteStore:
    """A ``Store`` in one SQLite file, or in memory. Make one with ``open``."""

    def __init__(
        self,
        resources: contextlib.ExitStack,
        hub: Hub,
        writes: GroupCommit,
        ranks: Ranks,
        clock: CompactionClock,
        environment: Environment,
    ) -> None:
        self._open_files = resources
        self._hub = hub
        self._writes = writes
        self._reader = writes.reader
        self._ranks = ranks
        self._clock = clock
        self._environment = environment
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        environment: Environment | None = None,
        watch_window: int = 20_000,
        watcher_limit: int = 10_000,
        compaction: CompactionPolicy | None = None,
        history: int | KeepVersions = 0,
        size_limit: int | None = None,
        boot: str | None = None,
    ) -> SqliteStore:
        """Open the database at ``path``, made with its directory where missing; ``":memory:"`` for one that is not kept.

        Args:
            watch_window: changes kept in memory for watchers that resume (64 MiB of values at most).
            watcher_limit: changes pending for one watcher before it is cut off.
            history: superseded versions of each object that outlive compaction, for all or by (group, resource).
            size_limit: bytes the database may take before it counts as full.
            boot: what names this boot of the machine, for tests of power cuts.

        Raises:
            StoreLocked: another store has it open.
            StoreUnavailable: it cannot be read or written.
            StoreError: a newer version has written it.
        """
        environment = environment or SystemEnvironment()
        where = None if str(path) == MEMORY else Path(path)
        keep = keep_versions(history)
        with _opening(path), contextlib.ExitStack() as stack:
            disk = None
            if where is not None:
                datafile.make_private(where)
                stack.enter_context(datafile.locked(where))
            writer = stack.enter_context(contextlib.closing(datafile.connect(where)))
            if size_limit is not None:
                datafile.limit_size(writer, size_limit)
            beginning = datafile.prepare(writer, boot or datafile.boot_id())
            snapshot = writer
            if where is not None:
                snapshot = stack.enter_context(contextlib.closing(datafile.connect(where)))
                writer.execute("PRAGMA synchronous = NORMAL")  # commits are synced by the disk helper
                disk = Disk(where)
            resources = Resources(writer.execute("SELECT id, api_group, resource FROM resources").fetchall())
            hub = Hub(beginning.revision, window_events=watch_window, pending_limit=watcher_limit)
            reader = Reader(snapshot, resources)
            ranks = Ranks(reader, hub)
            writes = GroupCommit(writer, snapshot, reader, resources, beginning, hub, keep, disk, ranks.follow)
            clock = CompactionClock(compaction or CompactionPolicy(), beginning.revision, environment.monotonic())
            return cls(stack.pop_all(), hub, writes, ranks, clock, environment)

    async def commit(self, changes: Sequence[Change], *, durable: bool = True) -> list[Record]:
        records = await self._writes.commit(changes, durable)
        target = self._clock.target(self._hub.revision, self._environment.monotonic())
        if target >= self._writes.compacted + ADVANCE:
            self._writes.advance(target)
        return records

    async def get(self, key: Key) -> Record | None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            return self._reader.get(key)
        except sqlite3.Error as error:
            raise _unreadable(error) from error

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
        self._open()
        limit = limit or None
        if (offset or count_remaining) and rankable(selection):
            with _reading():
                await self._ranks.prepare(selection)
            self._open()
        at = self._readable(revision)
        if offset:
            if at != self._hub.revision or after is not None or not rankable(selection):
                raise ValueError(
                    "an offset goes with the newest revision, no key to continue after, and one exact term"
                )
            with _reading():
                after = self._ranks.key_at(selection, offset - 1)
            if after is None:
                return Page([], at, remaining=0 if count_remaining else None)
        records = await self._records(selection, limit, after, at)
        page = Page(records, at, remaining=0 if count_remaining else None)
        if limit is not None and len(records) > limit:
            del records[limit:]
            page.next = records[-1].key
            if count_remaining:
                with _reading():
                    page.remaining = self._remaining(selection, page.next, at)
        return page

    def _remaining(self, selection: Selection, after: Key, at: int) -> int:
        ranked = self._ranks.remaining(selection, after, at) if rankable(selection) else None
        return self._reader.count(selection, after, self._past(at)) if ranked is None else ranked

    async def _records(
        self, selection: Selection, limit: int | None, after: Key | None, at: int
    ) -> builtins.list[Record]:
        """Up to one record more than ``limit``, to know whether any follow; read in chunks, so as not to hold the loop."""
        records: list[Record] = []
        pinned = self._writes.pinned
        pinned[at] += 1
        try:
            while True:
                want = _CHUNK if limit is None else min(_CHUNK, limit + 1 - len(records))
                with _reading():
                    chunk = self._reader.page(selection, want, after, self._past(at))
                records += chunk
                if len(chunk) < want or (limit is not None and len(records) > limit):
                    return records
                after = chunk[-1].key
                await asyncio.sleep(0)
                self._open()
        finally:
            pinned[at] -= 1
            if not pinned[at]:
                del pinned[at]

    async def stream(self, selection: Selection, *, chunk: int = _CHUNK) -> AsyncIterator[Page]:
        page = await self.list(selection, limit=chunk)
        yield page
        while page.next is not None:
            page = await self.list(selection, limit=chunk, after=page.next, revision=page.revision)
            yield page

    async def count(self, selection: Selection) -> int:
        self._open()
        with _reading():
            if not rankable(selection):
                return self._reader.count(selection)
            await self._ranks.prepare(selection)
            self._open()
            return self._ranks.count(selection)

    async def watch(self, selection: Selection, after: int | None = None) -> Watcher:
        self._open()
        return self._hub.watch(selection, after, self._writes.compacted, self._replay)

    async def history(self, key: Key, *, limit: int = 100) -> Sequence[Event]:
        self._open()
        with _reading():
            return self._reader.history(key, limit)

    async def revision(self) -> int:
        self._open()
        return self._hub.revision

    async def compact(self, revision: int) -> None:
        self._open()
        if revision > self._hub.revision:
            raise FutureRevision(revision, self._hub.revision)
        await self._writes.compact(revision)

    @property
    def compacted(self) -> int:
        return self._writes.compacted

    async def drop_cluster(self, cluster: str) -> int:
        dropped = 0
        while True:
            self._open()
            with _reading():
                keys = self._reader.keys_of_cluster(cluster, _DROP_STEP)
            if not keys:
                return dropped
            try:
                dropped += len(await self.commit([Delete(key) for key in keys]))
            except PreconditionFailed:  # someone else deleted one of them meanwhile: look again
                continue

    async def close(self) -> None:
        """Finish what was accepted, end every watch, release the lock. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._hub.close(StoreUnavailable("the store is closing"))
        await self._writes.close()
        self._open_files.close()

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _readable(self, revision: int | None) -> int:
        if revision is None:
            return self._hub.revision
        if revision > self._hub.revision:
            raise FutureRevision(revision, self._hub.revision)
        if revision < self._writes.compacted:
            raise Expired(revision, self._writes.compacted)
        return revision

    def _past(self, at: int) -> int | None:
        """The revision to look back to, or nothing if that is the newest."""
        return None if at == self._hub.revision else at

    async def _replay(self, selection: Selection, after: int, upto: int) -> tuple[builtins.list[Event], int]:
        await asyncio.sleep(0)
        self._open()
        if after < self._writes.compacted:
            raise Expired(after, self._writes.compacted)
        end = min(upto, after + _REPLAY_SPAN)
        with _reading():
            return self._reader.events(selection, after, end), end


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _unreadable(error) from error


def _unreadable(error: sqlite3.Error) -> StoreUnavailable:
    return StoreUnavailable(f"reading failed ({error}): check the disk")


@contextlib.contextmanager
def _opening(path: object) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(
            f"cannot open {path} ({error}): check that it is a writable Fleetplane database"
        ) from error
