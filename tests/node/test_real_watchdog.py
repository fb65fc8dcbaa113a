"""A node whose agent is killed, with real containers: its watchdog keeps the promise, and nobody starts the pod again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.test_container_runtime import why_not_podman
from tests.e2e.conftest import RunningPlane, start_plane
from tests.node.test_real_node import _load_image, pod
from tests.node.test_watchdog import held, now

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client
from fleetplane.model.builtin.types import NODES, PODS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.guard import WatchdogProcess
from fleetplane.node.local import remove_local_node, sockets_root

pytestmark = [pytest.mark.podman, pytest.mark.xdist_group("machine")]

PROMISE = 10
GROUP, PAUSED = "node.fleetplane.io/group", "node.fleetplane.io/paused"


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    if reason := why_not_podman():
        pytest.skip(reason)
    await _load_image(tmp_path)
    yield tmp_path / "data"
    for directory in (tmp_path / "data" / "nodes").glob("*"):
        await remove_local_node(directory, SystemEnvironment())


@contextlib.asynccontextmanager
async def running(data: Path) -> AsyncIterator[tuple[RunningPlane, Client]]:
    plane = await asyncio.to_thread(start_plane, data, "--operators", "none", runtime="podman")
    try:
        client = await connect_to(find_access(plane.kubeconfig))
        try:
            yield plane, client
        finally:
            await client.transport.close()
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(plane.stop)
        plane.process.kill()


def watchdogs(data: Path) -> list[int]:
    """Processes that watch over the node of this directory."""
    (instance,) = [one.read_text().strip() for one in (data / "nodes").glob("*/instance")]
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
            if str(sockets_root() / instance).encode() in words and any(b"watchdog" in one for one in words):
                found.append(int(entry.name))
    return found


def container(name: str) -> dict[str, Any]:
    """The newest container of a pod, as an administrator would see it."""
    words = ["podman", "ps", "-aq", "--no-trunc", "--filter", f"label=io.fleetplane.pod.name={name}"]
    ids = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    told = subprocess.run(["podman", "inspect", *ids[:1]], check=True, capture_output=True, timeout=60).stdout
    return {"count": len(ids), **json.loads(told)[0]}


async def until(what: Any, seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await what() if asyncio.iscoroutinefunction(what) else what()):
            await asyncio.sleep(0.05)
    return found


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def member(name: str, **notes: str) -> dict[str, Any]:
    made = pod(name)
    made["metadata"]["annotations"] = {GROUP: "g", **notes}
    return made


async def test_the_active_of_a_killed_agent_is_dead_in_time_and_stays_so(data: Path) -> None:
    async with running(data) as (plane, client):
        (node,) = (await client.list(NODES)).items
        promise = {"metadata": {"annotations": {"node.fleetplane.io/self-fencing-seconds": str(PROMISE)}}}
        await client.patch(NODES, node["metadata"]["name"], promise)
        for one in (member("active"), member("standby", **{PAUSED: "true"}), pod("other")):
            await client.create(PODS, one, "default")

        async def all_run() -> bool:
            found = (await client.list(PODS, "default")).items
            return [one["status"].get("phase") for one in found] == ["Running"] * 3

        await until(all_run)
        await until(lambda: watchdogs(data))
        pids = {name: container(name)["State"]["Pid"] for name in ("active", "standby", "other")}
        os.kill(plane.process.pid, signal.SIGKILL)
        plane.process.wait(30)

    assert lives(pids["active"]), "the agent's death alone stops nothing"
    await until(lambda: not lives(pids["active"]))
    assert all(lives(pids[name]) for name in ("standby", "other"))
    await until(lambda: not watchdogs(data))

    async with running(data) as (plane, client):

        async def fenced() -> bool:
            status = (await client.get(PODS, "active", "default"))["status"]
            return (status["phase"], status.get("reason")) == ("Failed", "SelfFenced")

        await until(fenced)
        found = await client.get(PODS, "active", "default")
        assert found["status"]["containerStatuses"][0]["restartCount"] == 0
        assert container("active")["count"] <= 1, "nothing was started in its place"
        assert container("standby")["State"]["Pid"] == pids["standby"]
        await until(lambda: watchdogs(data))

    assert lives(pids["standby"])
    await until(lambda: not watchdogs(data))  # what is left is frozen, and nobody is there to thaw it

    (directory,) = (data / "nodes").glob("*")
    holder = WatchdogProcess(sockets_root() / (directory / "instance").read_text(), directory / "fenced")
    hearing = asyncio.create_task(holder.fenced())
    found_by_its_cgroup = held("other", ids=(container("other")["Id"],), until=now())
    pods = [found_by_its_cgroup, held("standby", pids["standby"], until=now() + 1000)]
    await holder.hold(pods, stay=True, start=True)
    await hearing
    await until(lambda: not lives(pids["other"]))
    holder.leave()
    assert watchdogs(data)

    await remove_local_node(directory, SystemEnvironment())
    assert not watchdogs(data)
    await until(lambda: not lives(pids["standby"]))
