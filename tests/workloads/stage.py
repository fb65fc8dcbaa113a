"""A stage for controllers: a server in memory, a manager, a kubelet that obeys, faults by seed, and time that flies.

``play(story)`` runs an async function with a ``Stage`` on a virtual clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from fleetplane.client.protocol import Pairs, Unreachable
from fleetplane.client.rest import RestClient
from fleetplane.controller.controller import Controller
from fleetplane.controller.manager import Manager
from fleetplane.model.builtin.types import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    STATEFUL_SETS,
    STORAGE_CLASSES,
)
from fleetplane.model.environment import micro_timestamp, timestamp
from fleetplane.model.resources import ResourceType
from fleetplane.testing.clock import run_virtually
from fleetplane.testing.environment import SimulatedEnvironment
from fleetplane.testing.memory import CAPABILITIES, Key, MemoryServer, Place, Recorded
from fleetplane.workloads import controllers
from fleetplane.workloads.scheduler.plugins import Plugins

Object = dict[str, Any]


STORAGE_CLASS = {
    "metadata": {"name": "local"},
    "provisioner": "fleetplane.io/host-path",
    "volumeBindingMode": "WaitForFirstConsumer",
    "reclaimPolicy": "Delete",
}
WIDGETS = ResourceType("example.com", "v1", "Widget", "widgets")
SERVED = (
    NAMESPACES,
    NODES,
    PODS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    DAEMON_SETS,
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    JOBS,
    SERVICES,
    ENDPOINT_SLICES,
    WIDGETS,
)


def discovery(*, core: bool) -> bytes:
    """What the stage serves, as aggregated discovery tells it."""
    groups: dict[str, list[Object]] = {}
    for one in SERVED:
        if bool(one.group) is not core:
            verbs = ["list", "watch", "delete", "deletecollection", "get"]
            scope = "Namespaced" if one.namespaced else "Cluster"
            resource = {
                "resource": one.plural,
                "singularResource": one.singular,
                "responseKind": {"kind": one.kind},
                "scope": scope,
                "verbs": verbs,
            }
            groups.setdefault(one.group, []).append(resource)
    items = [
        {"metadata": {"name": name}, "versions": [{"version": "v1", "resources": found}]}
        for name, found in groups.items()
    ]
    return orjson.dumps({"kind": "APIGroupDiscoveryList", "items": items})


class Faulty:
    """A transport that loses requests, loses answers and dawdles, as the seed says."""

    def __init__(self, server: MemoryServer, environment: SimulatedEnvironment, rate: float) -> None:
        self._server, self._environment, self.rate = server, environment, rate
        self.extras: list[Callable[[str, str, bytes], Object | None]] = []
        """Answers to what the server in memory does not serve."""

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        chance = self._environment.random.random()
        if self.rate and chance < self.rate:
            await asyncio.sleep(self._environment.random.random() * 2)
            if chance < self.rate / 3:
                raise Unreachable("the request was lost")
        if path.endswith(("/api", "/apis")):
            return 200, {}, discovery(core=path.endswith("/api"))
        if method == "PUT" and path.endswith("/finalize"):
            return await self._finalize(path, headers, body)
        answer = await self._answer(method, path, query, headers, body)
        if self.rate and self.rate / 3 <= chance < self.rate * 2 / 3:
            raise Unreachable("the answer was lost")
        return answer

    async def _answer(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        for extra in self.extras:
            if (answered := extra(method, path, body)) is not None:
                return 200, {}, orjson.dumps(answered)
        parts = path.split("/")
        if parts[-3:-1] and parts[-3] == "namespaces" and parts[-1] == "status":
            place = Place("root", "", "v1", "namespaces", "", parts[-2], "status")
            sent = Recorded(method, path, dict(query), dict(headers), body)
            return 200, {}, orjson.dumps(self._server._handle(sent, place))
        return await self._server.request(method, path, query, headers, body)

    async def _finalize(self, path: str, headers: Pairs, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """As the real subresource: the namespace goes with its last finalizer."""
        whole = path.removesuffix("/finalize")
        answer = await self._server.request("PUT", whole, (), headers, body)
        if answer[0] == 200 and not orjson.loads(body)["spec"]["finalizers"]:
            return await self._server.request("DELETE", whole, (), headers, b"")
        return answer

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        async with self._server.stream(method, path, query, headers, body) as (status, chunks):
            yield status, self._late(chunks)

    async def _late(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Reads at once and hands on late, so that the server never waits for us."""
        if not self.rate:
            async for chunk in chunks:
                yield chunk
            return
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def pump() -> None:
            async for chunk in chunks:
                waiting.put_nowait(chunk)
            waiting.put_nowait(None)

        pumping = asyncio.ensure_future(pump())
        try:
            while (chunk := await waiting.get()) is not None:
                if self.rate and self._environment.random.random() < self.rate:
                    await asyncio.sleep(self._environment.random.random())
                yield chunk
        finally:
            pumping.cancel()

    async def close(self) -> None:
        pass


