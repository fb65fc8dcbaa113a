"""The files of a SQLite store: made private, locked against a second process, brought to the current schema.

The lock is the kernel's (``flock``) on a file of its own, so it ends with its holder however that ends. Nothing here
may open and close the database file itself while SQLite has it open: POSIX would drop SQLite's own locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetplane.store.migrations import MIGRATIONS
from fleetplane.store.protocol import StoreError, StoreLocked, StoreUnavailable

_FIRST_REVISION = 1
_RESERVE = 1_000_000
_BUSY_SECONDS = 5.0


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock beside the database at ``path``.

    Raises ``StoreLocked`` when another store, in this process or another, has it.
    """
    held = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(held, 32).decode(errors="replace").strip()
        os.close(held)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise StoreUnavailable(f"cannot lock {path}: {error.strerror}") from error
        who = f"process {owner}" if owner else "another process"
        raise StoreLocked(f"{path} is in use by {who}: stop that first, or choose another data directory") from None
    os.ftruncate(held, 0)
    os.pwrite(held, f"{os.getpid()}\n".encode(), 0)
    try:
        yield
    finally:
        os.close(held)


def make_private(path: Path) -> None:
    """See that the database, and so the files SQLite puts beside it, are for their owner only (mode 0600)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
        if file.exists():
            file.chmod(0o600)


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection that leaves transactions to its user; ``None`` is a database in memory."""
    connection = sqlite3.connect(
        path if path is not None else ":memory:",
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        timeout=_BUSY_SECONDS,
    )
    if path is not None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    # KiB. What is not in it is in the system's cache of the file, and as quick to get (measured by bench/store.py).
    connection.execute("PRAGMA cache_size = -4000")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def limit_size(connection: sqlite3.Connection, limit: int) -> None:
    """Let the database count as full at ``limit`` bytes."""
    page = int(connection.execute("PRAGMA page_size").fetchone()[0])
    connection.execute(f"PRAGMA max_page_count = {max(1, limit // page)}")


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where an opened database stands: newest revision, compacted revision, how far compaction has swept."""

    revision: int
    compacted: int
    swept: int
    reserved: int


def prepare(connection: sqlite3.Connection, boot: str) -> Beginning:
    """Migrate the schema and find the revision to go on from, in one transaction.

    ``boot`` names the running boot of the machine. A change acknowledged before it was durable survives the death of
    its process but not that of its machine; so revisions are reserved ahead, and after a crash under another boot the
    store goes on above everything it can have told, and makes watchers list again.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        _migrate(connection)
        meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        newest = connection.execute("SELECT max(revision) FROM log").fetchone()[0] or 0
        compacted = int(meta.get("compacted", 0))
        revision = max(newest, compacted, int(meta.get("revision", 0)), _FIRST_REVISION)
        if meta.get("boot", boot) != boot:
            revision = compacted = max(revision, int(meta.get("reserved", 0)))
        reserved = revision + _RESERVE
        set_meta(connection, boot=boot, compacted=compacted, reserved=reserved)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return Beginning(revision, compacted, int(meta.get("swept", 0)), reserved)


def finish(connection: sqlite3.Connection, revision: int) -> None:
    """Note that the store was closed in good order at ``revision``."""
    connection.execute("BEGIN IMMEDIATE")
    set_meta(connection, revision=revision)
    connection.execute("DELETE FROM meta WHERE name = 'boot'")
    connection.execute("COMMIT")


def set_meta(connection: sqlite3.Connection, **values: int | str) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))


def reserve(connection: sqlite3.Connection, revision: int) -> int:
    """Extend the reserved revisions beyond ``revision``; the transaction must be durable before any of them is told."""
    set_meta(connection, reserved=revision + _RESERVE)
    return revision + _RESERVE


def boot_id() -> str:
    """What tells one boot of this machine from the next; unique where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"unknown-{os.getpid()}"


def _migrate(connection: sqlite3.Connection) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StoreError(
            f"this database has schema {version}, written by a newer Fleetplane; this one knows {len(MIGRATIONS)}:"
            " upgrade Fleetplane or restore a backup"
        )
    for migration in MIGRATIONS[version:]:
        for statement in migration:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
