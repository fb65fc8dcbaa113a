"""Logs into the systemd journal, with their fields kept apart.

A service's stderr usually is the journal; systemd says so in ``JOURNAL_STREAM`` (systemd.exec(5)). Lines written there are
searched as text only. Sent to the journal's own socket in its native protocol, each entry has a priority and fields:
``journalctl -t fleetplane FLEETPLANE_CONTROLLER=deployment FLEETPLANE_OBJECT=web``.

Whatever goes wrong with the socket ends on stderr, where the journal gets it as plain lines.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

SOCKET: Final = Path("/run/systemd/journal/socket")
IDENTIFIER: Final = "fleetplane"
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7
_USUAL: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MAX_VALUE: Final = 16 * 1024
"""A datagram has room for some two hundred kibibytes; no value needs as much as this."""


def is_journal(environment: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether a descriptor is the stream that systemd connected with the journal."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


class JournalHandler(logging.Handler):
    """Sends records to the journal. Never blocks: an entry the socket does not take at once goes to stderr."""

    def __init__(self, path: Path = SOCKET) -> None:
        super().__init__()
        self._path = os.fspath(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            entry = b"".join(_encoded(name, value) for name, value in fields(record, self.format(record)))
            self._socket.sendto(entry, self._path)
        except OSError:
            sys.stderr.write(f"<{_priority(record.levelno)}>{record.name}: {record.getMessage()}\n")
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


def fields(record: logging.LogRecord, message: str) -> Iterator[tuple[str, str]]:
    """What the journal keeps of a record. ``extra`` of the logging call becomes fields of our own, with a prefix."""
    yield "MESSAGE", message
    yield "PRIORITY", str(_priority(record.levelno))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    yield "LOGGER", record.name
    yield "CODE_FILE", record.pathname
    yield "CODE_LINE", str(record.lineno)
    yield "CODE_FUNC", record.funcName
    for name, value in vars(record).items():
        if name not in _USUAL and name.isidentifier() and name.isascii() and value not in (None, ""):
            yield f"FLEETPLANE_{name.upper()}"[:64], str(value)


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), _DEBUG)


def _encoded(name: str, value: str) -> bytes:
    """One field of the native protocol; a value of several lines carries its length instead of ending with its line."""
    data = value.encode(errors="replace")[:_MAX_VALUE]
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
