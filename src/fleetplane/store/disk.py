"""Waiting for the disk without making the event loop wait.

A thread would do, but for Python's global lock: to begin and to report, it must get the lock from a loop that gives it
up only for moments, and under full load that took seconds where the disk took a fraction of a millisecond. So a small
helper process (``diskhelper``) does the waiting. Where none can be started, or it dies, a thread takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from fleetplane.store import diskhelper
from fleetplane.store.diskhelper import CHECKPOINT, REST, SYNC

Done = Callable[[OSError | None], None]
"""Called on the event loop when the disk has done it, or could not."""

_CHECKPOINT_BYTES = 32 << 20
_ENDING_SECONDS = 30.0


class Disk:
    """Syncs and checkpoints of one database. At most one of each is under way at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[bytes, Done] = {}
        self._thread: _Thread | None = None
        self._helper: subprocess.Popen[bytes] | None = None
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._answered)
        with theirs:
            try:
                self._helper = _start(path, theirs)
            except OSError:
                self._fall_back()

    def sync(self, done: Done) -> None:
        """Make every committed transaction durable."""
        self._ask(SYNC, done)

    def checkpoint(self, done: Done) -> None:
        """Move the write-ahead log into the database, while commits go on."""
        self._ask(CHECKPOINT, done)

    def rest(self, done: Done) -> None:
        """Move what is left of the log, while there are no commits."""
        self._ask(REST, done)

    async def close(self) -> None:
        """Let the helper go. What is still under way is not reported any more."""
        self._waiting.clear()
        self._hang_up()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.stop)
        if self._helper is not None:
            await asyncio.to_thread(_end, self._helper)

    def _ask(self, command: bytes, done: Done) -> None:
        self._waiting[command] = done
        if self._thread is None:
            try:
                self._socket.send(command)
            except OSError:
                self._fall_back()
        else:
            self._thread.submit(command)

    def _answered(self) -> None:
        try:
            answers = self._socket.recv(64)
        except BlockingIOError:
            return
        except OSError:
            answers = b""
        if not answers:
            self._fall_back()
        for at in range(0, len(answers) - 1, 2):  # each is written in one piece of two bytes
            self._finished(answers[at : at + 1], answers[at + 1])

    def _finished(self, command: bytes, number: int) -> None:
        done = self._waiting.pop(command, None)
        if done is not None:
            done(OSError(number, os.strerror(number)) if number else None)

    def _fall_back(self) -> None:
        """Go on with a thread, doing again what the helper had not answered."""
        if self._thread is not None:
            return
        self._hang_up()
        try:
            self._thread = _Thread(self._path, self._loop, self._finished)
        except (OSError, sqlite3.Error) as error:  # no process, no thread: out of descriptors, most likely
            for command in list(self._waiting):
                self._finished(command, getattr(error, "errno", None) or errno.EIO)
            return
        for command in self._waiting:
            self._thread.submit(command)

    def _hang_up(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()


def _start(path: Path, theirs: socket.socket) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise OSError(errno.ENOENT, "this Python does not know its own program")
    number = str(theirs.fileno())
    return subprocess.Popen(  # noqa: S603 - our own interpreter, our own file
        [sys.executable, "-I", "-S", diskhelper.__file__, number, os.fspath(path.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )


def _end(helper: subprocess.Popen[bytes]) -> None:
    """Wait for a helper that was hung up on. One that goes on has nobody to answer, so nothing is lost with it."""
    try:
        helper.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        helper.kill()
        helper.wait()


class _Thread:
    """The fallback: the same commands, one after the other, on a thread."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop, finished: Callable[[bytes, int], None]) -> None:
        self._files = diskhelper.Files(os.fspath(path))
        self._loop = loop
        self._finished = finished
        self._commands: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fleetplane-store-disk", daemon=True)
        self._thread.start()

    def submit(self, command: bytes) -> None:
        self._commands.put(command)

    def stop(self) -> None:
        self._commands.put(b"")
        self._thread.join()
        self._files.close()

    def _run(self) -> None:
        while command := self._commands.get():
            number = diskhelper.outcome(self._files, command)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._finished, command, number)


class Checkpoints:
    """When to checkpoint. SQLite's own automatic one would run inside some unlucky COMMIT.

    Most of the work is done while commits go on; the small rest is for the committer, between two groups, after which
    readers move to the database proper and SQLite starts the log over.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._written = 0
        self._running = False
        self.rest_due = False
        """Whether the committer should see to the rest between two groups, and then call ``done``."""

    def wrote(self, size: int) -> None:
        """Note bytes committed (roughly); may start a checkpoint."""
        self._written += size
        if self._written >= _CHECKPOINT_BYTES and not self._running and not self.rest_due:
            self._running = True
            self._disk.checkpoint(self._passed)

    def done(self) -> None:
        self.rest_due = False
        self._written = 0

    def _passed(self, error: OSError | None) -> None:
        self._running = False
        self.rest_due = error is None
        if error is not None:
            self._written = 0  # a full disk, most likely: the log still has everything, so simply try again later
