"""The server's end of the nodes' tunnels: a ``PodStreams`` for every node that has dialled in.

A node opens a WebSocket on ``/apis/fleetplane.io/v1/nodetunnels/<its name>`` and keeps it; the server opens channels on it
as clients ask for logs or an exec. Only the node itself may open its tunnel: who could open another's would be shown what
is typed into that node's pods. A node is not trusted: what it sends is bounded, and only answers what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Literal

from aiohttp import WSMsgType, web

from fleetplane.apiserver.authorization.node import node_of
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.encoding import CLUSTER_ANNOTATION
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.registry import Served, Storage
from fleetplane.apiserver.routing import ROOT_CLUSTER
from fleetplane.apiserver.streaming.protocol import LogQuery
from fleetplane.apiserver.streaming.reported import ReportedUsage, parse_usage
from fleetplane.model import errors, objects
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.multiplex import Channel, Lost, Multiplexer
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.tunnel import (
    MAX_MESSAGE,
    PROTOCOL,
    Frame,
    Kind,
    Opening,
    TunnelError,
    parse_code,
    parse_object,
    size_payload,
)

NODE_TUNNELS: Final = ResourceType("fleetplane.io", "v1", "NodeTunnel", "nodetunnels", False)
HEARTBEAT_SECONDS: Final = 15.0
OPEN_SECONDS: Final = 30.0
USAGE_SECONDS: Final = 5.0
_MAX_USAGE: Final = 4 * 1024 * 1024


class NodeTunnels:
    """The tunnels that are open now, by node. A node that dials in again takes the place of its older connection."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[web.WebSocketResponse, TunnelStreams]] = {}

    def streams_of(self, node: str) -> TunnelStreams | None:
        found = self._open.get(node)
        return None if found is None else found[1]

    async def usage_of(self, node: str) -> ReportedUsage | None:
        """What the node says it uses; None when it cannot be asked or does not answer in time."""
        streams = self.streams_of(node)
        if streams is None:
            return None
        try:
            async with asyncio.timeout(USAGE_SECONDS):
                return await streams.usage()
        except (TimeoutError, errors.ApiError):
            return None

    async def close(self) -> None:
        """End every tunnel, so that nodes look for another server at once."""
        for socket, _ in list(self._open.values()):
            await socket.close(code=1001, message=b"the server stops")

    def served(self) -> Served:
        """The resource, as every registry serves it: it is opened, and neither listed nor kept."""
        return Served(
            type=NODE_TUNNELS,
            storage=Storage(NODE_TUNNELS.group, NODE_TUNNELS.plural, NODE_TUNNELS.version),
            behaviour=KindBehaviour(has_generation=False, status_subresource=False),
            verbs=("get",),
            custom=True,
            preferred=True,
            handler=self._handle,
        )

    async def _handle(self, call: Call) -> Response:
        node = call.target.name
        if node_of(call.user) != node or call.target.cluster != ROOT_CLUSTER:
            message = f"only the node {node} itself may open its tunnel"
            raise errors.forbidden(message, group=NODE_TUNNELS.group, resource=NODE_TUNNELS.plural, name=node)
        if call.request.headers.get("upgrade", "").lower() != "websocket":
            raise errors.bad_request("Upgrade request required: a tunnel is a WebSocket")

        async def serve(raw: web.Request) -> web.StreamResponse:
            socket = web.WebSocketResponse(
                protocols=(PROTOCOL,), max_msg_size=MAX_MESSAGE, heartbeat=HEARTBEAT_SECONDS, compress=False
            )
            await socket.prepare(raw)
            if socket.ws_protocol != PROTOCOL:
                await socket.close(code=1002, message=f"this server speaks {PROTOCOL}".encode())
                return socket
            await self._serve(node, socket)
            return socket

        return Response(101, upgrade=serve)

    async def _serve(self, node: str, socket: web.WebSocketResponse) -> None:
        multiplexer = Multiplexer(socket.send_bytes)
        before = self._open.get(node)
        mine = self._open[node] = (socket, TunnelStreams(node, multiplexer))
        try:
            if before is not None:
                await before[0].close(code=1000, message=b"the node has dialled in again")
            async for message in socket:
                if message.type is not WSMsgType.BINARY:
                    break
                multiplexer.receive(message.data)
        except TunnelError as error:
            await socket.close(code=1002, message=str(error).encode())
        finally:
            if self._open.get(node) is mine:
                del self._open[node]
            multiplexer.end()


