"""How commits reach PostgreSQL: grouped per server, one group at a time among all servers.

A group begins by locking the row of ``head``; the lock lasts until its transaction has ended, so revisions are given
and become visible in one order, and what the group reads to decide on its commits cannot change under it. Commits that
come while a group is under way form the next. ``durable=False`` makes no difference here: what was told could be lost in
a crash of the database, and its revisions given again.
"""

from __future__ import annotations

import asyncio
from collections import ChainMap, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fleetplane.store import postgres_reads as reads
from fleetplane.store import postgres_writes as writes
from fleetplane.store.compaction import KeepVersions
from fleetplane.store.postgres_feed import LOST, Feed
from fleetplane.store.protocol import Change, Key, Put, Record, StoreUnavailable
from fleetplane.store.staging import ClaimKey, Effects, stage

_GROUP = 256
_SWEEP_STEP = 500


@dataclass(slots=True)
class _Commit:
    changes: list[Change]
    outcome: asyncio.Future[list[Record]]


class PostgresCommits:
    """The write side of one server. ``connect`` makes the connection that it keeps to itself."""

    def __init__(
        self, connect: Callable[[], Awaitable[Any]], feed: Feed, keep: KeepVersions, channel: str, me: str
    ) -> None:
        self._connect = connect
        self._feed = feed
        self._keep = keep
        self._channel = channel
        self._me = me
        self._connection: Any = None
        self._waiting: deque[_Commit] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._compact_to = 0
        self._swept = 0

    async def commit(self, changes: Sequence[Change]) -> list[Record]:
        outcome: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Commit(list(changes), outcome))
        self._idle.clear()
        self._wake.set()
        return await outcome

    def advance(self, revision: int) -> None:
        """Let what is at or below a revision be forgotten, between groups."""
        self._compact_to = max(self._compact_to, revision)

    async def run(self) -> None:
        """Write groups until cancelled; what is still waiting then is refused."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
                    await self._write(group)
                    await self._forget()
                self._idle.set()
        finally:
            _refuse(self._waiting, StoreUnavailable("the store is closed"))
            if self._connection is not None:
                self._connection.terminate()

    async def settled(self) -> None:
        """Wait until nothing is waiting to be written."""
        await self._idle.wait()

    async def _write(self, group: Sequence[_Commit]) -> None:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            effects, outcomes = await self._transact(group)
        except asyncio.CancelledError:
            _refuse(group, StoreUnavailable("the store was closed; it is not known whether this was written"))
            raise
        except Exception as error:
            failure = StoreUnavailable(
                f"PostgreSQL failed ({error or type(error).__name__}); it is not known whether this was written"
            )
            failure.__cause__ = error
            self._hang_up()
            _refuse(group, failure)
            return
        if effects.events:
            await self._feed.settled(effects.events)
        for commit, outcome in zip(group, outcomes, strict=True):
            if commit.outcome.done():
                continue
            if isinstance(outcome, Exception):
                commit.outcome.set_exception(outcome)
            else:
                commit.outcome.set_result(outcome)

    async def _transact(self, group: Sequence[_Commit]) -> tuple[Effects, list[list[Record] | Exception]]:
        """One transaction; what each commit comes to, and what they do together. The connection is given up if it fails."""
        connection = self._connection
        effects = Effects()
        outcomes: list[list[Record] | Exception] = []
        changes = [change for commit in group for change in commit.changes]
        claims = {(c.key.cluster, *claim) for c in changes if isinstance(c, Put) for claim in c.claims}
        await connection.execute("BEGIN; SELECT 1 FROM head FOR UPDATE")
        revision, held = await reads.held(connection, list({change.key for change in changes}))
        settled: dict[ClaimKey, Key | None] = {}
        if claims:
            settled |= await reads.holders(connection, list(claims))
        for commit in group:
            try:
                staged = stage(
                    commit.changes,
                    revision + 1,
                    lambda key: effects.after[key] if key in effects.after else held.get(key),
                    lambda _: ChainMap(effects.claims, settled),
                )
            except Exception as error:  # whatever it is, it is this commit's alone
                outcomes.append(error)
            else:
                effects.add(staged)
                revision += len(staged.events)
                outcomes.append([event.record for event in staged.events])
        if effects.events:
            await self._execute(effects)
        await connection.execute("COMMIT")
        return effects, outcomes

    async def _execute(self, effects: Effects) -> None:
        await writes.write(self._connection, effects, self._channel, self._me)

    async def _forget(self) -> None:
        """One step of automatic compaction, if any is due; without haste, and without failing anyone."""
        if self._swept >= self._compact_to:
            return
        try:
            self._swept = await self.sweep(self._connection, self._compact_to)
        except LOST:
            self._hang_up()

    async def sweep(self, connection: Any, upto: int, *, wait: bool = False) -> int:
        """Forget up to a revision, one step of the way; returns how far it is, as far as this server knows.

        Where another server is at it, leave it to that one, or ``wait`` for it.
        """
        async with connection.transaction():
            await connection.execute("UPDATE compaction SET compacted = $1 WHERE compacted < $1", upto)
        self._feed.compacted = max(self._feed.compacted, upto)
        async with connection.transaction():
            reached = await writes.sweep(connection, upto, _SWEEP_STEP, self._keep, wait=wait)
        return self._swept if reached is None else reached

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _refuse(commits: Sequence[_Commit] | deque[_Commit], reason: StoreUnavailable) -> None:
    for commit in commits:
        if not commit.outcome.done():
            commit.outcome.set_exception(reason)
