"""What the agent hands to its watchdog: which containers must be dead when, in case the agent cannot see to it.

What is handed over is always the whole of it, so nothing has to be remembered on either side; it is told after each renewal,
when it changes, and before anything of it begins to run: a standby is thawed, and a container started, once the
watchdog has confirmed that it knows. A watchdog that cannot be had does not stop the pods: the agent fences by itself
as ever, the log says so, and it is tried again.

The watchdog is started when there is something to hold, and one that an earlier agent left is taken over. Leaving the
agent leaves the watchdog to keep the promise, for as long as something runs that could break it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

import fleetplane
from fleetplane.node.watchdog.grip import began
from fleetplane.node.watchdog.process import SOCKET

ARM_SECONDS: Final = 1.0
"""How long a start waits for the watchdog's word; usual are a millisecond, and some fifty for the first."""
START_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.5
COMPLAIN_SECONDS: Final = 60.0
_CODE: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from fleetplane.node.watchdog.process import main; sys.exit(main(sys.argv[2:]))"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeldProcess:
    """The first process of a container: 0 while it is not known. ``began`` is its start time in clock ticks."""

    id: str
    pid: int
    began: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A pod that promised something. ``until`` (monotonic) is when it must be dead, None while it is frozen.

    ``loss``: it should be frozen and is not yet, so it must be dead when the agent is lost.
    """

    uid: str
    key: str
    seconds: float
    until: float | None
    loss: bool
    processes: tuple[HeldProcess, ...]


class Guard(Protocol):
    """What workers need of it."""

    async def arm(self) -> None:
        """Returns when what is about to run is known to the watchdog, or cannot be."""

    def changed(self) -> None:
        """Something that was promised runs, or has ended."""


class NoGuard:
    """For nodes without a watchdog."""

    async def arm(self) -> None:
        return

    def changed(self) -> None:
        return


class Holder(Protocol):
    """A watchdog as the agent sees it: a process, or the simulation of one."""

    async def hold(self, pods: Sequence[Held], *, stay: bool, start: bool) -> None:
        """Returns when it knows; ``start`` one where there is none. Raises OSError where it cannot be had."""

    async def fenced(self) -> frozenset[str]:
        """Waits for its word: uids of what it has killed. Raises OSError when it has gone."""

    def leave(self) -> None:
        """The agent ends; the watchdog goes on while it must."""


class Guarding:
    """See the module. ``held`` is asked for what there is now; ``on_fenced`` is told uids of what was killed."""

    def __init__(
        self,
        holder: Holder,
        held: Callable[[], tuple[list[Held], bool]],
        monotonic: Callable[[], float],
        on_fenced: Callable[[frozenset[str]], None],
    ) -> None:
        self._holder = holder
        self._held = held
        self._monotonic = monotonic
        self._on_fenced = on_fenced
        self._wanted = asyncio.Event()
        self._telling = asyncio.Lock()
        self._told: tuple[list[Held], bool] | None = None
        """What it knows; None where that is not known (at the beginning, and when it was lost)."""
        self._complained = float("-inf")
        self._ready = False

    def begin(self) -> None:
        """What an earlier agent left is known now; before that, what its watchdog holds must stay as it is."""
        self._ready = True

    async def arm(self) -> None:
        try:
            async with asyncio.timeout(ARM_SECONDS):
                await self._tell()
        except TimeoutError:
            self._complain("it does not answer")

    def changed(self) -> None:
        self._wanted.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear())
                while True:
                    await self._tell()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            await self._wanted.wait()
                    self._wanted.clear()
        finally:
            self._holder.leave()
            self._told = None

    async def _tell(self) -> None:
        async with self._telling:
            now = self._held()
            pods, stay = now
            if now == self._told or not self._ready:
                return
            adopting = self._told is None
            self._told = None
            for last in (False, True):  # one may just be ending
                try:
                    async with asyncio.timeout(START_SECONDS):
                        await self._holder.hold(pods, stay=stay, start=bool(pods))
                except OSError as error:  # a timeout is one too
                    if last and pods:
                        self._complain(str(error) or "it does not answer")
                    elif adopting and not pods:
                        self._told = now  # there is none, and nothing for one to do
                        return
                else:
                    self._told = now
                    return

    async def _hear(self) -> None:
        while True:
            try:
                self._on_fenced(await self._holder.fenced())
            except OSError:
                self._told = None if self._held()[0] else self._told
                self._wanted.set()
                await asyncio.sleep(LOOK_SECONDS)

    def _complain(self, why: str) -> None:
        now = self._monotonic()
        if now - self._complained > COMPLAIN_SECONDS:
            self._complained = now
            _log.warning(
                "nobody would stop the promised pods if this agent was killed: its watchdog is missing (%s)", why
            )


class WatchdogProcess:
    """The real one. ``volatile`` is where its socket is, ``records`` where it writes down what it killed."""

    def __init__(self, volatile: Path, records: Path) -> None:
        self._volatile = volatile
        self._records = records
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._number = 0
        self._connected = asyncio.Event()
        self._heard = asyncio.Condition()
        self._last = 0
        self._began: dict[tuple[str, int], int] = {}
        """Start times as first seen: what has the same id later may be somebody else's."""

    async def hold(self, pods: Sequence[Held], *, stay: bool, start: bool) -> None:
        seen = {(one.id, one.pid) for pod in pods for one in pod.processes if one.pid > 0}
        self._began = {key: self._began.get(key) or began(key[1]) for key in seen}
        named = [asdict(replace(pod, processes=tuple(map(self._identified, pod.processes)))) for pod in pods]
        writer = await self._writer(start=start)
        self._number += 1
        number = self._number
        writer.write(orjson.dumps({"number": number, "stay": stay, "pods": named}) + b"\n")
        await writer.drain()
        async with self._heard:
            await self._heard.wait_for(lambda: self._last >= number or self._streams is None)
        if self._last < number:
            raise ConnectionError("it has ended")

    def _identified(self, process: HeldProcess) -> HeldProcess:
        return replace(process, began=self._began.get((process.id, process.pid), 0))

    async def fenced(self) -> frozenset[str]:
        await self._connected.wait()
        if self._streams is None:
            raise ConnectionError("it has ended")
        try:
            said: dict[str, Any] = orjson.loads(await self._streams[0].readline())
        except (OSError, ValueError):
            # One that was killed with words unread resets the connection instead of ending it.
            await self._lost()
            raise ConnectionError("it has ended") from None
        async with self._heard:
            self._last = max(self._last, int(said.get("heard") or 0))
            self._heard.notify_all()
        return frozenset(map(str, said.get("fenced") or ()))

    async def _lost(self) -> None:
        self.leave()
        async with self._heard:
            self._heard.notify_all()

    async def _writer(self, *, start: bool) -> asyncio.StreamWriter:
        if self._streams is not None:
            return self._streams[1]
        try:
            self._streams = await _connected(self._volatile)
        except OSError:
            if not start:
                raise
            await self._start()
            self._streams = await _connected(self._volatile)
        self._connected.set()
        return self._streams[1]

    async def _start(self) -> None:
        """Returns when it listens: what was started has put the watchdog aside by then, and has ended."""
        self._volatile.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = Path(fleetplane.__file__).parent.parent
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _CODE, str(root), str(self._volatile), str(self._records)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath)},  # and no token
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                _, errors = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise OSError(lines[-1] if lines else f"it ended with {process.returncode}")

    def leave(self) -> None:
        self._connected.clear()
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def end_watchdog(volatile: Path) -> None:
    """End the watchdog of this directory, whatever it holds; returns when it has gone."""
    try:
        reader, writer = await _connected(volatile)
    except OSError:
        return
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            writer.write(b'{"end": true}\n')
            await reader.read()
    writer.close()


async def _connected(volatile: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """By a descriptor of the directory, as paths of sockets are short."""
    descriptor = os.open(volatile, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.setblocking(False)
        made.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
        return await asyncio.open_unix_connection(sock=made)
    except BaseException:
        made.close()
        raise
    finally:
        os.close(descriptor)
