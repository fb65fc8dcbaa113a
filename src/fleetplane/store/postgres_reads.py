"""Everything that only reads the PostgreSQL database.

Each statement sees one state of the database and tells its revision along with what was asked, so that no answer mixes
two; a read that takes several statements runs in a transaction that keeps to the state of the first. Functions take the
connection to use and raise what the driver raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Final, NamedTuple

import msgspec

from fleetplane.store.matching import concerns
from fleetplane.store.protocol import Claim, Event, Key, Record, Selection, Term, TermMatch
from fleetplane.store.queries import EVENT, ROW, Dialect, Queries, Query, beyond
from fleetplane.store.staging import ClaimKey, Held

_pack = msgspec.json.Encoder().encode
_unpack_terms = msgspec.json.Decoder(tuple[Term, ...]).decode
_unpack_claims = msgspec.json.Decoder(tuple[Claim, ...]).decode

STATE: Final = "SELECT h.revision, c.compacted FROM head h CROSS JOIN compaction c"
_PAGE_COLUMNS: Final = "cluster, namespace, name, revision, uid, created, encoding, terms, value"


class State(NamedTuple):
    """Where the database stood when it answered."""

    revision: int
    compacted: int


def pack(pairs: Sequence[tuple[str, str]]) -> str:
    """Terms or claims as a column."""
    return _pack(pairs).decode() if pairs else "[]"


def place(key: Key) -> tuple[str, str, str, str]:
    """A key as columns: resource (with its group), cluster, namespace, name."""
    return f"{key.group}/{key.resource}", key.cluster, key.namespace, key.name


def key_of(resource: str, cluster: str, namespace: str, name: str) -> Key:
    group, _, plural = resource.partition("/")
    return Key(cluster, group, plural, namespace, name)


def _terms_hold(matches: Sequence[TermMatch]) -> Query:
    conditions = []
    parameters: list[Any] = []
    for match in matches:
        value_is = "starts_with(t->>1, ?)" if match.prefix else "t->>1 = ?"
        conditions.append(f"EXISTS (SELECT 1 FROM jsonb_array_elements(l.terms) t WHERE t->>0 = ? AND {value_is})")  # noqa: S608
        parameters += [match.name, match.value]
    return " AND ".join(conditions), parameters


def _join(table: str, alias: str, condition: str) -> str:
    """``OFFSET 0`` is how PostgreSQL is told to look up row by row."""
    return f"CROSS JOIN LATERAL (SELECT * FROM {table} {alias} WHERE {condition} OFFSET 0) {alias}"  # noqa: S608


_QUERIES: Final = Queries(Dialect(_join, _terms_hold, merges=False))


@lru_cache(1024)
def numbered(sql: str) -> str:
    """``?`` as PostgreSQL has it: ``$1``, ``$2`` …"""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)


async def state(connection: Any) -> State:
    return State(*await connection.fetchrow(STATE))


async def get(connection: Any, key: Key) -> Record | None:
    row = await connection.fetchrow(
        f"SELECT {ROW} FROM objects o JOIN log l ON l.revision = o.revision"  # noqa: S608
        " WHERE o.resource = $1 AND o.cluster = $2 AND o.namespace = $3 AND o.name = $4",
        *place(key),
    )
    return _record(key, tuple(row)) if row else None


async def held(connection: Any, keys: Sequence[Key]) -> tuple[int, dict[Key, Held]]:
    """The newest revision, and what the keys hold; those that hold nothing are missing."""
    rows = await connection.fetch(
        f"SELECT h.revision, x.* FROM head h LEFT JOIN ("  # noqa: S608
        f" SELECT o.resource, o.cluster, o.namespace, o.name, {ROW}, o.claims"
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k(resource, cluster, namespace, name)"
        " JOIN objects o USING (resource, cluster, namespace, name) JOIN log l ON l.revision = o.revision"
        ") x(resource, cluster, namespace, name, r, uid, created, encoding, terms, value, claims) ON true",
        *columns([place(key) for key in keys], 4),
    )
    found: dict[Key, Held] = {}
    for _newest, *row in rows:
        if row[0] is not None:
            key = key_of(*row[:4])
            found[key] = Held(_record(key, row[4:10]), _unpack_claims(row[10]))
    return rows[0][0], found


async def holders(connection: Any, claims: Sequence[ClaimKey]) -> Mapping[ClaimKey, Key]:
    rows = await connection.fetch(
        "SELECT c.cluster, c.scope, c.value, c.resource, c.namespace, c.name"
        " FROM unnest($1::text[], $2::text[], $3::text[]) AS k(cluster, scope, value)"
        " JOIN claims c USING (cluster, scope, value)",
        *columns(claims, 3),
    )
    return {(row[0], row[1], row[2]): key_of(row[3], row[0], row[4], row[5]) for row in rows}


async def page(
    connection: Any, selection: Selection, limit: int, after: Key | None, past: int | None
) -> tuple[State, list[Record]]:
    """At most ``limit`` records in key order after a key: the current ones, or those at revision ``past``."""
    if beyond(selection, after):
        return await state(connection), []
    sql, parameters = _QUERIES.page(_resource(selection), selection, _driver(selection.matches), after, past, limit)
    rows = await connection.fetch(
        numbered(
            f"SELECT h.revision, c.compacted, x.* FROM head h CROSS JOIN compaction c"  # noqa: S608
            f" LEFT JOIN LATERAL ({sql}) x({_PAGE_COLUMNS}) ON true ORDER BY x.cluster, x.namespace, x.name"
        ),
        *parameters,
    )
    found = State(rows[0][0], rows[0][1])
    if rows[0][2] is None:
        return found, []
    group, resource = selection.group, selection.resource
    return found, [_record(Key(row[2], group, resource, row[3], row[4]), row[5:]) for row in rows]


async def count_of(connection: Any, selection: Selection, after: Key | None = None, past: int | None = None) -> int:
    if beyond(selection, after):
        return 0
    sql, parameters = _QUERIES.count(_resource(selection), selection, _driver(selection.matches), after, past)
    return int(await connection.fetchval(numbered(sql), *parameters))


async def key_at(connection: Any, selection: Selection, offset: int) -> Key | None:
    """The current key at a position of the list, ``None`` beyond its end. At most one match, and that exact."""
    sql, parameters = _QUERIES.key_at(_resource(selection), selection, offset)
    row = await connection.fetchrow(numbered(sql), *parameters)
    return Key(row[0], selection.group, selection.resource, row[1], row[2]) if row else None


async def events(connection: Any, selection: Selection, after: int, upto: int) -> tuple[int, list[Event]]:
    """The compacted revision, and every change to the selection with ``after < revision <= upto``, oldest first."""
    sql, parameters = _QUERIES.events(_resource(selection), selection, after, upto)
    resource = _resource(selection)
    with_state = f"SELECT c.compacted, e.* FROM compaction c LEFT JOIN LATERAL ({sql}) {_EVENT_AS} ON true ORDER BY e.r"  # noqa: S608
    rows = await connection.fetch(numbered(with_state), *parameters)
    found = [_event(resource, row[1:]) for row in rows if row[1] is not None]
    return rows[0][0], [event for event in found if not selection.matches or concerns(selection, event)]


async def news(connection: Any, after: int, limit: int) -> tuple[State, list[Event]]:
    """Changes of any kind after a revision, oldest first, at most ``limit``."""
    rows = await connection.fetch(
        f"SELECT h.revision, c.compacted, e.* FROM head h CROSS JOIN compaction c LEFT JOIN LATERAL ("  # noqa: S608
        f" SELECT {EVENT}, l.resource FROM log l LEFT JOIN log p ON p.revision = l.previous"
        f" WHERE l.revision > $1 ORDER BY l.revision LIMIT $2) {_EVENT_AS_OF} ON true ORDER BY e.r",
        after,
        limit,
    )
    found = State(rows[0][0], rows[0][1])
    return found, [_event(row[18], row[2:18]) for row in rows if row[2] is not None]


async def history(connection: Any, key: Key, limit: int) -> list[Event]:
    """The newest changes of a key that are still known, newest first."""
    resource = f"{key.group}/{key.resource}"
    sql, parameters = _QUERIES.history(resource, key, limit)
    return [_event(resource, row) for row in await connection.fetch(numbered(sql), *parameters)]


async def keys_of_cluster(connection: Any, cluster: str, limit: int) -> list[Key]:
    """Some keys of a logical cluster, at most ``limit``."""
    rows = await connection.fetch(
        "SELECT resource, cluster, namespace, name FROM objects WHERE cluster = $1 LIMIT $2", cluster, limit
    )
    return [key_of(*row) for row in rows]


def columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as the arrays that ``unnest`` takes."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


_EVENT_AS: Final = "e(deleted, cluster, namespace, name, r, u, cr, en, t, v, pr, pu, pcr, pen, pt, pv)"
_EVENT_AS_OF: Final = _EVENT_AS.replace(", pv)", ", pv, resource)")


def _resource(selection: Selection) -> str:
    return f"{selection.group}/{selection.resource}"


def _driver(matches: Sequence[TermMatch]) -> TermMatch | None:
    """The match to write the query around; in what order to join is the planner's choice."""
    return next((match for match in matches if not match.prefix), matches[0] if matches else None)


def _record(key: Key, row: Sequence[Any]) -> Record:
    revision, uid, created, encoding, terms, value = row
    return Record(key, uid, revision, created, encoding, value, _unpack_terms(terms) if terms != "[]" else ())


def _event(resource: str, row: Sequence[Any]) -> Event:
    """From a row of ``EVENT``. A deletion that left the last state as it was has no value of its own."""
    deleted, cluster, namespace, name, *now = row[:10]
    key = key_of(resource, cluster, namespace, name)
    previous = None if row[10] is None else _record(key, row[10:16])
    if now[-1] is None:
        now[-1] = previous.value if previous else b""
    return Event(deleted, _record(key, now), previous)
