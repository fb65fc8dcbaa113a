"""Calls to a CRI runtime over its Unix socket, and its refusals as our exceptions.

gRPC is an extra of the package, loaded when the first runtime is opened. A channel reconnects by itself, so a runtime
that is restarted is simply found again; containers go on meanwhile.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.messages import decode, encode
from fleetplane.node.grpc_library import load_grpc
from fleetplane.node.runtime import NotThere, RuntimeFailure

RUNTIME: Final = "/runtime.v1.RuntimeService/"
IMAGES: Final = "/runtime.v1.ImageService/"
CALL_SECONDS: Final = 120.0
LARGEST_ANSWER: Final = 64 * 1024 * 1024

Answer = TypeVar("Answer")


_LATE: Final = "context deadline exceeded"
"""What runtimes written in Go say of our deadline, inside errors of other codes, where they notice it first."""


class Late(RuntimeFailure):
    """The time given was not enough."""


class CriApi:
    """One runtime. Raises RuntimeFailure where the package grpcio is missing. ``close`` when done."""

    def __init__(self, socket: str) -> None:
        try:
            grpc = load_grpc()
        except ImportError:
            raise RuntimeFailure(
                "a CRI runtime needs the package grpcio: install fleetplane[grpc], or use --runtime podman"
            ) from None
        self.socket = socket
        self._grpc = grpc
        options = [
            ("grpc.max_receive_message_length", LARGEST_ANSWER),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            # A socket's path is no host name; some servers refuse it as one.
            ("grpc.default_authority", "localhost"),
        ]
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=options)

    async def call(self, method: str, request: Any, kind: type[Answer], *, timeout: float = CALL_SECONDS) -> Answer:
        """The decoded answer. Raises RuntimeFailure, NotThere, Late."""
        unary = self._channel.unary_unary(method)
        try:
            raw: bytes = await unary(encode(request), timeout=timeout)
        except self._grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        try:
            return decode(kind, raw)
        except DecodeError as error:
            raise RuntimeFailure(f"the container runtime's answer cannot be read: {error}") from error

    def _failure(self, error: Any) -> Exception:
        codes = self._grpc.StatusCode
        said = str(error.details() or error.code().name)
        if error.code() is codes.NOT_FOUND:
            return NotThere(said)
        if error.code() is codes.DEADLINE_EXCEEDED or _LATE in said:
            return Late(said)
        if error.code() is codes.UNAVAILABLE:
            return RuntimeFailure(f"the container runtime does not answer at {self.socket}: {said}")
        if error.code() is codes.UNIMPLEMENTED:
            return RuntimeFailure(f"the container runtime at {self.socket} does not speak CRI v1: {said}")
        return RuntimeFailure(said)

    async def close(self) -> None:
        await self._channel.close()
