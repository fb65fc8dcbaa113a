"""The shape of the SQLite database, version by version.

``log`` is the truth: one row per change, its revision the row id, the only place where values are kept. ``objects``
says which row is current for each key; ``past`` says until when each superseded row was, so that a list can show any
revision not yet compacted. ``terms`` and ``claims`` cover current objects only. The narrow tables have no row ids: the
key order of the primary key is the order of every list.

A migration is never edited once released; the next one is appended.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta(name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE resources(
            id INTEGER PRIMARY KEY, api_group TEXT NOT NULL, resource TEXT NOT NULL, UNIQUE(api_group, resource)
        ) STRICT""",
        """CREATE TABLE log(
            revision INTEGER PRIMARY KEY, resource INTEGER NOT NULL,
            cluster TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            uid TEXT NOT NULL, created INTEGER NOT NULL, previous INTEGER, deleted INTEGER NOT NULL,
            encoding TEXT NOT NULL, terms BLOB, value BLOB
        ) STRICT""",
        """CREATE TABLE objects(
            resource INTEGER NOT NULL, cluster TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            revision INTEGER NOT NULL, claims BLOB,
            PRIMARY KEY(resource, cluster, namespace, name)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE past(
            resource INTEGER NOT NULL, cluster TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            revision INTEGER NOT NULL, superseded INTEGER NOT NULL,
            PRIMARY KEY(resource, cluster, namespace, name, revision)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE terms(
            resource INTEGER NOT NULL, term TEXT NOT NULL, value TEXT NOT NULL,
            cluster TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            PRIMARY KEY(resource, term, value, cluster, namespace, name)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE claims(
            cluster TEXT NOT NULL, scope TEXT NOT NULL, value TEXT NOT NULL,
            resource INTEGER NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            PRIMARY KEY(cluster, scope, value)
        ) STRICT, WITHOUT ROWID""",
    ),
)
