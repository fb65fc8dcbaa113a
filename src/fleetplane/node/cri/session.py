"""A running exec or attach of a CRI runtime: a SPDY/3.1 connection to the address the runtime names.

Each of standard input, output, errors, the terminal's size and the outcome is a stream of its own; the outcome is a
Kubernetes Status on the stream called ``error``. SPDY rather than a WebSocket because it alone can tell the command that
its input has ended. Output nobody reads stops the connection, so memory stays bounded.

Source: Kubernetes' remote command protocol, version 4, as kubelets speak it to their runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from fleetplane.model.spdy import DICTIONARY
from fleetplane.node.runtime import RuntimeFailure, Stream, Terminal

PROTOCOL: Final = "v4.channel.k8s.io"
CONNECT_SECONDS: Final = 30.0
OUTCOME_SECONDS: Final = 10.0
LARGEST_FRAME: Final = 16 * 1024 * 1024
LARGEST_OUTCOME: Final = 64 * 1024
PENDING: Final = 32
BLOCK: Final = 32_768

_SYN_STREAM, _RST_STREAM, _PING, _GOAWAY = 1, 3, 6, 7
_FIN: Final = 1


class CriSession:
    """See the module. Make one with ``open``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, names: list[str]) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = {name: 1 + 2 * place for place, name in enumerate(names)}
        self._names = {number: name for name, number in self._numbers.items()}
        self._open_outputs = {name for name in names if name in {"stdout", "stderr"}}
        self._output: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue(PENDING)
        self._outcome = bytearray()
        self._outcome_known = asyncio.Event()
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._receiving: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, *, stdin: bool, tty: bool) -> CriSession:
        """Connect and open the streams. Raises RuntimeFailure."""
        names = ["error"] + ["stdin"] * stdin + ["stdout"] + ["stderr"] * (not tty) + ["resize"] * tty
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await _upgraded(url)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise RuntimeFailure(f"the container runtime's streaming server cannot be used: {error}") from error
        session = cls(reader, writer, names)
        for name in names:
            session._open_stream(name)
        session._receiving = asyncio.create_task(session._receive(), name="output of a command")
        return session

    async def read(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while (piece := await self._output.get()) is not None:
            yield piece
        await self._await_outcome()
        if (code_or_words := self._told()) and isinstance(code_or_words, str):
            raise RuntimeFailure(code_or_words)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), BLOCK):
            await self._send_data("stdin", data[start : start + BLOCK])

    async def end_input(self) -> None:
        await self._send_data("stdin", b"", fin=True)

    async def resize(self, size: Terminal) -> None:
        await self._send_data("resize", json.dumps({"Width": size.width, "Height": size.height}).encode())

    async def exit_code(self) -> int:
        await self._await_outcome()
        told = self._told()
        return told if isinstance(told, int) else 1

    async def close(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    # The outcome

    async def _await_outcome(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OUTCOME_SECONDS):
                await self._outcome_known.wait()

    def _told(self) -> int | str:
        """The exit code, or why the command could not be run."""
        if not self._outcome:
            return 0
        try:
            status: Any = json.loads(self._outcome)
        except ValueError:
            return bytes(self._outcome).decode(errors="replace")
        if status.get("status") == "Success":
            return 0
        if status.get("reason") == "NonZeroExitCode":
            for cause in (status.get("details") or {}).get("causes") or []:
                if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdecimal():
                    return int(cause["message"])
        return str(status.get("message") or "the command failed, and nobody says why")

    # Frames

    def _open_stream(self, name: str) -> None:
        headers = _headers({"streamtype": name})
        block = self._deflate.compress(headers) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._send_control(_SYN_STREAM, struct.pack(">IIH", self._numbers[name], 0, 0) + block)

    def _send_control(self, kind: int, body: bytes) -> None:
        self._writer.write(struct.pack(">HHB", 0x8003, kind, 0) + len(body).to_bytes(3, "big") + body)

    async def _send_data(self, name: str, data: bytes, *, fin: bool = False) -> None:
        number = self._numbers.get(name)
        if number is None:
            return
        head = struct.pack(">I", number) + bytes([_FIN if fin else 0]) + len(data).to_bytes(3, "big")
        with contextlib.suppress(ConnectionError):
            self._writer.write(head + data)
            await self._writer.drain()

    async def _receive(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(8)
                length = int.from_bytes(head[5:], "big")
                if length > LARGEST_FRAME:
                    break
                body = await self._reader.readexactly(length)
                if head[0] & 0x80:
                    if not await self._control(int.from_bytes(head[2:4], "big"), body):
                        break
                else:
                    await self._data(int.from_bytes(head[:4], "big"), body, ended=bool(head[4] & _FIN))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._outcome_known.set()
        if self._open_outputs:
            self._open_outputs.clear()
            await self._output.put(None)

    async def _control(self, kind: int, body: bytes) -> bool:
        """Whether the connection goes on."""
        if kind == _PING:
            self._send_control(_PING, body)
        elif kind == _RST_STREAM and len(body) >= 4:
            await self._ended(self._names.get(int.from_bytes(body[:4], "big"), ""))
        return kind != _GOAWAY

    async def _data(self, number: int, body: bytes, *, ended: bool) -> None:
        name = self._names.get(number, "")
        if name == "error":
            self._outcome += body[: LARGEST_OUTCOME - len(self._outcome)]
        elif body and name == "stdout":
            await self._output.put(("stdout", body))
        elif body and name == "stderr":
            await self._output.put(("stderr", body))
        if ended:
            await self._ended(name)

    async def _ended(self, name: str) -> None:
        if name == "error":
            self._outcome_known.set()
        elif name in self._open_outputs:
            self._open_outputs.discard(name)
            if not self._open_outputs:
                await self._output.put(None)


def _headers(values: Mapping[str, str]) -> bytes:
    found = [struct.pack(">I", len(values))]
    for name, value in values.items():
        found += [struct.pack(">I", len(name)), name.encode(), struct.pack(">I", len(value)), value.encode()]
    return b"".join(found)


async def _upgraded(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has left HTTP for SPDY. Raises RuntimeFailure, OSError."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise RuntimeFailure(
            f"the container runtime's streaming server wants {parts.scheme or 'nothing'} where plain http on loopback is "
            "expected; turn enable_tls_streaming off"
        )
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = (
            f"POST {path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Connection: Upgrade",
            "Upgrade: SPDY/3.1",
            f"X-Stream-Protocol-Version: {PROTOCOL}",
            "Content-Length: 0",
        )
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if " 101 " not in head.partition("\r\n")[0]:
            raise RuntimeFailure(f"the container runtime refused the stream: {head.partition(chr(13))[0]}")
    except BaseException:
        writer.close()
        raise
    return reader, writer
