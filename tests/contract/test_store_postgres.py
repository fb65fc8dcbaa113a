"""What only the PostgreSQL engine does: several servers, and lost connections."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from fleetplane.store.postgres import PostgresStore
from fleetplane.store.protocol import (
    ABSENT,
    Claim,
    ClaimTaken,
    Event,
    Expired,
    Key,
    PreconditionFailed,
    Put,
    Selection,
    StoreError,
    StoreUnavailable,
    Watch,
)

PODS = Selection("", "pods")


def key(name: str) -> Key:
    return Key("root", "", "pods", "default", name)


def put(name: str, value: str = "v", **more: Any) -> Put:
    return Put(key(name), f"uid-{name}", value.encode(), **more)


async def events_of(watch: Watch, count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += (await watch.next()).events
    return found


@pytest.fixture
def schema() -> str:
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
async def servers(postgres_dsn: str, schema: str) -> AsyncIterator[list[PostgresStore]]:
    # They start together, as after a power cut, on a database that has nothing yet.
    stores = await asyncio.gather(*(PostgresStore.open(postgres_dsn, schema=schema, connections=2) for _ in range(3)))
    yield list(stores)
    for store in stores:
        await store.close()


async def cut_connections(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fleetplane'"
    )
    await connection.close()


async def test_what_one_has_acknowledged_every_other_reads(servers: list[PostgresStore]) -> None:
    one, two, three = servers
    for n in range(20):
        [record] = await one.commit([put("a", str(n))])
        assert await two.get(key("a")) == record
        assert await three.revision() == record.revision
        assert (await two.list(PODS)).records == [record]


async def test_a_watch_at_one_is_told_what_others_commit_in_order(servers: list[PostgresStore]) -> None:
    watches = [await store.watch(PODS) for store in servers]

    async def write(store: PostgresStore, writer: int) -> list[int]:
        return [(await store.commit([put(f"{writer}-{n}")]))[0].revision for n in range(20)]

    written = await asyncio.gather(*(write(store, n) for n, store in enumerate(servers)))

    expected = sorted(revision for revisions in written for revision in revisions)
    for watch in watches:
        assert [event.record.revision for event in await events_of(watch, 60)] == expected


async def test_a_watch_may_begin_at_a_revision_seen_elsewhere(servers: list[PostgresStore]) -> None:
    one, two, _ = servers
    for n in range(20):
        [record] = await one.commit([put("a", str(n))])
        assert (await two.watch(PODS, record.revision)).progress == record.revision
        [event] = await events_of(await two.watch(PODS, record.revision - 1), 1)
        assert event.record == record


async def test_preconditions_and_claims_hold_across_servers(servers: list[PostgresStore]) -> None:
    created = await asyncio.gather(
        *(store.commit([put("a", str(n), precondition=ABSENT)]) for n, store in enumerate(servers * 3)),
        return_exceptions=True,
    )
    claimed = await asyncio.gather(
        *(store.commit([put(f"c{n}", claims=(Claim("ip", "1"),))]) for n, store in enumerate(servers * 3)),
        return_exceptions=True,
    )

    assert sorted(type(one).__name__ for one in created) == ["PreconditionFailed"] * 8 + ["list"]
    assert sum(isinstance(one, PreconditionFailed) for one in created) == 8
    assert sum(isinstance(one, ClaimTaken) for one in claimed) == 8


async def test_compaction_by_one_expires_the_past_for_all(servers: list[PostgresStore]) -> None:
    one, two, three = servers
    for n in range(5):
        await one.commit([put("a", str(n))])
    now = await one.revision()

    await asyncio.gather(*(store.compact(now - 1) for store in servers))

    for store in (two, three):
        with pytest.raises(Expired):
            await store.list(PODS, revision=now - 2)
        with pytest.raises(Expired):
            await store.watch(PODS, now - 2)
        assert len((await store.list(PODS, revision=now - 1)).records) == 1


async def test_lost_connections_come_back_and_watches_miss_nothing(
    servers: list[PostgresStore], postgres_dsn: str
) -> None:
    one, two, _ = servers
    watch = await two.watch(PODS)
    await one.commit([put("before")])
    assert [event.record.key.name for event in await events_of(watch, 1)] == ["before"]

    await cut_connections(postgres_dsn)
    async with asyncio.timeout(10):
        while True:
            try:
                await one.commit([put("after")])
                break
            except StoreUnavailable:
                await asyncio.sleep(0.01)

    assert {event.record.key.name for event in await events_of(watch, 1)} == {"after"}
    async with asyncio.timeout(10):
        while True:
            try:
                assert await two.get(key("after")) is not None
                break
            except StoreUnavailable:
                await asyncio.sleep(0.01)


async def test_a_server_that_missed_too_much_makes_its_watchers_list_again(servers: list[PostgresStore]) -> None:
    one, two, _ = servers
    watch = await two.watch(PODS)
    for task in two._tasks:
        task.cancel()
    await asyncio.gather(*two._tasks, return_exceptions=True)
    for n in range(5):
        await one.commit([put("a", str(n))])
    await one.compact(await one.revision())

    await two._feed.catch_up()

    with pytest.raises(Expired):
        await watch.next()
    assert (await two.watch(PODS)).progress == await one.revision()


async def test_a_database_out_of_reach_is_told_in_words() -> None:
    with pytest.raises(StoreUnavailable, match=r"cannot open PostgreSQL .*: check that it runs and can be reached"):
        await PostgresStore.open("postgresql://nobody@/nothing?host=/nonexistent")


async def test_a_schema_name_that_needs_quoting_is_refused(postgres_dsn: str) -> None:
    with pytest.raises(ValueError, match="no schema name"):
        await PostgresStore.open(postgres_dsn, schema='x"; DROP SCHEMA public; --')


async def test_a_newer_schema_is_refused(servers: list[PostgresStore], postgres_dsn: str, schema: str) -> None:
    connection = await asyncpg.connect(postgres_dsn, server_settings={"search_path": schema})
    await connection.execute("INSERT INTO migrations VALUES (99)")
    await connection.close()

    with pytest.raises(StoreError, match="newer Fleetplane"):
        await PostgresStore.open(postgres_dsn, schema=schema)
