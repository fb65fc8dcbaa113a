"""The agent of one real node: everything it does, put together.

It starts alone: pods kept on disk and static pods come up before, and whether or not, the control plane answers. What
it finds running it takes over by labels and never starts again. Once the API's list of its pods is complete, what the
API no longer has is stopped, and containers nobody knows are removed. Statuses wait until they can be told.

Leaving the agent stops the work, never the containers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.model import objects
from fleetplane.model.builtin.types import PODS
from fleetplane.model.environment import Environment
from fleetplane.node import machine
from fleetplane.node.asking import NetworkAsker
from fleetplane.node.builder import BuildSettings, FullBuilder
from fleetplane.node.desired import DesiredPods
from fleetplane.node.device_plugins import DevicePlugins
from fleetplane.node.devices import Devices, cdi_devices, listed_devices
from fleetplane.node.engine import PodEngine
from fleetplane.node.eviction import Use, choose_victim, eviction_failure, limited_volumes, over_limits
from fleetplane.node.fencing import SelfFencing
from fleetplane.node.guard import Guarding, Holder
from fleetplane.node.names import ClusterNames, read_resolv_conf
from fleetplane.node.nodekeeper import NodeKeeper
from fleetplane.node.pod import CONFIG_MIRROR, PodView
from fleetplane.node.pods import PodFeed, removed
from fleetplane.node.preload import preload_images
from fleetplane.node.probers import RuntimeProber
from fleetplane.node.recorder import ApiRecorder
from fleetplane.node.registration import NodeDescription
from fleetplane.node.reporter import StatusReporter
from fleetplane.node.runtime import ContainerRuntime, Label, RuntimeFailure, RuntimeInfo
from fleetplane.node.sources import Sources
from fleetplane.node.static_pods import StaticPods
from fleetplane.node.stats import NodeUse, Usage
from fleetplane.node.status import CANNOT_FREEZE, NodeFacts
from fleetplane.node.streams import EngineStreams
from fleetplane.node.tokens import Tokens
from fleetplane.node.volumes import VolumeManager
from fleetplane.node.volumes.projected import Projection
from fleetplane.node.worker import PodWorker

REFRESH_SECONDS: Final = 30.0
PRESSURE_SECONDS: Final = 10.0
KEEP_SECONDS: Final = 0.2
BEGIN_ANEW_SECONDS: Final = 5.0
RECORDS: Final = "fenced"
"""In the node's directory: what its watchdog killed."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How one node is set up. Everything empty is found out from the machine.

    ``directory`` is the node's own part of the data directory. ``resources`` are extended resources it has besides the
    usual ones; ``reserved`` is kept from pods.
    """

    directory: Path
    name: str = ""
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = ()
    max_pods: int = 110
    resources: Mapping[str, str] = field(default_factory=dict)
    reserved: Mapping[str, str] = field(default_factory=dict)
    pod_networks: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    cluster_dns: tuple[str, ...] = ()
    static_pods: Path | None = None
    device_plugins: Path | None = None
    """Where device plugins register, once this directory exists; by default ``device-plugins`` in the node's own."""
    cluster: str = "root"
    volatile: Path | None = None
    """Where what need not survive a reboot is kept; without it a restarted agent forgets when it last had contact."""


