"""A container runtime that runs nothing: whole fleets in one process, for tests, demonstrations and sizing.

A simulated container starts at once, stops at once on SIGTERM, and exits 0 after one second where it is not restarted
always. Rules override all of it: annotations of the pod (``Rule``), a few understood commands (see ``scripts``), or the
``Behaviour`` given as default. A container costs one small record and at most one timer of the event loop; there is no
task, thread or file for it, so ten thousand fit in a few dozen megabytes.

Time comes from the environment and timers from the running loop, so a virtual-clock loop moves it. Never touches the
host: no process, no network, no disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from fleetplane.model.environment import Environment
from fleetplane.node.addresses import AddressPool
from fleetplane.node.runtime import (
    ContainerPhase,
    ContainerSpec,
    ContainerState,
    ExecResult,
    Image,
    ImageMissing,
    Label,
    LogLine,
    LogOptions,
    NotThere,
    RegistryAuth,
    Resources,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeInfo,
    Sandbox,
    SandboxSpec,
    Session,
    Stats,
    Terminal,
)
from fleetplane.node.scripts import FOREVER, Script, parse_duration, understand
from fleetplane.node.simulated_rules import Behaviour, Rule, node_networks, rule
from fleetplane.node.simulated_session import SimulatedSession

KEPT_LOG_LINES = 200
SIGKILL_CODE = 137
SIGTERM_CODE = 143


@dataclass(slots=True)
class _Container:
    spec: ContainerSpec
    sandbox: Sandbox
    id: str
    created_at: datetime
    script: Script | None = None
    phase: ContainerPhase = "created"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    timer: asyncio.TimerHandle | None = None
    due: float = 0.0
    left: float = 0.0
    resources: Resources | None = None
    log: deque[LogLine] | None = None
    ended: asyncio.Event | None = None

    def state(self) -> ContainerState:
        return ContainerState(
            id=self.id,
            pod_uid=self.sandbox.uid,
            name=self.spec.name,
            attempt=self.spec.attempt,
            phase=self.phase,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
            error=self.error,
            image=self.spec.image,
            image_id=_image_id(self.spec.image),
            hash=self.spec.hash,
            sandbox_id=self.sandbox.id,
            labels=self.spec.labels,
        )


def _image_id(name: str) -> str:
    return f"simulated:{name}"


class SimulatedRuntime:
    """See the module. One runtime serves any number of nodes; ``add_node`` gives a node its pod networks."""

    def __init__(self, environment: Environment, behaviour: Behaviour | None = None) -> None:
        self._environment = environment
        self._behaviour = behaviour or Behaviour()
        self._pools: dict[str, AddressPool] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, _Container] = {}
        self._by_pod: dict[str, dict[str, _Container]] = {}
        self._sandbox_of_pod: dict[str, str] = {}
        self._listeners: set[Callable[[RuntimeEvent], None]] = set()
        self._images: dict[str, Image] = {}
        self._count = 0

    def add_node(self, name: str, networks: Sequence[str]) -> None:
        self._pools[name] = AddressPool(networks)

    def node_of(self, pod_uid: str) -> str:
        """The node a pod's sandbox is on; empty when it has none."""
        sandbox = self._sandboxes.get(self._sandbox_of_pod.get(pod_uid, ""))
        return sandbox.labels.get(Label.NODE, "") if sandbox is not None else ""

    async def info(self) -> RuntimeInfo:
        return RuntimeInfo("simulated", "1.0.0", ("nothing is run: containers are simulated",))

    # Sandboxes

    async def start_sandbox(self, spec: SandboxSpec) -> Sandbox:
        known = self._sandboxes.get(self._sandbox_of_pod.get(spec.uid, ""))
        if known is not None and known.attempt == spec.attempt and known.ready:
            return known
        addresses: tuple[str, ...] = ()
        sandbox_id = self._new_id()
        if spec.network == "pod":
            if spec.node not in self._pools:
                self.add_node(spec.node, node_networks(len(self._pools)))
            addresses = self._pools[spec.node].take(sandbox_id)
        sandbox = Sandbox(
            id=sandbox_id,
            uid=spec.uid,
            namespace=spec.namespace,
            name=spec.name,
            attempt=spec.attempt,
            ready=True,
            created_at=self._environment.now(),
            addresses=addresses,
            network=spec.network,
            labels={**spec.labels, Label.NODE: spec.node},
        )
        self._sandboxes[sandbox.id] = sandbox
        self._sandbox_of_pod[spec.uid] = sandbox.id
        return sandbox

    async def stop_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            return
        for container in list(self._by_pod.get(sandbox.uid, {}).values()):
            if container.sandbox.id == sandbox_id:
                self._end(container, SIGKILL_CODE)
        if pool := self._pools.get(sandbox.labels.get(Label.NODE, "")):
            pool.give_back(sandbox_id)
        self._sandboxes[sandbox_id] = replace(sandbox, ready=False)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        sandbox = self._sandboxes.pop(sandbox_id, None)
        if sandbox is None:
            return
        for container in [c for c in self._by_pod.get(sandbox.uid, {}).values() if c.sandbox.id == sandbox_id]:
            await self.remove_container(container.id)
        if self._sandbox_of_pod.get(sandbox.uid) == sandbox_id:
            del self._sandbox_of_pod[sandbox.uid]

    async def sandboxes(self) -> Sequence[Sandbox]:
        return list(self._sandboxes.values())

    # Containers

    async def create_container(self, sandbox: Sandbox, spec: ContainerSpec, shared: SandboxSpec) -> str:
        if sandbox.id not in self._sandboxes:
            raise NotThere(f"sandbox {sandbox.id} does not exist")
        script = None
        if self._behaviour.understand_commands and spec.command:
            script = understand([*spec.command, *spec.args])
        container = _Container(spec, sandbox, self._new_id(), self._environment.now(), script)
        self._containers[container.id] = container
        self._by_pod.setdefault(sandbox.uid, {})[container.id] = container
        self._tell(container, "created")
        return container.id

    async def start_container(self, container_id: str) -> None:
        container = self._find(container_id)
        if container.phase != "created":
            return
        if message := self._rule(container, Rule.START_ERROR):
            container.error, container.exit_code = message, 128
            container.phase, container.finished_at = "exited", self._environment.now()
            raise RuntimeFailure(message, "RunContainerError")
        delay = self._seconds(container, Rule.START_DELAY, self._behaviour.start_delay)
        if delay > 0:
            await asyncio.sleep(delay)
            if container_id not in self._containers:
                raise NotThere(f"container {container_id} was removed while it started")
        container.phase, container.started_at = "running", self._environment.now()
        self._speak(container)
        seconds = self._lifetime(container)
        if seconds != FOREVER:
            self._schedule(container, seconds)
        self._tell(container, "started")

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.phase not in {"running", "paused"}:
            return
        delay = self._seconds(container, Rule.STOP_DELAY, self._behaviour.stop_delay)
        if delay >= grace_seconds:
            if grace_seconds > 0:
                await self._wait_end(container, grace_seconds)
            self._end(container, SIGKILL_CODE)
        else:
            if delay > 0:
                await self._wait_end(container, delay)
            self._end(container, 0 if delay == 0 else SIGTERM_CODE)

    async def pause_container(self, container_id: str) -> None:
        container = self._find(container_id)
        if container.phase == "running":
            container.phase = "paused"
            if container.timer is not None:
                container.left = max(0.0, container.due - asyncio.get_running_loop().time())
                container.timer.cancel()
            self._tell(container, "paused")

    async def resume_container(self, container_id: str) -> None:
        container = self._find(container_id)
        if container.phase == "paused":
            container.phase = "running"
            if container.timer is not None:
                self._schedule(container, container.left)
            self._tell(container, "resumed")

    async def remove_container(self, container_id: str) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        self._end(container, SIGKILL_CODE)
        del self._containers[container_id]
        of_pod = self._by_pod.get(container.sandbox.uid, {})
        of_pod.pop(container_id, None)
        if not of_pod:
            self._by_pod.pop(container.sandbox.uid, None)

    async def containers(self, pod_uid: str = "") -> Sequence[ContainerState]:
        found = self._by_pod.get(pod_uid, {}).values() if pod_uid else self._containers.values()
        return [container.state() for container in found]

    async def inspect_container(self, container_id: str) -> ContainerState:
        return self._find(container_id).state()

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        self._find(container_id).resources = resources

    def crash(self, container_id: str, exit_code: int = 1, *, oom: bool = False) -> None:
        """Make a running container end now, as tests and chaos rules want it."""
        container = self._find(container_id)
        container.oom_killed = oom
        self._end(container, exit_code)

    # Processes and output

    async def exec(
        self, container_id: str, command: Sequence[str], timeout_seconds: float, limit_bytes: int = 16_384
    ) -> ExecResult:
        container = self._running(container_id)
        script = understand(command) or Script()
        if script.seconds > timeout_seconds:
            await asyncio.sleep(timeout_seconds)
            raise TimeoutError(f"command {command[0]!r} timed out after {timeout_seconds:g}s")
        if script.seconds:
            await asyncio.sleep(script.seconds)
        del container
        return ExecResult(script.exit_code, script.output[:limit_bytes])

    async def open_exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, size: Terminal | None = None
    ) -> Session:
        self._running(container_id)
        script = understand(command)
        return SimulatedSession(script or Script(), echo=stdin and script is None)

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> Session:
        self._running(container_id)
        return SimulatedSession(Script(), echo=stdin)

    async def connect(self, sandbox_id: str, port: int) -> Session:
        raise RuntimeFailure(f"nothing listens on port {port}: containers of this node are simulated")

    async def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[LogLine]:
        container = self._find(container_id)
        lines = list(container.log or ())
        if options.since is not None:
            lines = [line for line in lines if line.time >= options.since]
        if options.until is not None:
            lines = [line for line in lines if line.time <= options.until]
        if options.tail is not None:
            lines = lines[len(lines) - min(options.tail, len(lines)) :]
        for line in lines:
            yield line
        if options.follow and container.phase in {"running", "paused"}:
            await self._wait_end(container, None)

    async def stats(self, pod_uid: str = "") -> Sequence[Stats]:
        now = self._environment.now()
        found = self._by_pod.get(pod_uid, {}).values() if pod_uid else self._containers.values()
        return [
            Stats(c.id, now, cpu_nanoseconds=_milli_core_nanoseconds(c.started_at, now), memory_bytes=16 << 20, pids=1)
            for c in found
            if c.phase == "running"
        ]

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        self._listeners.add(queue.put_nowait)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue.put_nowait)

    # Images: every image is there, except those a rule denies

    async def image(self, name: str, *, handler: str = "") -> Image | None:
        return self._images.get(name)

    async def images(self) -> Sequence[Image]:
        return list(self._images.values())

    async def pull_image(self, name: str, auth: Sequence[RegistryAuth] = (), *, handler: str = "") -> Image:
        if name.endswith(":missing"):
            raise ImageMissing(f'failed to pull image "{name}": not found', "ErrImagePull")
        return self._images.setdefault(name, Image(_image_id(name), (name,), size=1 << 20))

    async def import_image(self, archive: str, name: str = "") -> Image:
        return await self.pull_image(name or archive)

    async def remove_image(self, name: str) -> None:
        self._images.pop(name, None)

    async def close(self) -> None:
        for container in self._containers.values():
            if container.timer is not None:
                container.timer.cancel()

    # Inside

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._count:064x}"

    def _find(self, container_id: str) -> _Container:
        container = self._containers.get(container_id)
        if container is None:
            raise NotThere(f"container {container_id} does not exist")
        return container

    def _running(self, container_id: str) -> _Container:
        container = self._find(container_id)
        if container.phase != "running":
            raise RuntimeFailure(f"container {container.spec.name} is not running")
        return container

    def _rule(self, container: _Container, name: str) -> str | None:
        annotations = container.spec.annotations
        return rule(annotations, name, container.spec.name) if annotations else None

    def _seconds(self, container: _Container, name: str, default: float) -> float:
        text = self._rule(container, name)
        if text is None:
            return default
        try:
            return parse_duration(text)
        except ValueError:
            return default

    def _lifetime(self, container: _Container) -> float:
        default = FOREVER if container.spec.restarts == "Always" else self._behaviour.run_for
        if container.script is not None:
            default = container.script.seconds
        return self._seconds(container, Rule.RUN_FOR, default)

    def _schedule(self, container: _Container, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        container.due = loop.time() + seconds
        container.timer = loop.call_later(seconds, self._finish, container)

    def _finish(self, container: _Container) -> None:
        """The container ends by itself."""
        container.oom_killed = self._rule(container, Rule.OUT_OF_MEMORY) == "true"
        code = SIGKILL_CODE if container.oom_killed else container.script.exit_code if container.script else 0
        text = self._rule(container, Rule.EXIT_CODE)
        if text is not None and text.isdecimal():
            code = int(text) & 255
        self._end(container, code)

    def _end(self, container: _Container, exit_code: int) -> None:
        if container.phase not in {"running", "paused"}:
            return
        if container.timer is not None:
            container.timer.cancel()
            container.timer = None
        container.phase, container.exit_code = "exited", exit_code
        container.finished_at = self._environment.now()
        if container.ended is not None:
            container.ended.set()
        self._tell(container, "exited")

    async def _wait_end(self, container: _Container, seconds: float | None) -> None:
        if container.ended is None:
            container.ended = asyncio.Event()
        try:
            async with asyncio.timeout(None if seconds == FOREVER else seconds):
                await container.ended.wait()
        except TimeoutError:
            return

    def _speak(self, container: _Container) -> None:
        said = self._rule(container, Rule.LOG)
        text = said.encode() + b"\n" if said is not None else container.script.output if container.script else b""
        if text:
            now = self._environment.now()
            lines = [LogLine(now, "stdout", part) for part in text.splitlines(keepends=True)]
            container.log = deque(lines, maxlen=KEPT_LOG_LINES)

    def _tell(self, container: _Container, what: str) -> None:
        if self._listeners:
            event = RuntimeEvent(container.sandbox.uid, container.id, what)  # type: ignore[arg-type]
            for listener in list(self._listeners):
                listener(event)


def _milli_core_nanoseconds(started_at: datetime | None, now: datetime) -> int:
    """One thousandth of a core since the start: something for graphs to show."""
    return int((now - started_at).total_seconds() * 1_000_000) if started_at else 0
