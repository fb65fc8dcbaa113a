"""Programs in the VM: the containers' own, and those started beside them; their output as long as it is wanted.

One thread, one loop: the kernel says what can be read, and a child's end comes as a signal. Output of a container goes into
a log of bounded size; output of an exec waits in its pipe until the outside asks for it, so a fast writer waits too.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import time

from . import files, linux
from .confinement import Spec, become, become_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    Now = Callable[[], float]

CGROUPS: Final = "/sys/fs/cgroup"
LOG_BYTES: Final = 4 * 1024 * 1024
LINE_BYTES: Final = 16 * 1024
"""A longer line is told in pieces, as container runtimes do."""
READ_BYTES: Final = 65536
HEARD_BYTES: Final = 1024 * 1024
FAILED_TO_START: Final = 127


class Log:
    """The newest lines of a container, as ``<time> <stream> <F|P> <text>``; ``start`` is the offset of the first byte kept."""

    def __init__(self, now: Now = time.time) -> None:
        self.start = 0
        self._kept = bytearray()
        self._open: dict[str, bytes] = {}
        self._now = now

    @property
    def end(self) -> int:
        return self.start + len(self._kept)

    def add(self, stream: str, data: bytes) -> None:
        *lines, rest = (self._open.pop(stream, b"") + data).split(b"\n")
        for line in lines:
            while len(line) > LINE_BYTES:
                self._write(stream, "P", line[:LINE_BYTES])
                line = line[LINE_BYTES:]
            self._write(stream, "F", line)
        while len(rest) >= LINE_BYTES:
            self._write(stream, "P", rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        if rest:
            self._open[stream] = rest

    def finish(self) -> None:
        """What was written last may not end a line."""
        for stream, rest in self._open.items():
            self._write(stream, "P", rest)
        self._open.clear()

    def read(self, offset: int, limit: int) -> tuple[int, bytes]:
        """From the first whole line at or after this offset."""
        begin = max(offset, self.start)
        return begin, bytes(self._kept[begin - self.start : begin - self.start + limit])

    def _write(self, stream: str, mark: str, text: bytes) -> None:
        seconds = self._now()
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        self._kept += f"{whole}.{int(seconds % 1 * 1e9):09d}Z {stream} {mark} ".encode() + text + b"\n"
        if (over := len(self._kept) - LOG_BYTES) > 0:
            cut = self._kept.find(b"\n", over) + 1 or len(self._kept)
            del self._kept[:cut]
            self.start += cut


class Container:
    """``said`` is what the outside wants to find again; nobody here reads it."""

    def __init__(self, id: str, root: str, spec: Spec, said: dict[str, Any]) -> None:
        self.id = id
        self.root = root
        self.spec = spec
        self.said = said
        self.log = Log()
        self.phase = "created"
        self.pid = 0
        self.created, self.started, self.finished = time.time(), 0.0, 0.0
        self.code = 0
        self.oom = False
        self.readers: dict[int, str] = {}
        """File descriptors of its output, by stream."""
        self.input = -1
        self.cgroup = f"{CGROUPS}/{id}"

    def state(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "phase": self.phase,
            "pid": self.pid,
            "created": self.created,
            "started": self.started,
            "finished": self.finished,
            "code": self.code,
            "oom": self.oom,
            "said": self.said,
        }

    def start(self) -> None:
        """Raises OSError, with words for people, when the program cannot be run."""
        spec = self.spec
        self._limit()
        streams = _Streams.open(tty=spec.tty, stdin=spec.stdin)
        told_read, told_write = os.pipe2(os.O_CLOEXEC)
        pid = linux.clone(linux.NEW_MOUNTS | (linux.NEW_PIDS if spec.own_processes else 0))
        if pid == 0:
            _child(streams, told_write, spec.argv, lambda: become(self.root, spec), self.cgroup)
        os.close(told_write)
        streams.close_inner()
        trouble = _told(told_read)
        if trouble:
            os.waitpid(pid, 0)
            streams.close_outer()
            raise OSError(trouble)
        self.pid, self.phase, self.started = pid, "running", time.time()
        self.readers = dict(streams.outer)
        self.input = streams.input

    def signal(self, number: int) -> None:
        if self.phase in {"running", "paused"}:
            if self.phase == "paused":
                self.freeze(on=False)
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def freeze(self, *, on: bool) -> None:
        files.write(f"{self.cgroup}/cgroup.freeze", "1" if on else "0")
        self.phase = "paused" if on else "running"

    def ended(self, status: int) -> None:
        self.code = os.waitstatus_to_exitcode(status)
        if self.code < 0:
            self.code = 128 - self.code
        files.try_to_write(f"{self.cgroup}/cgroup.kill", "1")
        try:
            self.oom = files.table(f"{self.cgroup}/memory.events").get("oom_kill", 0) > 0
        except (OSError, ValueError):
            self.oom = False
        self.phase, self.finished = "exited", time.time()

    def usage(self) -> dict[str, int]:
        found = {"cpu": 0, "memory": 0, "pids": 0, "limit": 0}
        try:
            found["cpu"] = files.table(f"{self.cgroup}/cpu.stat")["usage_usec"] * 1000
            found["memory"] = int(files.read(f"{self.cgroup}/memory.current"))
            found["pids"] = int(files.read(f"{self.cgroup}/pids.current"))
            limit = files.read(f"{self.cgroup}/memory.max").strip()
            found["limit"] = int(limit) if limit.isdecimal() else 0
        except (OSError, ValueError, KeyError):
            return found
        return found

    def _limit(self) -> None:
        try:
            os.mkdir(self.cgroup)
        except OSError:
            return  # a kernel without: the VM's own size is the limit
        self.limits(self.spec.memory_bytes, self.spec.cpu_quota, self.spec.cpu_period)
        files.try_to_write(f"{self.cgroup}/pids.max", str(self.spec.pids or "max"))

    def limits(self, memory_bytes: int, cpu_quota: int, cpu_period: int) -> None:
        files.try_to_write(f"{self.cgroup}/memory.max", str(memory_bytes or "max"))
        files.try_to_write(f"{self.cgroup}/cpu.max", f"{cpu_quota} {cpu_period}" if cpu_quota else "max")

    def close(self) -> None:
        files.try_to_close(*self.readers, self.input)
        self.readers, self.input = {}, -1
        try:
            os.rmdir(self.cgroup)
        except OSError:
            return


class Session:
    """A program beside the container's own, an attach to its own, or a connection: output by stream, input, an end."""

    def __init__(
        self,
        *,
        pid: int = 0,
        outputs: dict[int, str] | None = None,
        input: int = -1,
        tty: bool = False,
        of: Container | None = None,
        is_socket: bool = False,
    ) -> None:
        self.pid = pid
        self.outputs = outputs or {}
        self.input = input
        self.tty = tty
        self.of = of
        """For an attach: whose program it is with."""
        self.is_socket = is_socket
        self.code: int | None = 0 if is_socket else None
        self.closed = False
        self.heard: list[tuple[str, bytes]] = []

    @property
    def ended(self) -> int | None:
        """The exit code, once there is one."""
        if self.of is not None:
            return self.of.code if self.of.phase == "exited" else None
        return self.code

    @property
    def receives(self) -> int:
        """Where input goes; -1 when nobody takes any."""
        return self.of.input if self.of is not None else self.input

    def overheard(self, stream: str, data: bytes) -> None:
        """Output of the program attached to. Who does not listen misses the oldest, as it is in the log."""
        self.heard.append((stream, data))
        while sum(len(one) for _, one in self.heard) > HEARD_BYTES:
            del self.heard[0]

    def read(self) -> tuple[str, bytes] | None:
        """What is there now; ``None`` when there is nothing yet. An output that ends is closed."""
        if self.heard:
            return self.heard.pop(0)
        for descriptor, stream in list(self.outputs.items()):
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:  # a terminal whose last user has gone
                data = b""
            if data:
                return stream, data
            self._drop(descriptor)
        return None

    def _drop(self, descriptor: int) -> None:
        del self.outputs[descriptor]
        if descriptor != self.input:
            os.close(descriptor)

    def write(self, data: bytes) -> int:
        """How much of it was taken. Raises OSError."""
        if self.receives < 0:
            return len(data)
        try:
            return os.write(self.receives, data)
        except BlockingIOError:
            return 0
        except OSError:  # nobody reads any more
            return len(data)

    def end_input(self) -> None:
        if self.of is not None:
            if not self.of.spec.tty and self.of.input >= 0:
                os.close(self.of.input)
                self.of.input = -1
        elif self.tty:
            self.write(b"\x04")
        elif self.is_socket:
            import socket  # noqa: PLC0415 - takes its time, and few ask

            try:
                with socket.socket(fileno=os.dup(self.input)) as shared:
                    shared.shutdown(socket.SHUT_WR)
            except OSError:
                return
        elif self.input >= 0 and self.input not in self.outputs:
            os.close(self.input)
            self.input = -1

    def resize(self, width: int, height: int) -> None:
        if (self.tty or self.of is not None) and self.receives >= 0:
            set_size(self.receives, width, height)

    def close(self) -> None:
        files.try_to_close(*self.outputs, self.input)
        self.outputs, self.input, self.closed = {}, -1, True
        if self.pid and self.code is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except OSError:
                return


