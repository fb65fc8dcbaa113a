"""TCP connections into a pod's network: for port-forward, and for what listens on a pod's loopback only."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

from fleetplane.node.runtime import RuntimeFailure, Stream, Terminal

BLOCK = 65_536
CLONE_NEWNET = 0x40000000
CONNECT_SECONDS = 10.0


class SocketSession:
    """A byte stream with the face of a session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> AsyncIterator[tuple[Stream, bytes]]:
        with suppress(ConnectionError):
            while data := await self._reader.read(BLOCK):
                yield "stdout", data

    async def write(self, data: bytes) -> None:
        with suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def end_input(self) -> None:
        with suppress(OSError, RuntimeError):
            self._writer.write_eof()

    async def resize(self, size: Terminal) -> None:
        return

    async def exit_code(self) -> int:
        return 0

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


async def connect_inside(namespace: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to localhost in this network namespace (a path; empty for our own). Raises RuntimeFailure."""
    failure: Exception | None = None
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            made = await asyncio.to_thread(_socket_in, namespace, family)
        except OSError as error:
            failure = failure or error
            continue
        try:
            made.setblocking(False)
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(made, (host, port))
            return await asyncio.open_connection(sock=made)
        except (OSError, TimeoutError) as error:
            made.close()
            failure = failure or error
    raise RuntimeFailure(f"failed to connect to localhost:{port} inside the pod's network: {failure or 'timed out'}")


def _socket_in(namespace: str, family: int) -> socket.socket:
    """A socket belongs to the network namespace of the thread that makes it: so a thread visits, and ends."""
    if not namespace:
        return socket.socket(family, socket.SOCK_STREAM)
    made: list[socket.socket] = []
    wrong: list[OSError] = []

    def visit() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                library = ctypes.CDLL(None, use_errno=True)
                if library.setns(descriptor, CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            finally:
                os.close(descriptor)
            made.append(socket.socket(family, socket.SOCK_STREAM))
        except OSError as error:
            wrong.append(error)

    thread = threading.Thread(target=visit, name="visit-network")
    thread.start()
    thread.join()
    if wrong:
        raise wrong[0]
    return made[0]