class TunnelStreams:
    """A ``PodStreams`` over one node's connection."""

    def __init__(self, node: str, multiplexer: Multiplexer) -> None:
        self._node = node
        self._multiplexer = multiplexer

    async def logs(self, pod: Object, container: str, query: LogQuery) -> AsyncIterator[bytes]:
        if query.since_time:
            try:
                parse_timestamp(query.since_time)
            except ValueError:
                raise errors.bad_request(f"sinceTime must be an RFC 3339 time, not {query.since_time!r}") from None
        options = {
            "container": container,
            "follow": query.follow,
            "previous": query.previous,
            "timestamps": query.timestamps,
            "since_seconds": query.since_seconds,
            "since_time": query.since_time,
            "tail_lines": query.tail_lines,
            "limit_bytes": query.limit_bytes,
        }
        return _Output(await self._open("logs", pod, options), self._node)

    async def exec(
        self, pod: Object, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> TunnelSession:
        options = {"container": container, "command": list(command), "stdin": stdin, "tty": tty}
        return TunnelSession(await self._open("exec", pod, options), self._node)

    async def attach(self, pod: Object, container: str, *, stdin: bool, tty: bool) -> TunnelSession:
        options = {"container": container, "stdin": stdin, "tty": tty}
        return TunnelSession(await self._open("attach", pod, options), self._node)

    async def port_forward(self, pod: Object, port: int) -> TunnelSession:
        return TunnelSession(await self._open("port-forward", pod, {"port": port}), self._node)

    async def usage(self) -> ReportedUsage:
        """Raises ApiError."""
        output = _Output(await self._open("usage", None, {}), self._node)
        found = bytearray()
        try:
            async for piece in output:
                found += piece
                if len(found) > _MAX_USAGE:
                    raise errors.internal(f"the node {self._node} reports more usage than can be read")
            return parse_usage(bytes(found))
        except (ConnectionError, TunnelError) as error:
            raise errors.unavailable(str(error)) from None
        finally:
            await output.aclose()

    async def _open(self, what: str, pod: Object | None, options: dict[str, Any]) -> Channel:
        """A channel that is ready. Raises ApiError: the node's refusal, or that it cannot be reached."""
        payload = Opening(what, {} if pod is None else _reference(pod), options).encode()
        try:
            channel = await self._multiplexer.open(payload)
        except (ConnectionError, ValueError) as error:
            raise errors.unavailable(f"the node {self._node} cannot be asked now: {error}") from None
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                frame = await channel.receive()
            if frame is not None and frame.kind is Kind.READY:
                return channel
            raise self._refusal(frame)
        except TimeoutError:
            await channel.close()
            raise errors.timeout(f"the node {self._node} did not answer in {OPEN_SECONDS:.0f} seconds") from None
        except BaseException:
            await channel.close()
            raise

    def _refusal(self, frame: Frame | None) -> errors.ApiError:
        if frame is None or frame.kind is not Kind.FAILED:
            return errors.unavailable(f"the connection to the node {self._node} was lost; try again")
        return _failure(frame)


class TunnelSession:
    """An exec, attach or forwarded connection on the node."""

    def __init__(self, channel: Channel, node: str) -> None:
        self._channel = channel
        self._node = node
        self._end: Frame | None = None

    async def read(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        async for frame in self._channel.frames():
            if frame.kind is Kind.STDOUT:
                yield "stdout", frame.payload
            elif frame.kind is Kind.STDERR:
                yield "stderr", frame.payload
            else:
                self._end = frame
                return

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(Lost):  # the end of the output tells it
            await self._channel.send_data(Kind.STDIN, data)

    async def end_input(self) -> None:
        with contextlib.suppress(Lost):
            await self._channel.send(Kind.END_INPUT)

    async def resize(self, width: int, height: int) -> None:
        with contextlib.suppress(Lost):
            await self._channel.send(Kind.RESIZE, size_payload(width, height))

    async def exit_code(self) -> int:
        """Raises ApiError when the node went away or failed before the command ended."""
        if self._end is not None and self._end.kind is Kind.EXIT:
            with contextlib.suppress(TunnelError):
                return parse_code(self._end.payload)
        if self._end is not None and self._end.kind is Kind.FAILED:
            raise _failure(self._end)
        raise errors.unavailable(f"the connection to the node {self._node} was lost before the command ended")

    async def close(self) -> None:
        await self._channel.close()


class _Output:
    """The bytes of a channel that only brings some. Raises ConnectionResetError when it ends before it was told to."""

    def __init__(self, channel: Channel, node: str) -> None:
        self._channel = channel
        self._node = node
        self._over = False

    def __aiter__(self) -> _Output:
        return self

    async def __anext__(self) -> bytes:
        frame = None if self._over else await self._channel.receive()
        if frame is not None and frame.kind is Kind.STDOUT:
            return frame.payload
        ended, self._over = self._over, True
        await self._channel.close()
        if ended or (frame is not None and frame.kind is Kind.EXIT):
            raise StopAsyncIteration
        raise ConnectionResetError(f"the connection to the node {self._node} was lost")

    async def aclose(self) -> None:
        self._over = True
        await self._channel.close()


def _reference(pod: Object) -> dict[str, str]:
    return {
        "namespace": objects.namespace(pod),
        "name": objects.name(pod),
        "uid": objects.uid(pod),
        "cluster": objects.annotations(pod).get(CLUSTER_ANNOTATION, ROOT_CLUSTER),
    }


def _failure(frame: Frame) -> errors.ApiError:
    try:
        return errors.ApiError.from_status(parse_object(frame.payload))
    except (TunnelError, ValueError, TypeError, AttributeError):
        return errors.internal("the node failed and did not say why")
