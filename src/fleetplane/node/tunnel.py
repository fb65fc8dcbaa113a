"""The node's end of its tunnel: it dials the server, and answers what the server asks about its pods.

The connection is the node's own, out through whatever NAT there is, under its own identity; nothing listens on the node.
It is made again whenever it ends, a little later each time and never in step with other nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from fleetplane.client.credentials import Credentials
from fleetplane.client.http import tls_context
from fleetplane.client.kubeconfig import Access
from fleetplane.model.environment import Environment, parse_timestamp
from fleetplane.model.errors import ApiError, bad_request, internal
from fleetplane.model.multiplex import Channel, Multiplexer
from fleetplane.model.tunnel import (
    MAX_MESSAGE,
    PROTOCOL,
    Kind,
    Opening,
    TunnelError,
    code_payload,
    parse_size,
)
from fleetplane.node.runtime import RuntimeFailure, Session, Terminal
from fleetplane.node.stats import NodeUse
from fleetplane.node.streams import ExecRequest, LogRequest, NodeStreams, PodRef

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientWebSocketResponse

HEARTBEAT_SECONDS: Final = 15.0
FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 10.0
"""A connection that held this long was a good one: the next delay is short again."""

_log = logging.getLogger(__name__)
UsageNow = Callable[[], Awaitable[NodeUse | None]]


async def keep_tunnel(
    access: Access, environment: Environment, node: str, streams: NodeStreams, usage: UsageNow
) -> None:
    """Keep a tunnel to the server open until cancelled. Raises ConfigError for credentials that cannot be used."""
    from aiohttp import ClientError  # noqa: PLC0415 - takes a while to import, and most nodes need none

    credentials = Credentials(access, environment)
    answerer = Answerer(streams, usage)
    delay = FIRST_DELAY_SECONDS
    told = False
    while True:
        started = environment.monotonic()
        try:
            why = await _connected(access, credentials, node, answerer)
        except (ClientError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
        if environment.monotonic() - started >= STEADY_SECONDS:
            delay, told = FIRST_DELAY_SECONDS, False
        if not told:
            _log.warning("there is no tunnel to %s, trying again: %s", access.server, why)
            told = True
        await asyncio.sleep(delay * environment.random.uniform(0.5, 1.0))
        delay = min(delay * 2, LONGEST_DELAY_SECONDS)


async def _connected(access: Access, credentials: Credentials, node: str, answerer: Answerer) -> str:
    """One connection, from dialling to its end; why it ended."""
    from aiohttp import ClientWSTimeout  # noqa: PLC0415 - see above

    credential = await credentials.current()
    headers = {"Authorization": credential.authorization} if credential.authorization else {}
    secured = access.server.startswith("https://")
    async with _session(access) as session:
        async with asyncio.timeout(30):
            socket = await session.ws_connect(
                _address(access, node),
                protocols=(PROTOCOL,),
                headers=headers,
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=MAX_MESSAGE,
                timeout=ClientWSTimeout(ws_close=2.0),
                ssl=tls_context(access, credential.certificate, credential.key) if secured else True,
                server_hostname=access.tls_server_name or None,
                proxy=access.proxy_url or None,
            )
        async with socket:
            _log.info("the tunnel to %s is open", access.server)
            return await serve_tunnel(socket, answerer)


def _session(access: Access) -> ClientSession:
    from aiohttp import ClientSession, UnixConnector  # noqa: PLC0415 - see above

    if access.server.startswith("unix://"):
        return ClientSession(connector=UnixConnector(access.server[len("unix://") :]))
    local = urlsplit(access.server).hostname in {"localhost", "127.0.0.1", "::1"}
    return ClientSession(trust_env=not local)


def _address(access: Access, node: str) -> str:
    base = "http://localhost" if access.server.startswith("unix://") else access.server.rstrip("/")
    return f"{base}/apis/fleetplane.io/v1/nodetunnels/{quote(node, safe='')}"


async def serve_tunnel(socket: ClientWebSocketResponse, answerer: Answerer) -> str:
    """Answer on an open connection until it ends; why it ended."""
    from aiohttp import WSMsgType  # noqa: PLC0415 - see above

    async with asyncio.TaskGroup() as group:
        answering: set[asyncio.Task[None]] = set()

        def accept(channel: Channel, payload: bytes) -> None:
            task = group.create_task(answerer.answer(channel, payload))
            answering.add(task)
            task.add_done_callback(answering.discard)

        multiplexer = Multiplexer(socket.send_bytes, accept)
        try:
            async for message in socket:
                if message.type is not WSMsgType.BINARY:
                    break
                multiplexer.receive(message.data)
        except TunnelError as error:
            await socket.close(code=1002, message=str(error).encode())
            return f"the server broke the protocol: {error}"
        finally:
            multiplexer.end()
            for task in list(answering):
                task.cancel()
    return f"the connection was closed (code {socket.close_code})"


class Answerer:
    """Turns the channels a server opens into calls of ``NodeStreams``."""

    def __init__(self, streams: NodeStreams, usage: UsageNow) -> None:
        self._streams = streams
        self._usage = usage

    async def answer(self, channel: Channel, payload: bytes) -> None:
        """Serve one channel until either side is done with it. Raises nothing but cancellation."""
        work = asyncio.create_task(self._answer(channel, payload))
        gone = asyncio.create_task(channel.gone.wait())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            await channel.close()

    async def _answer(self, channel: Channel, payload: bytes) -> None:
        try:
            try:
                await self._serve(channel, Opening.decode(payload))
            except ApiError as error:
                await _fail(channel, error)
            except (TunnelError, TypeError, ValueError) as error:
                await _fail(channel, bad_request(f"the node does not understand the request: {error}"))
            except RuntimeFailure as error:
                await _fail(channel, internal(error.message))
        except ConnectionError:
            return  # nobody is there to be told
        except Exception:  # one request must not end the tunnel of all others
            _log.exception("a request of the server failed unexpectedly")
            with contextlib.suppress(ConnectionError):
                await _fail(channel, internal("the node met an error it did not expect; its log has the details"))

    async def _serve(self, channel: Channel, opening: Opening) -> None:
        options = opening.options
        match opening.what:
            case "usage":
                await _pour(channel, _one(_usage_report(await self._usage())))
            case "logs":
                await _pour(channel, await self._streams.logs(_pod(opening.pod), _log_request(options)))
            case "exec":
                await _converse(channel, await self._streams.exec(_pod(opening.pod), _exec_request(options)))
            case "attach":
                await _converse(channel, await self._streams.attach(_pod(opening.pod), _exec_request(options)))
            case "port-forward":
                session = await self._streams.port_forward(_pod(opening.pod), int(options.get("port") or 0))
                await _converse(channel, session)
            case other:
                raise bad_request(f"the node does not know requests for {other!r}; it may be older than the server")


async def _pour(channel: Channel, pieces: AsyncIterator[bytes]) -> None:
    try:
        await channel.send(Kind.READY)
        async for piece in pieces:
            await channel.send_data(Kind.STDOUT, piece)
        await channel.send(Kind.EXIT, code_payload(0))
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def _converse(channel: Channel, session: Session) -> None:
    """Carry a session both ways until its output ends."""
    listening: asyncio.Task[None] | None = None
    try:
        await channel.send(Kind.READY)
        listening = asyncio.create_task(_listen(channel, session))
        async for name, data in session.read():
            await channel.send_data(Kind.STDOUT if name == "stdout" else Kind.STDERR, data)
        await channel.send(Kind.EXIT, code_payload(await session.exit_code()))
    finally:
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        await session.close()


async def _listen(channel: Channel, session: Session) -> None:
    """What the client sends. A command that no longer reads is no failure: its end will be told."""
    with contextlib.suppress(ConnectionError, RuntimeFailure, TunnelError):
        async for frame in channel.frames():
            match frame.kind:
                case Kind.STDIN:
                    await session.write(frame.payload)
                case Kind.END_INPUT:
                    await session.end_input()
                case Kind.RESIZE:
                    await session.resize(Terminal(*parse_size(frame.payload)))


async def _fail(channel: Channel, error: ApiError) -> None:
    await channel.send(Kind.FAILED, json.dumps(error.to_status()).encode()[: 64 * 1024])


def _pod(data: Mapping[str, Any]) -> PodRef:
    namespace, name, uid, cluster = (str(data.get(key) or "") for key in ("namespace", "name", "uid", "cluster"))
    return PodRef(namespace, name, uid, cluster or "root")


def _log_request(options: Mapping[str, Any]) -> LogRequest:
    """Raises ValueError."""
    since = options.get("since_time")
    return LogRequest(
        container=str(options.get("container") or ""),
        follow=bool(options.get("follow")),
        previous=bool(options.get("previous")),
        timestamps=bool(options.get("timestamps")),
        since_seconds=_number(options.get("since_seconds")),
        since_time=parse_timestamp(str(since)) if since else None,
        tail_lines=_number(options.get("tail_lines")),
        limit_bytes=_number(options.get("limit_bytes")),
    )


def _exec_request(options: Mapping[str, Any]) -> ExecRequest:
    command = tuple(str(word) for word in options.get("command") or ())
    return ExecRequest(
        str(options.get("container") or ""), command, bool(options.get("stdin")), bool(options.get("tty"))
    )


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _usage_report(use: NodeUse | None) -> bytes:
    use = use or NodeUse()
    containers = [
        {
            "pod_uid": one.pod_uid,
            "name": one.name,
            "cpu_nanocores": one.cpu_nanocores,
            "memory_bytes": one.memory_bytes,
        }
        for one in use.containers
    ]
    report = {
        "time": None if use.time is None else use.time.isoformat(),
        "window_seconds": use.window_seconds,
        "cpu_nanocores": use.cpu_nanocores,
        "memory_bytes": use.memory_bytes,
        "containers": containers,
    }
    return json.dumps(report).encode()


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data
