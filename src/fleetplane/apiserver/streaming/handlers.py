"""``pods/log``, ``pods/exec``, ``pods/attach`` and ``pods/portforward``.

Everything that can be refused is refused before the connection is taken over, as an ordinary Status.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import WSMsgType, web

from fleetplane.apiserver.call import Call
from fleetplane.apiserver.encoding import CLUSTER_ANNOTATION
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.routing import ROOT_CLUSTER
from fleetplane.apiserver.storage import ObjectStorage
from fleetplane.apiserver.streaming.channels import (
    SPDY_PROTOCOLS,
    WEBSOCKET_PROTOCOLS,
    SpdyChannels,
    WebSocketChannels,
    pump,
)
from fleetplane.apiserver.streaming.outcome import RESULT_TYPE, run_to_end
from fleetplane.apiserver.streaming.protocol import LogQuery, PodStreams, Session, StreamsOf
from fleetplane.apiserver.streaming.spdy import SpdyConnection, SpdyError, Stream
from fleetplane.apiserver.streaming.upgrade import RawConnection, take_over
from fleetplane.apiserver.subresources import Handler
from fleetplane.model import errors, objects
from fleetplane.model.objects import Object

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_TUNNEL = "SPDY/3.1+portforward.k8s.io"
_FORWARD = "portforward.k8s.io"
HOST_POD_ANNOTATION = "fleetplane.io/host-pod"
"""On a pod of a cluster without nodes: namespace/name of the pod of root that runs for it."""
GUEST_POD_ANNOTATION = "fleetplane.io/guest-pod"
"""On that pod: the cluster's uid and the pod's, ``<uid>/<uid>``."""
_TRUE = ("true", "1")


def stream_handlers(storage: ObjectStorage, streams_of: StreamsOf) -> Mapping[tuple[str, str], Handler]:
    """The handlers, over the nodes that ``streams_of`` reaches."""

    async def pod_of(call: Call) -> tuple[Object, PodStreams]:
        target = call.target
        pod = await storage.find(call.served, call.key_cluster, target.namespace, target.name)
        if pod is None:
            raise errors.not_found("pods", target.name)
        if target.cluster != ROOT_CLUSTER:
            pod["metadata"].setdefault("annotations", {})[CLUSTER_ANNOTATION] = target.cluster
            pod = await _on_host(storage, call, pod)
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            raise errors.bad_request(f"pod {target.name} does not have a host assigned")
        streams = streams_of(node)
        if streams is None:
            raise errors.unavailable(f"the node {node} of pod {target.name} cannot be reached now")
        return pod, streams

    async def log(call: Call) -> Response:
        pod, streams = await pod_of(call)
        container = container_of(pod, call.request.query.get("container") or "")
        lines = await streams.logs(pod, container, log_query(call.request.query))
        return Response(200, stream=lines, content_type="text/plain")

    async def exec_(call: Call) -> Response:
        pod, streams = await pod_of(call)
        query = call.request.query
        command = call.request.queries.get("command") or []
        if not command:
            raise errors.bad_request("you must specify at least one command for the container")
        container = _running(pod, container_of(pod, query.get("container") or ""))
        if RESULT_TYPE in call.request.headers.get("accept", ""):
            return await run_to_end(streams, pod, container, command, call)
        stdin, tty = query.get("stdin") in _TRUE, query.get("tty") in _TRUE
        return _carried(call, lambda: streams.exec(pod, container, command, stdin=stdin, tty=tty), stdin, tty)

    async def attach(call: Call) -> Response:
        pod, streams = await pod_of(call)
        query = call.request.query
        container = _running(pod, container_of(pod, query.get("container") or ""))
        stdin, tty = query.get("stdin") in _TRUE, query.get("tty") in _TRUE
        return _carried(call, lambda: streams.attach(pod, container, stdin=stdin, tty=tty), stdin, tty)

    async def forward(call: Call) -> Response:
        pod, streams = await pod_of(call)
        if (pod.get("status") or {}).get("phase") != "Running":
            phase = (pod.get("status") or {}).get("phase")
            raise errors.bad_request(f"unable to forward port because pod is not running. Current status={phase}")
        return _forwarded(call, pod, streams)

    return {("pods", "log"): log, ("pods", "exec"): exec_, ("pods", "attach"): attach, ("pods", "portforward"): forward}


async def _on_host(storage: ObjectStorage, call: Call, pod: Object) -> Object:
    """The pod that runs for one of a cluster without nodes of its own; the pod itself where there is none.

    The guest's annotation only says where to look. What counts is that the host's pod, which nobody of the guest can
    write, says for which pod of which cluster it runs.
    """
    where = objects.annotations(pod).get(HOST_POD_ANNOTATION, "").split("/")
    if len(where) != 2:
        return pod
    found = await storage.find(call.served, ROOT_CLUSTER, where[0], where[1])
    if (
        found is None
        or objects.annotations(found).get(GUEST_POD_ANNOTATION) != f"{call.key_cluster}/{objects.uid(pod)}"
    ):
        return pod
    return found


def container_of(pod: Object, wanted: str) -> str:
    """The container a request means. Raises ApiError 400 when it does not say and there is more than one."""
    spec = pod.get("spec") or {}
    main = [one["name"] for one in spec.get("containers") or []]
    known = [
        *main,
        *(one["name"] for key in ("initContainers", "ephemeralContainers") for one in spec.get(key) or []),
    ]
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in known:
            raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    default = objects.annotations(pod).get(_DEFAULT_CONTAINER, "")
    if default in known:
        return str(default)
    if len(main) == 1:
        return str(main[0])
    listed = " ".join(main)
    raise errors.bad_request(f"a container name must be specified for pod {name}, choose one of: [{listed}]")


def _running(pod: Object, container: str) -> str:
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        message = f"cannot exec into a container in a completed pod; current phase is {phase}"
        raise errors.bad_request(message)
    return container


def log_query(query: Mapping[str, str]) -> LogQuery:
    """The options of a log request. Raises ApiError 400 for numbers that are none."""

    def number(name: str) -> int | None:
        text = query.get(name)
        if text is None or text == "":
            return None
        if not text.isascii() or not text.isdigit() or len(text) > 12:
            raise errors.bad_request(f"{name} must be a whole number, not {text!r}")
        return int(text)

    return LogQuery(
        follow=query.get("follow") in _TRUE,
        previous=query.get("previous") in _TRUE,
        timestamps=query.get("timestamps") in _TRUE,
        since_seconds=number("sinceSeconds"),
        since_time=query.get("sinceTime") or "",
        tail_lines=number("tailLines"),
        limit_bytes=number("limitBytes"),
    )


def _is_websocket(call: Call) -> bool:
    return call.request.headers.get("upgrade", "").lower() == "websocket"


def _is_spdy(call: Call) -> bool:
    return call.request.headers.get("upgrade", "").lower() == "spdy/3.1"


def _offered(call: Call, header: str) -> list[str]:
    headers: Any = call.request.headers
    values = headers.getall(header, []) if hasattr(headers, "getall") else [headers.get(header, "")]
    return [one.strip() for value in values for one in value.split(",") if one.strip()]


def _carried(call: Call, start: Callable[[], Awaitable[Session]], stdin: bool, tty: bool) -> Response:
    """An exec or attach over whichever protocol the client asked to upgrade to."""
    if _is_websocket(call):

        async def over_websocket(raw: web.Request) -> web.StreamResponse:
            socket = web.WebSocketResponse(protocols=WEBSOCKET_PROTOCOLS, max_msg_size=4 * 1024 * 1024)
            await socket.prepare(raw)
            channels = WebSocketChannels(socket)
            receiving = asyncio.create_task(channels.receive())
            try:
                await _run(start, channels, stdin=stdin, tty=tty, gone=receiving)
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
                await socket.close()
            return socket

        return Response(101, upgrade=over_websocket)
    if _is_spdy(call):
        version = next((one for one in _offered(call, "x-stream-protocol-version") if one in SPDY_PROTOCOLS), "")
        if not version:
            raise errors.bad_request(f"no protocol in common; the server speaks {', '.join(SPDY_PROTOCOLS)}")
        query = call.request.query
        expected = {"error"} | {name for name in ("stdin", "stdout", "stderr") if query.get(name) in _TRUE}
        if tty:
            expected |= {"resize"} if version != "v2.channel.k8s.io" else set()
            expected -= {"stderr"}

        async def over_spdy(raw: web.BaseRequest) -> web.StreamResponse:
            connection = take_over(raw, _switching(version))
            await _serve_spdy(connection, lambda spdy: _exec_streams(spdy, connection, expected, start, stdin, tty))
            return web.Response()

        return Response(101, upgrade=over_spdy)
    raise errors.bad_request("Upgrade request required")


def _switching(version: str) -> dict[str, str]:
    return {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": version}


async def _serve_spdy(connection: RawConnection, work: Callable[[SpdyConnection], Awaitable[None]]) -> None:
    """Feed a SPDY connection while ``work`` uses it; either end ends both."""
    spdy = SpdyConnection(connection.write)

    async def feed() -> None:
        with contextlib.suppress(SpdyError, ConnectionError):
            async for data in connection.read():
                await spdy.feed(data)
        await spdy.end()

    feeding = asyncio.create_task(feed())
    try:
        with contextlib.suppress(ConnectionError, TimeoutError, SpdyError):
            await work(spdy)
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await connection.close()


async def _exec_streams(
    spdy: SpdyConnection,
    connection: RawConnection,
    expected: set[str],
    start: Callable[[], Awaitable[Session]],
    stdin: bool,
    tty: bool,
) -> None:
    async def leave() -> None:
        await asyncio.sleep(0.05)  # let the client read the status before the connection goes

    channels = await SpdyChannels.open(spdy, expected, leave)
    await _run(start, channels, stdin=stdin, tty=tty, gone=None)


async def _run(
    start: Callable[[], Awaitable[Session]],
    channels: WebSocketChannels | SpdyChannels,
    *,
    stdin: bool,
    tty: bool,
    gone: asyncio.Task[None] | None,
) -> None:
    """Start the session and pump it; a failure to start is the status the client sees."""
    try:
        session = await start()
    except errors.ApiError as error:
        await channels.finish(error.to_status())
        return
    pumping = asyncio.create_task(pump(session, channels, stdin=stdin, tty=tty))
    try:
        watched = {pumping} if gone is None else {pumping, gone}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if pumping.done():
            with contextlib.suppress(ConnectionError):
                await pumping
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)


# -- port-forward --------------------------------------------------------------------------------------------------------


def _forwarded(call: Call, pod: Object, streams: PodStreams) -> Response:
    if _is_spdy(call):

        async def over_spdy(raw: web.BaseRequest) -> web.StreamResponse:
            connection = take_over(raw, _switching(_FORWARD))
            await _serve_spdy(connection, lambda spdy: _forward_streams(spdy, pod, streams))
            return web.Response()

        return Response(101, upgrade=over_spdy)
    if not _is_websocket(call):
        raise errors.bad_request("Upgrade request required")
    offered = _offered(call, "sec-websocket-protocol")
    if _TUNNEL in offered:

        async def over_tunnel(raw: web.Request) -> web.StreamResponse:
            socket = web.WebSocketResponse(protocols=(_TUNNEL,), max_msg_size=4 * 1024 * 1024)
            await socket.prepare(raw)
            spdy = SpdyConnection(socket.send_bytes)
            working = asyncio.create_task(_forward_streams(spdy, pod, streams))
            try:
                with contextlib.suppress(SpdyError, ConnectionError):
                    async for message in socket:
                        if message.type == WSMsgType.BINARY:
                            await spdy.feed(message.data)
            finally:
                await spdy.end()
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            return socket

        return Response(101, upgrade=over_tunnel)
    ports = [int(one) for one in call.request.queries.get("ports", []) for one in one.split(",") if one.isdigit()]
    if not ports:
        raise errors.bad_request('query parameter "ports" is required')

    async def over_channels(raw: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io", _FORWARD), max_msg_size=4 * 1024 * 1024)
        await socket.prepare(raw)
        await _forward_channels(socket, pod, streams, ports)
        return socket

    return Response(101, upgrade=over_channels)


async def _forward_streams(spdy: SpdyConnection, pod: Object, streams: PodStreams) -> None:
    """Pair the error and data streams of each forwarded connection by its request id, and carry it."""
    waiting: dict[str, Stream] = {}
    async with asyncio.TaskGroup() as group:
        async for stream in spdy.streams():
            kind, request = stream.headers.get("streamtype", ""), stream.headers.get("requestid", "")
            if kind == "error":
                waiting[request] = stream
            elif kind == "data":
                group.create_task(_forward_one(pod, streams, stream, waiting.pop(request, None)))


async def _forward_one(pod: Object, streams: PodStreams, data: Stream, error: Stream | None) -> None:
    port = data.headers.get("port", "")
    try:
        with contextlib.suppress(ConnectionError):
            try:
                session = await streams.port_forward(pod, int(port))
            except (errors.ApiError, ValueError, OSError) as problem:
                if error is not None:
                    await error.write(f"error forwarding port {port} to pod: {problem}".encode())
                return
            await _both_ways(session, data.read(), data.write)
    finally:
        with contextlib.suppress(ConnectionError):
            for stream in (error, data):
                if stream is not None:
                    await stream.end()


async def _both_ways(
    session: Session, incoming: AsyncIterator[bytes], outgoing: Callable[[bytes], Awaitable[None]]
) -> None:
    async def upload() -> None:
        async for chunk in incoming:
            await session.write(chunk)
        await session.end_input()

    uploading = asyncio.create_task(upload())
    try:
        async for _, chunk in session.read():
            await outgoing(chunk)
    finally:
        uploading.cancel()
        await asyncio.gather(uploading, return_exceptions=True)
        await session.close()


async def _forward_channels(socket: web.WebSocketResponse, pod: Object, streams: PodStreams, ports: list[int]) -> None:
    """The older WebSocket form: two channels per port, data and error, each begun with the port's number."""
    queues: list[asyncio.Queue[bytes | None]] = [asyncio.Queue(64) for _ in ports]

    async def incoming(index: int) -> AsyncIterator[bytes]:
        while (chunk := await queues[index].get()) is not None:
            yield chunk

    async def carry(index: int, port: int) -> None:
        for channel in (2 * index, 2 * index + 1):
            await socket.send_bytes(bytes([channel]) + struct.pack("<H", port))
        try:
            session = await streams.port_forward(pod, port)
        except errors.ApiError as error:
            await socket.send_bytes(bytes([2 * index + 1]) + str(error).encode())
            return
        await _both_ways(session, incoming(index), lambda chunk: socket.send_bytes(bytes([2 * index]) + chunk))

    tasks = [asyncio.create_task(carry(index, port)) for index, port in enumerate(ports)]
    try:
        async for message in socket:
            if message.type == WSMsgType.BINARY and message.data and message.data[0] // 2 < len(queues):
                await queues[message.data[0] // 2].put(message.data[1:])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
