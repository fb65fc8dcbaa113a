"""Connections to an aggregated server that switch protocols, over real TLS on both sides."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from tests.apiserver.aggregation.documents import BASE
from tests.apiserver.aggregation.elsewhere import elsewhere

from fleetplane.apiserver.aggregation import proxying
from fleetplane.apiserver.aggregation.switching import Answer, switch, wanted_protocol
from fleetplane.apiserver.aggregation.tunnelling import carry
from fleetplane.apiserver.frontend import Frontend
from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.outgoing import CallFailed, Destination, Outgoing
from fleetplane.apiserver.pki import server_context
from fleetplane.apiserver.streaming.upgrade import RawConnection, take_over
from fleetplane.model.user import MASTERS_GROUP, UserInfo
from fleetplane.testing.plane import TestServer

EXEC = f"{BASE}/namespaces/default/gadgets/one/exec"
ANN = UserInfo("ann", groups=(MASTERS_GROUP, "system:authenticated"))
MUCH = b"0123456789abcdef" * 64 * 1024
Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Way:
    """From a client to the other server: ``port`` is ours; ``serve`` is what the other does with a request."""

    port: int
    other: Any
    frontend: Frontend
    context: ssl.SSLContext
    certificates: list[bytes | None] = field(default_factory=list)

    def serve(self, serve: Serve) -> None:
        self.other.serve = serve

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}{EXEC}"

    async def connect(
        self, *more: str, protocol: str = "SPDY/3.1", query: str = ""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which the request to switch has been sent."""
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=self.context)
        lines = [
            f"POST {EXEC}{query} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            f"Upgrade: {protocol}",
            *more,
        ]
        writer.write("\r\n".join([*lines, "Content-Length: 0", "", ""]).encode())
        return reader, writer


@pytest_asyncio.fixture
async def way(api: TestServer) -> AsyncIterator[Way]:
    async def handle(request: Request) -> Response:
        request.in_process_user = ANN
        return await api.server.handle(request)

    frontend = Frontend(handle)
    port = await frontend.listen("127.0.0.1", 0, server_context(api.pki))
    context = ssl.create_default_context(cadata=api.pki.authority_pem.decode())
    try:
        async with elsewhere(api) as (_, other):
            yield Way(port, other, frontend, context)
    finally:
        await frontend.close(0.1)


@asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


