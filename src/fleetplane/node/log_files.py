"""Reading the log files containers write: the ``k8s-file`` format, which the CRI uses too.

A line is ``<RFC 3339 time> <stream> <F|P> <text>``; P marks a piece of a longer line. Files are read straight from
disk, from the end for ``tail``, so the newest lines of a large log cost what they are and not what the log is. While
following, the file is looked at ten times a second; conmon replaces it when it has grown to its limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from io import SEEK_END
from os import fstat
from pathlib import Path
from typing import BinaryIO, Final

from fleetplane.node.moments import moment
from fleetplane.node.runtime import LogLine, LogOptions

POLL_SECONDS: Final = 0.1
BLOCK: Final = 65_536
LONGEST_LINE: Final = 256 * 1024


async def read_log(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncIterator[LogLine]:
    """The lines asked for; with ``follow`` until ``is_running`` says no and everything is read."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    try:
        if options.tail is not None:
            file.seek(_tail_position(file, options.tail, options.until))
        rest = b""
        while True:
            running = is_running()
            block = file.read(BLOCK)
            if block:
                *lines, rest = (rest + block).split(b"\n")
                for raw in lines:
                    line = parse_line(raw)
                    if line is None or (options.since is not None and line.time < options.since):
                        continue
                    if options.until is not None and line.time > options.until:
                        return
                    yield line
                rest = rest[-LONGEST_LINE:]
                continue
            if not options.follow or not running:
                return
            await asyncio.sleep(POLL_SECONDS)
            if _was_replaced(file, path):
                file.close()
                file, rest = path.open("rb"), b""
    finally:
        file.close()


def parse_line(raw: bytes) -> LogLine | None:
    """One line of the file, without its line feed; None when it is damaged."""
    parts = raw.split(b" ", 3)
    if len(parts) < 4 or parts[1] not in {b"stdout", b"stderr"}:
        return None
    time: datetime | None = moment(parts[0].decode("ascii", "replace"))
    if time is None:
        return None
    partial = parts[2].startswith(b"P")
    data = parts[3] if partial else parts[3] + b"\n"
    return LogLine(time, "stdout" if parts[1] == b"stdout" else "stderr", data, partial)


def _tail_position(file: BinaryIO, lines: int, until: datetime | None) -> int:
    """Where the last ``lines`` whole lines begin (pieces of one line count as one)."""
    if until is not None:
        return 0
    position = file.seek(0, SEEK_END)
    if lines <= 0:
        return position
    found, buffer = 0, b""
    while position > 0:
        step = min(BLOCK, position)
        position -= step
        file.seek(position)
        buffer = file.read(step) + buffer
        found, start = _count_back(buffer, lines)
        if found > lines:
            return position + start
        if len(buffer) > 64 * 1024 * 1024:
            break
    return position


def _count_back(buffer: bytes, lines: int) -> tuple[int, int]:
    """How many full lines end in the buffer, and where the last ``lines`` of them begin."""
    found, end = 0, len(buffer)
    while end > 0:
        start = buffer.rfind(b"\n", 0, end - 1) + 1
        if b" F " in buffer[start : start + 60]:
            found += 1
            if found > lines:
                return found, end
        if start == 0:
            return found, 0
        end = start
    return found, 0


def _was_replaced(file: BinaryIO, path: Path) -> bool:
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    return now.st_ino != fstat(file.fileno()).st_ino or now.st_size < file.tell()
