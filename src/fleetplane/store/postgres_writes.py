"""What commits write to the PostgreSQL database, and how compaction takes it away again.

Functions run inside a transaction of the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fleetplane.store.compaction import KeepVersions
from fleetplane.store.postgres_reads import columns, key_of, pack, place
from fleetplane.store.staging import Effects, inherits_value

_AT: Final = (
    "{0}.resource = k.resource AND {0}.cluster = k.cluster AND {0}.namespace = k.namespace AND {0}.name = k.name"
)
_PLACES: Final = "resource, cluster, namespace, name"

# One statement, so one round trip: the parts touch different tables, or different rows of one.
_WRITE: Final = f"""
WITH changed AS (
  SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
    $8::bigint[], $9::boolean[], $10::text[], $11::text[], $12::bytea[])
    AS c(revision, {_PLACES}, uid, created, previous, deleted, encoding, terms, value)
), logged AS (
  INSERT INTO log SELECT revision, {_PLACES}, uid, created, previous, deleted, encoding, terms::jsonb, value FROM changed
), superseded AS (
  INSERT INTO past SELECT {_PLACES}, previous, revision FROM changed WHERE previous IS NOT NULL
), gone AS (
  DELETE FROM objects o USING unnest($13::text[], $14::text[], $15::text[], $16::text[]) AS k({_PLACES})
  WHERE {_AT.format("o")}
), written AS (
  INSERT INTO objects SELECT * FROM unnest($17::text[], $18::text[], $19::text[], $20::text[], $21::bigint[], $22::text[])
  ON CONFLICT ({_PLACES}) DO UPDATE SET revision = excluded.revision, claims = excluded.claims
), moved AS (
  UPDATE head SET revision = $23
)
SELECT pg_notify($24, $25)
"""  # noqa: S608

_WRITE_TERMS: Final = f"""
WITH gone AS (
  DELETE FROM terms t USING unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
    AS k({_PLACES}, term, value)
  WHERE {_AT.format("t")} AND t.term = k.term AND t.value = k.value
)
INSERT INTO terms SELECT * FROM unnest($7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[])
"""  # noqa: S608

_WRITE_CLAIMS: Final = """
WITH gone AS (
  DELETE FROM claims c USING unnest($1::text[], $2::text[], $3::text[]) AS k(cluster, scope, value)
  WHERE c.cluster = k.cluster AND c.scope = k.scope AND c.value = k.value
)
INSERT INTO claims SELECT * FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
ON CONFLICT (cluster, scope, value) DO UPDATE
SET resource = excluded.resource, namespace = excluded.namespace, name = excluded.name
"""


async def write(connection: Any, effects: Effects, channel: str, me: str) -> None:
    """Write everything that was changed, and wake the other servers when it is committed; ``me`` is who says so."""
    changed = []
    for event in effects.events:
        record, previous = event.record, event.previous
        changed.append(
            (
                record.revision,
                *place(record.key),
                record.uid,
                record.created_revision,
                previous.revision if previous else None,
                event.deleted,
                record.encoding,
                pack(record.terms),
                None if inherits_value(event) else record.value,
            )
        )
    gone = [place(key) for key, held in effects.after.items() if held is None]
    written = [
        (*place(key), held.record.revision, pack(held.claims))
        for key, held in effects.after.items()
        if held is not None
    ]
    await connection.execute(
        _WRITE,
        *columns(changed, 12),
        *columns(gone, 4),
        *columns(written, 6),
        effects.events[-1].record.revision,
        channel,
        me,
    )
    old_terms, new_terms = effects.terms()
    if old_terms or new_terms:
        old_rows, new_rows = ([(*place(key), *term) for key, term in terms] for terms in (old_terms, new_terms))
        await connection.execute(_WRITE_TERMS, *columns(old_rows, 6), *columns(new_rows, 6))
    if effects.claims:
        free = [claim for claim, holder in effects.claims.items() if holder is None]
        taken = [(*place(holder), claim[1], claim[2]) for claim, holder in effects.claims.items() if holder is not None]
        await connection.execute(_WRITE_CLAIMS, *columns(free, 3), *columns(taken, 6))


async def sweep(connection: Any, upto: int, step: int, keep: KeepVersions, *, wait: bool) -> int | None:
    """Remove what changes up to a revision superseded, at most ``step`` of them; returns how far it came.

    Where another server is at it: wait for it, or return ``None``. See the SQLite engine's for what may go.
    """
    lock = "" if wait else "SKIP LOCKED"
    swept = await connection.fetchval(f"SELECT swept FROM compaction FOR UPDATE {lock}")  # noqa: S608
    if swept is None:
        return None
    rows = await connection.fetch(
        f"SELECT revision, previous, deleted, {_PLACES} FROM log WHERE revision > $1 AND revision <= $2"  # noqa: S608
        " ORDER BY revision LIMIT $3",
        swept,
        upto,
        step,
    )
    log: list[int] = []
    versions: list[Sequence[Any]] = []
    kept: dict[str, int] = {}
    for revision, previous, deleted, *at in rows:
        if at[0] not in kept:
            key = key_of(*at)
            kept[at[0]] = max(0, keep(key.group, key.resource))
        if deleted:
            log.append(revision)
        if kept[at[0]]:
            outdated = await connection.fetch(
                "SELECT revision FROM past WHERE resource = $1 AND cluster = $2 AND namespace = $3 AND name = $4"
                " AND superseded <= $5 ORDER BY revision DESC OFFSET $6",
                *at,
                revision,
                0 if deleted else kept[at[0]],
            )
            versions += [(*at, old[0]) for old in outdated]
        elif previous is not None:
            versions.append((*at, previous))
    log += [version[4] for version in versions]
    if versions:
        await connection.execute(
            "DELETE FROM past p USING unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])"  # noqa: S608
            f" AS k({_PLACES}, revision) WHERE {_AT.format('p')} AND p.revision = k.revision",
            *columns(versions, 5),
        )
    if log:
        await connection.execute("DELETE FROM log WHERE revision = ANY($1::bigint[])", log)
    reached = int(rows[-1][0]) if len(rows) == step else max(upto, swept)
    await connection.execute("UPDATE compaction SET swept = $1", reached)
    return reached
