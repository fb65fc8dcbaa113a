"""Kubernetes objects in protobuf: bodies, watch streams, and the OpenAPI document old clients ask for.

Typed clients (kubectl since 1.32, Helm 4) send built-in kinds this way and do not fall back to JSON, so a server must
read it. The codec works on published facts about the wire (``facts.txt``), has no dependency and trusts nothing it
reads.
"""

from fleetplane.model.protobuf.envelope import MAGIC, MEDIA_TYPE, decode, encode, supports
from fleetplane.model.protobuf.errors import DecodeError, EncodeError, ProtobufError
from fleetplane.model.protobuf.watch import STREAM_MEDIA_TYPE, EventDecoder, encode_event, frame

__all__ = [
    "MAGIC",
    "MEDIA_TYPE",
    "STREAM_MEDIA_TYPE",
    "DecodeError",
    "EncodeError",
    "EventDecoder",
    "ProtobufError",
    "decode",
    "encode",
    "encode_event",
    "frame",
    "supports",
]
