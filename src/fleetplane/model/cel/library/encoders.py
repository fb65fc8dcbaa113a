"""Base64, and the escaping of JSON pointers."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from fleetplane.model.cel.cost import Range, resized, traversal
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BYTES, STRING


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """Standard base64, with or without its padding. Raises CelError."""
    try:
        return base64.b64decode(text.rstrip("=").encode() + b"=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise CelError("illegal base64 data") from None


def escape_key(key: str) -> str:
    """A key as a segment of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


FUNCTIONS: Final[Functions] = {
    "base64.encode": (
        Overload(
            "base64_encode_bytes",
            (BYTES,),
            STRING,
            encode,
            price=resized(traversal(), lambda operands: Range(0, operands[0].size.most * 2)),
        ),
    ),
    "base64.decode": (Overload("base64_decode_string", (STRING,), BYTES, decode, price=traversal(same_size=True)),),
    "jsonpatch.escapeKey": (
        Overload("string_jsonpatch_escapeKey_string", (STRING,), STRING, escape_key, price=traversal(same_size=True)),
    ),
}
