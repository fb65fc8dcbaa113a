"""Waiting for the disk, for a store in another process. Run by path, with the standard library alone.

Started with a socket and the path of a database, it answers each command byte with that byte and an ``errno`` (0 for
success): ``SYNC`` makes the write-ahead log durable, ``CHECKPOINT`` moves the log into the database as far as it can
while commits go on, ``REST`` does the same once more when there are none. It leaves when the socket closes, however its
owner ended, and never keeps the owner's lock.
"""

from __future__ import annotations

import errno
import os
import queue
import signal
import socket
import sqlite3
import sys
import threading

SYNC, CHECKPOINT, REST = b"s", b"c", b"r"
_PASSIVE = "PRAGMA wal_checkpoint(PASSIVE)"


class Files:
    """The files of a database, opened for syncing and checkpointing."""

    def __init__(self, path: str) -> None:
        self._log = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        self._database = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def run(self, command: bytes) -> None:
        """Do one command. Raises OSError or sqlite3.Error."""
        if command == SYNC:
            os.fdatasync(self._log)
            return
        self._connection.execute(_PASSIVE).fetchall()
        if command == CHECKPOINT:
            # SQLite syncs the database only in a pass that reaches the end of the log; that is to find little to do.
            os.fdatasync(self._database)
            self._connection.execute(_PASSIVE).fetchall()

    def close(self) -> None:
        # The database's own descriptor last: closing it drops the locks that SQLite has on the file.
        self._connection.close()
        os.close(self._log)
        os.close(self._database)


def outcome(files: Files, command: bytes) -> int:
    """Run a command; 0, or the ``errno`` that says best what went wrong."""
    try:
        files.run(command)
    except OSError as error:
        return error.errno or errno.EIO
    except sqlite3.Error:
        return errno.EIO
    return 0


def serve(commands: socket.socket, files: Files) -> None:
    """Answer until the other side is gone. Checkpoints have a thread, so that syncs need not wait for them."""
    checkpoints: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def answer(command: bytes) -> None:
        commands.sendall(command + bytes([outcome(files, command)]))

    def checkpoint() -> None:
        while True:
            answer(checkpoints.get())

    threading.Thread(target=checkpoint, daemon=True).start()
    while received := commands.recv(16):
        for number in received:
            command = bytes([number])
            if command == SYNC:
                answer(command)
            else:
                checkpoints.put(command)


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        serve(socket.socket(fileno=int(sys.argv[1])), Files(sys.argv[2]))
    except OSError:
        pass
    finally:
        os._exit(0)  # not through sqlite3: closing the last connection would checkpoint behind the next owner's back


if __name__ == "__main__":
    main()
