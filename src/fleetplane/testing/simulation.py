"""The deterministic simulator: a real API server, processes that crash, a network that loses things, and no waiting.

::

    @simulated(seeds=range(20))
    async def test_no_child_is_made_twice(simulation: Simulation) -> None:
        operator = simulation.process("operator", lambda client: run_operator(client, simulation.environment))
        operator.crashes(mean_requests=15)
        await simulation.client.create(GREETINGS, greeting("hello"), "default")
        await simulation.run(minutes=10)
        simulation.calm()
        await simulation.settle()
        assert len((await simulation.client.list(CONFIG_MAPS, "default")).items) == 1

Everything random comes from one seed: the order of faults, delays, crashes, generated names. The clock jumps when nobody
has anything to do, so an hour costs what happens in it. A failing run names its seed; the same seed fails the same way.

``simulation.client`` is the test's own, reliable client. A process has a client that meets the faults; killing it is
abrupt, as a power cut is: its cleanup code cannot reach the server, but what it had sent may still arrive.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fleetplane.client.protocol import Client
from fleetplane.client.rest import RestClient
from fleetplane.testing.clock import run_virtually
from fleetplane.testing.environment import SimulatedEnvironment
from fleetplane.testing.faults import NO_FAULTS, Faults, FaultyTransport, Step
from fleetplane.testing.plane import running_server

Main = Callable[[Client], Awaitable[None]]

MINUTE = 60.0


@dataclass
class Process:
    """A program that can be killed and started again. ``starts`` counts how often it ran."""

    simulation: Simulation
    name: str
    main: Main
    faults: Faults
    restart_after: float = 1.0
    starts: int = 0
    _transport: FaultyTransport | None = None
    _task: asyncio.Task[None] | None = None
    _ending: set[asyncio.Task[None]] = field(default_factory=set)
    _requests_left: int | None = None
    _mean_requests: float = 0.0

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Run it, with a client of its own."""
        if self.is_running:
            return
        self.starts += 1
        self._transport = self.simulation.transport(self.name, self.faults)
        self._transport.before = self._count
        self._transport.after = self._count
        self._task = asyncio.ensure_future(self._run(self.simulation.faulty_client(self._transport)))
        self._arm()

    def kill(self, *, restart: bool = True) -> None:
        """End it between two of its steps. With ``restart`` it runs again after ``restart_after`` seconds."""
        if self._task is None or self._transport is None:
            return
        self._transport.kill()
        self._task.cancel()
        self._ending.add(self._task)
        self._task.add_done_callback(self._ending.discard)
        self._task = None
        self.simulation.note(self.name, "killed")
        if restart:
            asyncio.get_running_loop().call_later(self.restart_after, self._restart)

    def kill_after(self, steps: int, *, restart: bool = True) -> None:
        """Kill it after so many more turns of the event loop: somewhere between two awaits, whatever they wait for."""
        loop = asyncio.get_running_loop()

        def turn(left: int) -> None:
            if left <= 0:
                self.kill(restart=restart)
            else:
                loop.call_soon(turn, left - 1)

        turn(steps)

    def crashes(self, mean_requests: float) -> None:
        """From now on it crashes by chance: just before a request is sent or just after it was carried out."""
        self._mean_requests = mean_requests
        self._arm()

    def behave(self) -> None:
        """No more crashes and no more faults."""
        self._mean_requests = 0.0
        self._requests_left = None
        self.faults = NO_FAULTS
        if self._transport is not None:
            self._transport.faults = NO_FAULTS

    def _arm(self) -> None:
        if self._mean_requests:
            self._requests_left = 1 + int(self.simulation.environment.random.expovariate(1 / (2 * self._mean_requests)))

    def _count(self) -> None:
        if self._requests_left is not None:
            self._requests_left -= 1
            if self._requests_left <= 0:
                self._requests_left = None
                self.kill()

    def _restart(self) -> None:
        if not self.simulation.is_over:
            self.start()

    async def _run(self, client: Client) -> None:
        try:
            await self.main(client)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.simulation.failures.append(f"{self.name}: {error!r}")
            raise

    async def ended(self) -> None:
        tasks = [*self._ending, *([self._task] if self._task is not None else [])]
        if tasks:
            await asyncio.wait(tasks)


