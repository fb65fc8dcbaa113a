"""The work queue: one worker a key, fresh before resync, failures wait."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.controller.errors import QueueClosed
from fleetplane.controller.metrics import Metrics, QueueMetrics
from fleetplane.controller.queue import WorkQueue
from fleetplane.testing.clock import run_virtually, virtually
from fleetplane.testing.environment import SimulatedEnvironment


def queue_of(*keys: str) -> WorkQueue[str]:
    queue: WorkQueue[str] = WorkQueue(SimulatedEnvironment())
    for key in keys:
        queue.add(key)
    return queue


@virtually
async def test_adding_twice_is_adding_once() -> None:
    queue = queue_of("a", "b", "a")

    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


@virtually
async def test_a_key_being_worked_on_comes_again_afterwards_once() -> None:
    queue = queue_of("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")

    assert len(queue) == 0
    queue.done(key)
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


@virtually
async def test_what_is_fresh_goes_before_resyncs() -> None:
    queue = queue_of()
    queue.add("old", low=True)
    queue.add("new")

    assert [await queue.get(), await queue.get()] == ["new", "old"]


@virtually
async def test_a_resync_that_changes_becomes_fresh() -> None:
    queue = queue_of()
    queue.add("first", low=True)
    queue.add("second", low=True)
    queue.add("second")

    assert await queue.get() == "second"


@virtually
async def test_resyncs_are_not_starved() -> None:
    queue = queue_of()
    queue.add("repair", low=True)
    taken = []
    for n in range(10):
        queue.add(f"busy{n}")
        taken.append(await queue.get())
        queue.done(taken[-1])

    assert "repair" in taken


@virtually
async def test_failures_wait_longer_each_time_and_success_forgives() -> None:
    queue = queue_of()
    delays = [queue.add_rate_limited("a") for _ in range(30)]

    assert 0.0045 <= delays[0] <= 0.005
    assert 900 <= delays[-1] <= 1000
    assert all(later > earlier for earlier, later in pairwise(delays[:16]))
    queue.forget("a")
    assert queue.add_rate_limited("a") <= 0.005


@virtually
async def test_a_delayed_key_arrives_when_it_is_due() -> None:
    queue = queue_of()
    queue.add_after("late", 20)
    queue.add_after("early", 10)
    queue.add_after("late", 15)
    loop = asyncio.get_running_loop()

    assert (await queue.get(), loop.time()) == ("early", 10)
    assert (await queue.get(), loop.time()) == ("late", 15)
    await asyncio.sleep(100)
    assert len(queue) == 0


@virtually
async def test_a_retry_is_dropped_when_the_key_got_well_meanwhile() -> None:
    queue = queue_of()
    queue.add_rate_limited("a")
    queue.add("a")
    queue.done(await queue.get())
    queue.forget("a")
    await asyncio.sleep(1)

    assert len(queue) == 0


@virtually
async def test_closing_wakes_everyone_and_ends_timers() -> None:
    queue = queue_of()
    queue.add_after("never", 10)
    waiters = [asyncio.ensure_future(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close()

    assert [type(one) for one in await asyncio.gather(*waiters, return_exceptions=True)] == [QueueClosed] * 3
    with pytest.raises(QueueClosed):
        await queue.get()


@virtually
async def test_a_waiter_cancelled_as_it_is_woken_passes_the_key_on() -> None:
    queue = queue_of()
    first = asyncio.ensure_future(queue.get())
    second = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()

    assert await second == "a"


@virtually
async def test_a_waiter_cancelled_before_the_queue_closes_just_ends() -> None:
    queue = queue_of()
    waiters = [asyncio.ensure_future(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    for waiter in waiters:
        waiter.cancel()
    queue.add("a")
    queue.close()

    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(one) for one in outcomes] == [asyncio.CancelledError] * 2


@virtually
async def test_it_counts_under_the_names_dashboards_know() -> None:
    metrics = Metrics()
    queue: WorkQueue[str] = WorkQueue(SimulatedEnvironment(), metrics=QueueMetrics(metrics, "q"))
    queue.add("a")
    await asyncio.sleep(2)
    queue.done(await queue.get())

    value = metrics.registry.get_sample_value
    assert value("workqueue_adds_total", {"name": "q"}) == 1
    assert value("workqueue_queue_duration_seconds_sum", {"name": "q"}) == 2


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), workers=st.integers(1, 4), adds=st.lists(st.sampled_from("abcd"), max_size=30))
def test_no_key_is_lost_or_worked_on_twice_at_once(seed: int, workers: int, adds: list[str]) -> None:
    environment = SimulatedEnvironment(seed)
    queue: WorkQueue[str] = WorkQueue(environment)
    working: set[str] = set()
    last_seen: dict[str, float] = {}
    last_added: dict[str, float] = {}

    async def worker() -> None:
        while True:
            try:
                key = await queue.get()
            except QueueClosed:
                return
            assert key not in working
            working.add(key)
            last_seen[key] = asyncio.get_running_loop().time()
            await asyncio.sleep(environment.random.random())
            working.remove(key)
            queue.done(key)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
            for key in adds:
                await asyncio.sleep(environment.random.random() * 0.3)
                last_added[key] = asyncio.get_running_loop().time()
                queue.add(key, low=environment.random.random() < 0.3)
            await asyncio.sleep(100)
            assert queue.is_idle
            queue.close()

    run_virtually(main())

    assert all(last_seen[key] >= when for key, when in last_added.items())
