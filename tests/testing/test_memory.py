"""The server in memory."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.testing.clock import virtually
from fleetplane.testing.environment import SimulatedEnvironment
from fleetplane.testing.memory import MemoryServer


@virtually
async def test_a_watch_misses_nothing_that_happens_while_it_hands_over() -> None:
    client = MemoryServer(SimulatedEnvironment()).client()
    for name in ("a", "b"):
        await client.create(CONFIG_MAPS, {"metadata": {"name": name}}, "n")
    seen = []

    async with asyncio.timeout(5), aclosing(client.watch(CONFIG_MAPS, "n", send_initial_events=True)) as events:
        async for event in events:
            name = event.object["metadata"].get("name", "")
            seen.append((event.type, name))
            if name in {"a", "c"}:  # the reader writes while the server waits for it to go on
                await client.create(CONFIG_MAPS, {"metadata": {"name": {"a": "c", "c": "d"}[name]}}, "n")
            if name == "d":
                break

    assert seen == [("ADDED", "a"), ("ADDED", "b"), ("BOOKMARK", ""), ("ADDED", "c"), ("ADDED", "d")]
