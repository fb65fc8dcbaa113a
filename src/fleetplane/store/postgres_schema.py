"""The shape of the PostgreSQL database: that of ``migrations``, in a schema of its own.

Text that orders lists has the collation "C", so that the order is that of code points, as everywhere else. ``head`` has
the newest revision: its one row is locked by each committing transaction to its end, which is what makes revisions
visible in order. ``compaction`` is apart from it, so that readers and compaction never wait for a commit.

A migration is never edited once released; the next one is appended.
"""

from __future__ import annotations

import re
from typing import Any, Final

from fleetplane.store.protocol import StoreError

_SCHEMA_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_KEY = (
    'resource text COLLATE "C" NOT NULL, cluster text COLLATE "C" NOT NULL,'
    ' namespace text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL'
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE head(one boolean PRIMARY KEY DEFAULT true CHECK (one), revision bigint NOT NULL)"
        " WITH (fillfactor = 10)",
        "INSERT INTO head(revision) VALUES (1)",
        "CREATE TABLE compaction(one boolean PRIMARY KEY DEFAULT true CHECK (one),"
        " compacted bigint NOT NULL, swept bigint NOT NULL) WITH (fillfactor = 10)",
        "INSERT INTO compaction(compacted, swept) VALUES (0, 0)",
        f"CREATE TABLE log(revision bigint PRIMARY KEY, {_KEY}, uid text NOT NULL, created bigint NOT NULL,"
        " previous bigint, deleted boolean NOT NULL, encoding text NOT NULL, terms jsonb NOT NULL, value bytea)",
        f"CREATE TABLE objects({_KEY}, revision bigint NOT NULL, claims text NOT NULL,"
        " PRIMARY KEY (resource, cluster, namespace, name))",
        "CREATE INDEX objects_of_cluster ON objects(cluster)",
        f"CREATE TABLE past({_KEY}, revision bigint NOT NULL, superseded bigint NOT NULL,"
        " PRIMARY KEY (resource, cluster, namespace, name, revision))",
        f'CREATE TABLE terms({_KEY}, term text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL,'
        " PRIMARY KEY (resource, term, value, cluster, namespace, name))",
        f'CREATE TABLE claims({_KEY}, scope text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL,'
        " PRIMARY KEY (cluster, scope, value))",
    ),
)


def check_name(schema: str) -> str:
    """Refuse a schema name that would need quoting; raises ``ValueError``."""
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ValueError(f"{schema!r} is no schema name: use lower-case letters, digits and underscores")
    return schema


async def migrate(connection: Any, schema: str) -> None:
    """Create the schema or bring it up to date. Servers that start together wait for each other.

    Raises ``StoreError`` where a newer version has been at work, or the database is not in UTF-8.
    """
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise StoreError(f"the database has encoding {encoding}: create it with ENCODING 'UTF8'")
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"fleetplane {schema}")
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        await connection.execute("CREATE TABLE IF NOT EXISTS migrations(version integer PRIMARY KEY)")
        version = await connection.fetchval("SELECT coalesce(max(version), 0) FROM migrations")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"schema {schema} has version {version}, written by a newer Fleetplane; this one knows"
                f" {len(MIGRATIONS)}: upgrade Fleetplane or restore a backup"
            )
        for number, migration in enumerate(MIGRATIONS[version:], version + 1):
            for statement in migration:
                await connection.execute(statement)
            await connection.execute("INSERT INTO migrations VALUES ($1)", number)
