"""Asking another server to switch protocols: exec, attach, port-forward, consoles and whatever else is no plain HTTP.

A connection of its own is made for each, so that long ones never take the place of ordinary requests. Only WebSocket and
SPDY are passed on: a protocol that carries requests (``h2c``) would let a client say who it is behind our certificate. A server
that does not switch has its answer passed on like any other.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from multidict import CIMultiDict

from fleetplane.apiserver.aggregation.tunnelling import close
from fleetplane.apiserver.outgoing import CallFailed, Destination, Outgoing

if TYPE_CHECKING:
    import ssl

PROTOCOLS: Final = frozenset({"websocket", "spdy/3.1"})
SECONDS: Final = 60.0
"""How long another server may take to switch."""
_MAX_ANSWER: Final = 1024 * 1024
_MAX_INTERIM: Final = 8
_STATUS: Final = re.compile(r"HTTP/1\.[01] ([1-9]\d\d)(?: .*)?")
_BODILESS: Final = frozenset({204, 304})
_NEVER: Final = frozenset("\r\n\0")


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` of an answer that is whole; ``connection`` of one that switched."""

    status: int
    headers: CIMultiDict[str]
    body: bytes = b""
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None


def wanted_protocol(headers: Mapping[str, str]) -> str:
    """The protocol a request asks to switch to, if it is one that is passed on; empty otherwise."""
    tokens = [one.strip().lower() for one in headers.get("connection", "").split(",")]
    protocol = headers.get("upgrade", "")
    return protocol if "upgrade" in tokens and protocol.lower() in PROTOCOLS else ""


async def switch(
    outgoing: Outgoing,
    where: Destination,
    context: ssl.SSLContext,
    *,
    protocol: str,
    method: str,
    path: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
) -> Answer:
    """Send a request to switch to ``protocol``; ``path`` is quoted, with its query. Raises CallFailed."""
    try:
        async with asyncio.timeout(SECONDS):
            reader, writer = await outgoing.connect(where, context)
            try:
                own = {
                    "Host": where.name,
                    "Connection": "Upgrade",
                    "Upgrade": protocol,
                    "Content-Length": str(len(body)),
                }
                writer.write(_request(method, path, [*own.items(), *headers]) + body)
                await writer.drain()
                answer = await _answer(reader, method)
                if answer.status != 101:
                    await close(writer)
                    return answer
                if answer.headers.get("Upgrade", "").lower() != protocol.lower():
                    raise CallFailed(f"it was asked to switch to {protocol}, and switched to something else")
                return Answer(101, answer.headers, connection=(reader, writer))
            except BaseException:
                writer.transport.abort()
                raise
    except TimeoutError:
        raise CallFailed("context deadline exceeded") from None
    except asyncio.IncompleteReadError:
        raise CallFailed("EOF") from None
    except asyncio.LimitOverrunError:
        raise CallFailed("the head of its answer is too large") from None
    except OSError as error:
        raise CallFailed(str(error)) from None


def _request(method: str, path: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers)]
    if any(set(line) & _NEVER for line in lines):
        raise CallFailed("the request has control characters in its head")
    return "\r\n".join([*lines, "", ""]).encode(errors="surrogateescape")


async def _answer(reader: asyncio.StreamReader, method: str) -> Answer:
    for _ in range(_MAX_INTERIM):
        status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
        if status == 101:
            return Answer(status, headers)
        if status >= 200:
            bodiless = status in _BODILESS or method == "HEAD"
            return Answer(status, headers, b"" if bodiless else await _body(reader, headers))
    raise CallFailed("malformed HTTP response: it has no end of interim answers")


def _head(head: bytes) -> tuple[int, CIMultiDict[str]]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    found = _STATUS.fullmatch(first)
    if found is None:
        raise CallFailed(f"malformed HTTP response {first[:64]!r}")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon or not key or key != key.strip() or any(letter < " " and letter != "\t" for letter in line):
            raise CallFailed(f"malformed HTTP response: {line[:64]!r} is no header")
        headers.add(key, value.strip())
    return int(found[1]), headers


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked":
            raise CallFailed("malformed HTTP response: its transfer encoding is not known")
        return await _chunked(reader)
    length = headers.get("content-length")
    if length is None:
        body = b""
        while piece := await reader.read(_MAX_ANSWER):
            body += piece
            _check_length(len(body))
        return body
    if not length.isascii() or not length.isdigit() or len(length) > 18:
        raise CallFailed("malformed HTTP response: its length is no number")
    _check_length(int(length))
    return await reader.readexactly(int(length))


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = (await reader.readuntil(b"\r\n")).partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", size):
            raise CallFailed("malformed HTTP response: a chunk has no length")
        if not int(size, 16):
            return body  # what may follow (trailers) is of no interest: the connection ends
        _check_length(len(body) + int(size, 16))
        body += await reader.readexactly(int(size, 16))
        await reader.readexactly(2)


def _check_length(length: int) -> None:
    if length > _MAX_ANSWER:
        raise CallFailed(f"the answer is larger than {_MAX_ANSWER} bytes")
