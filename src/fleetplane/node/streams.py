"""Logs, exec, attach and port-forward of a node's pods, as the API server asks for them.

``NodeStreams`` is the contract: the plane hands an implementation to the server for nodes of its own process, and the
tunnel of a remote node (``tunnel``) offers the same one. Everything crosses as plain data and bytes, and every refusal is an
``ApiError`` in the kubelet's words, raised before the first byte, so that it can still become an HTTP answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol

from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError, bad_request, internal
from fleetplane.node.engine import PodEngine
from fleetplane.node.runtime import LogOptions, NotThere, RuntimeFailure, Session, Terminal
from fleetplane.node.worker import PodWorker

CHUNK: Final = 32_768
_WAITING_WORDS: Final = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


@dataclass(frozen=True, slots=True)
class PodRef:
    """Which pod. ``uid`` may be empty: then whichever pod has the name."""

    namespace: str
    name: str
    uid: str = ""
    cluster: str = "root"


@dataclass(frozen=True, slots=True)
class LogRequest:
    """``PodLogOptions``, decoded. ``limit_bytes`` cuts the answer, not the log."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since_seconds: int | None = None
    since_time: datetime | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: Literal["All", "Stdout", "Stderr"] = "All"


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """``PodExecOptions``, decoded; ``size`` is the terminal's first size, when known."""

    container: str
    command: tuple[str, ...] = ()
    stdin: bool = False
    tty: bool = False
    size: Terminal | None = None


class NodeStreams(Protocol):
    """Every call may raise ApiError."""

    async def logs(self, pod: PodRef, request: LogRequest) -> AsyncIterator[bytes]:
        """The log's bytes as they come; closing the iterator ends a follow."""

    async def exec(self, pod: PodRef, request: ExecRequest) -> Session: ...

    async def attach(self, pod: PodRef, request: ExecRequest) -> Session: ...

    async def port_forward(self, pod: PodRef, port: int) -> Session:
        """A connection to a port of the pod; ``read`` brings its bytes as stdout."""


class EngineStreams:
    """The streams of all pods an engine works on."""

    def __init__(self, engine: PodEngine, environment: Environment) -> None:
        self._engine = engine
        self._runtime = engine.runtime
        self._environment = environment

    def has(self, pod: PodRef) -> bool:
        return self._find(pod) is not None

    async def logs(self, pod: PodRef, request: LogRequest) -> AsyncIterator[bytes]:
        worker = self._worker(pod)
        name = container_name(worker, request.container)
        container_id = logged_container(worker.status, worker.pod.name, name, previous=request.previous)
        options = LogOptions(
            follow=request.follow,
            tail=request.tail_lines,
            since=_since(request, self._environment.now()),
        )
        try:
            await self._runtime.inspect_container(container_id)
        except NotThere:
            raise bad_request(f"unable to retrieve container logs for {container_id}") from None
        except RuntimeFailure as error:
            raise internal(error.message) from error
        return self._lines(container_id, options, request)

    async def _lines(self, container_id: str, options: LogOptions, request: LogRequest) -> AsyncIterator[bytes]:
        left = request.limit_bytes
        begins_line = True
        wanted = request.stream.lower()
        gathered = bytearray()
        try:
            async for line in self._runtime.logs(container_id, options):
                if wanted not in {"all", line.stream}:
                    continue
                data = line.data
                if request.timestamps and begins_line:
                    data = f"{line.time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z ".encode() + data
                begins_line = not line.partial
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                gathered += data
                if request.follow or len(gathered) >= CHUNK:
                    yield bytes(gathered)
                    gathered.clear()
                if left == 0:
                    break
        except RuntimeFailure as error:
            gathered += f"{error.message}\n".encode()
        if gathered:
            yield bytes(gathered)

    async def exec(self, pod: PodRef, request: ExecRequest) -> Session:
        container_id, _ = self._running(pod, request.container)
        if not request.command:
            raise bad_request("you must specify at least one command for the container")
        try:
            return await self._runtime.open_exec(
                container_id, request.command, stdin=request.stdin, tty=request.tty, size=request.size
            )
        except RuntimeFailure as error:
            raise internal(f"error executing command in container: {error.message}") from error

    async def attach(self, pod: PodRef, request: ExecRequest) -> Session:
        container_id, spec = self._running(pod, request.container)
        # A container has a terminal or has none, whatever the client believes.
        tty = bool(spec.get("tty"))
        stdin = request.stdin and bool(spec.get("stdin"))
        try:
            session = await self._runtime.attach(container_id, stdin=stdin, tty=tty)
        except RuntimeFailure as error:
            raise internal(f"error attaching to container: {error.message}") from error
        if tty and request.size is not None:
            await session.resize(request.size)
        return session

    async def port_forward(self, pod: PodRef, port: int) -> Session:
        worker = self._worker(pod)
        sandbox = worker.sandbox
        if sandbox is None or not sandbox.ready:
            raise bad_request(f"unable to forward port because pod is not running. Current status={worker.phase}")
        if not 0 < port < 65_536:
            raise bad_request(f"{port} is not a port")
        try:
            return await self._runtime.connect(sandbox.id, port)
        except RuntimeFailure as error:
            raise internal(f"error forwarding port {port} to pod {pod.name}: {error.message}") from error

    # Finding

    def _find(self, pod: PodRef) -> PodWorker | None:
        if pod.uid and (found := self._engine.workers.get(pod.uid)) is not None:
            return found
        named = self._engine.find(pod.cluster, pod.namespace, pod.name)
        # A static pod's API object is its mirror, which has a uid of its own.
        return named if named is not None and (not pod.uid or named.static) else None

    def _worker(self, pod: PodRef) -> PodWorker:
        found = self._find(pod)
        if found is None:
            raise ApiError(404, f'pod "{pod.name}" is not on this node (yet)', reason="NotFound")
        return found

    def _running(self, pod: PodRef, wanted: str) -> tuple[str, Mapping[str, Any]]:
        """The id and spec of a container that runs now."""
        worker = self._worker(pod)
        name = container_name(worker, wanted)
        state = worker.container_state(name)
        if state is None or state.phase not in {"running", "paused"}:
            raise ApiError(404, f'container not found ("{name}")', reason="NotFound")
        return state.id, worker.pod.by_name[name].spec


