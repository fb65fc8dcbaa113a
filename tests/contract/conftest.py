"""The engines the store's contract suite runs on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetplane.model.environment import SystemEnvironment
from fleetplane.store.encrypting import EncryptingStore, Sealer
from fleetplane.store.postgres import PostgresStore
from fleetplane.store.protocol import Store
from fleetplane.store.sqlite import SqliteStore


class StoreFactory:
    """Opens one database, again and again; ``elsewhere`` is a factory for another, empty one."""

    def __init__(self, engine: str, directory: Path, dsn: str = "") -> None:
        self.persistent = engine != "memory"
        self._engine = engine
        self._directory = directory
        self._dsn = dsn
        self._schema = f"t{uuid.uuid4().hex}"
        self._opened: list[Store] = []
        self._others = 0

    async def __call__(self, **options: Any) -> Store:
        store: Store
        if self._engine == "postgres":
            store = await PostgresStore.open(self._dsn, schema=self._schema, connections=3, **options)
        else:
            path = ":memory:" if self._engine == "memory" else self._directory / "store.db"
            store = await SqliteStore.open(path, **options)
        if self._engine == "sealed":
            store = EncryptingStore(store, Sealer([b"k" * 32]), lambda _group, _resource: True)
        self._opened.append(store)
        return store

    async def servers(self, **options: Any) -> list[Store]:
        """Stores on the same data: several, where the engine allows it."""
        return [await self(**options) for _ in range(3 if self._engine == "postgres" else 1)]

    def elsewhere(self) -> StoreFactory:
        self._others += 1
        return StoreFactory(self._engine, self._directory / str(self._others), self._dsn)

    async def close(self) -> None:
        for store in self._opened:
            await store.close()

    def delay_commits(self, store: Store, seconds: Callable[[], float]) -> None:
        """Make each of the store's commits take longer to become durable."""
        if isinstance(store, EncryptingStore):
            self.delay_commits(store._inner, seconds)
        elif isinstance(store, PostgresStore):
            commits = store._commits
            execute = commits._execute

            async def execute_slowly(effects: Any) -> None:
                await execute(effects)
                await asyncio.sleep(seconds())

            commits._execute = execute_slowly  # type: ignore[method-assign]
        elif isinstance(store, SqliteStore) and (disk := store._writes._disk):
            sync = disk.sync

            def sync_late(done: Callable[[OSError | None], None]) -> None:
                disk._loop.call_later(seconds(), sync, done)

            disk.sync = sync_late  # type: ignore[method-assign]


@pytest.fixture(params=["sqlite", "sealed", "memory", "postgres"])
async def store_factory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreFactory]:
    dsn = request.getfixturevalue("postgres_dsn") if request.param == "postgres" else ""
    factory = StoreFactory(request.param, tmp_path, dsn)
    yield factory
    await factory.close()


@pytest.fixture
async def store(store_factory: StoreFactory) -> Store:
    return await store_factory()


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A PostgreSQL of our own, on a Unix socket, gone with the session."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server programs (initdb, postgres) on this machine")
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory(prefix="fp-pg-") as directory:
        if user:
            shutil.chown(directory, user)
        data = f"{directory}/data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "fleetplane", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
        )
        options = ("listen_addresses=", f"unix_socket_directories={directory}", "fsync=off", "shared_buffers=32MB")
        command: list[str | Path] = [
            programs / "postgres",
            "-D",
            data,
            *(part for option in options for part in ("-c", option)),
        ]
        with (
            Path(directory, "log").open("w") as log,
            subprocess.Popen(command, user=user, stdout=log, stderr=log) as server,
        ):
            ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", directory]
            while subprocess.run(ready, check=False).returncode != 0:
                if server.poll() is not None:
                    pytest.skip(f"PostgreSQL does not start: {Path(directory, 'log').read_text()}")
                time.sleep(0.02)
            yield f"postgresql://fleetplane@/postgres?host={directory}"
            server.send_signal(signal.SIGINT)


def _postgres_programs() -> Path | None:
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)]
    if in_path := shutil.which("initdb"):
        found.append(Path(in_path).parent)
    return next((path for path in found if (path / "initdb").exists() and (path / "postgres").exists()), None)


class FastClock(SystemEnvironment):
    """A clock that tests move by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> FastClock:
    return FastClock()
