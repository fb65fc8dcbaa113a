"""What can be wrong with protobuf bytes, or with an object that should become some."""

from __future__ import annotations


class ProtobufError(ValueError):
    """Either of the two below."""


class DecodeError(ProtobufError):
    """The bytes are not a Kubernetes object in protobuf."""


class EncodeError(ProtobufError):
    """The object does not have the shape of its kind, or its kind has no protobuf form."""