def container_name(worker: PodWorker, wanted: str) -> str:
    """The container meant; a pod's only one when none is named."""
    pod = worker.pod
    if wanted:
        if wanted not in pod.by_name:
            raise bad_request(f"container {wanted} is not valid for pod {pod.name}")
        return wanted
    if len(pod.main) == 1:
        return pod.main[0].name
    if default := pod.annotations.get("kubectl.kubernetes.io/default-container"):
        return default
    names = " ".join(one.name for one in pod.main)
    raise bad_request(f"a container name must be specified for pod {pod.name}, choose one of: [{names}]")


def logged_container(status: Mapping[str, Any], pod: str, name: str, *, previous: bool) -> str:
    """The id of the container whose log is meant. Raises ApiError in the kubelet's words."""
    found = _container_status(status, name)
    if found is None:
        raise bad_request(f'container "{name}" in pod "{pod}" is not available')
    state, last = found.get("state") or {}, (found.get("lastState") or {}).get("terminated") or {}
    if previous:
        if not last.get("containerID"):
            raise bad_request(f'previous terminated container "{name}" in pod "{pod}" not found')
        return _bare(last["containerID"])
    if "running" in state:
        return _bare(found.get("containerID") or "")
    ended = state.get("terminated") or last
    if ended.get("containerID"):
        return _bare(ended["containerID"])
    if ended:
        raise bad_request(f'container "{name}" in pod "{pod}" is terminated')
    reason = str((state.get("waiting") or {}).get("reason") or "")
    words = _WAITING_WORDS.get(reason, reason)
    raise bad_request(f'container "{name}" in pod "{pod}" is waiting to start: {words}')


def _container_status(status: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    lists: Sequence[str] = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return next((one for key in lists for one in status.get(key) or [] if one.get("name") == name), None)


def _bare(container_id: str) -> str:
    return container_id.partition("://")[2] or container_id


def _since(request: LogRequest, now: datetime) -> datetime | None:
    if request.since_seconds is not None:
        return now - timedelta(seconds=request.since_seconds)
    return request.since_time
