"""The watchdog's process: it listens to its agent, and kills when the moment has come."""

# pathlib is large, and not used here.
# ruff: noqa: PTH103, PTH105, PTH108, PTH118
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time

from fleetplane.node.watchdog.grip import PROC, Grip, grip, kill, write
from fleetplane.node.watchdog.watch import TURN_SECONDS, Pod, Process, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

LOCK: Final = "watchdog.lock"
SOCKET: Final = "watchdog.sock"
LOG: Final = "watchdog.log"
AGAIN_SECONDS: Final = 0.05
EAGER_SECONDS: Final = 1.0
"""What does not die is killed again: often for so long, then seldom."""
SEARCH_SECONDS: Final = 15.0
"""How long a container that was being started is looked for: the runtime goes on without the agent."""
LOCK_SECONDS: Final = 1.0
YOUNG_SECONDS: Final = 10.0
"""How long it waits for the first word of whoever started it."""
MESSAGE_BYTES: Final = 1 << 20


class Watchdog:
    """See the module. ``records`` is the directory for what was killed, one file for each pod."""

    def __init__(self, listener: socket.socket, records: str) -> None:
        self.watch = Watch()
        self._listener = listener
        self._records = records
        self._poll = select.poll()
        self._poll.register(listener.fileno(), select.POLLIN)
        self._peers: dict[int, tuple[socket.socket, bytearray]] = {}
        self._grips: dict[tuple[str, int, int], Grip | None] = {}
        self._searched: dict[str, float] = {}
        """Containers without a process, and since when they are looked for in vain."""
        self._fenced: list[str] = []
        self._refused: set[str] = set()
        self._ended = False
        self._begun = clock()
        self._overdue = float("inf")

    def run(self) -> None:
        """Until there is nothing to hold, or somebody says so."""
        wait = TURN_SECONDS
        while not self._ended:
            self._hear(wait)
            self._fence()
            now, alive, connected = clock(), self._alive(), bool(self._peers)
            if self._begun + YOUNG_SECONDS < now and self.watch.is_over(alive, connected=connected):
                return
            overdue = [one for one in self.watch.due(now, connected=connected) if one.uid in alive]
            self._overdue = min(self._overdue, now) if overdue else float("inf")
            if overdue:
                wait = AGAIN_SECONDS if now - self._overdue < EAGER_SECONDS else TURN_SECONDS
            else:
                wait = max(0.001, min(TURN_SECONDS, self.watch.seconds_left(now)))

    # What is said

    def _hear(self, seconds: float) -> None:
        """Wait for something, then take in all that was said: what was renewed in time must count."""
        ready = self._poll.poll(1 + int(seconds * 1000))
        for _ in range(100):
            for descriptor, _events in ready:
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._peers:
                    self._receive(descriptor)
            ready = self._poll.poll(0)
            if not ready:
                return

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        peer.setblocking(False)
        self._peers[peer.fileno()] = (peer, bytearray())
        self._poll.register(peer.fileno(), select.POLLIN)

    def _receive(self, descriptor: int) -> None:
        peer, kept = self._peers[descriptor]
        try:
            data = peer.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        kept += data
        if not data or len(kept) > MESSAGE_BYTES:
            self._leave(descriptor)
            return
        while b"\n" in kept:
            line, _, rest = bytes(kept).partition(b"\n")
            kept[:] = rest
            try:
                self._obey(descriptor, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                self._leave(descriptor)
                return

    def _obey(self, descriptor: int, message: dict[str, Any]) -> None:
        if message.get("end"):
            self._ended = True
            return
        self.watch.told(message)
        self._begun = 0.0
        self._hold()
        self._say(descriptor, {"heard": message.get("number"), "fenced": self._fenced})

    def _say(self, descriptor: int, message: dict[str, Any]) -> None:
        """An agent that does not listen is not waited for: it finds the files."""
        with contextlib.suppress(OSError):
            self._peers[descriptor][0].send(json.dumps(message).encode() + b"\n")

    def _leave(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._peers.pop(descriptor)[0].close()

    # What is held

    def _hold(self) -> None:
        """Take hold of what is new, let go of what is no longer named."""
        named = {one.key: one for pod in self.watch.pods.values() for one in pod.processes}
        for key in [one for one in self._grips if one not in named]:
            held = self._grips.pop(key)
            if held is not None:
                held.close()
        for key, process in named.items():
            if key not in self._grips and process.pid > 0:
                self._grips[key] = grip(process)
        self._searched = {one: since for one, since in self._searched.items() if (one, 0, 0) in named}

    def _alive(self) -> set[str]:
        return {pod.uid for pod in self.watch.pods.values() if any(self._lives(one) for one in pod.processes)}

    def _lives(self, process: Process) -> bool:
        if process.pid <= 0:
            return clock() - self._searched.get(process.id, clock()) < SEARCH_SECONDS
        held = self._grips.get(process.key)
        return held is not None and not held.is_dead()

    # What is killed

    def _fence(self) -> None:
        """All are killed before anything is written down: a disk may be slow."""
        killed = []
        for pod in self.watch.due(clock(), connected=bool(self._peers)):
            found, refused = 0, ""
            for process in pod.processes:
                if self._lives(process):
                    more, why = self._kill(process)
                    found, refused = found + more, why or refused
            if found and not refused and pod.uid not in self._fenced:
                self._fenced.append(pod.uid)
                killed.append(pod)
            if refused and pod.uid not in self._refused:
                self._refused.add(pod.uid)
                log(f"pod {pod.key} cannot be killed, and is tried again: {refused}")
        for descriptor in self._peers if killed else ():
            self._say(descriptor, {"fenced": self._fenced})
        for pod in killed:
            self._record(pod)

    def _kill(self, process: Process) -> tuple[int, str]:
        if process.pid > 0:
            held = self._grips[process.key]
            found, refused = kill(process.id, held)
            return max(1, found), refused
        found, refused = kill(process.id, None)
        if found:
            self._searched.pop(process.id, None)
        self._searched.setdefault(process.id, clock())
        return found, refused

    def _record(self, pod: Pod) -> None:
        """For the next agent: whole or not at all, and private."""
        log(f"pod {pod.key} was killed: it promised to be dead {pod.seconds:g} s after the last renewal")
        record = {"uid": pod.uid, "pod": pod.key, "seconds": pod.seconds, "at": int(time.time())}
        path = os.path.join(self._records, f"{pod.uid}.json")
        try:
            os.makedirs(self._records, mode=0o700, exist_ok=True)
            descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, json.dumps(record).encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(path + ".new", path)
        except OSError as error:
            log(f"that pod {pod.key} was killed is not written down: {error}")


def clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def log(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")
    sys.stderr.flush()


def lock(path: str) -> bool:
    """Whether we are the only one; another that is just ending is waited for. The kernel lets go when we end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(AGAIN_SECONDS)
        else:
            return True


def listen() -> socket.socket:
    """In the current directory, as paths of sockets are short."""
    if os.path.lexists(SOCKET):
        os.unlink(SOCKET)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen(8)
    return listener


def be_spared() -> None:
    """When memory is short, others go first. Only root may ask for that."""
    write(f"{PROC}/self/oom_score_adj", "-1000")


def main(arguments: list[str]) -> int:
    """``directory records``: where its socket is (volatile), and where it writes down what it killed (on disk).

    Answers 0 once the socket listens, with the watchdog going on in a process that belongs to nobody; 3 where another
    holds the lock.
    """
    directory, records = arguments
    os.umask(0o077)
    os.chdir(directory)
    if not lock(LOCK):
        log(f"another watchdog holds {directory}")
        return 3
    listener = listen()
    if os.fork():
        return 0
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    be_spared()
    nothing = os.open(os.devnull, os.O_RDWR)
    said = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, descriptor in enumerate((nothing, nothing, said)):
        os.dup2(descriptor, number)
    try:
        Watchdog(listener, records).run()
    finally:
        with contextlib.suppress(OSError):
            os.unlink(SOCKET)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
