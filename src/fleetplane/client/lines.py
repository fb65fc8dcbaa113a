"""Framing of watch streams: one JSON document a line.

A line may arrive in any number of chunks and a chunk may hold any number of lines. Memory is bounded: a line longer
than the limit ends the stream with an error instead of growing a buffer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from fleetplane.model.errors import ApiError

MAX_LINE_BYTES: Final = 64 * 1024 * 1024


async def split_lines(chunks: AsyncIterator[bytes], limit: int = MAX_LINE_BYTES) -> AsyncGenerator[bytes, None]:
    """Non-empty lines without their ends. A last line that was cut off is dropped: it cannot be a whole document."""
    pending: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            if pending:
                line = b"".join([*pending, line])
                pending.clear()
                size = 0
            if line and not line.isspace():
                yield line
        if rest:
            pending.append(rest)
            size += len(rest)
            if size > limit:
                raise ApiError(500, f"the server sent a line of more than {limit} bytes")
