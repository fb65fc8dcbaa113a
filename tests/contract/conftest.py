"""The engines the store's contract suite runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fleetplane.model.environment import SystemEnvironment
from fleetplane.store.protocol import Store
from fleetplane.store.sqlite import SqliteStore

Open = Callable[..., Awaitable[Store]]


class StoreFactory:
    """Opens one database, again and again; ``elsewhere`` is a factory for another, empty one."""

    def __init__(self, engine: str, directory: Path) -> None:
        self.persistent = engine != "memory"
        self._engine = engine
        self._directory = directory
        self._opened: list[Store] = []
        self._others = 0

    async def __call__(self, **options: Any) -> Store:
        path = ":memory:" if self._engine == "memory" else self._directory / "store.db"
        store = await SqliteStore.open(path, **options)
        self._opened.append(store)
        return store

    def elsewhere(self) -> StoreFactory:
        self._others += 1
        return StoreFactory(self._engine, self._directory / str(self._others))

    async def close(self) -> None:
        for store in self._opened:
            await store.close()

    def delay_commits(self, store: Store, seconds: Callable[[], float]) -> None:
        """Make each of the store's commits take longer to become durable."""
        disk = store._writes._disk  # type: ignore[attr-defined]
        if disk is None:
            return
        sync = disk.sync

        def slow(done: Callable[[OSError | None], None]) -> None:
            disk._loop.call_later(seconds(), sync, done)

        disk.sync = slow


@pytest.fixture(params=["sqlite", "memory"])
async def store_factory(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreFactory]:
    factory = StoreFactory(request.param, tmp_path)
    yield factory
    await factory.close()


@pytest.fixture
async def store(store_factory: StoreFactory) -> Store:
    return await store_factory()


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
