"""A few words with QEMU over its monitor (QMP): one connection, one command, one answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

LINE_BYTES = 1024 * 1024


class QmpFailure(Exception):
    """QEMU is not there, or did not do it."""


async def qmp(socket: Path, command: str, arguments: Mapping[str, Any] | None = None, *, seconds: float = 5.0) -> Any:
    """What QEMU answers. Raises QmpFailure."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=LINE_BYTES)
            try:
                await reader.readline()  # its greeting
                await _execute(reader, writer, "qmp_capabilities", {})
                return await _execute(reader, writer, command, arguments or {})
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, ValueError, TimeoutError) as error:
        raise QmpFailure(f"QEMU does not answer: {str(error) or type(error).__name__}") from None


async def _execute(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: str, arguments: Mapping[str, Any]
) -> Any:
    writer.write(orjson.dumps({"execute": command, "arguments": dict(arguments)}) + b"\n")
    await writer.drain()
    while line := await reader.readline():
        said = orjson.loads(line)
        if "return" in said:
            return said["return"]
        if "error" in said:
            raise QmpFailure(str(said["error"].get("desc") or said["error"]))
    if command == "quit":
        return None
    raise QmpFailure("QEMU closed its monitor")
