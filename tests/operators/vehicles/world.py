"""A world of vehicle applications that goes wrong, on a virtual clock: what is asked for, what breaks, what must hold.

The real server, the built-in controllers and the operator; two simulated nodes that are always in contact, and a machine that
promised to fence itself, is cut off now and then, and whose agent dies (see ``far_machine``). The operator's own way to the server loses requests and answers, and
the operator dies at any moment and is started anew. Users create, change, stop, move and delete; containers crash and pods
are deleted by hand. What must hold is looked at when anything happens on a node, not only now and then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from tests.operators.staging import define, running
from tests.operators.vehicles.far_machine import FarMachine
from tests.operators.vehicles.stage import (
    DevRes,
    VehContainerConfig,
    VehDeployment,
    VehPod,
    config,
    device,
    pod_spec,
    veh_deployment,
    veh_pod,
)

from fleetplane.client.protocol import Client, Pairs, Transport, Unreachable
from fleetplane.client.rest import RestClient
from fleetplane.controller import Manager
from fleetplane.local_nodes import FLEET_USER
from fleetplane.model.builtin.types import NODES, PODS, ROLES
from fleetplane.model.errors import ApiError
from fleetplane.model.user import UserInfo
from fleetplane.node.fleet import FleetSettings, SimulatedFleet
from fleetplane.node.runtime import RuntimeEvent
from fleetplane.node.simulated import Behaviour
from fleetplane.operating import prepare_operators
from fleetplane.operators.vehicles import OPERATOR
from fleetplane.operators.vehicles.kinds import VehMonitor
from fleetplane.operators.vehicles.scheduling import Criticality
from fleetplane.plane import CONTROLLER_USER, InProcessTransport
from fleetplane.testing import SimulatedEnvironment, TestServer, running_server
from fleetplane.workloads.assembly import controllers
from fleetplane.workloads.scheduler.plugins import Plugins

SPACES = ("system-application", "3rd-party-application")
APPS = ("a", "b", "c")
LEVELS = ("", "QM", "B", "D")
PAUSED = "node.fleetplane.io/paused"
GROUP = "node.fleetplane.io/group"
CUT_OFF = "car-0"
LOST = 40.0
PROMISE = 20
"""Seconds that the node which is cut off goes on alone."""
REACTION = 30.0
"""Seconds: the scheduler's longest back-off (10), one eviction with its grace, and a few turns of the controllers."""
CORES = 4
UNFROZEN = 1.0
"""Seconds that a standby may run before it is frozen."""
LOOK = 0.2