def spdy(work: Callable[[RawConnection], Awaitable[None]]) -> Serve:
    """A server that switches to SPDY, and then does ``work``."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
        connection = take_over(request, headers)
        try:
            await work(connection)
        finally:
            await connection.close()
        return web.Response()

    return serve


async def echo(connection: RawConnection) -> None:
    async for data in connection.read():
        await connection.write(data)


async def test_a_websocket_goes_through_as_the_user_who_opened_it(way: Way) -> None:
    seen: list[web.BaseRequest] = []

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request)
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(b"you said " + message.data)
        return socket

    way.serve(serve)
    offered = ("base64url.bearer.authorization.k8s.io.c2VjcmV0", "v5.channel.k8s.io")
    headers = {"Authorization": "Bearer secret", "X-Remote-User": "root", "X-Custom": "kept"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            way.url + "?command=sh&command=-c", protocols=offered, headers=headers, ssl=way.context
        ) as client,
    ):
        await client.send_bytes(b"hello")
        answer = await client.receive_bytes()
        chosen = client.protocol

    assert (answer, chosen) == (b"you said hello", "v5.channel.k8s.io")
    request = seen[0]
    assert (request.path, request.query.getall("command")) == (EXEC, ["sh", "-c"])
    assert request.headers.getall("X-Remote-User") == ["ann"]
    assert request.headers["X-Custom"] == "kept"
    assert request.headers["Sec-WebSocket-Protocol"] == "v5.channel.k8s.io"
    assert "Authorization" not in request.headers


async def test_spdy_goes_through_byte_by_byte(way: Way) -> None:
    way.serve(spdy(echo))
    reader, writer = await way.connect("X-Stream-Protocol-Version: v4.channel.k8s.io")
    async with closing(writer):
        head = await head_of(reader)
        writer.write(MUCH)
        answer = await reader.readexactly(len(MUCH))

    assert head.startswith("HTTP/1.1 101 ")
    assert "Upgrade: SPDY/3.1\r\n" in head
    assert "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in head
    assert answer == MUCH


async def test_what_a_server_says_with_its_switch_is_not_lost(way: Way) -> None:
    async def greet(connection: RawConnection) -> None:
        await connection.write(b"at once")
        await echo(connection)

    way.serve(spdy(greet))
    reader, writer = await way.connect()
    async with closing(writer):
        await head_of(reader)
        assert await reader.readexactly(7) == b"at once"


async def test_what_a_server_says_last_arrives(way: Way) -> None:
    async def speak(connection: RawConnection) -> None:
        await connection.write(MUCH)

    way.serve(spdy(speak))
    reader, writer = await way.connect()
    async with closing(writer):
        await head_of(reader)
        assert await reader.read(-1) == MUCH


async def test_what_a_client_says_last_arrives(way: Way) -> None:
    heard = asyncio.get_running_loop().create_future()

    async def listen(connection: RawConnection) -> None:
        heard.set_result(b"".join([data async for data in connection.read()]))

    way.serve(spdy(listen))
    reader, writer = await way.connect()
    await head_of(reader)
    writer.write(MUCH)
    writer.close()

    assert await heard == MUCH


async def test_who_does_not_read_is_not_read_for(way: Way) -> None:
    written = 0

    async def flood(connection: RawConnection) -> None:
        nonlocal written
        for _ in range(64):
            await connection.write(MUCH)
            written += 1

    way.serve(spdy(flood))
    reader, writer = await way.connect()
    async with closing(writer):
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.3)
        await head_of(reader)
        rest = await reader.read(-1)

    assert before < 40
    assert len(rest) == 64 * len(MUCH)


async def test_a_client_that_leaves_ends_it(way: Way) -> None:
    ended = asyncio.Event()

    async def listen(connection: RawConnection) -> None:
        async for _ in connection.read():
            pass
        ended.set()

    way.serve(spdy(listen))
    reader, writer = await way.connect()
    await head_of(reader)
    writer.transport.abort()

    await ended.wait()


async def test_our_end_ends_it_on_both_sides(way: Way) -> None:
    way.serve(spdy(echo))
    reader, writer = await way.connect()
    async with closing(writer):
        await head_of(reader)

        await way.frontend.close(0.1)

        assert await reader.read(-1) == b""


async def test_a_connection_on_which_nothing_moves_is_ended(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxying, "carry", partial(carry, idle=0.1))
    way.serve(spdy(echo))
    reader, writer = await way.connect()
    async with closing(writer):
        await head_of(reader)
        assert await reader.read(-1) == b""


async def test_a_server_that_does_not_switch_is_heard(way: Way) -> None:
    async def refuse(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "message": "no"}, status=403, headers={"X-Special": "yes"})

    way.serve(refuse)
    reader, writer = await way.connect()
    async with closing(writer):
        head = await head_of(reader)
        body = await reader.readexactly(34)

    assert head.startswith("HTTP/1.1 403 ")
    assert "X-Special: yes\r\n" in head
    assert body == b'{"kind": "Status", "message": "no"}'[:34]


@pytest.mark.parametrize("upgrade", ["SPDY/3.1", ""])
async def test_nobody_is_sent_elsewhere(way: Way, upgrade: str) -> None:
    async def send_away(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "https://evil.example.com/"})

    way.serve(send_away)
    reader, writer = await way.connect(protocol=upgrade)
    async with closing(writer):
        head = await head_of(reader)

    assert head.startswith("HTTP/1.1 502 ")
    assert "evil" not in head


async def test_a_switch_to_something_else_is_refused(way: Way) -> None:
    async def trick(request: web.BaseRequest) -> web.StreamResponse:
        await take_over(request, {"Connection": "Upgrade", "Upgrade": "h2c"}).close()
        return web.Response()

    way.serve(trick)
    reader, writer = await way.connect()
    async with closing(writer):
        assert (await head_of(reader)).startswith("HTTP/1.1 503 ")


async def test_only_so_many_are_open_at_once(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxying, "MAX_CARRIED", 1)
    way.serve(spdy(echo))
    reader, writer = await way.connect()
    async with closing(writer):
        await head_of(reader)
        second, other = await way.connect()
        async with closing(other):
            assert (await head_of(second)).startswith("HTTP/1.1 429 ")
    await reader.read(-1)

    for _ in range(200):  # until the first has ended on our side too
        third, last = await way.connect()
        async with closing(last):
            head = await head_of(third)
        if " 101 " in head:
            break
        await asyncio.sleep(0.02)
    assert head.startswith("HTTP/1.1 101 ")


async def test_a_protocol_that_carries_requests_is_not_passed_on(way: Way) -> None:
    async def tell(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"asked": request.headers.get("Upgrade", "nothing")})

    way.serve(tell)
    reader, writer = await way.connect("HTTP2-Settings: AAMAAABkAAQAAP__", protocol="h2c")
    async with closing(writer):
        head = await head_of(reader)
        assert head.startswith("HTTP/1.1 200 ")
        assert await reader.readexactly(20) == b'{"asked": "nothing"}'


async def test_without_a_connection_there_is_nothing_to_switch(api: TestServer) -> None:
    async with elsewhere(api):
        code, answer = await api.call("GET", EXEC, headers={"connection": "Upgrade", "upgrade": "websocket"})

    assert (code, answer["message"]) == (400, "there is no connection that could switch protocols")


@pytest.mark.parametrize(
    ("connection", "upgrade", "wanted"),
    [
        ("Upgrade", "websocket", "websocket"),
        ("keep-alive, upgrade", "SPDY/3.1", "SPDY/3.1"),
        ("keep-alive", "websocket", ""),
        ("Upgrade", "websocket, h2c", ""),
        ("Upgrade", "h2c", ""),
        ("", "", ""),
    ],
)
def test_what_counts_as_a_request_to_switch(connection: str, upgrade: str, wanted: str) -> None:
    assert wanted_protocol({"connection": connection, "upgrade": upgrade}) == wanted


# -- answers, as servers may write them ------------------------------------------------------------------------------------


class _Said:
    """An ``Outgoing`` and a writer in one: whoever connects is told what was given."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.transport = self

    async def connect(self, *_: Any) -> tuple[asyncio.StreamReader, Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(self.said)
        reader.feed_eof()
        return reader, self

    def write(self, _: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    async def drain(self) -> None: ...
    async def wait_closed(self) -> None: ...


async def answer_of(said: bytes, **more: Any) -> Answer:
    given = {"protocol": "websocket", "method": "GET", "path": "/", "headers": [], "body": b"", **more}
    where = Destination("localhost", 1, "there", "there", "/", confined=False)
    return await switch(cast(Outgoing, _Said(said)), where, ssl.create_default_context(), **given)


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nnot", 404, b"not"),
        (b"HTTP/1.0 404\r\n\r\nuntil the end", 404, b"until the end"),
        (b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 400, b"abcde"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\nContent-Length: 9\r\n\r\n", 204, b""),
    ],
)
async def test_an_answer_is_read_however_it_ends(said: bytes, status: int, body: bytes) -> None:
    answer = await answer_of(said)

    assert (answer.status, answer.body, answer.connection) == (status, body, None)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"", "EOF"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "EOF"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP response 'SSH"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "is no header"),
        (b"HTTP/1.1 200 OK\r\nA: b\nc: d\r\n\r\n", "is no header"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "length is no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "larger than"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "encoding is not known"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "chunk has no length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", "larger than"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", "head of its answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"b" * (1024 * 1024 + 1), "larger than"),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 9, "no end of interim"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "something else"),
    ],
)
async def test_what_is_no_answer_is_told(said: bytes, problem: str) -> None:
    with pytest.raises(CallFailed, match=problem):
        await answer_of(said)


async def test_a_header_is_never_two() -> None:
    with pytest.raises(CallFailed, match="control characters"):
        await answer_of(b"", headers=[("X-Remote-User", "ann\r\nX-Remote-Group: system:masters")])
