"""A process that writes is killed; whatever it was told is there afterwards."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleetplane.store.protocol import Claim, Key, Selection
from fleetplane.store.sqlite import SqliteStore

WRITER = """
import asyncio, sys
from fleetplane.store.protocol import Claim, Delete, Key, Put
from fleetplane.store.sqlite import SqliteStore

def key(name):
    return Key("root", "", "pods", "x", name)

async def write(store, writer, first):
    number = first
    while True:
        name = f"{writer}-{number}"
        records = await store.commit([
            Put(key(name), "u", name.encode() * 50, terms=(("writer", str(writer)),), claims=(Claim("n", name),)),
            Put(key(f"last-{writer}"), "u", str(number).encode()),
        ])
        print(writer, number, records[-1].revision, flush=True)
        number += 1

async def main():
    store = await SqliteStore.open(sys.argv[1])
    first = int(sys.argv[2])
    await asyncio.gather(*(write(store, writer, first) for writer in range(4)))

asyncio.run(main())
"""


@pytest.mark.parametrize("seconds", [0.05, 0.2])
async def test_every_acknowledged_write_survives_kills(tmp_path: Path, seconds: float) -> None:
    path = tmp_path / "store.db"
    told: dict[str, str] = {}
    before = 0
    for round_ in range(3):
        lines = run_and_kill([sys.executable, "-c", WRITER, str(path), str(round_ * 100_000)], seconds)
        assert lines
        for line in lines:
            writer, number, revision = line.split()
            told[writer] = number
            assert int(revision) > before

        store = await SqliteStore.open(path)
        before = await store.revision()
        assert before >= max(int(line.split()[2]) for line in lines)
        for line in lines:
            writer, number, _ = line.split()
            name = f"{writer}-{number}"
            record = await store.get(Key("root", "", "pods", "x", name))
            assert record is not None and record.value == name.encode() * 50
        for writer, number in told.items():
            last = await store.get(Key("root", "", "pods", "x", f"last-{writer}"))
            assert last is not None and int(last.value) >= int(number)
        await consistent(store)
        await store.close()


def run_and_kill(command: list[str], seconds: float) -> list[str]:
    """The whole lines a process printed before it was killed, some time after the first."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(seconds)
        process.kill()
        rest = process.stdout.read()
    return [line for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]


async def consistent(store: SqliteStore) -> None:
    """Indexes, claims and the log tell the same story."""
    connection = store._writes._writer
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    page = await store.list(Selection("", "pods"))
    claims = connection.execute("SELECT count(*) FROM claims").fetchone()[0]
    terms = connection.execute("SELECT count(*) FROM terms").fetchone()[0]
    written = [record for record in page.records if not record.key.name.startswith("last-")]
    assert claims == terms == len(written)
    claim = ("root", *Claim("n", written[0].key.name))
    assert store._writes.reader.holders([claim]) == {claim: written[0].key}
