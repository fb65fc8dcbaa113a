"""Controllers at work against a server in memory, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest

from fleetplane.client.protocol import ROOT, Pairs, Transport, Unreachable
from fleetplane.controller.controller import Controller, Request, Result, Watch
from fleetplane.controller.errors import Permanent
from fleetplane.controller.leader import LeaderElection
from fleetplane.controller.manager import Manager
from fleetplane.controller.metrics import Metrics
from fleetplane.controller.predicates import generation_changed
from fleetplane.controller.sharding import Shard
from fleetplane.model.builtin.types import CONFIG_MAPS, DEPLOYMENTS, PODS, SECRETS
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.testing.clock import virtually
from fleetplane.testing.environment import SimulatedEnvironment
from fleetplane.testing.memory import MemoryServer

THINGS = ResourceType("example.org", "v1", "Thing", "things")

Reconcile = Callable[[Request], Awaitable[Result | None]]


def thing(name: str, **spec: object) -> Object:
    return {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec}


class World:
    """A server, a manager over it, and a record of what was reconciled when."""

    def __init__(self, **options: object) -> None:
        self.environment = SimulatedEnvironment()
        self.server = MemoryServer(self.environment)
        self.client = self.server.client()
        self.seen: list[str] = []
        self.metrics = Metrics()
        self.manager = self.make_manager(**options)

    def make_manager(self, **options: object) -> Manager:
        return Manager(self.client, environment=self.environment, metrics=self.metrics, **options)  # type: ignore[arg-type]

    async def record(self, request: Request) -> None:
        self.seen.append(request.name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with run(self.manager):
            yield

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def run(manager: Manager) -> AsyncIterator[None]:
    task = asyncio.ensure_future(manager.run())
    try:
        await asyncio.sleep(0.5)
        yield
    finally:
        manager.stop()
        await task


@virtually
async def test_what_exists_and_what_comes_is_reconciled() -> None:
    world = World()
    world.manager.add(Controller("c", THINGS, world.record))
    await world.client.create(THINGS, thing("old"), "n")

    async with world.running():
        assert world.manager.is_ready
        await world.client.create(THINGS, thing("new"), "n")
        await asyncio.sleep(1)

    assert world.seen == ["old", "new"]
    assert world.value("controller_runtime_reconcile_total", controller="c", result="success") == 2


@virtually
async def test_status_and_equal_writes_wake_nobody() -> None:
    world = World()
    world.manager.add(Controller("c", THINGS, world.record))
    await world.client.create(THINGS, thing("a"), "n")

    async with world.running():
        await world.client.patch(THINGS, "a", {"status": {"x": 1}}, "n", subresource="status")
        await asyncio.sleep(1)
        assert world.seen == ["a"]
        await world.client.patch(THINGS, "a", {"metadata": {"labels": {"x": "y"}}}, "n")
        await asyncio.sleep(1)
        await world.client.delete(THINGS, "a", "n")
        await asyncio.sleep(1)

    assert world.seen == ["a"] * 3


@virtually
async def test_an_owned_object_wakes_its_owner() -> None:
    world = World()
    world.manager.add(Controller("c", THINGS, world.record, owns=[CONFIG_MAPS], predicate=generation_changed))
    owner = await world.client.create(THINGS, thing("owner"), "n")
    reference = {
        "apiVersion": "example.org/v1beta1",
        "kind": "Thing",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }

    async with world.running():
        child = {"metadata": {"name": "child", "ownerReferences": [reference]}}
        await world.client.create(CONFIG_MAPS, child, "n")
        await world.client.create(CONFIG_MAPS, {"metadata": {"name": "stranger"}}, "n")
        await asyncio.sleep(1)

    assert world.seen == ["owner", "owner"]


@virtually
async def test_a_mapped_watch_wakes_what_it_concerns_before_and_after() -> None:
    world = World()
    watch = Watch(SECRETS, lambda secret: [Request(ROOT, "n", secret.labels["for"])])
    world.manager.add(Controller("c", THINGS, world.record, watches=[watch]))

    async with world.running():
        await world.client.create(SECRETS, {"metadata": {"name": "s", "labels": {"for": "a"}}}, "n")
        await asyncio.sleep(1)
        await world.client.patch(SECRETS, "s", {"metadata": {"labels": {"for": "b"}}}, "n")
        await asyncio.sleep(1)

    assert sorted(world.seen) == ["a", "a", "b"]


@virtually
async def test_one_broken_object_delays_nobody() -> None:
    world = World()

    async def reconcile(request: Request) -> None:
        world.seen.append(request.name)
        if request.name == "broken":
            raise RuntimeError("boom")

    world.manager.add(Controller("c", THINGS, reconcile, max_concurrent=1))
    await world.client.create(THINGS, thing("broken"), "n")

    async with world.running():
        await asyncio.sleep(2000)
        failures = world.seen.count("broken")
        await world.client.create(THINGS, thing("fine"), "n")
        await asyncio.sleep(0.01)

    assert "fine" in world.seen
    assert 15 < failures < 30
    assert world.value("controller_runtime_reconcile_errors_total", controller="c") == failures


@virtually
async def test_what_failed_for_good_waits_for_a_change() -> None:
    world = World()
    told: list[str] = []

    async def reconcile(request: Request) -> None:
        world.seen.append(request.name)
        raise Permanent("there is no such site", reason="NoSite")

    async def on_permanent(request: Request, error: Permanent) -> None:
        told.append(f"{request} {error.reason}: {error.message}")

    world.manager.add(Controller("c", THINGS, reconcile, on_permanent=on_permanent, resync=None))
    await world.client.create(THINGS, thing("a"), "n")

    async with world.running():
        await asyncio.sleep(10_000)
        assert world.seen == ["a"]
        await world.client.patch(THINGS, "a", {"spec": {"x": 1}}, "n")
        await asyncio.sleep(1)

    assert world.seen == ["a", "a"]
    assert told[0] == "n/a NoSite: there is no such site"
    assert world.value("controller_runtime_terminal_reconcile_errors_total", controller="c") == 2


@virtually
async def test_a_result_brings_the_object_back() -> None:
    world = World()
    times: list[float] = []

    async def reconcile(request: Request) -> Result:
        times.append(asyncio.get_running_loop().time())
        return Result(requeue_after=60)

    world.manager.add(Controller("c", THINGS, reconcile))
    await world.client.create(THINGS, thing("a"), "n")

    async with world.running():
        await asyncio.sleep(150)

    assert [round(later - times[0]) for later in times] == [0, 60, 120]


@virtually
async def test_everything_is_looked_at_again_after_a_while() -> None:
    world = World()
    world.manager.add(Controller("c", THINGS, world.record, resync=3600))
    await world.client.create(THINGS, thing("a"), "n")

    async with world.running():
        await asyncio.sleep(2 * 3960 + 10)

    assert world.seen == ["a"] * 3


@virtually
async def test_a_reconcile_that_hangs_is_cancelled_and_tried_again() -> None:
    world = World()

    async def reconcile(request: Request) -> None:
        world.seen.append(request.name)
        if len(world.seen) == 1:
            await asyncio.Event().wait()

    world.manager.add(Controller("c", THINGS, reconcile, timeout=30))
    await world.client.create(THINGS, thing("a"), "n")

    async with world.running():
        await asyncio.sleep(60)

    assert world.seen == ["a", "a"]
    assert world.value("controller_runtime_reconcile_timeouts_total", controller="c") == 1


@virtually
async def test_something_cancelled_inside_does_not_end_the_worker() -> None:
    world = World()

    async def reconcile(request: Request) -> None:
        world.seen.append(request.name)
        if len(world.seen) == 1:
            raise asyncio.CancelledError

    world.manager.add(Controller("c", THINGS, reconcile, max_concurrent=1))
    await world.client.create(THINGS, thing("a"), "n")

    async with world.running():
        await asyncio.sleep(1)

    assert world.seen == ["a", "a"]


@virtually
async def test_objects_are_reconciled_side_by_side_but_each_alone() -> None:
    world = World()
    working: set[str] = set()
    most = 0

    async def reconcile(request: Request) -> None:
        nonlocal most
        assert request.name not in working
        working.add(request.name)
        most = max(most, len(working))
        await asyncio.sleep(5)
        working.remove(request.name)

    world.manager.add(Controller("c", THINGS, reconcile, max_concurrent=3))
    for name in "abcdef":
        await world.client.create(THINGS, thing(name), "n")

    async with world.running():
        await world.client.patch(THINGS, "a", {"spec": {"x": 1}}, "n")
        await asyncio.sleep(60)

    assert most == 3


@virtually
async def test_stopping_lets_work_finish_and_begins_none() -> None:
    world = World()

    async def reconcile(request: Request) -> None:
        await asyncio.sleep(10)
        world.seen.append(request.name)

    world.manager.add(Controller("c", THINGS, reconcile, max_concurrent=1))
    await world.client.create(THINGS, thing("a"), "n")
    await world.client.create(THINGS, thing("b"), "n")

    async with world.running():
        await asyncio.sleep(1)

    assert world.seen == ["a"]


@virtually
async def test_work_that_does_not_finish_is_cancelled_after_the_grace_period() -> None:
    world = World(grace=5)

    async def reconcile(request: Request) -> None:
        await asyncio.Event().wait()

    world.manager.add(Controller("c", THINGS, reconcile))
    await world.client.create(THINGS, thing("a"), "n")
    loop = asyncio.get_running_loop()

    async with world.running():
        stopped = loop.time()

    assert loop.time() - stopped == pytest.approx(5, abs=0.1)


@virtually
async def test_cancelling_ends_a_manager_whatever_a_reconcile_makes_of_it() -> None:
    world = World()

    async def fails_cleaning_up(request: Request) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("clean-up failed") from None

    async def ends_as_if_well(request: Request) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    world.manager.add(*(Controller(one.__name__, THINGS, one) for one in (fails_cleaning_up, ends_as_if_well)))
    await world.client.create(THINGS, thing("a"), "n")
    running = asyncio.ensure_future(world.manager.run())
    await asyncio.sleep(1)

    running.cancel()
    await asyncio.wait([running], timeout=60)

    assert running.cancelled()


@virtually
async def test_stopping_does_not_wait_for_what_was_never_seen() -> None:
    world = World()
    manager = Manager(world.client.over(Mute(world.server)), environment=world.environment, grace=1000)
    manager.add(Controller("c", THINGS, world.record))
    loop = asyncio.get_running_loop()

    async with run(manager):
        assert not manager.is_ready
        stopped = loop.time()

    assert loop.time() - stopped < 5


@virtually
async def test_what_a_controller_writes_it_reads_at_once() -> None:
    world = World()
    counts: list[int] = []

    async def reconcile(request: Request) -> None:
        pods = world.manager.informer(PODS)
        await world.manager.client.create(PODS, {"kind": "Pod", "metadata": {"generateName": "p-"}}, "n")
        counts.append(len(pods))

    world.manager.add(Controller("c", THINGS, reconcile, watches=[Watch(PODS, lambda pod: [])]))
    await world.client.create(THINGS, thing("a"), "n")

    async with world.running():
        await asyncio.sleep(1)

    assert counts == [1]


@virtually
async def test_shards_divide_the_objects_between_them() -> None:
    one = World(shard=Shard(0, 2))
    seen: dict[int, list[str]] = {0: [], 1: []}
    managers = [one.manager, one.make_manager(shard=Shard(1, 2))]
    for number, manager in enumerate(managers):

        async def reconcile(request: Request, number: int = number) -> None:
            seen[number].append(request.name)

        manager.add(Controller("c", THINGS, reconcile))
    for n in range(20):
        await one.client.create(THINGS, thing(f"t{n}"), "n")

    async with run(managers[0]), run(managers[1]):
        await asyncio.sleep(1)

    assert sorted(seen[0] + seen[1]) == sorted(f"t{n}" for n in range(20))
    assert seen[0]
    assert seen[1]


@virtually
async def test_each_shard_elects_a_leader_of_its_own() -> None:
    election = LeaderElection("work", "kube-system")
    one = World(shard=Shard(0, 2), election=election)
    other = one.make_manager(shard=Shard(1, 2), election=election)

    async with run(one.manager), run(other):
        await asyncio.sleep(30)

        assert one.manager.is_leading
        assert other.is_leading


@virtually
async def test_all_clusters_are_looked_after_at_once() -> None:
    world = World()
    clusters: list[str] = []

    async def reconcile(request: Request) -> None:
        clusters.append(request.cluster)

    world.manager.add(Controller("c", THINGS, reconcile))
    for cluster in ("root", "car-7"):
        await world.server.client(cluster).create(THINGS, thing("a"), "n")

    async with world.running():
        await asyncio.sleep(1)

    assert sorted(clusters) == ["car-7", "root"]


def test_a_name_is_taken_once() -> None:
    async def reconcile(request: Request) -> None: ...

    manager = World().manager
    manager.add(Controller("c", THINGS, reconcile))

    with pytest.raises(ValueError, match="already a controller named 'c'"):
        manager.add(Controller("c", DEPLOYMENTS, reconcile))


# -- leading


class Cable:
    """A transport that can be cut, for every path or some."""

    def __init__(self, transport: Transport, only: str = "") -> None:
        self.transport = transport
        self.only = only
        self.is_cut = False

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        if self.is_cut and self.only in path:
            raise Unreachable("the cable is cut")
        return await self.transport.request(method, path, query, headers, body)

    def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        return self.transport.stream(method, path, query, headers, body)

    async def close(self) -> None:
        await self.transport.close()


class Mute(Cable):
    """A transport whose streams never say anything."""

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        async def nothing() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        yield 200, nothing()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def candidate(world: World, name: str, log: list[str], transport: Transport | None = None) -> Manager:
    manager = Manager(
        world.client.over(transport or world.server),
        environment=world.environment,
        election=LeaderElection("operators", "kube-system", identity=name),
    )

    async def reconcile(request: Request) -> Result:
        log.append(name)
        return Result(requeue_after=1)

    manager.add(Controller("c", THINGS, reconcile))
    return manager


@virtually
async def test_only_the_leader_works_and_hands_over_at_once_when_it_stops() -> None:
    world = World()
    log: list[str] = []
    await world.client.create(THINGS, thing("a"), "n")
    first, second = candidate(world, "first", log), candidate(world, "second", log)
    loop = asyncio.get_running_loop()

    async with run(first), run(second):
        await asyncio.sleep(30)
        assert set(log) == {"first"}
        first.stop()
        stopped = loop.time()
        await until(lambda: "second" in log)
        assert loop.time() - stopped < 0.1


@virtually
async def test_a_leader_that_dies_is_replaced_when_its_lease_has_run_out() -> None:
    world = World()
    log: list[str] = []
    await world.client.create(THINGS, thing("a"), "n")
    cable = Cable(world.server)
    dying = asyncio.ensure_future(candidate(world, "first", log, cable).run())
    loop = asyncio.get_running_loop()
    await asyncio.sleep(5)

    async with run(candidate(world, "second", log)):
        cable.is_cut = True
        dying.cancel()
        await asyncio.wait([dying])
        died = loop.time()
        await until(lambda: "second" in log)

    assert 10 < loop.time() - died < 20


@virtually
async def test_a_leader_that_cannot_renew_stops_before_anyone_else_may_start() -> None:
    world = World()
    log: list[str] = []
    await world.client.create(THINGS, thing("a"), "n")
    cable = Cable(world.server, only="leases")

    async with run(candidate(world, "first", log, cable)):
        await asyncio.sleep(5)
        cable.is_cut = True
        await asyncio.sleep(13)
        log.clear()
        await asyncio.sleep(5)
        assert log == []
        cable.is_cut = False
        await asyncio.sleep(20)
        assert set(log) == {"first"}