class Stage:
    def __init__(self, seed: int = 0, faults: float = 0.0) -> None:
        self.environment = SimulatedEnvironment(seed)
        self.server = MemoryServer(self.environment)
        self.transport = Faulty(self.server, self.environment, faults)
        self.client = self.server.client()
        self.select: Callable[[Controller], bool] = lambda _: True
        self.manager: Manager
        self._running: asyncio.Task[None] | None = None
        self.run_pods = True
        self.start_seconds = 1.0
        self.exit_code: Callable[[Object], int | None] = lambda _: None
        """The exit code a pod ends with after a second, or None when it runs on."""
        self.silent: set[str] = set()
        """Nodes that do not renew their lease."""
        self._kubelet_tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        client = RestClient(self.transport, capabilities=CAPABILITIES)
        self.manager = Manager(client, environment=self.environment)
        made = controllers(self.manager, scheduler_plugins=Plugins())
        self.manager.add(*(one for one in made if self.select(one)))
        self._running = asyncio.ensure_future(self.manager.run())

    async def crash(self) -> None:
        """The manager is gone from one await to the next."""
        if self._running is not None:
            self._running.cancel()
            _, left = await asyncio.wait([self._running], timeout=60)
            assert not left, "the manager did not end"
            self._running = None

    async def stop(self) -> None:
        for task in self._kubelet_tasks:
            task.cancel()
        await self.crash()

    def check(self) -> None:
        if self._running is not None and self._running.done():
            self._running.result()

    async def _renew_leases(self) -> None:
        now = micro_timestamp(self.environment.now())
        for node in self.all(NODES, ""):
            name = node["metadata"]["name"]
            if name in self.silent:
                continue
            key = Key("root", "coordination.k8s.io", "leases", "kube-node-lease", name)
            if key in self.server.objects:
                await self.client.patch(LEASES, name, {"spec": {"renewTime": now}}, "kube-node-lease")
            else:
                await self.create(LEASES, {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {}})

    async def kubelet(self) -> None:
        """Keeps nodes alive, starts what is bound, ends what is deleted."""
        started: set[str] = set()
        turns = 0
        while True:
            if turns % 40 == 0:
                await self._renew_leases()
            turns += 1
            for key, pod in list(self.server.objects.items()):
                if key.resource != "pods" or not pod["spec"].get("nodeName") or pod["metadata"]["uid"] in started:
                    continue
                if self.run_pods:
                    started.add(pod["metadata"]["uid"])
                    task = asyncio.ensure_future(self._run_pod(key, pod))
                    self._kubelet_tasks.add(task)
                    task.add_done_callback(self._kubelet_tasks.discard)
            await asyncio.sleep(0.25)

    async def _run_pod(self, key: Key, pod: Object) -> None:
        await asyncio.sleep(self.start_seconds)
        self.set_pod(key, "Running", ready=True)
        code = self.exit_code(pod)
        if code is not None:
            await asyncio.sleep(1)
            self.set_pod(key, "Failed" if code else "Succeeded", ready=False, exit_code=code)

    def set_pod(self, key: Key, phase: str, *, ready: bool, exit_code: int | None = None) -> None:
        pod = self.server.objects.get(key)
        if pod is None:
            return
        now = timestamp(self.environment.now())
        state = {"terminated": {"exitCode": exit_code, "finishedAt": now}} if exit_code is not None else {"running": {}}
        statuses = [
            {"name": one["name"], "ready": ready, "restartCount": 0, "state": state}
            for one in pod["spec"]["containers"]
        ]
        kept = [one for one in (pod.get("status") or {}).get("conditions") or [] if one["type"] != "Ready"]
        status = {
            **(pod.get("status") or {}),
            "phase": phase,
            "startTime": (pod.get("status") or {}).get("startTime") or now,
            "podIP": f"10.0.0.{abs(hash(key)) % 250 + 1}",
            "conditions": [*kept, {"type": "Ready", "status": str(ready), "lastTransitionTime": now}],
            "containerStatuses": statuses,
        }
        self.server._update(key, pod, {**pod, "status": status, "metadata": pod["metadata"]}, "status", False)

    # asking and telling

    async def create(self, resource: ResourceType, obj: Object) -> Object:
        return await self.client.create(resource, obj, obj["metadata"].get("namespace"))

    async def node(self, name: str, cpu: str = "32", **labels: str) -> None:
        await self.client.create(
            NODES,
            {
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
                "spec": {},
                "status": {
                    "allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110"},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            },
        )

    def all(self, resource: ResourceType, namespace: str = "default") -> list[Object]:
        return [
            obj
            for key, obj in self.server.objects.items()
            if key.resource == resource.plural and key.namespace == (namespace if resource.namespaced else "")
        ]

    def one(self, resource: ResourceType, name: str, namespace: str = "default") -> Object:
        return next(obj for obj in self.all(resource, namespace) if obj["metadata"]["name"] == name)

    def pods(self) -> list[Object]:
        return [one for one in self.all(PODS) if not one["metadata"].get("deletionTimestamp")]

    async def until(self, holds: Callable[[], bool], seconds: float = 600.0, step: float = 0.25) -> None:
        """Lets time pass until it holds."""
        deadline = self.environment.monotonic() + seconds
        while not holds():
            self.check()
            assert self.environment.monotonic() < deadline, "it never came true"
            await asyncio.sleep(step)

    async def quiet(self, seconds: float = 10.0) -> None:
        """Lets time pass until nothing but events is written for so long."""
        for _ in range(360):
            before = self.write_count()
            await asyncio.sleep(seconds)
            self.check()
            if self.write_count() == before:
                return
        raise AssertionError(f"somebody writes for ever: {self.server.writes[-6:]}")

    def write_count(self) -> int:
        return sum(key.resource not in {"events", "leases"} for _, key in self.server.writes)

    def reasons(self) -> list[str]:
        return [one["reason"] for one in self.all_events()]

    def all_events(self) -> Sequence[Object]:
        return [obj for key, obj in self.server.objects.items() if key.resource == "events"]


def play(story: Callable[[Stage], Awaitable[None]], *, seed: int = 0, faults: float = 0.0, nodes: int = 3) -> None:
    async def performance() -> None:
        stage = Stage(seed, faults)
        await stage.create(NAMESPACES, {"metadata": {"name": "default"}, "status": {"phase": "Active"}})
        await stage.create(STORAGE_CLASSES, STORAGE_CLASS)
        for number in range(nodes):
            await stage.node(f"node-{number}")
        await stage.start()
        kubelet = asyncio.ensure_future(stage.kubelet())
        try:
            await story(stage)
        finally:
            kubelet.cancel()
            await stage.stop()

    run_virtually(performance())
