"""Databases of earlier versions: opened, upgraded, with nothing lost; those of later ones are left alone."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fleetplane.store import datafile
from fleetplane.store.migrations import MIGRATIONS
from fleetplane.store.protocol import (
    Claim,
    ClaimTaken,
    Key,
    Put,
    Selection,
    StoreError,
    StoreUnavailable,
    TermMatch,
)
from fleetplane.store.sqlite import SqliteStore

FIXTURES = Path(__file__).parent / "fixtures"
SCHEMAS = sorted(FIXTURES.glob("schema-*.sql"))
CONFIG_MAPS = Selection("", "configmaps")


def key(name: str) -> Key:
    return Key("root", "", "configmaps", "default", name)


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def shape(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
        return [(name, " ".join(sql.split())) for name, sql in rows]
    finally:
        connection.close()


def made_from(script: Path, path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(script.read_text())
    connection.close()
    return path


@pytest.fixture(params=SCHEMAS, ids=lambda script: script.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return made_from(request.param, tmp_path / "store.db")


async def test_everything_is_still_there(old: Path) -> None:
    store = await SqliteStore.open(old, history=10)
    listed = await store.list(CONFIG_MAPS)
    kept = await store.get(key("kept"))
    labelled = await store.list(Selection("", "configmaps", matches=(TermMatch("label:app", "web"),)))
    past = await store.history(key("deleted"))
    revision = await store.revision()
    await store.close()

    assert [one.key.name for one in listed.records] == ["kept", "labelled"]
    assert kept is not None
    assert (kept.uid, kept.created_revision, kept.revision) == ("uid-kept", 2, 6)
    assert b'"v":"3"' in kept.value
    assert [one.key.name for one in labelled.records] == ["labelled"]
    assert [one.deleted for one in past] == [True, False]
    assert revision >= 7
    assert version(old) == len(MIGRATIONS)


async def test_what_is_written_afterwards_comes_after_and_keeps_to_old_claims(old: Path) -> None:
    store = await SqliteStore.open(old)
    (written,) = await store.commit([Put(key("new"), "uid-new", b"{}")])
    with pytest.raises(ClaimTaken):
        await store.commit([Put(key("thief"), "uid-thief", b"{}", claims=(Claim("ips", "10.0.0.1"),))])
    await store.close()

    assert written.revision > 7


async def test_an_upgraded_database_has_the_shape_of_a_new_one(old: Path, tmp_path: Path) -> None:
    await (await SqliteStore.open(old)).close()
    await (await SqliteStore.open(tmp_path / "new.db")).close()

    assert shape(old) == shape(tmp_path / "new.db")


@pytest.mark.parametrize("script", SCHEMAS, ids=lambda script: script.stem)
def test_no_released_schema_was_edited(script: Path, tmp_path: Path) -> None:
    number = int(script.stem.partition("-")[2])
    made = sqlite3.connect(tmp_path / "made.db")
    for migration in MIGRATIONS[:number]:
        for statement in migration:
            made.execute(statement)
    made.close()

    assert shape(made_from(script, tmp_path / "kept.db")) == shape(tmp_path / "made.db")


def test_every_schema_has_a_database_to_come_from() -> None:
    """Add ``schema-<n>.sql`` with the migration that makes schema n."""
    assert [int(one.stem.partition("-")[2]) for one in SCHEMAS] == list(range(1, len(MIGRATIONS) + 1))


async def test_a_next_schema_upgrades_what_is_there(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = ("ALTER TABLE resources ADD COLUMN note TEXT", "UPDATE resources SET note = api_group || '/' || resource")
    monkeypatch.setattr(datafile, "MIGRATIONS", (*MIGRATIONS, step))
    store = await SqliteStore.open(old)
    kept = await store.get(key("kept"))
    await store.close()

    assert kept is not None
    assert version(old) == len(MIGRATIONS) + 1
    with sqlite3.connect(old) as connection:
        assert connection.execute("SELECT note FROM resources").fetchall() == [("/configmaps",)]
    connection.close()


async def test_an_upgrade_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, began = shape(old), version(old)
    step = ("ALTER TABLE resources ADD COLUMN note TEXT", "UPDATE nothing SET a = 1")
    monkeypatch.setattr(datafile, "MIGRATIONS", (*MIGRATIONS, step))
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(old)
    monkeypatch.undo()

    assert (shape(old), version(old)) == (before, began)
    store = await SqliteStore.open(old)
    assert await store.get(key("kept")) is not None
    await store.close()


async def test_a_plane_refuses_a_newer_database_in_one_sentence(tmp_path: Path) -> None:
    await (await SqliteStore.open(tmp_path / "data" / "fleetplane.db")).close()
    with sqlite3.connect(tmp_path / "data" / "fleetplane.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    command = [sys.executable, "-m", "fleetplane.interfaces.cli", "server", "--port", "0"]
    told = subprocess.run(  # noqa: ASYNC221
        [*command, "--data-dir", str(tmp_path / "data")], capture_output=True, text=True, timeout=60, check=False
    )

    assert told.returncode == 1
    assert "has schema 99, written by a newer Fleetplane" in told.stderr
    assert "upgrade Fleetplane or restore a backup" in told.stderr
    assert told.stderr.count("\n") == 1


def test_the_refusal_is_a_store_error() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StoreError, match="written by a newer Fleetplane"):
        datafile.prepare(connection, "boot")
    connection.close()
