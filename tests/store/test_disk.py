"""The helper that waits for the disk, and what happens without it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fleetplane.store import disk as disk_module
from fleetplane.store.datafile import connect
from fleetplane.store.disk import Disk
from fleetplane.store.protocol import Key, Put, Selection, StoreUnavailable
from fleetplane.store.sqlite import SqliteStore


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    connection = connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE t(x)")
    disk = Disk(tmp_path / "x.db")
    yield disk
    await disk.close()
    connection.close()


async def done(ask: Callable[[Callable[[OSError | None], None]], None]) -> OSError | None:
    finished: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    ask(finished.set_result)
    return await asyncio.wait_for(finished, 5)


@pytest.mark.parametrize("command", ["sync", "checkpoint", "rest"])
async def test_does_what_it_is_asked(disk: Disk, command: str) -> None:
    assert await done(getattr(disk, command)) is None
    assert await done(getattr(disk, command)) is None


async def test_a_sync_does_not_wait_for_a_checkpoint(disk: Disk) -> None:
    assert not any(await asyncio.gather(done(disk.checkpoint), done(disk.sync)))


async def test_the_helper_ignores_the_terminal(disk: Disk) -> None:
    await done(disk.sync)
    assert disk._helper is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        disk._helper.send_signal(number)

    assert await done(disk.sync) is None
    assert disk._thread is None


async def test_a_thread_takes_over_from_a_dead_helper(disk: Disk) -> None:
    await done(disk.sync)
    assert disk._helper is not None
    disk._helper.kill()

    for _ in range(3):
        assert await done(disk.sync) is None
    assert disk._thread is not None
    assert await done(disk.checkpoint) is None


async def test_a_store_works_without_a_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise PermissionError("no processes here")

    monkeypatch.setattr(disk_module, "_start", refuse)
    key = Key("root", "", "pods", "x", "a")
    store = await SqliteStore.open(tmp_path / "store.db")
    await asyncio.gather(*(store.commit([Put(key, "u", b"%d" % n)]) for n in range(10)))
    await store.close()

    store = await SqliteStore.open(tmp_path / "store.db")
    record = await store.get(key)
    assert record is not None and record.value == b"9"
    await store.close()


async def test_without_helper_and_thread_writing_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(disk_module, "_start", refuse)
    monkeypatch.setattr(disk_module, "_Thread", refuse)
    store = await SqliteStore.open(tmp_path / "store.db")

    with pytest.raises(StoreUnavailable, match="Too many open files"):
        await store.commit([Put(Key("root", "", "pods", "x", "a"), "u", b"v")])

    assert (await store.list(Selection("", "pods"))).records == []
    await store.close()


async def test_commits_under_way_survive_the_helper(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    helper = store._writes._disk and store._writes._disk._helper
    assert helper

    async def write(writer: int) -> None:
        for n in range(30):
            await store.commit([Put(Key("root", "", "pods", "x", f"{writer}-{n}"), "u", b"v")])
            if (writer, n) == (0, 10):
                helper.kill()

    await asyncio.wait_for(asyncio.gather(*(write(writer) for writer in range(4))), 20)
    await store.close()


async def test_a_busy_loop_does_not_starve_commits(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    busy = True

    async def spin() -> None:
        while busy:
            sum(range(20_000))
            await asyncio.sleep(0)

    spinning = asyncio.create_task(spin())
    try:
        async with asyncio.timeout(5):
            for n in range(100):
                await store.commit([Put(Key("root", "", "pods", "x", f"{n}"), "u", b"v")])
    finally:
        busy = False
        await spinning
        await store.close()
