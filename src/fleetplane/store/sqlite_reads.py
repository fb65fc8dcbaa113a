"""Queries on the SQLite database: everything that only reads.

A ``Reader`` works on one connection and sees whatever snapshot that connection holds; it is synchronous, and every call
does a bounded amount of work, so that it may run on the event loop. No query scans: lists follow the primary key of
``objects``, or that of ``terms`` for the most selective match; further matches are tested on the candidates.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from fleetplane.store.matching import concerns, has_terms, successor
from fleetplane.store.protocol import Claim, Event, Key, Record, Selection, Term, TermMatch
from fleetplane.store.staging import ClaimKey, Held

_COLUMNS: Final = "l.cluster, l.namespace, l.name, l.revision, l.uid, l.created, l.encoding, l.terms, l.value"
_PREVIOUS: Final = "p.revision, p.uid, p.created, p.encoding, p.terms, p.value"
_ESTIMATE: Final = 1_000

_pack = msgspec.msgpack.Encoder().encode
_unpack_terms = msgspec.msgpack.Decoder(tuple[Term, ...]).decode
_unpack_claims = msgspec.msgpack.Decoder(tuple[Claim, ...]).decode
_unpack_matches = lru_cache(256)(msgspec.msgpack.Decoder(tuple[TermMatch, ...]).decode)

Row = Sequence[Any]


def pack(pairs: Sequence[tuple[str, str]]) -> bytes | None:
    """Terms or claims as a column: nothing for none."""
    return _pack(pairs) if pairs else None


def unpack_terms(packed: bytes | None) -> tuple[Term, ...]:
    return _unpack_terms(packed) if packed else ()


def _sql_has_terms(packed: bytes | None, matches: bytes) -> bool:
    return has_terms(_unpack_matches(matches), unpack_terms(packed))


class Resources:
    """The small numbers that stand for (group, resource) in rows; assigned once, never reused."""

    def __init__(self, rows: Sequence[tuple[int, str, str]]) -> None:
        self._ids = {(group, resource): number for number, group, resource in rows}
        self._names = {number: name for name, number in self._ids.items()}
        self.unsaved: list[tuple[int, str, str]] = []

    def find(self, group: str, resource: str) -> int | None:
        return self._ids.get((group, resource))

    def assign(self, group: str, resource: str) -> int:
        number = self._ids.get((group, resource))
        if number is None:
            number = len(self._ids) + 1
            self._ids[group, resource] = number
            self._names[number] = (group, resource)
            self.unsaved.append((number, group, resource))
        return number

    def name(self, number: int) -> tuple[str, str]:
        return self._names[number]

    def numbers(self) -> list[int]:
        return list(self._names)


class Reader:
    """Reads on one connection. ``resources`` is shared with the writer."""

    def __init__(self, connection: sqlite3.Connection, resources: Resources) -> None:
        self._connection = connection
        self._resources = resources
        connection.create_function("has_terms", 2, _sql_has_terms, deterministic=True)

    def get(self, key: Key) -> Record | None:
        held = self.held(key)
        return held.record if held else None

    def held(self, key: Key) -> Held | None:
        """What the key holds now."""
        cluster, group, resource, namespace, name = key
        number = self._resources.find(group, resource)
        if number is None:
            return None
        row = self._connection.execute(
            "SELECT l.revision, l.uid, l.created, l.encoding, l.terms, l.value, o.claims FROM objects o"
            " CROSS JOIN log l ON l.revision = o.revision"
            " WHERE o.resource = ? AND o.cluster = ? AND o.namespace = ? AND o.name = ?",
            (number, cluster, namespace, name),
        ).fetchone()
        if row is None:
            return None
        revision, uid, created, encoding, terms, value, claims = row
        record = Record(key, uid, revision, created, encoding, value, _unpack_terms(terms) if terms else ())
        return Held(record, _unpack_claims(claims) if claims else ())

    def holder(self, wanted: ClaimKey) -> Key | None:
        row = self._connection.execute(
            "SELECT resource, namespace, name FROM claims WHERE cluster = ? AND scope = ? AND value = ?", wanted
        ).fetchone()
        if row is None:
            return None
        number, namespace, name = row
        return Key(wanted[0], *self._resources.name(number), namespace, name)

    def page(self, selection: Selection, limit: int, after: Key | None = None, past: int | None = None) -> list[Record]:
        """At most ``limit`` records in key order after a key: the current ones, or those at revision ``past``."""
        number = self._resources.find(selection.group, selection.resource)
        if number is None or _beyond(selection, after):
            return []
        sql, parameters = self._branch(selection, number, _COLUMNS, after, past)
        if past is not None:
            more, added = _past_branch(selection, number, _COLUMNS, after, past)
            sql, parameters = f"{sql} UNION ALL {more}", parameters + added
        rows = self._connection.execute(f"{sql} ORDER BY 1, 2, 3 LIMIT ?", [*parameters, limit]).fetchall()
        group, resource = selection.group, selection.resource
        return [
            Record(
                Key(cluster, group, resource, namespace, name),
                uid,
                revision,
                created,
                encoding,
                value,
                _unpack_terms(terms) if terms else (),
            )
            for cluster, namespace, name, revision, uid, created, encoding, terms, value in rows
        ]

    def count(self, selection: Selection, after: Key | None = None, past: int | None = None) -> int:
        number = self._resources.find(selection.group, selection.resource)
        if number is None or _beyond(selection, after):
            return 0
        sql, parameters = self._branch(selection, number, "count(*)", after, past)
        total = int(self._connection.execute(sql, parameters).fetchone()[0])
        if past is not None:
            sql, parameters = _past_branch(selection, number, "count(*)", after, past)
            total += int(self._connection.execute(sql, parameters).fetchone()[0])
        return total

    def key_at(self, selection: Selection, offset: int) -> Key | None:
        """The current key at a position of the list, ``None`` beyond its end. At most one match, and that exact."""
        number = self._resources.find(selection.group, selection.resource)
        if number is None:
            return None
        table, conditions = "objects", ["v.resource = ?"]
        parameters: list[Any] = [number]
        for match in selection.matches:
            table = "terms"
            conditions += ["v.term = ?", "v.value = ?"]
            parameters += [match.name, match.value]
        scope, added = _scope("v", selection, None)
        row = self._connection.execute(
            f"SELECT v.cluster, v.namespace, v.name FROM {table} v WHERE {' AND '.join(conditions + scope)}"  # noqa: S608
            " ORDER BY 1, 2, 3 LIMIT 1 OFFSET ?",
            [*parameters, *added, offset],
        ).fetchone()
        return Key(row[0], selection.group, selection.resource, row[1], row[2]) if row else None

    def events(self, selection: Selection, after: int, upto: int) -> list[Event]:
        """Every change to the selection with ``after < revision <= upto``, oldest first."""
        number = self._resources.find(selection.group, selection.resource)
        if number is None:
            return []
        scope, added = _scope("l", selection, None)
        conditions = ["l.revision > ?", "l.revision <= ?", "l.resource = ?", *scope]
        rows = self._connection.execute(
            f"SELECT l.deleted, {_COLUMNS}, {_PREVIOUS} FROM log l LEFT JOIN log p ON p.revision = l.previous"  # noqa: S608
            f" WHERE {' AND '.join(conditions)} ORDER BY l.revision",
            [after, upto, number, *added],
        ).fetchall()
        found = (_event(selection.group, selection.resource, row) for row in rows)
        return [event for event in found if not selection.matches or concerns(selection, event)]

    def history(self, key: Key, limit: int) -> list[Event]:
        """The newest changes of a key that are still known, newest first."""
        number = self._resources.find(key.group, key.resource)
        if number is None:
            return []
        at = (number, key.cluster, key.namespace, key.name)
        where = "resource = ? AND cluster = ? AND namespace = ? AND name = ?"
        rows = self._connection.execute(
            f"SELECT l.deleted, {_COLUMNS}, {_PREVIOUS} FROM ("  # noqa: S608
            f" SELECT revision FROM objects WHERE {where}"
            f" UNION SELECT revision FROM (SELECT revision FROM past WHERE {where} ORDER BY revision DESC LIMIT ?)"
            f" UNION SELECT superseded FROM (SELECT superseded FROM past WHERE {where} ORDER BY revision DESC LIMIT ?)"
            ") v JOIN log l ON l.revision = v.revision LEFT JOIN log p ON p.revision = l.previous"
            " ORDER BY l.revision DESC LIMIT ?",
            [*at, *at, limit, *at, limit, limit],
        ).fetchall()
        return [_event(key.group, key.resource, row) for row in rows]

    def keys_of_cluster(self, cluster: str, limit: int) -> list[Key]:
        """Some keys of a logical cluster, at most ``limit``."""
        found: list[Key] = []
        for number in self._resources.numbers():
            rows = self._connection.execute(
                "SELECT namespace, name FROM objects WHERE resource = ? AND cluster = ? LIMIT ?",
                (number, cluster, limit - len(found)),
            ).fetchall()
            group, resource = self._resources.name(number)
            found += [Key(cluster, group, resource, namespace, name) for namespace, name in rows]
            if len(found) == limit:
                break
        return found

    def _branch(
        self, selection: Selection, number: int, columns: str, after: Key | None, past: int | None
    ) -> tuple[str, list[Any]]:
        """The current rows (with ``past``: those already there at that revision)."""
        matches = selection.matches
        needs_log = columns is _COLUMNS or len(matches) > 1
        conditions: list[str] = []
        parameters: list[Any]
        if not matches:
            scope, added = _scope("o", selection, after)
            source, parameters = "objects o", [number, *added]
            conditions = ["o.resource = ?", *scope]
        else:
            driver = matches[0] if len(matches) == 1 else self._most_selective(number, matches)
            scope, added = _scope("t", selection, after)
            chosen, parameters = _term_condition("t", number, driver)
            parameters += added
            where = " AND ".join(chosen + scope)
            if driver.prefix:
                terms = f"(SELECT DISTINCT t.cluster, t.namespace, t.name FROM terms t WHERE {where}) t"  # noqa: S608
            else:
                terms, conditions = "terms t", chosen + scope
            source = (
                f"{terms} CROSS JOIN objects o ON o.resource = {number}"
                " AND o.cluster = t.cluster AND o.namespace = t.namespace AND o.name = t.name"
            )
        if needs_log:
            source += " CROSS JOIN log l ON l.revision = o.revision"
        if past is not None:
            conditions.append("o.revision <= ?")
            parameters.append(past)
        if len(matches) > 1:
            conditions.append("has_terms(l.terms, ?)")
            parameters.append(_pack(matches))
        if columns is _COLUMNS:
            columns = columns.replace("l.cluster, l.namespace, l.name", "o.cluster, o.namespace, o.name")
            if matches:
                columns = columns.replace("o.cluster, o.namespace, o.name", "t.cluster, t.namespace, t.name")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT {columns} FROM {source}{where}", parameters  # noqa: S608

    def _most_selective(self, number: int, matches: Sequence[TermMatch]) -> TermMatch:
        exact = [match for match in matches if not match.prefix] or list(matches)
        if len(exact) == 1:
            return exact[0]
        return min(exact, key=lambda match: self._estimate(number, match))

    def _estimate(self, number: int, match: TermMatch) -> int:
        conditions, parameters = _term_condition("t", number, match)
        row = self._connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM terms t WHERE {' AND '.join(conditions)} LIMIT {_ESTIMATE})",  # noqa: S608
            parameters,
        ).fetchone()
        return int(row[0])


def _past_branch(
    selection: Selection, number: int, columns: str, after: Key | None, past: int
) -> tuple[str, list[Any]]:
    """The rows that were current at revision ``past`` and have been superseded since."""
    scope, added = _scope("o", selection, after)
    conditions = ["o.resource = ?", *scope, "o.revision <= ?", "o.superseded > ?"]
    parameters: list[Any] = [number, *added, past, past]
    source = "past o"
    if columns is _COLUMNS or selection.matches:
        source += " CROSS JOIN log l ON l.revision = o.revision"
    if selection.matches:
        conditions.append("has_terms(l.terms, ?)")
        parameters.append(_pack(selection.matches))
    columns = columns.replace("l.cluster, l.namespace, l.name", "o.cluster, o.namespace, o.name")
    return f"SELECT {columns} FROM {source} WHERE {' AND '.join(conditions)}", parameters  # noqa: S608


def _term_condition(alias: str, number: int, match: TermMatch) -> tuple[list[str], list[Any]]:
    conditions = [f"{alias}.resource = ?", f"{alias}.term = ?"]
    parameters: list[Any] = [number, match.name]
    if not match.prefix:
        return [*conditions, f"{alias}.value = ?"], [*parameters, match.value]
    if match.value:
        conditions.append(f"{alias}.value >= ?")
        parameters.append(match.value)
        if (end := successor(match.value)) is not None:
            conditions.append(f"{alias}.value < ?")
            parameters.append(end)
    return conditions, parameters


def _beyond(selection: Selection, after: Key | None) -> bool:
    """Whether nothing of the selection can follow the key."""
    if after is None or selection.cluster is None:
        return False
    if selection.cluster != after.cluster:
        return selection.cluster < after.cluster
    return selection.namespace is not None and selection.namespace < after.namespace


def _scope(alias: str, selection: Selection, after: Key | None) -> tuple[list[str], list[Any]]:
    """The conditions a key must meet, written so that the primary key serves the start of the range."""
    conditions: list[str] = []
    parameters: list[Any] = []
    for column, wanted in (
        ("cluster", selection.cluster),
        ("namespace", selection.namespace),
        ("name", selection.name),
    ):
        if wanted is not None:
            conditions.append(f"{alias}.{column} = ?")
            parameters.append(wanted)
    if after is None:
        return conditions, parameters
    if selection.cluster is None:
        conditions.append(f"({alias}.cluster, {alias}.namespace, {alias}.name) > (?, ?, ?)")
        parameters += (after.cluster, after.namespace, after.name)
    elif selection.cluster == after.cluster:
        if selection.namespace is None:
            conditions.append(f"({alias}.namespace, {alias}.name) > (?, ?)")
            parameters += (after.namespace, after.name)
        elif selection.namespace == after.namespace:
            conditions.append(f"{alias}.name > ?")
            parameters.append(after.name)
    return conditions, parameters


def _event(group: str, resource: str, row: Row) -> Event:
    deleted, cluster, namespace, name, revision, uid, created, encoding, terms, value = row[:10]
    key = Key(cluster, group, resource, namespace, name)
    previous = None
    if row[10] is not None:
        p_revision, p_uid, p_created, p_encoding, p_terms, p_value = row[10:]
        previous = Record(key, p_uid, p_revision, p_created, p_encoding, p_value, unpack_terms(p_terms))
        if value is None:
            value = p_value
    if value is None:
        value = b""
    return Event(bool(deleted), Record(key, uid, revision, created, encoding, value, unpack_terms(terms)), previous)