class Line:
    """A way to the server that can be cut, and that loses requests and answers by chance; ``inner`` may be such a way too."""

    def __init__(self, inner: Transport, chance: random.Random, loss: float = 0.0) -> None:
        self._inner = inner
        self._chance = chance
        self.loss = loss
        self._cut = False
        self.lost = 0

    @property
    def cut(self) -> bool:
        return self._cut or (isinstance(self._inner, Line) and self._inner.cut)

    @cut.setter
    def cut(self, yes: bool) -> None:
        self._cut = yes

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        self._maybe("the request was lost")
        answer = await self._inner.request(method, path, query, headers, body)
        self._maybe("the answer was lost")
        return answer

    def _maybe(self, what: str) -> None:
        if self.cut or (self.loss and self._chance.random() < self.loss):
            self.lost += 1
            raise Unreachable(what)

    def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        return self._stream(method, path, query, headers, body)

    @asynccontextmanager
    async def _stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        if self.cut:
            raise Unreachable("the line is cut")
        async with self._inner.stream(method, path, query, headers, body) as (status, chunks):
            yield status, self._until_cut(chunks)

    async def _until_cut(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            if self.cut:
                raise Unreachable("the line was cut")
            yield chunk

    async def close(self) -> None:
        await self._inner.close()


class World:
    """What was asked for, and what must hold whatever happens."""

    def __init__(self, server: TestServer, environment: SimulatedEnvironment, seed: int, nodes: int = 2) -> None:
        self.server = server
        self.client = server.client()
        self.environment = environment
        self.chance = random.Random(seed)
        self.pace = (2.0, 8.0)[seed // 2 % 2]
        """Seconds between what people do, at most."""
        self.lifecycles = 0
        self.looks = 0
        self.deaths = 0
        self.cuts = 0
        self.fenced = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self.lines: list[Line] = []
        self.far = Line(InProcessTransport(server.server, FLEET_USER), self.chance)
        forever = Behaviour(run_for=float("inf"))
        near_settings = FleetSettings(behaviour=forever, cpu=str(CORES))
        self.near = SimulatedFleet(server.client(FLEET_USER), nodes, environment, near_settings)
        self.away = FarMachine(CUT_OFF, self._far_client, environment, forever, str(CORES), self.chance)
        self.built_in = Manager(server.client(CONTROLLER_USER), environment=environment, cluster=None)
        self.built_in.add(*controllers(self.built_in, scheduler_plugins=Plugins.of([Criticality()])))
        self.pods = self.built_in.informer(PODS)
        self.pods.add_handler(lambda change: self._seen(change.event, change.new.object))
        self.broken: list[str] = []
        self._waiting: dict[str, float] = {}
        self._unfrozen: dict[str, float] = {}
        self._stable_since = 0.0
        for fleet in (self.near, self.away):
            fleet.runtime._listeners.add(self._happened)

    def _over(self, line: Line) -> Client:
        usual = self.server.client(FLEET_USER)
        assert isinstance(usual, RestClient)
        return RestClient(line, capabilities=usual._capabilities, cluster="root")

    def _far_client(self) -> tuple[Client, Callable[[], None]]:
        line = Line(self.far, self.chance)

        def cut_off() -> None:
            line.cut = True

        return self._over(line), cut_off

    # -- the operator, which dies

    async def operate(self) -> None:
        """One operator after another, each killed wherever it happens to be."""
        while True:
            (manager,) = await prepare_operators(
                self.client, [OPERATOR], self._operators_client, self.environment, self.built_in.metrics
            )
            task = asyncio.ensure_future(manager.run())
            try:
                await asyncio.sleep(self.chance.uniform(20.0, 90.0))
                assert not task.done(), "an operator does not end by itself"
                self.deaths += 1
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def _operators_client(self, user: UserInfo) -> Client:
        usual = self.server.client(user)
        assert isinstance(usual, RestClient)
        line = Line(InProcessTransport(self.server.server, user), self.chance, loss=0.01)
        self.lines.append(line)
        return RestClient(line, capabilities=usual._capabilities, cluster="root")

    # -- what people do

    async def live(self, lifecycles: int) -> None:
        while self.lifecycles < lifecycles:
            await self._step()
            self._check()
            await asyncio.sleep(self.chance.random() * self.pace)
            await self._calm.wait()

    async def _step(self) -> None:
        client, chance = self.client, self.chance
        kind: Any = chance.choice((VehPod, VehDeployment, VehDeployment))
        name = ("p-" if kind is VehPod else "d-") + chance.choice(APPS)
        choice = chance.random()
        try:
            if choice < 0.4:
                await client.create(kind, self._new(kind, name), "default")
            elif choice < 0.7:
                await client.delete(kind, name, "default")
                self.lifecycles += 1
            elif choice < 0.75:
                state = chance.choice(("Running", "Running", "Stopped"))
                await client.patch(kind, name, {"spec": {"state": state}}, "default")
            elif choice < 0.79:
                await client.patch(kind, name, {"spec": {"appType": chance.choice(("system", "3rd-party"))}}, "default")
            elif choice < 0.84:
                spec = {"podSpec": {"containers": self._containers()}}
                await client.patch(kind, name, {"spec": spec}, "default")
            elif choice < 0.88:
                await self._depend()
            else:
                await self._break()
        except ApiError as error:
            if error.code == 403:
                assert "(rule " in error.message, error.message
            else:
                assert error.code in {404, 409}, error.message

    def _containers(self) -> list[dict[str, Any]]:
        cpu = self.chance.choice(("100m", "1", "2"))
        image = f"app:{self.chance.randint(1, 3)}"
        return [{"name": "main", "image": image, "resources": {"requests": {"cpu": cpu}}}]

    def _new(self, kind: Any, name: str) -> dict[str, Any]:
        app_type = self.chance.choice(("system", "system", "3rd-party"))
        more: dict[str, Any] = {"vehContainerConfigInfo": ["env"]} if self.chance.random() < 0.5 else {}
        more["podSpec"] = pod_spec(containers=self._containers())
        if app_type == "system":
            more["criticality"] = self.chance.choice(LEVELS)
        if self.chance.random() < 0.3:
            more["devResInfo"] = [{"devName": "cam", "devDestPath": "/dev/x"}]
        if kind is VehPod:
            return veh_pod(name, app_type, **more, **self._arranged(more["podSpec"]))
        if self.chance.random() < 0.15:
            return veh_deployment(name, "Monitoring", app_type, **more, **self._watched())
        more["replicas"] = self.chance.choice((0, 2, 3))
        more["placement"] = self.chance.choice(("Any", "SameNode", "Spread", "Spread"))
        return veh_deployment(name, self.chance.choice(("PassiveRedundant", "passiveRedundant", "")), app_type, **more)

    def _arranged(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Now and then several containers in the pod, and a policy among them. Changes the pod spec."""
        policy = self.chance.choice(("", "", "PassiveRedundant", "ActiveRedundant", "NModularRedundant", "Monitoring"))
        if policy == "Monitoring":
            return {"deploymentPolicy": policy, **self._watched()}
        if policy:
            small = {"requests": {"cpu": "50m"}}
            spec["containers"] = [{"name": name, "image": "app:1", "resources": small} for name in "abc"]
        return {"deploymentPolicy": policy}

    def _watched(self) -> dict[str, Any]:
        """With heartbeats nobody gives, sometimes: such a watcher is lost again and again."""
        primary, watcher = ({"name": name, "image": "app:1"} for name in ("primary", "watcher"))
        block: dict[str, Any] = {"primaryContainer": [primary], "watcherContainer": watcher}
        if self.chance.random() < 0.3:
            block["heartbeatSeconds"] = 2
        loss = self.chance.choice(("Restart", "Degrade", "SafeState"))
        return {"monitoring": block, "watcherLoss": loss}

    async def _depend(self) -> None:
        client = self.client
        value = [{"name": "A", "value": str(self.chance.randint(1, 3))}]
        match self.chance.randint(0, 3):
            case 0:
                await client.create(VehContainerConfig, config("env", piccoloEnv=value), "default")
            case 1:
                await client.patch(VehContainerConfig, "env", {"spec": {"piccoloEnv": value}}, "default")
            case 2:
                await client.create(DevRes, device("cam", allowedAppTypes=["3rd-party"]), "default")
            case _:
                await client.delete(DevRes, "cam", "default")

    async def _break(self) -> None:
        pods = [one for one in self._all_pods() if one["spec"].get("nodeName")]
        if not pods:
            return
        pod = self.chance.choice(pods)
        choice = self.chance.random()
        if choice < 0.7:
            code = self.chance.choice((0, 1, 137))
            for fleet in (self.near, self.away):
                for container in list(fleet.runtime._by_pod.get(pod["metadata"]["uid"], {})):
                    fleet.runtime.crash(container, code)
        else:
            await self.client.delete(
                PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], grace_period_seconds=1
            )

    async def cut(self) -> None:
        """The far node loses its line for a while, sometimes for long."""
        while True:
            await asyncio.sleep(self.chance.uniform(10.0, 60.0))
            seconds = self.chance.choice((3.0, 15.0, 25.0, 90.0, 120.0))
            if seconds > LOST and self.chance.random() < 0.7:
                self._calm.clear()  # nobody does anything meanwhile, so that a lost node comes to its end
                await asyncio.sleep(10.0)
            self.far.cut, self._stable_since = True, float("inf")
            self.cuts += 1
            self.fenced += sum(GROUP in one.pod.annotations for one in self.away.workers())
            await asyncio.sleep(seconds)
            self.far.cut, self._stable_since = False, self.environment.monotonic()
            await asyncio.sleep(5.0)
            self._calm.set()

    # -- what must hold

    def _all_pods(self) -> list[Any]:
        return [one for space in SPACES for one in self.pods.list(space)]

    def _happened(self, _event: RuntimeEvent) -> None:
        self._check()

    def _check(self) -> None:
        """Never two actives: on the nodes themselves, not as anybody reports it."""
        self.looks += 1
        now = self.environment.monotonic()
        active: dict[str, list[str]] = {}
        unfrozen: dict[str, float] = {}
        for fleet, workers in ((self.near, self.near.engine.workers.values()), (self.away, self.away.workers())):
            for worker in workers:
                group = worker.pod.annotations.get(GROUP)
                if group is None:
                    continue
                frozen = worker.pod.paused and worker.notes.promotion is None
                found = fleet.runtime._by_pod.get(worker.uid, {}).values()
                if not any(one.phase == "running" for one in found):
                    continue
                if frozen:  # it is about to be
                    since = unfrozen[worker.uid] = self._unfrozen.get(worker.uid, now)
                if not frozen or now - since > UNFROZEN:
                    active.setdefault(group, []).append(f"{worker.pod.name} on {worker.pod.spec.get('nodeName')}")
        self._unfrozen = unfrozen
        for names in active.values():
            if len(names) > 1:
                self.broken.append(f"two actives: {', '.join(names)} at {self.environment.monotonic():.1f}")
        assert not self.broken, self.broken[0]

    def _seen(self, event: str, pod: Any) -> None:
        if event == "DELETED" or pod["metadata"].get("namespace") not in SPACES:
            return
        for container in pod["spec"]["containers"]:
            paths = [one["mountPath"] for one in container.get("volumeMounts") or ()]
            names = [one["name"] for one in container.get("env") or ()]
            if len(set(paths)) != len(paths) or len(set(names)) != len(names):
                self.broken.append(f"something was injected twice into {pod['metadata']['name']}")

    async def watch_levels(self) -> None:
        """A higher level does not wait for long while a lower one has what it needs."""
        while True:
            await asyncio.sleep(1.0)
            now = self.environment.monotonic()
            pods = [one for one in self._all_pods() if one["spec"].get("priority", 0) > 0 or True]
            waiting = [one for one in pods if not one["spec"].get("nodeName") and not _ends(one)]
            uids = {one["metadata"]["uid"] for one in waiting}
            self._waiting = {uid: since for uid, since in self._waiting.items() if uid in uids}
            for pod in waiting:
                since = self._waiting.setdefault(pod["metadata"]["uid"], now)
                if now - max(since, self._stable_since) <= REACTION or "affinity" in pod["spec"]:
                    continue
                for node in self.near.nodes:
                    self._compare(pod, [one for one in pods if one["spec"].get("nodeName") == node], node)

    def _compare(self, pod: Any, there: list[Any], node: str) -> None:
        rank = pod["spec"].get("priority") or 0
        higher = [one for one in there if (one["spec"].get("priority") or 0) >= rank and not _over(one)]
        lower = [one for one in there if (one["spec"].get("priority") or 0) < rank and not _over(one)]
        if lower and sum(map(_cpu, higher)) + _cpu(pod) <= 1000 * CORES:
            names = ", ".join(one["metadata"]["name"] for one in lower)
            self.broken.append(f"{pod['metadata']['name']} waits while {names} of lower criticality run on {node}")

    async def look_often(self) -> None:
        """Time alone makes an active of what is not frozen."""
        while True:
            await asyncio.sleep(LOOK)
            self._check()

    async def end(self) -> None:
        """Everything is deleted, and gone without a trace."""
        client = self.client
        for kind in (VehPod, VehDeployment):
            for one in (await client.list(kind, "default")).items:
                await client.delete(kind, one["metadata"]["name"], "default")
        async with asyncio.timeout(900):
            while await self._left():
                self._check()
                await asyncio.sleep(1.0)
        for fleet in (self.near, self.away):
            async with asyncio.timeout(300):
                while fleet.runtime._containers:
                    await asyncio.sleep(1.0)
        async with asyncio.timeout(60):
            while self.away.watchdog.is_running:  # it has nothing left to hold
                await asyncio.sleep(1.0)

    async def _left(self) -> bool:
        left = [one for kind in (VehPod, VehDeployment) for one in (await self.client.list(kind, "default")).items]
        for space in SPACES:
            for kind in (PODS, VehMonitor, ROLES):
                left += (await self.client.list(kind, space)).items
        return bool(left)


def _ends(pod: Any) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _over(pod: Any) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def _cpu(pod: Any) -> int:
    text = ((pod["spec"]["containers"][0].get("resources") or {}).get("requests") or {}).get("cpu", "0")
    return int(text.removesuffix("m")) if text.endswith("m") else 1000 * int(text)


@asynccontextmanager
async def world_of(seed: int, nodes: int = 2) -> AsyncIterator[World]:
    """A world whose nodes are up; nobody does anything in it yet, and no operator runs."""
    environment = SimulatedEnvironment(seed)
    async with running_server(environment=environment, plugins=OPERATOR.admission) as server:
        world = World(server, environment, seed, nodes)
        await define(world.client, OPERATOR)
        async with running(world.built_in.run(), world.near.run(), world.away.run()):
            await world.near.ready.wait()
            await world.away.ready.wait()
            promise = {"metadata": {"annotations": {"node.fleetplane.io/self-fencing-seconds": str(PROMISE)}}}
            await world.client.patch(NODES, CUT_OFF, promise)
            yield world


async def live(seed: int, lifecycles: int) -> World:
    """One run; raises what did not hold."""
    failure: BaseException | None = None
    async with world_of(seed, nodes=1 + seed % 2) as world:
        try:
            async with asyncio.TaskGroup() as group:
                others = [world.operate(), world.cut(), world.watch_levels(), world.look_often(), world.away.die()]
                tasks = [group.create_task(one) for one in others]
                await world.live(lifecycles)
                tasks[1].cancel()
                tasks[4].cancel()
                world._calm.set()
                world.far.cut = False
                await world.end()
                world._check()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as several:
            failure = several.exceptions[0]
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure
    return world
