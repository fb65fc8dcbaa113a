"""Simulated nodes: any number of them in one process, with one watch and shared workers.

Each node is registered, keeps a lease and runs its pods by the same life cycle as real ones, above the simulated
runtime. What a node would do alone is shared: one watch over all pods, one engine, one reporter; leases are renewed in
batches. Simulated nodes are named ``sim-0``, ``sim-1`` and so on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fleetplane.client.informer import Change, Informer
from fleetplane.client.protocol import ROOT, Client, ClientChange
from fleetplane.model.builtin.types import LEASES, NODES, PODS
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.node.engine import PodEngine
from fleetplane.node.fencing import SELF_FENCING, SelfFencing, seconds_of
from fleetplane.node.pod import PodView
from fleetplane.node.pods import PodFeed
from fleetplane.node.probers import SimulatedProber
from fleetplane.node.recorder import ApiRecorder, Recorder, SilentRecorder
from fleetplane.node.registration import (
    NodeDescription,
    lease_object,
    merged_capacity,
    node_object,
    node_status,
)
from fleetplane.node.reporter import StatusReporter
from fleetplane.node.simulated import SimulatedRuntime
from fleetplane.node.simulated_builder import SimulatedBuilder
from fleetplane.node.simulated_rules import Behaviour, node_networks
from fleetplane.node.sources import Sources
from fleetplane.node.stats import ContainerUse, NodeUse
from fleetplane.node.status import NodeFacts
from fleetplane.node.streams import EngineStreams

RENEW_SECONDS = 10.0
RENEW_LARGE_SECONDS = 20.0
LARGE_FLEET = 100
BATCH = 100
PARALLEL = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What every simulated node of a fleet is like. ``resources`` adds extended resources or changes the usual ones."""

    prefix: str = "sim-"
    first: int = 0
    cpu: str = "32"
    memory: str = "64Gi"
    pods: str = "110"
    ephemeral_storage: str = "512Gi"
    resources: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    behaviour: Behaviour = field(default_factory=Behaviour)
    events: bool = False
    """Whether pods' Normal events are written too, or only warnings."""

    def capacity(self) -> dict[str, str]:
        usual = {"cpu": self.cpu, "ephemeral-storage": self.ephemeral_storage, "memory": self.memory, "pods": self.pods}
        return {**usual, **self.resources}


