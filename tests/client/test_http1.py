"""Our HTTP/1.1: answers in any form and any pieces, and nothing a bad server sends does harm."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.client.http1 import STREAM_BUFFER_BYTES, Connection, ConnectionLost, MalformedAnswer, Pool, Target

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Pool]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    pool = Pool(Target("127.0.0.1", server.sockets[0].getsockname()[1]), 5)
    try:
        yield pool
    finally:
        await pool.close()
        server.close()


def answering(*answers: bytes) -> Serve:
    """Each request gets the next answer; after the last the connection is closed."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while left:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0))
            await writer.drain()

    return serve


async def ask(pool: Pool, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
    answer = await pool.request(method, "/x", [("a", "b")], body, 5)
    return answer.status, answer.body


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, (200, b"ok")),
        (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", (200, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", (200, b"ok")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrailer: x\r\n\r\n", (200, b"ok")),
        (b"HTTP/1.1 404 Not Found\r\n\r\nuntil the end", (404, b"until the end")),
        (b"HTTP/1.0 200\r\nContent-Length: 2\r\n\r\nok", (200, b"ok")),
    ],
)
async def test_every_form_of_answer_is_understood(answer: bytes, expected: tuple[int, bytes]) -> None:
    async with serving(answering(answer)) as pool:
        assert await ask(pool) == expected


@settings(max_examples=80)
@given(
    body=st.binary(max_size=60),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    chunk=st.integers(1, 20) | st.none(),
)
def test_it_does_not_matter_where_an_answer_is_cut(body: bytes, cuts: list[int], chunk: int | None) -> None:
    if chunk is None:
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    else:
        parts = [body[i : i + chunk] for i in range(0, len(body), chunk)]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    connection = Connection()
    connection.connection_made(Silent())  # type: ignore[arg-type]
    connection.begin(b"")
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        connection.data_received(whole[start:end])

    async def read() -> bytes:
        await connection.head()
        return await connection.whole(1000)

    assert asyncio.run(read()) == body
    assert connection.is_reusable


@settings(max_examples=150)
@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n", b"\r\n\r\n", b"5\r\n", OK]),
        max_size=8,
    )
)
def test_rubbish_is_an_error_or_an_answer_never_a_crash(pieces: list[bytes]) -> None:
    connection = Connection()
    connection.connection_made(Silent())  # type: ignore[arg-type]
    connection.begin(b"")
    for piece in pieces:
        connection.data_received(piece)
    connection.connection_lost(None)

    async def read() -> None:
        try:
            await connection.head()
            await connection.whole(1000)
        except (ConnectionLost, MalformedAnswer):
            pass

    asyncio.run(read())


class Silent:
    """A transport that goes nowhere."""

    def write(self, data: bytes) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 300,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20000,
    ],
)
async def test_a_malformed_answer_ends_the_connection(answer: bytes) -> None:
    async with serving(answering(answer)) as pool:
        with pytest.raises(MalformedAnswer):
            await ask(pool)


async def test_more_than_was_announced_is_not_taken_for_the_next_answer() -> None:
    async with serving(answering(OK + OK)) as pool:
        assert await ask(pool) == (200, b"ok")
        assert not pool._idle


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok")) as pool:
        with pytest.raises(ConnectionLost):
            await ask(pool)


async def test_connections_are_used_again() -> None:
    connected = 0
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        while True:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            if b"content-length" in requests[-1]:
                await reader.readexactly(4)
            writer.write(OK)

    async with serving(serve) as pool:
        for _ in range(5):
            await ask(pool)
        await ask(pool, "POST", b"body")
        await asyncio.gather(*(ask(pool) for _ in range(3)))

    assert connected == 3
    assert requests[0] == b"GET /x HTTP/1.1\r\nhost: 127.0.0.1:%d\r\na: b\r\n\r\n" % pool.target.port


@pytest.mark.parametrize("answer", [OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK.replace(b"1.1", b"1.0")])
async def test_a_connection_that_will_be_closed_is_not_used_again(answer: bytes) -> None:
    connected = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        await answering(answer, answer)(reader, writer)

    async with serving(serve) as pool:
        await ask(pool)
        await ask(pool)

    assert connected == 2


async def test_a_read_survives_a_connection_that_closed_as_it_was_sent_and_a_write_does_not() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")  # the second request meets a server that goes away

    async with serving(serve) as pool:
        assert await ask(pool) == (200, b"ok")
        assert await ask(pool) == (200, b"ok")
        with pytest.raises(ConnectionLost):
            await ask(pool, "POST", b"x")


async def test_an_answer_that_does_not_come_is_given_up_and_so_is_its_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(serve) as pool:
        with pytest.raises(TimeoutError):
            await pool.request("GET", "/", [], b"", 0.05)
        assert not pool._idle
        assert not pool._open


async def test_a_header_cannot_smuggle_another() -> None:
    async with serving(answering(OK)) as pool:
        with pytest.raises(ValueError, match="line end"):
            await pool.request("GET", "/", [("a", "b\r\nc: d")], b"", 5)


async def test_a_slow_reader_makes_the_server_wait() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(400):
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with serving(serve) as pool, pool.stream("GET", "/", [], b"", 5) as (_, chunks):
        first = await anext(chunks)
        await asyncio.sleep(0.2)
        stalled_at = sent
        received = len(first) + sum([len(chunk) async for chunk in chunks])

    assert stalled_at < 400 * 65536 - STREAM_BUFFER_BYTES
    assert received >= 400 * 65536


async def test_leaving_a_stream_closes_its_connection() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()
        ended.set()

    async with serving(serve) as pool:
        async with pool.stream("GET", "/", [], b"", 5) as (status, chunks):
            assert (status, await anext(chunks)) == (200, b"x")
        await asyncio.wait_for(ended.wait(), 5)


async def test_an_answer_beyond_the_limit_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr("fleetplane.client.http1.MAX_BODY_BYTES", 100_000)
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000
    async with serving(answering(endless)) as pool:
        with pytest.raises(MalformedAnswer, match="larger than 100000"):
            await ask(pool)


async def test_a_connection_given_up_half_made_does_not_stand_in_the_way_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given up just as the handshake ends: the loop still says goodbye on it, so its number must stay its own."""
    loop, authority = asyncio.get_running_loop(), trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(ours)
    create, over = loop.create_connection, threading.Event()

    async def given_up(*arguments: Any, **more: Any) -> Any:
        transport, _ = await create(*arguments, **more)
        transport.close()
        raise TimeoutError

    def serve(listening: socket.socket) -> None:  # never says goodbye
        kept = [theirs.wrap_socket(listening.accept()[0], server_side=True) for _ in range(2)]
        over.wait(10)
        for one in kept:
            one.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving_them = asyncio.ensure_future(asyncio.to_thread(serve, listening))
        pool = Pool(Target("127.0.0.1", listening.getsockname()[1], tls=ours), 5)
        monkeypatch.setattr(loop, "create_connection", given_up)
        with pytest.raises((ConnectionLost, TimeoutError)):
            await ask(pool)
        monkeypatch.setattr(loop, "create_connection", create)
        second = asyncio.ensure_future(ask(pool))
        await asyncio.wait([second], timeout=0.5)
        hopeful = not second.done()  # connected, and waiting for an answer
        second.cancel()
        over.set()
        await serving_them
        await asyncio.gather(second, return_exceptions=True)
        await pool.close()

    assert hopeful, second