def beside(container: Container, argv: tuple[str, ...], *, tty: bool, stdin: bool, size: tuple[int, int]) -> Session:
    """Start a program inside a container that runs. Raises OSError when it cannot be run."""
    streams = _Streams.open(tty=tty, stdin=stdin)
    if tty and size != (0, 0):
        set_size(streams.input, *size)
    told_read, told_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _beside_child(container, streams, told_write, argv)
    os.close(told_write)
    streams.close_inner()
    trouble = _told(told_read)
    if trouble:
        os.waitpid(pid, 0)
        streams.close_outer()
        raise OSError(trouble)
    return Session(pid=pid, outputs=dict(streams.outer), input=streams.input, tty=tty)


def _beside_child(container: Container, streams: _Streams, told: int, argv: tuple[str, ...]) -> None:
    """Join the container, and start what was asked for as a child: only children are in the namespace of processes."""
    try:
        os.setsid()
        files.try_to_write(f"{container.cgroup}/cgroup.procs", "0")
        linux.enter(container.pid, "pid", "mnt")
        pid = os.fork()
        if pid == 0:
            _child(streams, told, argv, lambda: become_user(container.spec), "", lead=False)
        os.close(told)
        files.try_to_close(0, 1, 2, *streams.inner, *streams.outer, streams.input)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    except BaseException as error:  # nothing may leave a child but by _exit
        _tell(told, str(error))