class SimulatedFleet:
    """See the module. ``run`` works until cancelled; ``ready`` is set when every node is registered.

    ``pods`` is an informer over at least all pods that somebody else runs; without one the fleet has its own.
    """

    def __init__(
        self,
        client: Client,
        count: int,
        environment: Environment,
        settings: FleetSettings | None = None,
        recorder: Recorder | None = None,
        pods: Informer | None = None,
    ) -> None:
        self.client = client
        self._shared_pods = pods
        self.environment = environment
        self.settings = settings or FleetSettings()
        self.ready = asyncio.Event()
        self.runtime = SimulatedRuntime(environment, self.settings.behaviour)
        self.nodes = {node.name: node for node in map(self._describe, range(count))}
        self._own_recorder = recorder is None
        self._recorder = recorder or ApiRecorder(client, environment, warnings_only=not self.settings.events)
        self._reporter = StatusReporter(client, parallel=PARALLEL)
        self._facts = {name: NodeFacts(node.addresses, "simulated") for name, node in self.nodes.items()}
        self.engine = PodEngine(
            self.runtime,
            environment,
            SimulatedBuilder(Sources(client, None), environment),
            SimulatedProber(),
            self._recorder,
            self._facts_of,
            on_status=self._reporter.changed,
            on_ended=self._ended,
        )
        self.feed = PodFeed(self.engine, self._reporter, self.nodes.__contains__, client.cluster, keep_encoded=True)
        self.streams = EngineStreams(self.engine, environment)
        self._leases: dict[str, Object] = {}
        self._promises: dict[str, float | None] = {}
        self._fencing = SelfFencing(environment, self.engine.workers.values, self._promises.get)
        self.engine.succession.may_decide = self._fencing.is_fresh

    def _describe(self, index: int) -> NodeDescription:
        settings, position = self.settings, self.settings.first + index
        name = f"{settings.prefix}{position}"
        networks = node_networks(position)
        self.runtime.add_node(name, networks)
        return NodeDescription(
            name,
            settings.capacity(),
            addresses=(f"172.{16 + (position >> 16)}.{(position >> 8) & 255}.{position & 255}",),
            labels={"type": "simulated", **settings.labels},
            annotations={"node.fleetplane.io/runtime": "simulated"},
            pod_networks=networks,
            info={"containerRuntimeVersion": "simulated://1.0.0", "osImage": "simulated"},
        )

    def _facts_of(self, pod: PodView) -> NodeFacts:
        return self._facts.get(str(pod.spec.get("nodeName") or ""), NodeFacts())

    def _ended(self, worker: object) -> None:
        self.feed.ended(worker)  # type: ignore[arg-type]

    async def run(self) -> None:
        nodes = Informer(self.client, NODES, self.environment, decoded_limit=64)
        async with asyncio.TaskGroup() as group, self.engine.working(group):
            group.create_task(self.engine.watch_runtime())
            group.create_task(self._reporter.run())
            if self._own_recorder and isinstance(self._recorder, ApiRecorder):
                group.create_task(self._recorder.run())
            await self._register()
            self.ready.set()
            pods = self._shared_pods
            if pods is None:
                pods = Informer(self.client, PODS, self.environment, decoded_limit=64, managed_fields=False)
                group.create_task(pods.run())
            group.create_task(nodes.run())
            nodes.add_handler(self._node_changed)
            group.create_task(self._fencing.run())
            take_off = pods.add_handler(self._pod_changed)
            try:
                await self._renew()
            finally:
                take_off()

    def _pod_changed(self, change: Change) -> None:
        if change.new.key.cluster == (self.client.cluster or ROOT):
            self.feed.changed(change)

    async def node_usage(self, node: str) -> NodeUse | None:
        """What a simulated node would seem to use: a thousandth of a core and 16 MiB for each container."""
        if node not in self.nodes:
            return None
        now = self.environment.now()
        found = []
        for worker in self.engine.workers.values():
            for state in worker.observed().running if self.runtime.node_of(worker.uid) == node else ():
                found.append(ContainerUse(worker.uid, state.name, state.id, 1_000_000, 16 << 20))
        memory = sum(one.memory_bytes for one in found)
        return NodeUse(now, 15.0, sum(one.cpu_nanocores for one in found), memory, found)

    # Nodes

    async def _register(self) -> None:
        for names in _batches(list(self.nodes), PARALLEL):
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(self._register_one(name))

    async def _register_one(self, name: str) -> None:
        """Create the node and its lease, or take over those that are there."""
        node, now = self.nodes[name], self.environment.now()
        wanted = node_object(node, now)
        failures = 0
        while True:
            try:
                try:
                    made = await self.client.create(NODES, wanted)
                except ApiError as error:
                    if error.reason != "AlreadyExists":
                        raise
                    made = await self.client.get(NODES, name)
                before = made.get("status") or {}
                status = node_status(node, before, self.environment.now())
                if before.get("conditions") is None or before.get("capacity") != status["capacity"]:
                    await self.client.patch(NODES, name, {"status": status}, type="merge", subresource="status")
                await self._renew_one(name, str(made["metadata"].get("uid") or ""))
            except ApiError as error:
                if 400 <= error.code < 500 and error.code not in {404, 409, 429}:
                    raise
                failures += 1
                _log.info("node %s is not registered yet: %s", name, error.message)
                await asyncio.sleep(min(0.1 * 2**failures, 5.0))
            else:
                return

    def _node_changed(self, change: Change) -> None:
        """Mirror capacity that others put on a node; make a node anew that was deleted."""
        node = self.nodes.get(change.new.key.name)
        if node is None:
            return
        if change.event == "DELETED":
            self._leases.pop(node.name, None)
            self.engine.spawn(partial(self._register_one, node.name))
            return
        self._promises[node.name] = seconds_of(change.new.annotations.get(SELF_FENCING))
        status = change.new.object.get("status") or {}
        capacity, allocatable = merged_capacity(node, status)
        if status.get("allocatable") != allocatable or status.get("capacity") != capacity:
            patch = {"status": {"capacity": capacity, "allocatable": allocatable}}
            self.engine.spawn(partial(self._patch_node, node.name, patch))
        elif any(one.get("status") == "Unknown" for one in status.get("conditions") or ()):
            # It was out of reach for a while: say how it is.
            told = {"conditions": node_status(node, status, self.environment.now())["conditions"]}
            self.engine.spawn(partial(self._patch_node, node.name, {"status": told}))

    async def _patch_node(self, name: str, patch: Object) -> None:
        try:
            await self.client.patch(NODES, name, patch, type="merge", subresource="status")
        except ApiError as error:
            _log.warning("the capacity of node %s was not mirrored: %s", name, error.message)

    # Leases

    async def _renew(self) -> None:
        pause = RENEW_SECONDS if len(self.nodes) <= LARGE_FLEET else RENEW_LARGE_SECONDS
        while True:
            batches = list(_batches(list(self.nodes), BATCH))
            for names in batches:
                # Spread over the whole pause, so that a large fleet is a murmur and not a shout.
                await asyncio.sleep(pause / len(batches))
                with contextlib.suppress(OSError, TimeoutError):
                    await self._renew_batch(names)

    async def _renew_batch(self, names: Sequence[str]) -> None:
        sent = self.environment.monotonic()
        if self.client.can_commit:
            known = [name for name in names if name in self._leases]
            changes = [ClientChange("update", LEASES, self._renewed(name)) for name in known]
            try:
                for lease in await self.client.commit(changes):
                    self._leases[lease["metadata"]["name"]] = lease
                    self._fencing.renewed(lease["metadata"]["name"], sent)
            except ApiError as error:
                _log.debug("leases are renewed one by one: %s", error.message)
            else:
                names = [name for name in names if name not in known]
        for name in names:
            try:
                await self._renew_one(name)
            except ApiError as error:
                _log.warning("the lease of node %s was not renewed: %s", name, error.message)

    def _renewed(self, name: str) -> Object:
        lease = self._leases[name]
        fresh = lease_object(name, "", self.environment.now())["spec"]
        return {**lease, "spec": {**lease["spec"], **fresh}}

    async def _renew_one(self, name: str, owner_uid: str = "") -> None:
        wanted = lease_object(name, owner_uid, self.environment.now())
        namespace = wanted["metadata"]["namespace"]
        sent = self.environment.monotonic()
        try:
            self._leases[name] = await self.client.patch(
                LEASES, name, {"spec": wanted["spec"]}, namespace, type="merge"
            )
        except ApiError as error:
            if error.code != 404:
                raise
            with contextlib.suppress(ApiError):
                self._leases[name] = await self.client.create(LEASES, wanted, namespace)
                self._fencing.renewed(name, sent)
        else:
            self._fencing.renewed(name, sent)


def _batches(names: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


async def run_simulated_nodes(
    client: Client,
    count: int,
    environment: Environment,
    settings: FleetSettings | None = None,
    *,
    on_ready: Callable[[SimulatedFleet], None] | None = None,
) -> None:
    """Run a fleet of ``count`` simulated nodes until cancelled; ``on_ready`` is told when all are registered."""
    fleet = SimulatedFleet(client, count, environment, settings)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(fleet.run())
        await fleet.ready.wait()
        if on_ready is not None:
            on_ready(fleet)
        await running


__all__ = ["FleetSettings", "SilentRecorder", "SimulatedFleet", "run_simulated_nodes"]
