"""A proxy in the way."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from fleetplane.client.http import HttpTransport
from fleetplane.client.kubeconfig import Access
from fleetplane.client.protocol import Unreachable


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[str]) -> None:
    """A proxy that answers plain requests itself."""
    try:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode())
        body = gzip.compress(b'{"kind":"X"}')
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
    finally:
        writer.close()


async def test_requests_go_through_the_proxy_and_are_unpacked() -> None:
    asked: list[str] = []
    server = await asyncio.start_server(lambda r, w: relay(r, w, asked), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = HttpTransport(Access("http://api.example.org", proxy_url=f"http://127.0.0.1:{port}"))

    answer = await transport.request("GET", "/api", [("a", "b c")], [], b"")
    async with transport.stream("GET", "/api", [], [], b"") as (status, _):
        assert status == 200
    await transport.close()
    server.close()

    assert answer[2] == b'{"kind":"X"}'
    assert asked[0] == "GET http://api.example.org/api?a=b+c HTTP/1.1"


async def test_a_proxy_that_is_not_there_is_said_so() -> None:
    transport = HttpTransport(Access("http://api.example.org", proxy_url="http://127.0.0.1:1"))

    with pytest.raises(Unreachable, match=r"cannot reach http://api\.example\.org"):
        await transport.request("GET", "/", [], [], b"")
    await transport.close()
