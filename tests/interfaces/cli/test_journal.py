"""Logs in the systemd journal."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetplane.interfaces.cli.journal import JournalHandler, is_journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(5)
        yield listening


@pytest.fixture
def log(journal: socket.socket) -> Iterator[logging.Logger]:
    logger = logging.getLogger("fleetplane.test_journal")
    handler = JournalHandler(Path(journal.getsockname()))
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)  # whatever other tests have made of the root's
    yield logger
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)
    handler.close()


def entry(journal: socket.socket) -> dict[str, str]:
    data, found = journal.recv(1 << 16), {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[name.decode()], data = value.decode(), rest
    return found


def test_an_entry_has_a_priority_and_what_it_is_about(journal: socket.socket, log: logging.Logger) -> None:
    log.warning("%s was refused", "web", extra={"controller": "deployment", "object": "web", "namespace": ""})

    found = entry(journal)

    assert found["MESSAGE"] == "web was refused"
    assert (found["PRIORITY"], found["SYSLOG_IDENTIFIER"]) == ("4", "fleetplane")
    assert (found["FLEETPLANE_CONTROLLER"], found["FLEETPLANE_OBJECT"]) == ("deployment", "web")
    assert "FLEETPLANE_NAMESPACE" not in found
    assert found["CODE_FILE"].endswith("test_journal.py")


def test_a_traceback_is_one_entry(journal: socket.socket, log: logging.Logger) -> None:
    try:
        raise ValueError("PRIORITY=0")
    except ValueError:
        log.exception("it failed\nPRIORITY=0")

    found = entry(journal)

    assert found["PRIORITY"] == "3"
    assert found["MESSAGE"].startswith("it failed\nPRIORITY=0\nTraceback")


def test_without_a_journal_the_line_goes_to_stderr(
    journal: socket.socket, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(journal.getsockname()).unlink()

    log.error("it failed")

    assert capsys.readouterr().err == "<3>fleetplane.test_journal: it failed\n"


def test_only_the_stream_systemd_made_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        other = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}

        assert is_journal(named, stream.fileno())
        assert not is_journal(other, stream.fileno())
        assert not is_journal({}, stream.fileno())
        assert not is_journal({"JOURNAL_STREAM": "nonsense"}, stream.fileno())
