"""Watch streams in protobuf: ``application/vnd.kubernetes.protobuf;stream=watch``.

Each event is a frame: its length in four bytes, big-endian, then a bare ``WatchEvent`` whose object is in an envelope
of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fleetplane.model.objects import Object
from fleetplane.model.protobuf import envelope
from fleetplane.model.protobuf.errors import DecodeError
from fleetplane.model.protobuf.values import text
from fleetplane.model.protobuf.wire import read_fields, tagged_bytes

STREAM_MEDIA_TYPE: Final = envelope.MEDIA_TYPE + ";stream=watch"
MAX_FRAME: Final = 16 * 1024 * 1024


def encode_event(event_type: str, obj: Object) -> bytes:
    """One frame. Raises EncodeError."""
    return frame(event_type, envelope.encode(obj))


def frame(event_type: str, enveloped: bytes) -> bytes:
    """One frame around an object that is already encoded."""
    event = tagged_bytes(1, event_type.encode()) + tagged_bytes(2, tagged_bytes(1, enveloped))
    return len(event).to_bytes(4, "big") + event


class EventDecoder:
    """Takes a stream in pieces of any size and gives (event type, object) as frames complete."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[str, Object]]:
        """Raises DecodeError for a frame that is too long or no event; the stream is then of no more use."""
        self._pending += data
        while len(self._pending) >= 4:
            length = int.from_bytes(self._pending[:4], "big")
            if length > self._max_frame:
                raise DecodeError(f"a watch event of {length} bytes is longer than {self._max_frame}")
            if len(self._pending) < 4 + length:
                return
            content = bytes(self._pending[4 : 4 + length])
            del self._pending[: 4 + length]
            yield _event(content)


def _event(content: bytes) -> tuple[str, Object]:
    try:
        fields = read_fields(content, 0, len(content))
        raw = fields.get(2, b"")
        if not isinstance(raw, bytes):
            raise DecodeError("a watch event has a field of the wrong wire type")
        enveloped = read_fields(raw, 0, len(raw)).get(1, b"")
    except IndexError:
        raise DecodeError("a watch event is cut short") from None
    if not isinstance(enveloped, bytes):
        raise DecodeError("a watch event has a field of the wrong wire type")
    return text(fields.get(1, b"")), envelope.decode(enveloped)
