"""The audit file: lines are handed over at once and written behind, in batches, by a thread.

A slow or full disk never holds a request up: the queue is bounded, and what does not fit is counted, told in the log
file as soon as it can be written, and lost. The file is 0600, rotated by size, and only so many old ones are kept.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from pathlib import Path
from typing import Final

from fleetplane.model.environment import Environment

log = logging.getLogger(__name__)

_FLUSH_BYTES: Final = 1024 * 1024


class AuditLog:
    """``write`` from the event loop, ``run`` as a task. ``dropped`` counts lines that were lost.

    ``max_bytes`` is the size at which a file is rotated, ``backups`` how many rotated ones stay; ``queue_bytes`` bounds
    what waits in memory.
    """

    def __init__(
        self,
        path: Path,
        environment: Environment,
        *,
        max_bytes: int = 100 * 1024 * 1024,
        backups: int = 10,
        queue_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._path = path
        self._environment = environment
        self._max_bytes = max_bytes
        self._backups = backups
        self._queue_bytes = queue_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._size = 0
        self._descriptor = -1
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Hand one line over, without its newline. Never waits, never fails."""
        if self._waiting_bytes + len(line) > self._queue_bytes:
            self._drop(1)
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line) + 1
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled; then write what is left and close."""
        writing: asyncio.Task[None] | None = None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    writing = asyncio.create_task(asyncio.to_thread(self._append, self._take()))
                    await asyncio.shield(writing)
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait({writing})  # its thread cannot be stopped, and must not meet us at the file
            while self._waiting:
                self._append(self._take())
            self._close()

    def _take(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        while self._waiting and size < _FLUSH_BYTES:
            line = self._waiting.popleft()
            size += len(line) + 1
            batch.append(line)
        self._waiting_bytes -= size
        return batch

    def _drop(self, count: int) -> None:
        if self.dropped == 0:
            log.warning("audit events are being lost: %s cannot be written fast enough", self._path)
        self.dropped += count

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _append(self, batch: list[bytes]) -> None:
        data = b"\n".join(batch) + b"\n"
        try:
            if self._descriptor < 0:
                self._open()
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            view = memoryview(data)
            while view:
                written = os.write(self._descriptor, view)
                self._size += written
                view = view[written:]
        except OSError as error:
            self._drop(len(batch))
            log.warning("the audit log %s cannot be written: %s", self._path, error.strerror)
            self._close()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        self._descriptor = os.open(self._path, flags, 0o600)
        os.fchmod(self._descriptor, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        self._close()
        stamp = self._environment.now().strftime("%Y-%m-%dT%H-%M-%S.%f")
        self._path.rename(self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}"))
        old = sorted(self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"))
        for surplus in old[: max(0, len(old) - self._backups)]:
            surplus.unlink(missing_ok=True)
        self._open()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
