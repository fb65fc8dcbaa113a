"""A program in a container over one WebSocket: Kubernetes' ``v5.channel.k8s.io`` (and v4, which cannot close stdin).

Every message begins with the number of its channel: 0 stdin, 1 stdout, 2 stderr, 3 the end as a Status, 4 the size of the
terminal as JSON, 255 closes another channel (KEP-4006). Our terminal is raw while a program has it, and always put back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import orjson
from yarl import URL

from fleetplane.client.credentials import Credentials
from fleetplane.client.http import tls_context
from fleetplane.client.kubeconfig import ConfigError
from fleetplane.client.protocol import ROOT
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.podselect import PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name, namespace

PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK: Final = 32 * 1024
_PING_SECONDS: Final = 30.0
_MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024


async def execute(
    session: Session, pod: Object, container: str, command: Sequence[str], *, stdin: bool, tty: bool
) -> int:
    """Run it to its end; returns its exit code. Raises CommandError, ApiError."""
    has_terminal = tty and stdin and sys.stdin.isatty()
    if tty and stdin and not has_terminal:
        session.out.warn("Our input is not a terminal, so the program gets none either.")
    tty = tty and (has_terminal or not stdin)
    query = [("container", container), ("stdout", "true"), *(("command", word) for word in command)]
    query += [("stdin", "true")] if stdin else []
    query += [("tty", "true")] if tty else [("stderr", "true")]
    async with _connected(session, PODS.path(namespace(pod), name(pod), "exec"), query) as socket:
        with _raw_terminal() if has_terminal else contextlib.nullcontext():
            return await _run(socket, stdin=stdin, resizes=has_terminal)


@contextlib.asynccontextmanager
async def _connected(
    session: Session, path: str, query: list[tuple[str, str]]
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    access = session.access
    credential = await Credentials(access, session.environment).current()
    headers = {"Authorization": credential.authorization} if credential.authorization else {}
    if access.act_as:
        headers["Impersonate-User"] = access.act_as
    prefix = "" if session.client.cluster in {None, ROOT} else f"/clusters/{session.client.cluster}"
    base, connector = access.server, None
    if base.startswith("unix://"):
        base, connector = "http://localhost", aiohttp.UnixConnector(path=base.removeprefix("unix://"))
    url = URL(f"{base}{quote(prefix + path)}?{urlencode(query)}", encoded=True)
    secure = tls_context(access, credential.certificate, credential.key) if urlsplit(base).scheme == "https" else True
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
        try:
            socket = await http.ws_connect(
                url,
                protocols=PROTOCOLS,
                headers=headers,
                ssl=secure,
                proxy=access.proxy_url or None,
                server_hostname=access.tls_server_name or None,
                max_msg_size=_MAX_MESSAGE_BYTES,
                heartbeat=_PING_SECONDS,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise await _refusal(session, path, query, error) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CommandError(f"cannot reach {access.server}: {error}") from None
        async with socket:
            if socket.protocol not in PROTOCOLS:
                raise CommandError("the server does not speak a protocol for running programs that we know")
            yield socket


async def _refusal(
    session: Session, path: str, query: list[tuple[str, str]], error: aiohttp.WSServerHandshakeError
) -> CommandError | ApiError:
    """Why the server did not open the connection. The handshake hides the answer's body, so the request is put plainly."""
    if error.status in {401, 403, 404, 400, 500, 503}:
        try:
            await session.client.raw("GET", path, query=query)
        except (ApiError, ConfigError) as plain:
            if isinstance(plain, ApiError) and plain.code == error.status:
                return plain
    return CommandError(f"the server does not let us run a program there: it answered {error.status} {error.message}")


async def _run(socket: aiohttp.ClientWebSocketResponse, *, stdin: bool, resizes: bool) -> int:
    feeding = asyncio.create_task(_feed(socket)) if stdin else None
    undo = _watch_size(socket) if resizes else None
    try:
        return await _receive(socket)
    finally:
        if undo is not None:
            undo()
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait([feeding])


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> int:
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == STDOUT:
            _write(sys.stdout.fileno(), data)
        elif channel == STDERR:
            _write(sys.stderr.fileno(), data)
        elif channel == ERROR:
            return exit_code(orjson.loads(data))
    raise CommandError("the connection to the program was lost before it ended")


def exit_code(status: Object) -> int:
    """The code in the Status that ends a program. Raises CommandError when it could not be run at all."""
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return int(cause["message"])
    raise CommandError(f"the program could not be run: {status.get('message') or 'no reason is given'}")


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


async def _feed(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Our standard input to the program, until it ends."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    descriptor = sys.stdin.fileno()
    try:
        loop.add_reader(descriptor, readable.set)
    except (PermissionError, ValueError, NotImplementedError):
        # Regular files are always readable and cannot be waited for.
        while data := await asyncio.to_thread(os.read, descriptor, _CHUNK):
            await socket.send_bytes(bytes([STDIN]) + data)
    else:
        try:
            while True:
                await readable.wait()
                readable.clear()
                data = os.read(descriptor, _CHUNK)
                if not data:
                    break
                await socket.send_bytes(bytes([STDIN]) + data)
        finally:
            loop.remove_reader(descriptor)
    if socket.protocol == PROTOCOLS[0]:
        await socket.send_bytes(bytes([CLOSE, STDIN]))


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _watch_size(socket: aiohttp.ClientWebSocketResponse) -> Callable[[], None]:
    """Tell the program the size of our terminal, now and whenever it changes; returns what ends that."""
    loop = asyncio.get_running_loop()
    sending: set[asyncio.Task[None]] = set()

    def send() -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        body = orjson.dumps({"Width": size.columns, "Height": size.lines})
        task = loop.create_task(socket.send_bytes(bytes([RESIZE]) + body))
        sending.add(task)
        task.add_done_callback(sending.discard)

    def undo() -> None:
        loop.remove_signal_handler(signal.SIGWINCH)
        for task in sending:
            task.cancel()

    with contextlib.suppress(OSError):
        send()
    loop.add_signal_handler(signal.SIGWINCH, send)
    return undo
