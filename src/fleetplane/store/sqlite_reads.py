"""Everything that only reads the SQLite database.

A ``Reader`` works on one connection and sees whatever snapshot that connection holds; it is synchronous, and every call
does a bounded amount of work, so that it may run on the event loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from fleetplane.store.matching import concerns, has_terms
from fleetplane.store.protocol import Claim, Event, Key, Record, Selection, Term, TermMatch
from fleetplane.store.queries import ROW, Dialect, Queries, Query, beyond
from fleetplane.store.staging import ClaimKey, Held

_GET: Final = (
    f"SELECT {ROW}, o.claims FROM objects o CROSS JOIN log l ON l.revision = o.revision"  # noqa: S608
    " WHERE o.resource = ? AND o.cluster = ? AND o.namespace = ? AND o.name = ?"
)
_ESTIMATE: Final = 1_000
_ASKED_AT_ONCE: Final = 8
_HOLDER: Final = (
    "SELECT cluster, scope, value, resource, namespace, name FROM claims WHERE cluster = ? AND scope = ? AND value = ?"
)
_HOLDERS: Final = [" UNION ALL ".join([_HOLDER] * count) for count in range(_ASKED_AT_ONCE + 1)]
"""By how many are asked about: one statement costs little more for several."""

_pack = msgspec.msgpack.Encoder().encode
_unpack_terms = msgspec.msgpack.Decoder(tuple[Term, ...]).decode
_unpack_claims = msgspec.msgpack.Decoder(tuple[Claim, ...]).decode
_unpack_matches = lru_cache(256)(msgspec.msgpack.Decoder(tuple[TermMatch, ...]).decode)


def pack(pairs: Sequence[tuple[str, str]]) -> bytes | None:
    """Terms or claims as a column: nothing for none."""
    return _pack(pairs) if pairs else None


def _terms_hold(matches: Sequence[TermMatch]) -> Query:
    return "has_terms(l.terms, ?)", [_pack(matches)]


def _join(table: str, alias: str, condition: str) -> str:
    """``CROSS JOIN`` is how SQLite is told to join in the order written."""
    return f"CROSS JOIN {table} {alias} ON {condition}"


_QUERIES: Final = Queries(Dialect(_join, _terms_hold, merges=True))


def _sql_has_terms(packed: bytes | None, matches: bytes) -> bool:
    return has_terms(_unpack_matches(matches), _unpack_terms(packed) if packed else ())


class Resources:
    """The small numbers that stand for (group, resource) in rows; assigned once, never reused."""

    def __init__(self, rows: Sequence[tuple[int, str, str]]) -> None:
        self._numbers = {(group, resource): number for number, group, resource in rows}
        self._names = {number: name for name, number in self._numbers.items()}
        self.unsaved: list[tuple[int, str, str]] = []

    def find(self, group: str, resource: str) -> int | None:
        return self._numbers.get((group, resource))

    def assign(self, group: str, resource: str) -> int:
        number = self._numbers.get((group, resource))
        if number is None:
            number = len(self._numbers) + 1
            self._numbers[group, resource] = number
            self._names[number] = (group, resource)
            self.unsaved.append((number, group, resource))
        return number

    def name(self, number: int) -> tuple[str, str]:
        return self._names[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._names)


class Reader:
    """Reads on one connection. ``resources`` is shared with the writer."""

    def __init__(self, connection: sqlite3.Connection, resources: Resources) -> None:
        self._connection = connection
        self._resources = resources
        connection.create_function("has_terms", 2, _sql_has_terms, deterministic=True)

    def get(self, key: Key) -> Record | None:
        held = self.held(key)
        return None if held is None else held.record

    def held(self, key: Key) -> Held | None:
        """What the key holds now."""
        cluster, group, resource, namespace, name = key
        number = self._resources.find(group, resource)
        if number is None:
            return None
        found = self._connection.execute(_GET, (number, cluster, namespace, name)).fetchone()
        if found is None:
            return None
        revision, uid, created, encoding, terms, value, claims = found
        record = Record(key, uid, revision, created, encoding, value, _unpack_terms(terms) if terms else ())
        return Held(record, _unpack_claims(claims) if claims else ())

    def holders(self, wanted: Sequence[ClaimKey]) -> dict[ClaimKey, Key]:
        """Who holds each of these, where anybody does."""
        found: dict[ClaimKey, Key] = {}
        for at in range(0, len(wanted), _ASKED_AT_ONCE):
            some = wanted[at : at + _ASKED_AT_ONCE]
            rows = self._connection.execute(_HOLDERS[len(some)], [text for claim in some for text in claim])
            for cluster, scope, value, number, namespace, name in rows:
                found[cluster, scope, value] = Key(cluster, *self._resources.name(number), namespace, name)
        return found

    def page(self, selection: Selection, limit: int, after: Key | None = None, past: int | None = None) -> list[Record]:
        """At most ``limit`` records in key order after a key: the current ones, or those at revision ``past``."""
        group, resource = selection.group, selection.resource
        number = self._resources.find(group, resource)
        if number is None or beyond(selection, after):
            return []
        driver = self._driver(number, selection.matches)
        sql, parameters = _QUERIES.page(number, selection, driver, after, past, limit)
        rows = self._connection.execute(sql, parameters).fetchall()
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
        if number is None or beyond(selection, after):
            return 0
        driver = self._driver(number, selection.matches)
        return self._number(_QUERIES.count(number, selection, driver, after, past))

    def key_at(self, selection: Selection, offset: int, after: Key | None = None) -> Key | None:
        """The current key at a position after another, ``None`` beyond the end, of a ``rankable`` selection."""
        number = self._resources.find(selection.group, selection.resource)
        if number is None:
            return None
        found = self._connection.execute(*_QUERIES.key_at(number, selection, offset, after)).fetchone()
        if found is None:
            return None
        cluster, namespace, name = found
        return Key(cluster, selection.group, selection.resource, namespace, name)

    def count_between(self, selection: Selection, after: Key | None, upto: Key | None, enough: int) -> int:
        """How many current keys lie after one and up to another, at most ``enough``, of a ``rankable`` selection."""
        number = self._resources.find(selection.group, selection.resource)
        if number is None:
            return 0
        return self._number(_QUERIES.count_between(number, selection, after, upto, enough))

    def events(self, selection: Selection, after: int, upto: int) -> list[Event]:
        """Every change to the selection with ``after < revision <= upto``, oldest first."""
        number = self._resources.find(selection.group, selection.resource)
        if number is None:
            return []
        rows = self._connection.execute(*_QUERIES.events(number, selection, after, upto)).fetchall()
        found = (_event(selection.group, selection.resource, row) for row in rows)
        return [event for event in found if not selection.matches or concerns(selection, event)]

    def history(self, key: Key, limit: int) -> list[Event]:
        """The newest changes of a key that are still known, newest first."""
        number = self._resources.find(key.group, key.resource)
        if number is None:
            return []
        rows = self._connection.execute(*_QUERIES.history(number, key, limit)).fetchall()
        return [_event(key.group, key.resource, row) for row in rows]

    def keys_of_cluster(self, cluster: str, limit: int) -> list[Key]:
        """Some keys of a logical cluster, at most ``limit``."""
        found: list[Key] = []
        for number in self._resources:
            rows = self._connection.execute(
                "SELECT namespace, name FROM objects WHERE resource = ? AND cluster = ? LIMIT ?",
                (number, cluster, limit - len(found)),
            ).fetchall()
            group, resource = self._resources.name(number)
            found += [Key(cluster, group, resource, namespace, name) for namespace, name in rows]
            if len(found) == limit:
                break
        return found

    def _driver(self, number: int, matches: Sequence[TermMatch]) -> TermMatch | None:
        """The match whose index is followed: the most selective of the exact ones."""
        exact = [match for match in matches if not match.prefix] or list(matches)
        if len(exact) <= 1:
            return exact[0] if exact else None
        return min(exact, key=lambda match: self._number(_QUERIES.estimate(number, match, _ESTIMATE)))

    def _number(self, query: Query) -> int:
        return int(self._connection.execute(*query).fetchone()[0])


def _event(group: str, resource: str, row: Sequence[Any]) -> Event:
    """From a row of ``EVENT``. A deletion that left the last state as it was has no value of its own."""
    deleted, cluster, namespace, name, *now = row[:10]
    key = Key(cluster, group, resource, namespace, name)
    previous = None if row[10] is None else _record(key, row[10:])
    if now[-1] is None:
        now[-1] = previous.value if previous else b""
    return Event(bool(deleted), _record(key, now), previous)


def _record(key: Key, row: Sequence[Any]) -> Record:
    revision, uid, created, encoding, terms, value = row
    return Record(key, uid, revision, created, encoding, value, _unpack_terms(terms) if terms else ())
