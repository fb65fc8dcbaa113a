"""What is said on a tunnel: frames, and the requests that open a channel.

A node behind NAT can be called by nobody, so it calls: one connection, on which the server opens channels for logs, exec,
attach, port-forward and usage. A message is one frame: a byte for what it is, four bytes for its channel, the payload.
Bytes and JSON only, and pure: both ends use it, neither trusts the other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from fleetplane.model.objects import Object

PROTOCOL: Final = "v1.tunnel.fleetplane.io"
"""The WebSocket subprotocol; a change that an older end would misread gets another name."""
CHUNK: Final = 32 * 1024
MAX_PAYLOAD: Final = 128 * 1024
_HEADER: Final = struct.Struct(">BI")
MAX_MESSAGE: Final = _HEADER.size + MAX_PAYLOAD
_SIZE: Final = struct.Struct(">HH")
_CREDIT: Final = struct.Struct(">I")
_CODE: Final = struct.Struct(">i")


class TunnelError(Exception):
    """The other end broke the protocol; the connection is of no more use."""


class Kind(IntEnum):
    """``OPEN`` is answered by ``READY`` or ``FAILED``; ``EXIT`` ends the output, ``CLOSE`` the channel."""

    OPEN = 1
    READY = 2
    FAILED = 3
    STDIN = 4
    STDOUT = 5
    STDERR = 6
    END_INPUT = 7
    RESIZE = 8
    EXIT = 9
    CREDIT = 10
    CLOSE = 11


@dataclass(frozen=True, slots=True)
class Frame:
    kind: Kind
    channel: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """Raises ValueError for a payload over ``MAX_PAYLOAD`` bytes."""
        if len(self.payload) > MAX_PAYLOAD:
            raise ValueError(f"a frame carries at most {MAX_PAYLOAD} bytes")
        return _HEADER.pack(self.kind, self.channel) + self.payload

    @classmethod
    def decode(cls, message: bytes) -> Frame:
        """Raises TunnelError."""
        if not _HEADER.size <= len(message) <= MAX_MESSAGE:
            raise TunnelError(f"a frame of {len(message)} bytes is too short or too long")
        kind, channel = _HEADER.unpack_from(message)
        try:
            return cls(Kind(kind), channel, bytes(message[_HEADER.size :]))
        except ValueError:
            raise TunnelError(f"frames of kind {kind} are not known") from None


@dataclass(frozen=True, slots=True)
class Opening:
    """What a channel is for: ``logs``, ``exec``, ``attach``, ``port-forward`` or ``usage``.

    ``pod`` and ``options`` are flat JSON objects; what is in them is a matter of the two ends.
    """

    what: str
    pod: Mapping[str, Any]
    options: Mapping[str, Any]

    def encode(self) -> bytes:
        return json.dumps({"what": self.what, "pod": dict(self.pod), "options": dict(self.options)}).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Opening:
        """Raises TunnelError."""
        data = parse_object(payload)
        what, pod, options = data.get("what"), data.get("pod"), data.get("options")
        if not isinstance(what, str) or not isinstance(pod, dict) or not isinstance(options, dict):
            raise TunnelError("a request to open a channel does not say what for")
        return cls(what, pod, options)


def parse_object(payload: bytes) -> Object:
    """A JSON object. Raises TunnelError."""
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        raise TunnelError("a frame does not hold JSON") from None
    if not isinstance(data, dict):
        raise TunnelError("a frame does not hold a JSON object")
    return data


def size_payload(width: int, height: int) -> bytes:
    return _SIZE.pack(min(max(width, 0), 0xFFFF), min(max(height, 0), 0xFFFF))


def parse_size(payload: bytes) -> tuple[int, int]:
    """(width, height) in characters. Raises TunnelError."""
    width, height = _unpack(_SIZE, payload)
    return width, height


def credit_payload(amount: int) -> bytes:
    return _CREDIT.pack(amount)


def parse_credit(payload: bytes) -> int:
    """Raises TunnelError."""
    return _unpack(_CREDIT, payload)[0]


def code_payload(code: int) -> bytes:
    return _CODE.pack(code)


def parse_code(payload: bytes) -> int:
    """Raises TunnelError."""
    return _unpack(_CODE, payload)[0]


def _unpack(form: struct.Struct, payload: bytes) -> tuple[int, ...]:
    try:
        return form.unpack(payload)
    except struct.error:
        raise TunnelError("a frame's payload has the wrong length") from None
