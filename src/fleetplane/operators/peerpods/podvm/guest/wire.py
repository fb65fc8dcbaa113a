"""How the agent and the outside speak: calls and answers over one stream of bytes. Pure.

A frame is two lengths (big-endian: of everything after it, and of the head), a head (JSON) and bytes. A call's head has
``id`` and ``call``; its answer has the same ``id``, and ``error`` where it failed. Everything is asked for by the outside, in
pieces of bounded size, so neither side ever has to keep more for the other than it wants to.

A stream begins with ``GREETING`` and sixteen bytes of the caller's choice, which the agent sends back: whatever stood in
between from an earlier conversation is passed over by both.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

GREETING: Final = b"\x00pod-vm-agent/1\x00"
NONCE_BYTES: Final = 16
BLOB_BYTES: Final = 256 * 1024
"""What one call or answer carries at most beside its head."""
HEAD_BYTES: Final = 1024 * 1024
FRAME_BYTES: Final = BLOB_BYTES + HEAD_BYTES + 4

_LENGTH = struct.Struct("!I")


class Damaged(ValueError):
    """The other side does not speak this."""


def frame(head: dict[str, Any], blob: bytes = b"") -> bytes:
    """Raises Damaged for what is too large."""
    text = json.dumps(head, separators=(",", ":")).encode()
    if len(text) > HEAD_BYTES or len(blob) > BLOB_BYTES:
        raise Damaged(f"a message of {len(text)} and {len(blob)} bytes is too large")
    return _LENGTH.pack(4 + len(text) + len(blob)) + _LENGTH.pack(len(text)) + text + blob


class Unframer:
    """Frames from bytes as they come."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """The frames that are whole now. Raises Damaged."""
        self._held += data
        found = []
        while len(self._held) >= 4:
            (length,) = _LENGTH.unpack_from(self._held)
            if not 4 <= length <= FRAME_BYTES:
                raise Damaged(f"a frame of {length} bytes")
            if len(self._held) < 4 + length:
                break
            found.append(_split(bytes(self._held[4 : 4 + length])))
            del self._held[: 4 + length]
        return found


def _split(body: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = _LENGTH.unpack_from(body)
    if length > len(body) - 4:
        raise Damaged("a head longer than its frame")
    try:
        head = json.loads(body[4 : 4 + length])
    except (ValueError, RecursionError):
        raise Damaged("a head that is no JSON") from None
    if not isinstance(head, dict):
        raise Damaged("a head that is no object")
    return head, body[4 + length :]
