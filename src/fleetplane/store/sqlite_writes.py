"""What a group of commits writes to the SQLite database, and how compaction takes it away again.

``write`` and ``sweep`` run inside a transaction of the caller and never commit themselves.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from fleetplane.store.compaction import KeepVersions
from fleetplane.store.protocol import Key, Record
from fleetplane.store.queries import KEY_IS
from fleetplane.store.sqlite_reads import Resources, pack
from fleetplane.store.staging import Effects, inherits_value


@dataclass(slots=True)
class Group:
    """Commits that share one transaction."""

    effects: Effects = field(default_factory=Effects)
    waiters: list[tuple[asyncio.Future[list[Record]], list[Record]]] = field(default_factory=list)
    durable: bool = False
    compacted: int = 0
    swept: int = 0
    reserved: int = 0

    @property
    def revision(self) -> int:
        """The last revision of the group, 0 if it changes nothing."""
        return self.effects.events[-1].record.revision if self.effects.events else 0


def write(connection: sqlite3.Connection, resources: Resources, effects: Effects) -> None:
    """Write everything that was changed."""
    log: list[tuple[Any, ...]] = []
    past: list[tuple[Any, ...]] = []
    for event in effects.events:
        record, previous = event.record, event.previous
        place = _place(resources, record.key)
        log.append(
            (
                record.revision,
                *place,
                record.uid,
                record.created_revision,
                previous.revision if previous else None,
                event.deleted,
                record.encoding,
                pack(record.terms),
                None if inherits_value(event) else record.value,
            )
        )
        if previous is not None:
            past.append((*place, previous.revision, record.revision))
    if resources.unsaved:
        connection.executemany("INSERT OR IGNORE INTO resources VALUES (?, ?, ?)", resources.unsaved)
    connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", log)
    if past:
        connection.executemany("INSERT INTO past VALUES (?, ?, ?, ?, ?, ?)", past)
    _write_objects(connection, resources, effects)
    _write_terms(connection, resources, effects)
    if effects.claims:
        _write_claims(connection, resources, effects)


def _place(resources: Resources, key: Key) -> tuple[int, str, str, str]:
    return resources.assign(key.group, key.resource), key.cluster, key.namespace, key.name


def _write_objects(connection: sqlite3.Connection, resources: Resources, effects: Effects) -> None:
    written: list[tuple[Any, ...]] = []
    gone: list[tuple[Any, ...]] = []
    for key, held in effects.after.items():
        if held is None:
            gone.append(_place(resources, key))
        else:
            written.append((*_place(resources, key), held.record.revision, pack(held.claims)))
    if gone:
        connection.executemany(f"DELETE FROM objects WHERE {KEY_IS}", gone)  # noqa: S608
    if written:
        connection.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", written)


def _write_terms(connection: sqlite3.Connection, resources: Resources, effects: Effects) -> None:
    gone, new = effects.terms()
    if gone:
        connection.executemany(
            f"DELETE FROM terms WHERE {KEY_IS} AND term = ? AND value = ?",  # noqa: S608
            [(*_place(resources, key), *term) for key, term in gone],
        )
    if new:
        connection.executemany(
            "INSERT INTO terms(resource, cluster, namespace, name, term, value) VALUES (?, ?, ?, ?, ?, ?)",
            [(*_place(resources, key), *term) for key, term in new],
        )


def _write_claims(connection: sqlite3.Connection, resources: Resources, effects: Effects) -> None:
    gone = [claim for claim, holder in effects.claims.items() if holder is None]
    taken = [
        (*claim, resources.assign(holder.group, holder.resource), holder.namespace, holder.name)
        for claim, holder in effects.claims.items()
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
