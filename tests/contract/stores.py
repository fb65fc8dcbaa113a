"""The engines that the contract suite runs on.

A ``StoreFactory`` opens the same empty database each time it is called within one test, so that a test can close a
store and open it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fleetplane.store.protocol import Store
from fleetplane.store.sqlite import SqliteStore

StoreFactory = Callable[..., Awaitable[Store]]


def sqlite(directory: Path) -> StoreFactory:
    async def open_store(**options: Any) -> Store:
        return await SqliteStore.open(directory / "store.db", **options)

    return open_store


def memory(_directory: Path) -> StoreFactory:
    async def open_store(**options: Any) -> Store:
        return await SqliteStore.open(":memory:", **options)

    return open_store


ENGINES: dict[str, Callable[[Path], StoreFactory]] = {"sqlite": sqlite, "memory": memory}
PERSISTENT = ("sqlite",)
