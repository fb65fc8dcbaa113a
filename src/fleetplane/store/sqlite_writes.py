"""What a group of commits writes to the SQLite database, and how compaction takes it away again.

A ``Group`` collects staged commits; of keys, terms and claims only the net effect is written, however often the group
changed them. ``write_group`` and ``sweep`` run inside a transaction of the caller and never commit themselves.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from fleetplane.store.protocol import Event, Key, Record
from fleetplane.store.queries import KEY_IS
from fleetplane.store.sqlite_reads import Resources, pack
from fleetplane.store.staging import ClaimKey, Held, Staged

KeepVersions = Callable[[str, str], int]
"""``(group, resource)`` to how many superseded versions of each object outlive compaction."""


@dataclass(slots=True)
class Group:
    """Commits that share one transaction."""

    events: list[Event] = field(default_factory=list)
    before: dict[Key, Record | None] = field(default_factory=dict)
    after: dict[Key, Held | None] = field(default_factory=dict)
    claims: dict[ClaimKey, Key | None] = field(default_factory=dict)
    waiters: list[tuple[asyncio.Future[list[Record]], list[Record]]] = field(default_factory=list)
    durable: bool = False
    bytes: int = 0
    compacted: int = 0
    swept: int = 0
    reserved: int = 0

    def add(self, staged: Staged) -> list[Record]:
        for event in staged.events:
            self.before.setdefault(event.record.key, event.previous)
            self.bytes += len(event.record.value)
        self.events += staged.events
        self.after.update(staged.keys)
        self.claims.update(staged.claims)
        return [event.record for event in staged.events]


def write_group(connection: sqlite3.Connection, resources: Resources, group: Group) -> None:
    """Write everything the group changed."""
    log: list[tuple[Any, ...]] = []
    past: list[tuple[Any, ...]] = []
    for event in group.events:
        record, previous = event.record, event.previous
        key = record.key
        number = resources.assign(key.group, key.resource)
        inherited = event.deleted and previous is not None and previous.value is record.value
        log.append(
            (
                record.revision,
                number,
                key.cluster,
                key.namespace,
                key.name,
                record.uid,
                record.created_revision,
                previous.revision if previous else None,
                event.deleted,
                record.encoding,
                pack(record.terms),
                None if inherited else record.value,
            )
        )
        if previous is not None:
            past.append((number, key.cluster, key.namespace, key.name, previous.revision, record.revision))
    if resources.unsaved:
        connection.executemany("INSERT OR IGNORE INTO resources VALUES (?, ?, ?)", resources.unsaved)
    connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", log)
    if past:
        connection.executemany("INSERT INTO past VALUES (?, ?, ?, ?, ?, ?)", past)
    _write_objects(connection, resources, group)
    _write_terms(connection, resources, group)
    if group.claims:
        _write_claims(connection, resources, group)


def _write_objects(connection: sqlite3.Connection, resources: Resources, group: Group) -> None:
    written: list[tuple[Any, ...]] = []
    gone: list[tuple[Any, ...]] = []
    for key, held in group.after.items():
        at = (resources.assign(key.group, key.resource), key.cluster, key.namespace, key.name)
        if held is None:
            gone.append(at)
        else:
            written.append((*at, held.record.revision, pack(held.claims)))
    if gone:
        connection.executemany(f"DELETE FROM objects WHERE {KEY_IS}", gone)  # noqa: S608
    if written:
        connection.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", written)


def _write_terms(connection: sqlite3.Connection, resources: Resources, group: Group) -> None:
    added: list[tuple[Any, ...]] = []
    gone: list[tuple[Any, ...]] = []
    for key, held in group.after.items():
        before = group.before[key]
        old = before.terms if before else ()
        new = held.record.terms if held else ()
        if old == new:
            continue
        number = resources.assign(key.group, key.resource)
        place = (key.cluster, key.namespace, key.name)
        gone += [(number, *term, *place) for term in set(old).difference(new)]
        added += [(number, *term, *place) for term in set(new).difference(old)]
    if gone:
        connection.executemany(f"DELETE FROM terms WHERE resource = ? AND term = ? AND value = ? AND {_PLACE}", gone)  # noqa: S608
    if added:
        connection.executemany("INSERT INTO terms VALUES (?, ?, ?, ?, ?, ?)", added)


_PLACE: Final = "cluster = ? AND namespace = ? AND name = ?"


def _write_claims(connection: sqlite3.Connection, resources: Resources, group: Group) -> None:
    gone = [claim for claim, holder in group.claims.items() if holder is None]
    taken = [
        (*claim, resources.assign(holder.group, holder.resource), holder.namespace, holder.name)
        for claim, holder in group.claims.items()
        if holder is not None
    ]
    if gone:
        connection.executemany("DELETE FROM claims WHERE cluster = ? AND scope = ? AND value = ?", gone)
    if taken:
        connection.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?)", taken)


def sweep(
    connection: sqlite3.Connection, resources: Resources, swept: int, upto: int, step: int, keep: KeepVersions
) -> int:
    """Remove what changes in ``(swept, upto]`` superseded, at most ``step`` of them; returns how far it came.

    The version that a change at or below the compacted revision replaced can be read by nobody any more, unless
    retention keeps it; a deletion's own row goes with what it deleted.
    """
    rows = connection.execute(
        "SELECT revision, resource, cluster, namespace, name, previous, deleted FROM log"
        " WHERE revision > ? AND revision <= ? ORDER BY revision LIMIT ?",
        (swept, upto, step),
    ).fetchall()
    versions: list[tuple[Any, ...]] = []
    log: list[tuple[int]] = []
    kept: dict[int, int] = {}
    for revision, number, cluster, namespace, name, previous, deleted in rows:
        at = (number, cluster, namespace, name)
        if number not in kept:
            kept[number] = max(0, keep(*resources.name(number)))
        if deleted:
            log.append((revision,))
        if kept[number]:
            # A deletion ends the history of its object; otherwise only what is older than the newest few goes.
            outdated = connection.execute(
                f"SELECT revision FROM past WHERE {KEY_IS} AND superseded <= ? ORDER BY revision DESC LIMIT -1 OFFSET ?",  # noqa: S608
                (*at, revision, 0 if deleted else kept[number]),
            ).fetchall()
            versions += [(*at, old) for (old,) in outdated]
            log += outdated
        elif previous is not None:
            versions.append((*at, previous))
            log.append((previous,))
    connection.executemany(f"DELETE FROM past WHERE {KEY_IS} AND revision = ?", versions)  # noqa: S608
    connection.executemany("DELETE FROM log WHERE revision = ?", log)
    return int(rows[-1][0]) if len(rows) == step else upto
