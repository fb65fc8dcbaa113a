"""kill -9 at any moment: every acknowledged write is there afterwards, revisions go on rising.

A short form runs always; ``make soak`` kills a thousand times.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from .conftest import RunningPlane, start_plane

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("crash")]
WRITERS = 8


def connect(plane: RunningPlane) -> tuple[str, dict[str, str]]:
    config: Any = yaml.safe_load(plane.kubeconfig.read_text())
    return plane.url, {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def write_until_killed(plane: RunningPlane, tag: str, seconds: float) -> dict[str, int]:
    """name -> resourceVersion of every acknowledged create; the process is killed after ``seconds``."""
    url, headers = connect(plane)
    acknowledged: dict[str, int] = {}

    async def writer(session: aiohttp.ClientSession, number: int) -> None:
        for count in range(100_000):
            name = f"{tag}-{number}-{count}"
            body = {"metadata": {"name": name}, "data": {"k": "v" * 200}}
            try:
                async with session.post(f"{url}/api/v1/namespaces/default/configmaps", json=body) as answer:
                    if answer.status != 201:
                        return
                    made = await answer.json()
            except (aiohttp.ClientError, OSError):
                return
            acknowledged[name] = int(made["metadata"]["resourceVersion"])

    async with (
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=unverified())) as session,
        asyncio.TaskGroup() as group,
    ):
        for number in range(WRITERS):
            group.create_task(writer(session, number))
        await asyncio.sleep(seconds)
        os.kill(plane.process.pid, signal.SIGKILL)
    plane.process.wait(10)
    return acknowledged


async def stored(plane: RunningPlane) -> tuple[dict[str, int], int]:
    url, headers = connect(plane)
    async with (
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=unverified())) as session,
        session.get(f"{url}/api/v1/namespaces/default/configmaps") as answer,
    ):
        listed = await answer.json()
    found = {one["metadata"]["name"]: int(one["metadata"]["resourceVersion"]) for one in listed["items"]}
    return found, int(listed["metadata"]["resourceVersion"])


def kill_and_check(directory: Path, kills: int, seed: int) -> int:
    """Returns how many acknowledged writes were checked."""
    chance = random.Random(seed)
    acknowledged: dict[str, int] = {}
    options = ("--operators", "none")
    plane = start_plane(directory / "data", *options, runtime="none")
    for kill in range(kills):
        acknowledged |= asyncio.run(write_until_killed(plane, f"k{kill}", chance.uniform(0.02, 0.4)))
        plane = start_plane(directory / "data", *options, runtime="none")
        found, revision = asyncio.run(stored(plane))
        lost = {name: version for name, version in acknowledged.items() if found.get(name) != version}
        assert not lost, f"kill {kill} (seed {seed}) lost {lost}"
        assert revision >= max(acknowledged.values(), default=0)
    assert plane.stop() == 0
    return len(acknowledged)


def test_no_acknowledged_write_is_lost_by_twenty_kills(tmp_path: Path) -> None:
    assert kill_and_check(tmp_path, kills=20, seed=1) > 100


@pytest.mark.soak
def test_no_acknowledged_write_is_lost_by_a_thousand_kills(tmp_path: Path) -> None:
    assert kill_and_check(tmp_path, kills=1000, seed=2) > 5000


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    plane = start_plane(tmp_path / "data", runtime="none")

    with pytest.raises(pytest.fail.Exception, match="data"):
        start_plane(tmp_path / "data", runtime="none")

    assert plane.stop() == 0
