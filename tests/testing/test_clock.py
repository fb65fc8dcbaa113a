"""The virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from fleetplane.testing.clock import Stuck, run_virtually
from fleetplane.testing.environment import SimulatedEnvironment


def test_an_hour_passes_at_once_and_exactly() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    started = time.monotonic()
    assert run_virtually(main()) == 3600
    assert time.monotonic() - started < 1


def test_timers_fire_in_order_and_work_comes_before_waiting() -> None:
    order: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append(name)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("late", 2))
            group.create_task(sleeper("early", 1))
            for _ in range(100):
                await asyncio.sleep(0)
            order.append("work")

    run_virtually(main())

    assert order == ["work", "early", "late"]


def test_a_timeout_is_virtual_too() -> None:
    async def main() -> None:
        async with asyncio.timeout(100):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run_virtually(main())


def test_threads_are_run_in_place() -> None:
    async def main() -> int:
        return await asyncio.to_thread(lambda: 7)

    assert run_virtually(main()) == 7


def test_waiting_for_nothing_is_reported_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetplane.testing.clock.MOMENT", 0.01)

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run_virtually(main())


def test_the_environment_follows_the_clock_and_the_seed() -> None:
    async def main(seed: int) -> tuple[str, str, float]:
        environment = SimulatedEnvironment(seed)
        await asyncio.sleep(90)
        return environment.now().isoformat(), environment.uuid(), environment.random.random()

    assert run_virtually(main(1)) == run_virtually(main(1))
    assert run_virtually(main(1))[1] != run_virtually(main(2))[1]
    assert run_virtually(main(1))[0] == "2026-01-01T00:01:30+00:00"


def test_a_timer_never_fires_before_the_moment_it_was_set_for() -> None:
    """Woken a hair early, who waits until a moment waits again, and again: nothing else moves this clock."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        until, waits = loop.time() + 5e-10, 0
        while loop.time() < until and waits < 100:
            waits += 1
            loop.call_soon(str)  # somebody has something to do
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await asyncio.Event().wait()
        return waits

    assert run_virtually(main()) == 1