class NodeAgent:
    """See the module. ``run`` works until cancelled; ``ready`` is set when the API shows the node."""

    def __init__(
        self,
        client: Client,
        runtime: ContainerRuntime,
        settings: NodeSettings,
        environment: Environment,
        info: RuntimeInfo,
        watchdog: Holder | None = None,
        on_refused: Callable[[list[str]], None] = lambda networks: None,
    ) -> None:
        self.client = client
        self.runtime = runtime
        self.settings = settings
        self.environment = environment
        self.name = settings.name or machine.host_name()
        self._info = info
        self._addresses = settings.addresses or machine.host_addresses()
        found = {**cdi_devices(), **listed_devices(settings.directory)}
        self._devices = Devices(settings.directory, found, lambda uid: uid in self.engine.workers)
        self._plugins = DevicePlugins(
            settings.device_plugins or settings.directory / "device-plugins",
            settings.directory,
            self._devices,
            lambda: self.keeper.look(),  # noqa: PLW0108 - it is made further down
        )
        self._machine_capacity = machine.capacity(settings.directory, settings.max_pods)
        self._freezes = not info.cannot_freeze
        self._pressures: list[machine.Pressure] = []
        self._images: list[dict[str, object]] = []
        self._host_dns = read_resolv_conf(machine.resolv_conf_text())

        self._recorder = ApiRecorder(client, environment, host=self.name)
        self._fencing = SelfFencing(
            environment,
            lambda: list(self.engine.workers.values()),
            lambda node: self.keeper.self_fencing,
            settings.volatile / "contact.json" if settings.volatile is not None else None,
            settings.directory / "self-fencing.json",
            settings.directory / RECORDS,
        )
        self._guarding: Guarding | None = None
        if watchdog is not None:
            self._guarding = Guarding(watchdog, self._fencing.held, environment.monotonic, self._fencing.fenced)
        self.keeper = NodeKeeper(client, environment, self.describe, self._renewed, on_refused)
        self.ready = self.keeper.registered
        static_folder = settings.static_pods or settings.directory / "static"
        self._static = StaticPods(
            static_folder,
            self.name,
            client,
            self._static_changed,
            lambda: objects.uid(self.keeper.object) if self.ready.is_set() else "",
            self._mirror_made,
        )
        self._reporter = StatusReporter(client, uid_of=self._api_uid)
        sources = Sources(client, settings.directory / "sources")
        tokens = Tokens(sources, environment)
        volumes = VolumeManager(settings.directory / "volumes", sources, Projection(sources, tokens), environment)
        self._builder = FullBuilder(self._build_settings, runtime, sources, tokens, volumes, self._plugins.allocate)
        asker = NetworkAsker()
        self.engine = PodEngine(
            runtime,
            environment,
            self._builder,
            RuntimeProber(runtime, asker),
            self._recorder,
            lambda pod: NodeFacts(self._addresses, info.name),
            asker=asker,
            unenforced=info.unenforced,
            on_status=self._status_changed,
            on_ended=self._ended,
        )
        self.engine.succession.may_decide = self._fencing.is_fresh
        self.engine.may_start = self._fencing.may_start
        self.engine.cannot_freeze = info.cannot_freeze
        self.engine.on_unfrozen = self._unfrozen
        if self._guarding is not None:
            self.engine.guard = self._guarding
        self._feed = PodFeed(
            self.engine, self._reporter, self.name.__eq__, client.cluster, on_mirror=self._static.mirror_seen
        )
        self._desired = DesiredPods(settings.directory / "pods")
        self._to_keep: dict[str, PodWorker] = {}
        self._keep_wanted = asyncio.Event()
        self.usage = Usage(runtime, environment)
        self.streams = EngineStreams(self.engine, environment)

    # What the node is

    def describe(self) -> NodeDescription:
        return NodeDescription(
            name=self.name,
            capacity=self._capacity(),
            allocatable=self._allocatable(),
            addresses=self._addresses,
            labels=self.settings.labels,
            annotations={"node.fleetplane.io/runtime": self._info.name, **self.settings.annotations},
            taints=self.settings.taints,
            pod_networks=self.settings.pod_networks,
            info=machine.node_info(self._info.name, self._info.version),
            unhealthy={
                pressure.condition: (f"KubeletHas{pressure.condition}", pressure.message)
                for pressure in self._pressures
            },
            images=self._images,
            freezes=self._freezes,
        )

    def _unfrozen(self) -> None:
        self._freezes = False
        text = f"Pods cannot be frozen on this node, so it takes no standbys: {self.engine.cannot_freeze}"
        self._recorder.say(self.keeper.object, CANNOT_FREEZE, text, warning=True)
        self.keeper.look()

    def _capacity(self) -> dict[str, str]:
        return {**self._machine_capacity, **self._devices.capacity(), **self.settings.resources}

    def _allocatable(self) -> dict[str, str]:
        found = machine.allocatable(self._capacity(), self.settings.reserved)
        return {**found, **self._devices.allocatable(), **self.settings.resources}

    async def node_usage(self, node: str) -> NodeUse | None:
        """What the node and its containers use, as last sampled; None for another node."""
        return self.usage.latest if node == self.name else None

    def _build_settings(self) -> BuildSettings:
        return BuildSettings(
            node=self.name,
            addresses=self._addresses,
            allocatable=self._allocatable(),
            names=ClusterNames(self.settings.cluster_domain, self.settings.cluster_dns, self._host_dns),
            seccomp_directory=str(self.settings.directory / "seccomp"),
        )

    def _api_uid(self, pod: PodView) -> str:
        return self._static.mirror_uid(pod) if pod.static else pod.uid

    # Running

    async def run(self) -> None:
        fields = f"spec.nodeName={self.name}"
        pods = Informer(self.client, PODS, self.environment, fields=fields, decoded_limit=256)
        async with asyncio.TaskGroup() as group, self.engine.working(group):
            self._fencing.recall(self.name)
            await self._take_over()
            if self._guarding is not None:
                self._guarding.begin()
                group.create_task(_lasting(self._guarding.run))
            await preload_images(self.runtime, self.settings.directory / "images")
            self._read_static()
            pods.add_handler(self._feed.changed)
            group.create_task(self._settle(pods))
            lasting: list[Callable[[], Awaitable[None]]] = [
                self.engine.watch_runtime,
                self.engine.relist,
                self._reporter.run,
                self._recorder.run,
                self.keeper.run,
                self._fencing.run,
                pods.run,
                self._keep,
                self._refresh_volumes,
                self._watch_pressure,
                self._plugins.run,
                lambda: self._static.run(self.ready),
                self.usage.run,
            ]
            for work in lasting:
                group.create_task(_lasting(work))
            for note in self._info.notes:
                self._recorder.say(self.keeper.object, "Limited", note, warning=True)
            await asyncio.Event().wait()

    async def _take_over(self) -> None:
        """Pods kept on disk, with what the runtime has of them."""
        await self.engine.take_stock()
        for kept in await asyncio.to_thread(lambda: list(self._desired.load())):
            pod = PodView(kept.object, kept.cluster)
            if pod.uid:
                self.engine.set_pod(pod, kept.notes)

    def _read_static(self) -> None:
        """Static pods of the folder; those kept on disk whose files are gone end."""
        self._static.read()
        for worker in list(self.engine.workers.values()):
            if worker.static and not self._static.has(worker.uid):
                worker.set_pod(removed(worker.pod))

    async def _settle(self, pods: Informer) -> None:
        """When the API's list is complete: stop what it no longer has, remove what nobody knows."""
        await pods.wait_synced()
        self._fencing.synced()
        listed = {snapshot.uid for snapshot in pods.snapshots()}
        for uid, worker in list(self.engine.workers.items()):
            if uid not in listed and not worker.static:
                self._feed.vanished(uid)
        mirrors = [one.object for one in pods.snapshots() if CONFIG_MIRROR in one.annotations]
        await self._static.remove_stale(mirrors)
        with suppress(RuntimeFailure):
            await self._remove_strangers(set(self.engine.workers))
        self._images = await self._image_list()
        self.keeper.look()

    async def _remove_strangers(self, known: set[str]) -> None:
        for state in await self.runtime.containers():
            if state.pod_uid not in known:
                _log.info(
                    "container %s of pod %s is removed: the pod is gone", state.name, state.labels.get(Label.NAME)
                )
                await self.runtime.remove_container(state.id)
        for sandbox in await self.runtime.sandboxes():
            if sandbox.uid not in known:
                await self.runtime.remove_sandbox(sandbox.id)
        await self._builder.volumes.remove_strangers(known)

    # Pods that change

    def _static_changed(self, come: list[PodView], gone: list[str]) -> None:
        for pod in come:
            self.engine.set_pod(pod)
        for uid in gone:
            worker = self.engine.workers.get(uid)
            if worker is not None:
                worker.set_pod(removed(worker.pod))

    def _mirror_made(self, uid: str) -> None:
        """The mirror knows nothing yet: tell it all."""
        worker = self.engine.workers.get(uid)
        if worker is not None:
            self._reporter.forget(uid)
            self._reporter.changed(worker)

    def _status_changed(self, worker: PodWorker) -> None:
        self._reporter.changed(worker)
        self._to_keep[worker.uid] = worker
        self._keep_wanted.set()

    def _renewed(self, node: str, sent: float) -> None:
        self._fencing.renewed(node, sent)
        self.engine.guard.changed()

    def _ended(self, worker: PodWorker) -> None:
        self._fencing.forget(worker.uid)
        self._to_keep.pop(worker.uid, None)
        self._desired.forget(worker.uid)
        self._feed.ended(worker)

    async def _keep(self) -> None:
        """Write what changed to disk, a little later and off the event loop."""
        while True:
            await self._keep_wanted.wait()
            await asyncio.sleep(KEEP_SECONDS)
            self._keep_wanted.clear()
            changed, self._to_keep = self._to_keep, {}
            for uid, worker in changed.items():
                pod = worker.pod
                try:
                    await asyncio.to_thread(self._desired.keep, uid, pod.object, worker.notes, pod.cluster)
                except OSError as error:
                    _log.error("pod %s is not kept on disk: %s", pod.key, error)
                if worker.closed and uid not in self.engine.workers:
                    self._desired.forget(uid)

    # From time to time

    async def _refresh_volumes(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            for worker in list(self.engine.workers.values()):
                if worker.notes.volumes_ready and not worker.pod.deleting:
                    await self._builder.volumes.refresh(worker.pod, self._builder.facts(worker.addresses))

    async def _watch_pressure(self) -> None:
        while True:
            await asyncio.sleep(PRESSURE_SECONDS)
            before = {pressure.condition for pressure in self._pressures}
            self._pressures = await asyncio.to_thread(machine.pressures, self.settings.directory)
            if {pressure.condition for pressure in self._pressures} != before:
                self.keeper.look()
            for pressure in self._pressures:
                if await self._evict(pressure):
                    break
            await self._check_volumes()

    async def _check_volumes(self) -> None:
        """End pods whose emptyDirs have outgrown their limits."""
        running = [worker for worker in self.engine.workers.values() if worker.notes.failure is None]
        limited = {id(pod): pod for pod, _ in limited_volumes([worker.pod for worker in running])}
        for worker in running:
            if id(worker.pod) not in limited:
                continue
            used = await asyncio.to_thread(self._builder.volumes.disk_use, worker.pod)
            failure = over_limits(worker.pod, used)
            if failure is not None:
                self._recorder.say(worker.pod.object, "Evicted", failure.message, warning=True)
                worker.fail(failure)

    async def _evict(self, pressure: machine.Pressure) -> bool:
        latest = self.usage.latest
        uses = [
            Use(worker.pod, {"memory": sum(c.memory_bytes for c in latest.of_pod(uid))})
            for uid, worker in self.engine.workers.items()
            if worker.notes.failure is None and worker.observed().running
        ]
        victim = choose_victim(uses, pressure.resource)
        if victim is None:
            return False
        failure = eviction_failure(victim, pressure.resource, pressure.message)
        self._recorder.say(victim.pod.object, "Evicted", failure.message, warning=True)
        self.engine.workers[victim.pod.uid].fail(failure)
        return True

    async def _image_list(self) -> list[dict[str, object]]:
        try:
            found = await self.runtime.images()
        except RuntimeFailure:
            return []
        named = [image for image in found if image.names]
        largest = sorted(named, key=lambda image: image.size, reverse=True)[:50]
        return [{"names": [*image.names, *image.digests], "sizeBytes": image.size} for image in largest]


async def _lasting(work: Callable[[], Awaitable[None]]) -> None:
    """A part of the agent that fails unexpectedly is begun anew: the others, and the pods, must not suffer for it."""
    while True:
        try:
            await work()
        except Exception:  # the boundary between one part of the agent and the others
            _log.exception("a part of the node agent failed and is started again")
        await asyncio.sleep(BEGIN_ANEW_SECONDS)


async def run_node(
    client: Client,
    runtime: ContainerRuntime,
    settings: NodeSettings,
    environment: Environment,
    *,
    watchdog: Holder | None = None,
    on_ready: Callable[[NodeAgent], None] | None = None,
    on_refused: Callable[[list[str]], None] = lambda networks: None,
) -> None:
    """Run one node until cancelled.

    ``on_ready`` is told once the API shows it, ``on_refused`` if it does not take it: others have these pod networks.
    """
    agent = NodeAgent(client, runtime, settings, environment, await runtime.info(), watchdog, on_refused)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agent.run())
        await agent.ready.wait()
        if on_ready is not None:
            on_ready(agent)
        await running
