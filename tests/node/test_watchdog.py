"""The watchdog with real processes: who is killed and when, who is not, and that none of it stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.guard import Guarding, Held, HeldProcess, WatchdogProcess, end_watchdog
from fleetplane.node.watchdog import grip, process
from fleetplane.node.watchdog.watch import Watch

LONG = 1000.0


def now() -> float:
    return SystemEnvironment().monotonic()


def held(name: str, *pids: int, until: float | None = None, loss: bool = False, ids: tuple[str, ...] = ()) -> Held:
    processes = [HeldProcess(f"{name}{number}", pid) for number, pid in enumerate(pids)]
    return Held(name, f"default/{name}", 20.0, until, loss, (*processes, *(HeldProcess(one, 0) for one in ids)))


@pytest.fixture
def victims() -> Iterator[Any]:
    """Processes that end by themselves in no test."""
    made: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(["sleep", "1000"]))
        return made[-1]

    yield begin
    for one in made:
        one.kill()
        one.wait()


class Agent:
    """The agent's end of a watchdog, with what it heard."""

    def __init__(self, folder: Path) -> None:
        self.volatile = folder / "volatile"
        self.volatile.mkdir(exist_ok=True)
        self.records = folder / "disk" / "fenced"
        self.holder = WatchdogProcess(self.volatile, self.records)
        self.heard: set[str] = set()
        self._hearing: asyncio.Task[None] | None = None

    async def hold(self, *pods: Held, stay: bool = True) -> None:
        if self._hearing is None:
            self._hearing = asyncio.create_task(self._hear())
        await self.holder.hold(pods, stay=stay, start=True)

    async def _hear(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.heard |= await self.holder.fenced()

    async def leave(self) -> None:
        self.holder.leave()
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)
            self._hearing = None

    def pids(self) -> list[int]:
        """Its watchdogs, as an administrator would find them."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
                if str(self.volatile).encode() in words:
                    found.append(int(entry.name))
        return found

    async def gone(self) -> None:
        async with asyncio.timeout(30):
            while self.pids():
                await asyncio.sleep(0.02)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    made = Agent(tmp_path)
    yield made
    await made.leave()
    await end_watchdog(made.volatile)
    await made.gone()


async def death(one: subprocess.Popen[bytes]) -> int:
    async with asyncio.timeout(30):
        while one.poll() is None:
            await asyncio.sleep(0.01)
    return int(one.returncode)


def facts_of(pid: int) -> tuple[dict[str, str], bytes]:
    folder = Path(f"/proc/{pid}")
    lines = (folder / "status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines), (folder / "environ").read_bytes()


# Values


def told(**pods: dict[str, Any]) -> dict[str, Any]:
    usual = {"seconds": 20, "until": None, "loss": False, "processes": []}
    return {"stay": False, "pods": [{**usual, "uid": uid, "key": uid, **more} for uid, more in pods.items()]}


def test_each_message_says_all_of_it() -> None:
    watch = Watch()
    watch.told(told(a={"until": 10.0}, b={"until": 12.0}, c={}))
    assert [one.uid for one in watch.due(9.9, connected=True)] == []
    assert [one.uid for one in watch.due(12.0, connected=True)] == ["a", "b"]

    watch.told(told(a={"until": 30.0}, c={}))
    assert watch.due(29.0, connected=False) == []
    assert watch.seconds_left(29.0) == 1.0


def test_what_should_be_frozen_is_due_when_the_agent_is_lost() -> None:
    watch = Watch()
    watch.told(told(a={"until": 10.0, "loss": True}, b={"until": 10.0}))
    assert watch.due(1.0, connected=True) == []
    assert [one.uid for one in watch.due(1.0, connected=False)] == ["a"]


def test_it_is_over_when_nothing_lives_that_could_break_the_promise() -> None:
    watch = Watch()
    watch.told({**told(a={"until": 10.0}, frozen={}), "stay": True})
    assert not watch.is_over({"a", "frozen"}, connected=False)
    assert watch.is_over({"frozen"}, connected=False), "nobody is there who could thaw it"
    assert not watch.is_over(set(), connected=True), "the agent may have more soon"


@pytest.mark.parametrize(
    "wrong",
    [
        {"uid": "../x", "key": "", "seconds": 1, "until": 1, "loss": False, "processes": []},
        {"uid": "x", "key": "", "seconds": 1, "until": float("nan"), "loss": False, "processes": []},
        {
            "uid": "x",
            "key": "",
            "seconds": 1,
            "until": 1,
            "loss": False,
            "processes": [{"id": "/", "pid": 1, "began": 1}],
        },
        {"uid": "x"},
    ],
)
def test_a_message_that_makes_no_sense_changes_nothing(wrong: dict[str, Any]) -> None:
    watch = Watch()
    watch.told(told(a={"until": 10.0}))
    with pytest.raises((ValueError, KeyError, TypeError)):
        watch.told({"stay": False, "pods": [wrong]})
    assert list(watch.pods) == ["a"]


CONTAINER = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (f"/libpod_parent/libpod-{CONTAINER}", f"/libpod_parent/libpod-{CONTAINER}"),
        (f"/machine.slice/libpod-{CONTAINER}.scope/container/a", f"/machine.slice/libpod-{CONTAINER}.scope"),
        (f"/kubepods/pod1/{CONTAINER}", f"/kubepods/pod1/{CONTAINER}"),
        (f"/libpod_parent/libpod-conmon-{CONTAINER}", ""),
        (f"/../../libpod-{CONTAINER}", ""),
        ("/user.slice", ""),
        ("/", ""),
    ],
)
def test_a_cgroup_is_a_containers_only_where_it_bears_its_id(path: str, part: str) -> None:
    assert grip.part_of(path, CONTAINER) == part


def test_an_id_that_may_be_part_of_anything_is_none() -> None:
    assert grip.part_of("/user.slice", "user") == ""
    assert grip.members("s") == []


# Processes


async def test_who_is_not_renewed_is_killed_and_written_down(agent: Agent, victims: Any) -> None:
    active, standby, late = victims(), victims(), victims()
    await agent.hold(
        held("active", active.pid, until=now() + 0.2),
        held("standby", standby.pid),
        held("late", late.pid, until=now() + LONG),
    )

    assert await death(active) == -signal.SIGKILL
    async with asyncio.timeout(30):
        while "active" not in agent.heard:
            await asyncio.sleep(0.01)

    assert (standby.poll(), late.poll()) == (None, None)
    record = agent.records / "active.json"
    async with asyncio.timeout(30):
        while not record.exists():  # said first, then written down
            await asyncio.sleep(0.01)
    assert [one.name for one in agent.records.iterdir()] == [record.name]
    assert record.stat().st_mode & 0o777 == 0o600
    assert orjson.loads(record.read_bytes())["pod"] == "default/active"


async def test_what_was_renewed_in_time_counts_however_late_it_is_read(agent: Agent, victims: Any) -> None:
    renewed, other = victims(), victims()
    await agent.hold(held("renewed", renewed.pid, until=now() + LONG))
    (watchdog,) = agent.pids()

    os.kill(watchdog, signal.SIGSTOP)
    first = now() + 0.1
    said = [asyncio.create_task(agent.hold(held("renewed", renewed.pid, until=first)))]
    await asyncio.sleep(0.05)
    said.append(
        asyncio.create_task(
            agent.hold(held("renewed", renewed.pid, until=now() + LONG), held("other", other.pid, until=first))
        )
    )
    while now() < first + 0.1:
        await asyncio.sleep(0.02)
    os.kill(watchdog, signal.SIGCONT)

    await asyncio.gather(*said)
    assert await death(other) == -signal.SIGKILL
    assert renewed.poll() is None


async def test_a_process_id_that_was_given_to_somebody_else_is_not_hit(
    agent: Agent, victims: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger, meant = victims(), victims()
    true = grip.began
    wrong = {stranger.pid: true(stranger.pid) - 1}
    monkeypatch.setattr("fleetplane.node.guard.began", lambda pid: wrong.get(pid) or true(pid))

    await agent.hold(held("stranger", stranger.pid, until=now()), held("meant", meant.pid, until=now() + 0.2))

    assert await death(meant) == -signal.SIGKILL
    assert stranger.poll() is None


async def test_who_was_seen_first_under_an_id_stays_the_one_that_is_meant(
    agent: Agent, victims: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant = victims()
    await agent.hold(held("meant", meant.pid, until=now() + LONG))
    monkeypatch.setattr("fleetplane.node.guard.began", lambda _pid: 1)  # as if the id had been given away since

    await agent.hold(held("meant", meant.pid, until=now()))

    assert await death(meant) == -signal.SIGKILL


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
async def test_it_outlives_its_agent_with_all_its_group_and_one_that_hangs(
    end: signal.Signals, agent: Agent, victims: Any
) -> None:
    victim = victims()
    code = (
        "import asyncio, sys; from pathlib import Path; from fleetplane.node.guard import *\n"
        "async def main():\n"
        "    holder = WatchdogProcess(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "    until = float(sys.argv[4])\n"
        "    pod = Held('a', 'default/a', 20.0, until, False, (HeldProcess('a0', int(sys.argv[3])),))\n"
        "    told = asyncio.create_task(holder.hold([pod], stay=True, start=True))\n"
        "    await holder.fenced()\n"
        "    await told\n"
        "    print('held', flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "asyncio.run(main())"
    )
    until = now() + 2.0
    words = [sys.executable, "-c", code, str(agent.volatile), str(agent.records), str(victim.pid), str(until)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as other:  # noqa: ASYNC220
        assert other.stdout is not None
        assert await asyncio.to_thread(other.stdout.readline) == b"held\n"
        os.killpg(other.pid, end)
        try:
            assert await death(victim) == -signal.SIGKILL
            assert now() >= until
        finally:
            os.killpg(other.pid, signal.SIGKILL)
    await agent.gone()
    assert (agent.records / "a.json").exists()


async def test_what_was_not_frozen_yet_dies_with_the_agent_and_what_was_does_not(agent: Agent, victims: Any) -> None:
    thawed, frozen = victims(), victims()
    await agent.hold(held("thawed", thawed.pid, until=now() + LONG, loss=True), held("frozen", frozen.pid))

    await agent.leave()

    assert await death(thawed) == -signal.SIGKILL
    await agent.gone()
    assert frozen.poll() is None


async def test_the_next_agent_takes_it_over(agent: Agent, victims: Any, tmp_path: Path) -> None:
    active, marker = victims(), victims()
    await agent.hold(held("active", active.pid, until=now() + LONG))
    before = agent.pids()
    await agent.leave()

    after = Agent(tmp_path)
    await after.hold(held("active", active.pid, until=now() + LONG), held("marker", marker.pid, until=now()))

    assert after.pids() == before
    assert await death(marker) == -signal.SIGKILL
    assert active.poll() is None
    await after.leave()


async def test_there_is_one_for_each_directory(agent: Agent, victims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    active = victims()
    await agent.hold(held("active", active.pid, until=now() + LONG))
    (watchdog,) = agent.pids()

    second = WatchdogProcess(agent.volatile, agent.records)
    with pytest.raises(OSError, match="another watchdog"):
        await second._start()

    assert agent.pids() == [watchdog]


async def test_it_ends_when_nothing_is_left_and_when_it_is_told_to(agent: Agent, victims: Any) -> None:
    active = victims()
    await agent.hold(held("active", active.pid, until=now() + LONG))
    await agent.hold(stay=False)
    await agent.gone()

    await agent.leave()
    await agent.hold(held("active", active.pid, until=now() + LONG))
    assert len(agent.pids()) == 1
    await end_watchdog(agent.volatile)
    await agent.gone()
    assert active.poll() is None


async def test_it_is_small_and_knows_no_secret(agent: Agent, victims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETPLANE_TOKEN", "very-secret")
    await agent.hold(held("active", victims().pid, until=now() + LONG))
    (watchdog,) = agent.pids()

    status, variables = facts_of(watchdog)
    assert int(status["VmRSS"].split()[0]) < 15_000
    assert b"very-secret" not in variables
    assert os.getsid(watchdog) != os.getsid(0)
    assert {one.name: one.stat().st_mode & 0o077 for one in agent.volatile.iterdir()} == {
        process.LOCK: 0, process.SOCKET: 0, process.LOG: 0
    }  # fmt: skip


async def test_one_that_hangs_holds_up_no_start_for_long(
    agent: Agent, victims: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "fleetplane.node.guard")
    pods = [held("active", victims().pid, until=now() + LONG)]
    guarding = Guarding(agent.holder, lambda: (list(pods), True), now, lambda _uids: None)
    guarding.begin()
    running = asyncio.create_task(guarding.run())
    await guarding.arm()
    (watchdog,) = agent.pids()
    os.kill(watchdog, signal.SIGSTOP)
    try:
        pods.append(held("next", victims().pid, until=now() + LONG))
        async with asyncio.timeout(30):
            await guarding.arm()
        assert "its watchdog is missing" in caplog.text
    finally:
        os.kill(watchdog, signal.SIGCONT)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_that_was_killed_before_it_answered_is_replaced(agent: Agent, victims: Any) -> None:
    """It closes its connections before its socket: who comes in between is never accepted, and reset."""
    directory = os.open(agent.volatile, os.O_PATH)
    pods = [held("active", victims().pid, until=now() + LONG)]
    guarding = Guarding(agent.holder, lambda: (list(pods), True), now, lambda _uids: None)
    guarding.begin()
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(f"/proc/self/fd/{directory}/{process.SOCKET}")
        os.close(directory)
        dying.listen()
        running = asyncio.create_task(guarding.run())
        await guarding.arm()
        assert agent.pids() == []

    async with asyncio.timeout(30):
        while not agent.pids():
            await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_is_started_again_when_it_was_killed(agent: Agent, victims: Any) -> None:
    active, fenced = victims(), set()
    pods = [held("active", active.pid, until=now() + LONG)]
    guarding = Guarding(agent.holder, lambda: (list(pods), True), now, fenced.update)
    guarding.begin()
    running = asyncio.create_task(guarding.run())
    await guarding.arm()
    (first,) = agent.pids()

    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(30):
        while agent.pids() in ([], [first]):
            await asyncio.sleep(0.02)
    pods[0] = held("active", active.pid, until=now())
    guarding.changed()

    assert await death(active) == -signal.SIGKILL
    async with asyncio.timeout(30):
        while not fenced:
            await asyncio.sleep(0.01)
    assert fenced == {"active"}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
