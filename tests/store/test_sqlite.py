"""What only the SQLite engine does: files, locks, full disks, power cuts, and staying out of the loop's way."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleetplane.store import migrations
from fleetplane.store.compaction import CompactionPolicy
from fleetplane.store.protocol import (
    Delete,
    Expired,
    Key,
    Put,
    Selection,
    StoreError,
    StoreLocked,
    StoreUnavailable,
)
from fleetplane.store.sqlite import SqliteStore

PODS = Selection("", "pods")
MIB = 1 << 20


def put(name: str, value: bytes = b"v") -> Put:
    return Put(Key("root", "", "pods", "default", name), f"uid-{name}", value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


class TestFiles:
    async def test_are_for_the_owner_only(self, path: Path) -> None:
        mask = os.umask(0)
        try:
            store = await SqliteStore.open(path)
            await store.commit([put("a")])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in [path.parent, *path.parent.iterdir()]}
            await store.close()
        finally:
            os.umask(mask)

        assert modes == {
            "data": 0o700,
            "store.db": 0o600,
            "store.db-wal": 0o600,
            "store.db-shm": 0o600,
            "store.db.lock": 0o600,
        }

    async def test_an_open_one_is_locked(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()}: stop that first"):
            await SqliteStore.open(path)
        await store.close()

        await (await SqliteStore.open(path)).close()

    async def test_the_lock_dies_with_its_holder(self, path: Path) -> None:
        script = (
            "import asyncio, sys; from fleetplane.store.sqlite import SqliteStore\n"
            "async def main():\n"
            "    store = await SqliteStore.open(sys.argv[1]); print('open', flush=True); await asyncio.sleep(60)\n"
            "asyncio.run(main())"
        )
        with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as holder:  # noqa: ASYNC220
            assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
            with pytest.raises(StoreLocked, match=f"process {holder.pid}"):
                await SqliteStore.open(path)
            holder.kill()
            holder.wait()

        await (await SqliteStore.open(path)).close()

    async def test_a_directory_is_refused_in_words(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailable, match="cannot open"):
            await SqliteStore.open(tmp_path)

    async def test_something_else_is_refused_in_words(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"Dear diary, " * 1000)  # noqa: ASYNC240
        with pytest.raises(StoreUnavailable, match="check that it is a writable Fleetplane database"):
            await SqliteStore.open(path)

    async def test_a_newer_schema_is_refused(self, path: Path) -> None:
        await (await SqliteStore.open(path)).close()
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA user_version = {len(migrations.MIGRATIONS) + 1}")
        connection.close()

        with pytest.raises(StoreError, match="newer Fleetplane"):
            await SqliteStore.open(path)

    async def test_a_closed_store_leaves_one_plain_database(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        await store.commit([put("a")])
        await store.close()

        assert sorted(file.name for file in path.parent.iterdir()) == ["store.db", "store.db.lock"]

    async def test_memory_opens_at_once(self) -> None:
        begun = time.perf_counter()
        for _ in range(10):
            await (await SqliteStore.open(":memory:")).close()

        assert (time.perf_counter() - begun) / 10 < 0.01


class TestFullDisk:
    async def test_writes_are_refused_and_reads_go_on(self, path: Path) -> None:
        store = await SqliteStore.open(path, size_limit=MIB)
        written = 0
        with pytest.raises(StoreUnavailable, match="full and nothing was written"):
            while True:
                await store.commit([put(f"n{written:04}", bytes(10_000))])
                written += 1

        assert written > 20
        assert len((await store.list(PODS)).records) == written == await store.count(PODS)
        assert await store.get(put("n0000").key) is not None
        revision = await store.revision()
        with pytest.raises(StoreUnavailable):
            await store.commit([put("again", bytes(10_000))])
        assert await store.revision() == revision
        await store.close()

    async def test_compaction_makes_room_again(self, path: Path) -> None:
        store = await SqliteStore.open(path, size_limit=MIB)
        with pytest.raises(StoreUnavailable):
            while True:
                await store.commit([put("a", bytes(10_000))])

        await store.compact(await store.revision())

        for _ in range(20):
            await store.commit([put("a", bytes(10_000))])
        await store.close()

    async def test_those_decided_on_a_failed_commit_fail_with_it(self, path: Path) -> None:
        store = await SqliteStore.open(path, size_limit=MIB)
        await store.commit([put("a")])

        outcomes = await asyncio.gather(
            store.commit([put("big", bytes(2 * MIB))]),
            store.commit([Delete(put("big").key)]),
            return_exceptions=True,
        )

        assert [type(one) for one in outcomes] == [StoreUnavailable] * 2
        [record] = await store.commit([put("b")])
        assert record.revision == await store.revision()
        await store.close()

    async def test_an_error_of_the_disk_stops_all_writing(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        [kept] = await store.commit([put("a")])
        disk = store._writes._disk
        assert disk is not None
        disk.sync = lambda done: done(OSError(5, "Input/output error"))  # type: ignore[method-assign]

        with pytest.raises(StoreUnavailable, match="Input/output error"):
            await store.commit([put("a", b"lost")])

        assert await store.get(kept.key) == kept
        with pytest.raises(StoreUnavailable, match="read-only"):
            await store.commit([put("b")])
        await store.close()


class TestPowerCuts:
    """``boot`` names the boot of the machine; a change of it without a clean close is a power cut."""

    async def test_a_killed_process_loses_nothing_told(self, path: Path) -> None:
        store = await SqliteStore.open(path, boot="one")
        await store.commit([put("a")], durable=False)
        copy = self._copy(path)
        revision = await store.revision()
        await store.close()

        store = await SqliteStore.open(copy, boot="one")
        assert await store.revision() == revision
        assert await store.get(put("a").key) is not None
        await store.watch(PODS, revision)
        await store.close()

    async def test_revisions_are_not_used_again_for_what_was_lost(self, path: Path) -> None:
        store = await SqliteStore.open(path, boot="one")
        await store.commit([put("a")])
        before = self._copy(path)
        [lost] = await store.commit([put("b")], durable=False)
        await store.close()

        store = await SqliteStore.open(before, boot="two")

        assert await store.get(put("b").key) is None
        assert await store.revision() > lost.revision
        with pytest.raises(Expired):
            await store.watch(PODS, lost.revision)
        [record] = await store.commit([put("c")])
        assert record.revision > lost.revision
        await store.close()

    async def test_reserved_revisions_are_extended_in_time(self, path: Path) -> None:
        store = await SqliteStore.open(path, boot="one")
        store._writes._reserved = await store.revision() + 5
        for n in range(20):
            await store.commit([put(f"n{n}")], durable=False)
        last = await store.revision()
        cut = self._copy(path)
        await store.close()
        with sqlite3.connect(cut) as connection:
            connection.execute("DELETE FROM log WHERE revision > ?", (last - 10,))
        connection.close()

        store = await SqliteStore.open(cut, boot="two")
        assert await store.revision() > last
        await store.close()

    async def test_a_clean_close_is_no_power_cut(self, path: Path) -> None:
        store = await SqliteStore.open(path, boot="one")
        [record] = await store.commit([put("a")], durable=False)
        await store.close()

        store = await SqliteStore.open(path, boot="two")
        assert await store.revision() == record.revision
        await store.watch(PODS, record.revision - 1)
        await store.close()

    def _copy(self, path: Path) -> Path:
        """The database as a crash would leave it now."""
        target = path.parent / f"copy-{time.monotonic_ns()}" / path.name
        target.parent.mkdir()
        for suffix in ("", "-wal"):
            file = path.with_name(path.name + suffix)
            target.with_name(file.name).write_bytes(file.read_bytes())
        return target


class TestHousekeeping:
    async def test_the_write_ahead_log_stays_bounded(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleetplane.store.disk._CHECKPOINT_BYTES", 2 * MIB)
        store = await SqliteStore.open(path, compaction=CompactionPolicy(seconds=1e9, min_events=10, max_events=500))
        for n in range(1500):
            await store.commit([put(f"n{n % 100}", bytes(4_000))], durable=n % 50 == 0)
            if n % 50 == 0:
                await asyncio.sleep(0.002)

        assert path.with_name("store.db-wal").stat().st_size < 10 * MIB
        assert path.stat().st_size < 10 * MIB  # noqa: ASYNC240
        await store.close()

    async def test_long_lists_let_others_run(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        await store.commit([put(f"n{n:05}", bytes(1_000)) for n in range(6_000)])
        listing = asyncio.create_task(store.list(PODS))
        turns = 0
        while not listing.done():
            await asyncio.sleep(0)
            turns += 1

        assert len((await listing).records) == 6_000
        assert turns >= 12
        await store.close()

    async def test_positions_in_long_lists_are_exact_while_they_change(self) -> None:
        store = await SqliteStore.open(":memory:")
        names = [f"n{n:05}" for n in range(0, 20_000, 2)]
        await store.commit([put(name) for name in names])
        first = await store.list(PODS, limit=1_000, count_remaining=True)
        await store.commit(
            [put(f"n{n:05}") for n in range(1, 9_999, 2)] + [Delete(put(n).key) for n in names[3_000:5_000]]
        )

        second = await store.list(PODS, limit=1_000, after=first.next, revision=first.revision, count_remaining=True)
        now = [record.key.name for record in (await store.list(PODS)).records]

        assert (first.remaining, second.remaining) == (9_000, 8_000)
        assert await store.count(PODS) == len(now)
        for offset in (1, 999, 5_000, 7_777, len(now) - 1, len(now)):
            page = await store.list(PODS, offset=offset, limit=2, count_remaining=True)
            assert [record.key.name for record in page.records] == now[offset : offset + 2]
            assert page.remaining == max(0, len(now) - offset - 2)
        await store.close()

    async def test_lists_under_way_survive_compaction(self) -> None:
        store = await SqliteStore.open(":memory:")
        await store.commit([put(f"n{n:04}", b"old") for n in range(2_000)])
        listing = asyncio.create_task(store.list(PODS))
        await asyncio.sleep(0)
        await store.commit([put(f"n{n:04}", b"new") for n in range(2_000)])
        compacting = asyncio.create_task(store.compact(await store.revision()))

        page = await listing
        await compacting

        assert {record.value for record in page.records} == {b"old"}
        assert len(page.records) == 2_000
        await store.close()

    async def test_compaction_leaves_only_what_is_current(self, path: Path) -> None:
        store = await SqliteStore.open(path)
        for n in range(30):
            await store.commit([put(f"n{n % 3}", b"%d" % n), put("gone"), Delete(put("gone").key)])
        await store.compact(await store.revision())
        await store.close()

        with sqlite3.connect(path) as connection:
            rows = {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("log", "past")
            }
        connection.close()
        assert rows == {"log": 3, "past": 0}
