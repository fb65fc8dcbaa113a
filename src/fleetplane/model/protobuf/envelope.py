"""``application/vnd.kubernetes.protobuf``: four bytes ``k8s\\0``, then a ``runtime.Unknown`` with kind and message.

The media type that clients since kubectl 1.32 send built-in kinds in. Kinds without a message (custom resources) have
no such form. The caller bounds the size of what comes from outside; memory stays proportional to it.
"""

from __future__ import annotations

from typing import Final

import orjson

from fleetplane.model.objects import Object
from fleetplane.model.protobuf.decoding import decode_message
from fleetplane.model.protobuf.encoding import encode_message
from fleetplane.model.protobuf.errors import DecodeError, EncodeError
from fleetplane.model.protobuf.facts import message_name
from fleetplane.model.protobuf.values import text
from fleetplane.model.protobuf.wire import read_fields, tagged_bytes

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\0"


def supports(api_version: str, kind: str) -> bool:
    """Whether objects of this kind have a protobuf form."""
    return message_name(api_version, kind) is not None


def decode(data: bytes, *, depth: int = 0) -> Object:
    """The object in an envelope, ``apiVersion`` and ``kind`` first; ``depth`` is for envelopes within messages.

    Raises DecodeError.
    """
    if not data.startswith(MAGIC):
        raise DecodeError("the body does not begin as Kubernetes protobuf does")
    try:
        unknown = read_fields(data, len(MAGIC), len(data))
        types = _bytes_of(unknown, 1)
        named = read_fields(types, 0, len(types))
    except IndexError:
        raise DecodeError("the body is cut short") from None
    api_version, kind = text(named.get(1, b"")), text(named.get(2, b""))
    if text(unknown.get(3, b"")):
        raise DecodeError("compressed messages are not supported")
    raw = _bytes_of(unknown, 2)
    if text(unknown.get(4, b"")) == "application/json":
        return _json_object(raw)
    message = message_name(api_version, kind)
    if message is None:
        raise DecodeError(f"kind {kind!r} of {api_version!r} has no protobuf form: send it as JSON")
    found: Object = {"apiVersion": api_version, "kind": kind}
    found.update(decode_message(message, raw, depth))
    return found


def _json_object(raw: bytes) -> Object:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise DecodeError("the JSON in the envelope is not an object")
    return found


def _bytes_of(fields: dict[int, object], number: int) -> bytes:
    found = fields.get(number, b"")
    if not isinstance(found, bytes):
        raise DecodeError("the envelope has a field of the wrong wire type")
    return found


def encode(obj: Object) -> bytes:
    """The object in an envelope. Raises EncodeError, also for a kind without a protobuf form."""
    api_version, kind = str(obj.get("apiVersion") or ""), str(obj.get("kind") or "")
    message = message_name(api_version, kind)
    if message is None:
        raise EncodeError(f"kind {kind!r} of {api_version!r} has no protobuf form")
    types = tagged_bytes(1, api_version.encode()) + tagged_bytes(2, kind.encode())
    empty = tagged_bytes(3, b"") + tagged_bytes(4, b"")
    return MAGIC + tagged_bytes(1, types) + tagged_bytes(2, encode_message(message, obj)) + empty
