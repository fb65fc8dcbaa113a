from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from fleetplane.testing.plane import TestServer, running_server


@pytest_asyncio.fixture
async def api() -> AsyncIterator[TestServer]:
    async with running_server() as server:
        yield server
