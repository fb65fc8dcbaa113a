"""Reading container logs from their files."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.node.made import NOW

from fleetplane.node.log_files import parse_line, read_log
from fleetplane.node.runtime import LogOptions


def written(path: Path, *texts: str) -> Path:
    with path.open("a") as file:
        for number, text in enumerate(texts):
            moment = (NOW + timedelta(seconds=number)).isoformat()
            file.write(f"{moment} stdout F {text}\n")
    return path


async def read(path: Path, **options: object) -> list[str]:
    lines = read_log(path, LogOptions(**options), lambda: False)  # type: ignore[arg-type]
    return [line.data.decode().rstrip("\n") async for line in lines]


async def test_all_the_last_and_the_latest(tmp_path: Path) -> None:
    path = written(tmp_path / "log", "a", "b", "c")

    assert await read(path) == ["a", "b", "c"]
    assert await read(path, tail=2) == ["b", "c"]
    assert await read(path, tail=0) == []
    assert await read(path, tail=9) == ["a", "b", "c"]
    assert await read(path, since=NOW + timedelta(seconds=1)) == ["b", "c"]
    assert await read(tmp_path / "nothing") == []


async def test_pieces_of_a_long_line_count_as_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    stamp = NOW.isoformat()
    path.write_text(f"{stamp} stdout F first\n{stamp} stdout P long \n{stamp} stdout P er \n{stamp} stdout F end\n")

    assert await read(path, tail=1) == ["long ", "er ", "end"]


async def test_following_sees_what_is_written_and_the_new_file(tmp_path: Path) -> None:
    path = written(tmp_path / "log", "a")
    running = True
    found: list[str] = []

    async def follow() -> None:
        async for line in read_log(path, LogOptions(follow=True), lambda: running):
            found.append(line.data.decode().strip())

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    written(path, "b")
    await asyncio.sleep(0.2)
    path.rename(tmp_path / "log.1")
    written(path, "c")
    await asyncio.sleep(0.25)
    running = False
    await asyncio.wait_for(task, 2)

    assert found == ["a", "b", "c"]


@pytest.mark.parametrize("raw", [b"", b"x", b"nonsense stdout F a", b"2026-01-01T00:00:00Z other F a"])
def test_damaged_lines_are_left_out(raw: bytes) -> None:
    assert parse_line(raw) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="ab F", max_size=40), max_size=40), st.integers(0, 45))
def test_a_tail_is_the_end_of_everything(tmp_path_factory: pytest.TempPathFactory, texts: list[str], tail: int) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.touch()
    written(path, *texts)

    assert asyncio.run(read(path, tail=tail)) == asyncio.run(read(path))[len(texts) - min(tail, len(texts)) :]