class _Streams:
    """Pipes or a terminal between a program and us. ``inner`` are its 0, 1 and 2."""

    def __init__(self, inner: tuple[int, int, int], outer: dict[int, str], input: int, terminal: bool) -> None:
        self.inner, self.outer, self.input, self.terminal = inner, outer, input, terminal

    @classmethod
    def open(cls, *, tty: bool, stdin: bool) -> _Streams:
        if tty:
            ours, theirs = os.openpty()
            os.set_blocking(ours, False)
            return cls((theirs, theirs, theirs), {ours: "stdout"}, ours, True)
        nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        given, taken = os.pipe2(os.O_CLOEXEC) if stdin else (nothing, -1)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        for one in (out_read, err_read, taken):
            if one >= 0:
                os.set_blocking(one, False)
        if stdin:
            os.close(nothing)
        return cls((given, out_write, err_write), {out_read: "stdout", err_read: "stderr"}, taken, False)

    def close_inner(self) -> None:
        for one in set(self.inner):
            os.close(one)

    def close_outer(self) -> None:
        for one in {*self.outer, self.input} - {-1}:
            os.close(one)


def _child(
    streams: _Streams,
    told: int,
    argv: tuple[str, ...],
    confine: Callable[[], None],
    cgroup: str,
    *,
    lead: bool = True,
) -> None:
    """Become the program. What goes wrong before is written to ``told``; nothing ever returns."""
    try:
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        if lead or streams.terminal:
            try:
                os.setsid()
            except OSError:  # it leads already
                pass
        for place, descriptor in enumerate(streams.inner):
            os.dup2(descriptor, place)
        if streams.terminal:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        if cgroup:
            files.try_to_write(f"{cgroup}/cgroup.procs", "0")
        confine()
        _execute(argv)
    except FileNotFoundError:
        trouble = f'exec: "{argv[0]}": executable file not found'
    except BaseException as error:  # nothing may leave a child but by _exit
        trouble = f'exec: "{argv[0] if argv else ""}": {error}'
    _tell(told, trouble)


def _execute(argv: tuple[str, ...]) -> None:
    """Become the program, looked for as a shell would. Raises OSError; FileNotFoundError when there is none."""
    names = [argv[0]]
    if "/" not in argv[0]:
        names = [f"{folder or '.'}/{argv[0]}" for folder in os.environ.get("PATH", "").split(":")]
    refused: OSError = FileNotFoundError(argv[0])
    for name in names:
        try:
            os.execve(name, argv, os.environ)  # noqa: S606 - what the pod asked for, without a shell
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            refused = error
    raise refused


def _tell(told: int, trouble: str) -> None:
    try:
        os.write(told, (trouble or "it failed without a word").encode())
    finally:
        os._exit(FAILED_TO_START)


def _told(descriptor: int) -> str:
    """What went wrong in a child before it became the program; empty when it did."""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(4096).decode(errors="replace")


def set_size(terminal: int, width: int, height: int) -> None:
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    except OSError:
        return
