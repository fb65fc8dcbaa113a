"""The shared engine: any number of servers on one PostgreSQL database.

Servers keep no state of their own but what they last saw of the log (``postgres_feed``), and need no election: the
database decides what comes first (``postgres_commits``). Reads go to the database, so that what any server has
acknowledged every server reads.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import asyncpg

from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.store import postgres_reads as reads
from fleetplane.store.compaction import ADVANCE, CompactionClock, CompactionPolicy, KeepVersions, keep_versions
from fleetplane.store.hub import Hub, Watcher
from fleetplane.store.postgres_commits import PostgresCommits
from fleetplane.store.postgres_feed import LOST, Feed
from fleetplane.store.postgres_schema import check_name, migrate
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

_CHUNK: Final = 500
_REPLAY_SPAN: Final = 1_000
_DROP_STEP: Final = 200
_SETTINGS: Final = {
    "application_name": "fleetplane",
    # Every query follows an index and stops at its limit. The planner must not be talked out of that by statistics that
    # are missing or old, as they are just when a table has grown; so one plan serves for ever.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
    "jit": "off",
    "synchronous_commit": "on",
    # A server that hangs must not hold the others up for ever.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "20s",
    "statement_timeout": "30s",
}


class PostgresStore:
    """A ``Store`` in a schema of a PostgreSQL database. Make one with ``open``."""

    is_shared = True
    """Other servers may write to it too."""

    def __init__(
        self,
        pool: Any,
        hub: Hub,
        feed: Feed,
        commits: PostgresCommits,
        clock: CompactionClock,
        environment: Environment,
    ) -> None:
        self._pool = pool
        self._hub = hub
        self._feed = feed
        self._commits = commits
        self._clock = clock
        self._environment = environment
        self._closed = False
        self._tasks = [asyncio.create_task(feed.run()), asyncio.create_task(commits.run())]

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        schema: str = "fleetplane",
        environment: Environment | None = None,
        watch_window: int = 20_000,
        watcher_limit: int = 10_000,
        compaction: CompactionPolicy | None = None,
        history: int | KeepVersions = 0,
        connections: int = 8,
    ) -> PostgresStore:
        """Open the schema, made where missing, of the database at ``dsn`` (``postgresql://…``).

        Args:
            schema: what keeps stores on one database apart.
            watch_window: changes kept in memory for watchers that resume (64 MiB of values at most).
            watcher_limit: changes pending for one watcher before it is cut off.
            history: superseded versions of each object that outlive compaction, for all or by (group, resource).
            connections: for reads; two more are kept, one to write and one to listen.

        Raises:
            StoreUnavailable: the database cannot be reached.
            StoreError: a newer version has written it, or its encoding is not UTF-8.
        """
        environment = environment or SystemEnvironment()
        settings = {**_SETTINGS, "search_path": check_name(schema)}

        async def connect() -> Any:
            return await asyncpg.connect(dsn, server_settings=settings, timeout=10)

        with _database("cannot open PostgreSQL"):
            connection = await connect()
            try:
                await migrate(connection, schema)
                state = await reads.state(connection)
            finally:
                connection.terminate()
            pool = await asyncpg.create_pool(
                dsn, min_size=1, max_size=connections, server_settings=settings, timeout=10, reset=_no_reset
            )
        hub = Hub(state.revision, window_events=watch_window, pending_limit=watcher_limit)
        channel, me = f"{schema}_news", environment.uuid()
        feed = Feed(hub, pool, connect, channel, me, state.compacted)
        commits = PostgresCommits(connect, feed, keep_versions(history), channel, me)
        clock = CompactionClock(compaction or CompactionPolicy(), state.revision, environment.monotonic())
        return cls(pool, hub, feed, commits, clock, environment)

    async def commit(self, changes: Sequence[Change], *, durable: bool = True) -> list[Record]:
        self._open()
        if not changes:
            return []
        records = await self._commits.commit(changes)
        target = self._clock.target(self._hub.revision, self._environment.monotonic())
        if target >= self._feed.compacted + ADVANCE:
            self._commits.advance(target)
        return records

    async def get(self, key: Key) -> Record | None:
        self._open()
        with _database():
            async with self._pool.acquire() as connection:
                return await reads.get(connection, key)

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
        if offset and (revision is not None or after is not None or not rankable(selection)):
            raise ValueError("an offset goes with the newest revision, no key to continue after, and one exact term")
        with _database():
            async with self._pool.acquire() as connection, contextlib.AsyncExitStack() as stack:
                if offset or count_remaining or limit is None or limit >= _CHUNK:
                    await stack.enter_async_context(_snapshot(connection))
                if offset:
                    after = await reads.key_at(connection, selection, offset - 1)
                    if after is None:
                        state = await reads.state(connection)
                        return Page([], state.revision, remaining=0 if count_remaining else None)
                page = await _read(connection, selection, limit, after, revision)
                if count_remaining:
                    page.remaining = 0
                    if page.next:
                        page.remaining = await reads.count_of(connection, selection, page.next, revision)
                return page

    async def stream(self, selection: Selection, *, chunk: int = _CHUNK) -> AsyncIterator[Page]:
        page = await self.list(selection, limit=chunk)
        yield page
        while page.next is not None:
            page = await self.list(selection, limit=chunk, after=page.next, revision=page.revision)
            yield page

    async def count(self, selection: Selection) -> int:
        self._open()
        with _database():
            async with self._pool.acquire() as connection:
                return await reads.count_of(connection, selection)

    async def watch(self, selection: Selection, after: int | None = None) -> Watcher:
        self._open()
        with _database():
            async with self._pool.acquire() as connection:
                state = await reads.state(connection)
            # What this server has not heard of yet, the caller may have seen through another.
            if state.revision > self._hub.revision:
                await self._feed.catch_up()
        return self._hub.watch(selection, after, state.compacted, self._replay)

    async def history(self, key: Key, *, limit: int = 100) -> Sequence[Event]:
        self._open()
        with _database():
            async with self._pool.acquire() as connection:
                return await reads.history(connection, key, limit)

    async def revision(self) -> int:
        self._open()
        with _database():
            async with self._pool.acquire() as connection:
                return (await reads.state(connection)).revision

    async def compact(self, revision: int) -> None:
        self._open()
        with _database():
            async with self._pool.acquire() as connection:
                state = await reads.state(connection)
                if revision > state.revision:
                    raise FutureRevision(revision, state.revision)
                reached = 0
                while reached < revision:
                    reached = await self._commits.sweep(connection, revision, wait=True)

    @property
    def compacted(self) -> int:
        """As far as this server has heard."""
        return self._feed.compacted

    async def drop_cluster(self, cluster: str) -> int:
        dropped = 0
        while True:
            self._open()
            with _database():
                async with self._pool.acquire() as connection:
                    keys = await reads.keys_of_cluster(connection, cluster, _DROP_STEP)
            if not keys:
                return dropped
            try:
                dropped += len(await self.commit([Delete(key) for key in keys]))
            except PreconditionFailed:  # someone else deleted one of them meanwhile: look again
                continue

    async def close(self) -> None:
        """Finish what was accepted, end every watch. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._hub.close(StoreUnavailable("the store is closing"))
        await self._commits.settled()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.close()

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    async def _replay(self, selection: Selection, after: int, upto: int) -> tuple[builtins.list[Event], int]:
        self._open()
        end = min(upto, after + _REPLAY_SPAN)
        with _database():
            async with self._pool.acquire() as connection:
                compacted, events = await reads.events(connection, selection, after, end)
        if after < compacted:
            raise Expired(after, compacted)
        return events, end


async def _read(
    connection: Any, selection: Selection, limit: int | None, after: Key | None, revision: int | None
) -> Page:
    """A page, read in chunks; in a transaction that keeps its snapshot if that takes more than one."""
    records: list[Record] = []
    at: int | None = None
    while True:
        want = _CHUNK if limit is None else min(_CHUNK, limit + 1 - len(records))
        state, chunk = await reads.page(connection, selection, want, after, revision)
        if at is None:
            at = state.revision if revision is None else revision
            if at > state.revision:
                raise FutureRevision(at, state.revision)
            if at < state.compacted:
                raise Expired(at, state.compacted)
        records += chunk
        if len(chunk) < want:
            return Page(records, at)
        if limit is not None and len(records) > limit:
            del records[limit:]
            return Page(records, at, next=records[-1].key)
        after = chunk[-1].key


def _snapshot(connection: Any) -> Any:
    return connection.transaction(isolation="repeatable_read", readonly=True)


async def _no_reset(_connection: Any) -> None:
    """Connections of the pool are never left changed; resetting them would cost a round trip each time."""


@contextlib.contextmanager
def _database(doing: str = "PostgreSQL failed") -> Iterator[None]:
    """Turn what the driver says into ``StoreUnavailable``."""
    try:
        yield
    except LOST as error:
        raise StoreUnavailable(
            f"{doing} ({error or type(error).__name__}): check that it runs and can be reached"
        ) from error