class Simulation:
    """See the module. ``client`` never fails; ``failures`` holds what processes ended with on their own."""

    def __init__(self, seed: int, environment: SimulatedEnvironment, client: RestClient, faults: Faults) -> None:
        self.seed = seed
        self.environment = environment
        self.client = client
        self.faults = faults
        self.trace: list[Step] = []
        self.failures: list[str] = []
        self.is_over = False
        self._processes: list[Process] = []

    def process(
        self, name: str, main: Main, *, faults: Faults | None = None, restart_after: float = 1.0, start: bool = True
    ) -> Process:
        """Add a program; ``main`` gets a client that meets the faults and runs until it is killed."""
        made = Process(self, name, main, self.faults if faults is None else faults, restart_after)
        self._processes.append(made)
        if start:
            made.start()
        return made

    async def run(self, *, seconds: float = 0.0, minutes: float = 0.0, hours: float = 0.0) -> None:
        """Let time pass. Raises AssertionError when a process ended on its own meanwhile."""
        await asyncio.sleep(seconds + MINUTE * (minutes + 60 * hours))
        if self.failures:
            raise AssertionError("; ".join(self.failures))

    async def until(self, condition: Callable[[], Awaitable[bool]], *, timeout: float = 3600.0) -> None:
        """Let time pass until ``condition`` holds. Raises TimeoutError after ``timeout`` virtual seconds."""
        async with asyncio.timeout(timeout):
            while not await condition():
                await self.run(seconds=0.5)

    def calm(self) -> None:
        """The bad day is over: no new faults, no new crashes."""
        for process in self._processes:
            process.behave()

    async def settle(self, *, quiet: float = 120.0, timeout: float = 24 * 3600.0) -> None:
        """Let time pass until nothing was written for ``quiet`` seconds. Raises TimeoutError: it never rests."""
        async with asyncio.timeout(timeout):
            before = -1
            while (now := await self._writes()) != before:
                before = now
                await self.run(seconds=quiet)

    async def _writes(self) -> int:
        """Requests of processes that may have changed something; Leases and Events are always on the move."""
        restless = ("/leases/", "/events")
        return sum(step.method != "GET" and not any(part in step.path for part in restless) for step in self.trace)

    def transport(self, who: str, faults: Faults) -> FaultyTransport:
        return FaultyTransport(self.client.transport, self.environment, faults, who, self.trace)

    def faulty_client(self, transport: FaultyTransport) -> RestClient:
        return self.client.over(transport)

    def note(self, who: str, outcome: str) -> None:
        self.trace.append(Step(round(self.environment.monotonic(), 6), who, "", "", outcome))

    async def end(self) -> None:
        self.is_over = True
        for process in self._processes:
            process.kill(restart=False)
        for process in self._processes:
            await process.ended()


@asynccontextmanager
async def simulation(seed: int, faults: Faults = NO_FAULTS) -> AsyncIterator[Simulation]:
    """A simulation on the running loop, which should be a ``VirtualClockLoop``."""
    environment = SimulatedEnvironment(seed)
    async with running_server(environment=environment) as server:
        client = server.client()
        assert isinstance(client, RestClient)
        made = Simulation(seed, environment, client, faults)
        try:
            yield made
        finally:
            await made.end()


def simulate(story: Callable[[Simulation], Awaitable[None]], seed: int, *, faults: Faults = NO_FAULTS) -> list[Step]:
    """Run one story to its end and return what was asked of the server, in order. A failure is told its seed."""

    async def main() -> list[Step]:
        failure: Exception | None = None
        async with simulation(seed, faults) as made:
            try:
                await story(made)
            except Exception as error:  # told as it is, not as part of the group of everything that then stops
                failure = error
        if failure is not None:
            raise failure
        return made.trace

    try:
        return run_virtually(main())
    except BaseException as error:
        error.add_note(f"replay with seed={seed}")
        raise


def simulated(
    seeds: Iterable[int] = (0,), *, faults: Faults = NO_FAULTS
) -> Callable[[Callable[[Simulation], Awaitable[None]]], Callable[..., None]]:
    """Make a pytest test of a story: it runs once for every seed, and for any seed again on its own (``-k seed7``)."""
    # Only tests import pytest; whoever runs simulations otherwise need not have it.
    import pytest  # noqa: PLC0415

    def decorate(story: Callable[[Simulation], Awaitable[None]]) -> Callable[..., None]:
        def test(seed: int) -> None:
            simulate(story, seed, faults=faults)

        test.__name__ = getattr(story, "__name__", "story")
        test.__doc__ = inspect.getdoc(story)
        test.__module__ = story.__module__
        parametrize: Any = pytest.mark.parametrize("seed", [pytest.param(seed, id=f"seed{seed}") for seed in seeds])
        made: Callable[..., None] = parametrize(test)
        return made

    return decorate
