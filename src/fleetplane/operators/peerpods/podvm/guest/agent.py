"""The first program in a pod VM: makes containers, tells how they are, and does nothing it was not asked for.

::

    python3 -m guest.agent /dev/vport0p1

Calls (see ``wire``): ``hello``, ``network``, ``create``, ``put`` (a tar into a container's root or a volume), ``start``,
``signal``, ``freeze``, ``limits``, ``remove``, ``watch`` (answered when something has changed), ``log``, ``exec``, ``attach``,
``connect``, ``read``, ``write``, ``resize``, ``end``, ``close``, ``file`` (read one back), ``usage``.

A call that has to wait is kept, and answered when what it waits for has come. The VM's user is root and the pod's own; what
the outside is protected by is the VM.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from . import files, linux
from .confinement import Spec
from .processes import CGROUPS, Container, Session, beside
from .wire import BLOB_BYTES, GREETING, NONCE_BYTES, Damaged, Unframer, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    Answer = tuple[dict[str, Any], bytes]

ROOTS: Final = "/run/containers"
VOLUMES: Final = "/run/volumes"
BUSYBOX: Final = "/bin/busybox"
FILE_BYTES: Final = 64 * 1024
BACK_AGAIN: Final = 0.02
"""Seconds between two looks whether somebody listens outside."""


class Refused(Exception):
    """A call that cannot be answered; the message is for people. ``kind`` is what the outside goes by."""

    def __init__(self, message: str, kind: str = "refused") -> None:
        super().__init__(message)
        self.kind = kind


class Agent:
    """See the module. ``channel`` is the file descriptor of the stream."""

    def __init__(self, channel: int, roots: str = ROOTS, volumes: str = VOLUMES) -> None:
        self._channel = channel
        self._roots, self._volumes = roots, volumes
        self._containers: dict[str, Container] = {}
        self._sessions: dict[int, Session] = {}
        self._puts: dict[str, Unpacking] = {}
        self._count = 0
        self._version = 1
        self._networked = False
        self._out = bytearray()
        self._unframer: Unframer | None = None
        self._greeting = b""
        self._waiting: list[Callable[[], bool]] = []
        """Calls that have not been answered: each says whether it is now."""
        self._wanted: dict[int, int] = {}
        """What those wait for, by file descriptor."""
        self._wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        os.set_blocking(self._channel, False)
        while True:
            try:
                self._turn()
            except Exception as error:  # the first program must not end: the kernel would, too
                files.try_to_write("/dev/console", f"pod VM agent: {type(error).__name__}: {error}\n")
                time.sleep(BACK_AGAIN)

    def _turn(self) -> None:
        poll = select.poll()
        wanted = {**self._wanted, self._wake: select.POLLIN}
        wanted[self._channel] = select.POLLIN | (select.POLLOUT if self._out else 0)
        for container in self._containers.values():
            wanted.update(dict.fromkeys(container.readers, select.POLLIN))
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        happened = dict(poll.poll())
        if self._channel in happened:
            self._speak(happened[self._channel])
        if self._wake in happened:
            os.read(self._wake, 4096)
            self._reap()
        self._collect(happened)
        self._wanted = {}
        self._waiting = [waits for waits in self._waiting if not waits()]

    # -- the stream

    def _speak(self, events: int) -> None:
        if events & select.POLLHUP:
            self._forget()
            time.sleep(BACK_AGAIN)
            return
        if events & select.POLLIN:
            try:
                data = os.read(self._channel, 65536)
            except BlockingIOError:
                data = b"\0"
            if not data:
                self._forget()
                time.sleep(BACK_AGAIN)
            else:
                self._take(data)
        if events & select.POLLOUT:
            self._flush()

    def _forget(self) -> None:
        """Whoever was there has gone: so have the calls, and the programs that ran for them."""
        self._unframer, self._greeting = None, b""
        self._out.clear()
        self._waiting.clear()
        for session in self._sessions.values():
            session.close()
        self._sessions = {number: one for number, one in self._sessions.items() if one.pid and one.code is None}

    def _take(self, data: bytes) -> None:
        if self._unframer is None:
            self._greeting += data
            at = self._greeting.find(GREETING)
            whole = at + len(GREETING) + NONCE_BYTES
            if at < 0 or len(self._greeting) < whole:
                self._greeting = self._greeting[max(at, -len(GREETING) if at < 0 else 0) :]
                return
            nonce, data = self._greeting[whole - NONCE_BYTES : whole], self._greeting[whole:]
            self._greeting, self._unframer = b"", Unframer()
            self._out += GREETING + nonce
            self._flush()
        try:
            calls = self._unframer.feed(data)
        except Damaged:
            self._forget()
            if GREETING in data:  # somebody new, who was faster than the news that the last one had gone
                self._take(data)
            return
        for head, blob in calls:
            self._call(head, blob)

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: os.write(self._channel, self._out[:65536])]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()

    def _answer(self, id: Any, head: dict[str, Any], blob: bytes = b"") -> None:
        self._out += frame({**head, "id": id}, blob)
        self._flush()

    def _call(self, head: dict[str, Any], blob: bytes) -> None:
        id, name = head.pop("id", None), str(head.pop("call", ""))
        method = getattr(self, f"call_{name}", None)

        def attempt() -> bool:
            """Answer, now or (``None``) not yet."""
            try:
                if method is None:
                    raise Refused(f"the agent has no call {name!r}")
                answer = method(head, blob)
            except Refused as error:
                self._answer(id, {"error": str(error), "kind": error.kind})
            except Exception as error:
                self._answer(id, {"error": str(error) or type(error).__name__, "kind": "refused"})
            else:
                if answer is None:
                    return False
                self._answer(id, *answer)
            return True

        if not attempt():
            self._waiting.append(attempt)

    # -- what happens by itself

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for container in self._containers.values():
                if container.pid == pid and container.phase != "exited":
                    self._drain(container)
                    container.ended(status)
                    container.log.finish()
                    self._version += 1
            for number, session in list(self._sessions.items()):
                if session.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    session.code = code if code >= 0 else 128 - code
                    if session.closed:
                        del self._sessions[number]
            for put in self._puts.values():
                if put.pid == pid:
                    put.code = os.waitstatus_to_exitcode(status)

    def _collect(self, happened: dict[int, int]) -> None:
        for container in self._containers.values():
            if not happened.keys().isdisjoint(container.readers):
                self._drain(container, turns=4)

    def _drain(self, container: Container, turns: int = 1000) -> None:
        """Output into the log: all of it when the container has ended, a share of it while it runs."""
        for _ in range(turns):
            more = False
            for descriptor, stream in list(container.readers.items()):
                try:
                    data = os.read(descriptor, 65536)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    del container.readers[descriptor]
                    if descriptor != container.input:
                        os.close(descriptor)
                    continue
                container.log.add(stream, data)
                for session in self._sessions.values():
                    if session.of is container:
                        session.overheard(stream, data)
                more = True
            if not more:
                return

    # -- calls

    def call_hello(self, _head: dict[str, Any], _blob: bytes) -> Answer:
        return {"agent": 1, "up": float(files.read("/proc/uptime").split()[0])}, b""

    def call_network(self, head: dict[str, Any], _blob: bytes) -> Answer:
        """The host name, addresses (``a/b``), and routes as words of ``ip route add``."""
        if head.get("hostname"):
            linux.set_host_name(str(head["hostname"]))
        device = str(head.get("device") or "eth0")
        if head.get("addresses") and not self._networked:
            self._networked = True
            if mtu := int(head.get("mtu") or 0):
                self._run("ip", "link", "set", device, "mtu", str(mtu))
            self._run("ip", "link", "set", device, "up")
            for one in head["addresses"]:
                self._run("ip", "addr", "add", str(one), "dev", device)
            for words in head.get("routes", ()):
                self._run("ip", *(str(one) for one in words))
        return {}, b""

    def call_create(self, head: dict[str, Any], _blob: bytes) -> Answer:
        id = str(head["container"])
        if not id.isalnum():
            raise Refused("a container's id has letters and digits only")
        if id not in self._containers:
            root = f"{self._roots}/{id}"
            os.makedirs(root, exist_ok=True)
            linux.mount("tmpfs", root, "tmpfs", linux.MS_NODEV, "mode=755,size=100%")
            self._containers[id] = Container(id, root, Spec(head["spec"]), dict(head.get("said") or {}))
            self._version += 1
        return {"root": self._containers[id].root}, b""

    def call_put(self, head: dict[str, Any], blob: bytes) -> Answer | None:
        """A piece of a tar. ``place`` is ``root:<container>`` or ``volume:<name>``; ``last`` ends it.

        The ``first`` piece of a volume that is there already is answered with ``known``: what it holds by now stays.
        """
        place = str(head["place"])
        if place not in self._puts:
            if head.get("first") and place.startswith("volume:") and os.path.isdir(self._volume(place[7:])):
                return {"known": True}, b""
            self._puts[place] = self._unpack(place)
        put = self._puts[place]
        sent = int(head.setdefault("sent", 0))
        try:
            while put.input >= 0 and sent < len(blob):
                sent += os.write(put.input, blob[sent:])
        except BlockingIOError:
            head["sent"] = sent
            self._wanted[put.input] = select.POLLOUT
            return None
        except BrokenPipeError:
            pass  # its end says why
        head["sent"] = len(blob)
        if not head.get("last"):
            return {}, b""
        files.try_to_close(put.input)
        put.input = -1
        if put.code is None:
            return None
        del self._puts[place]
        if put.code:
            raise Refused(
                f"the file system could not be unpacked, tar ended with {put.code}: is the VM's memory too small?"
            )
        return {}, b""

    def _unpack(self, place: str) -> Unpacking:
        kind, _, name = place.partition(":")
        if kind == "root":
            target = self._container(name).root
        elif kind == "volume":
            target = self._volume(name)
            os.makedirs(target, exist_ok=True)
        else:
            raise Refused(f"there is no place {place!r}")
        return Unpacking(target)

    def call_start(self, head: dict[str, Any], _blob: bytes) -> Answer:
        container = self._container(head["container"])
        if container.phase == "created":
            container.start()
            self._version += 1
        return {"state": container.state()}, b""

    def call_signal(self, head: dict[str, Any], _blob: bytes) -> Answer:
        wanted = head["signal"]
        number = wanted if isinstance(wanted, int) else signal.Signals[f"SIG{str(wanted).upper().removeprefix('SIG')}"]
        container = self._container(head["container"])
        container.signal(int(number))
        return {"state": container.state()}, b""

    def call_wait(self, head: dict[str, Any], _blob: bytes) -> Answer | None:
        """Answered when the container has ended."""
        container = self._container(head["container"])
        return ({"state": container.state()}, b"") if container.phase == "exited" else None

    def call_freeze(self, head: dict[str, Any], _blob: bytes) -> Answer:
        container = self._container(head["container"])
        if container.phase in {"running", "paused"}:
            container.freeze(on=bool(head["on"]))
            self._version += 1
        return {"state": container.state()}, b""

    def call_limits(self, head: dict[str, Any], _blob: bytes) -> Answer:
        amounts = [int(head.get(key) or 0) for key in ("memory_bytes", "cpu_quota", "cpu_period")]
        self._container(head["container"]).limits(amounts[0], amounts[1], amounts[2] or 100_000)
        return {}, b""

    def call_remove(self, head: dict[str, Any], _blob: bytes) -> Answer | None:
        container = self._containers.get(str(head["container"]))
        if container is None:
            return {}, b""
        if container.phase in {"running", "paused"}:
            container.signal(signal.SIGKILL)
            return None
        container.close()
        try:
            linux.unmount(container.root)
            os.rmdir(container.root)
        except OSError:
            pass  # memory that the next removal, or the VM's end, gives back
        del self._containers[container.id]
        self._version += 1
        return {}, b""

    def call_watch(self, head: dict[str, Any], _blob: bytes) -> Answer | None:
        """All containers, once they differ from how they were at ``since``."""
        if self._version <= int(head.get("since") or 0):
            return None
        return {"version": self._version, "containers": [one.state() for one in self._containers.values()]}, b""

    def call_log(self, head: dict[str, Any], _blob: bytes) -> Answer | None:
        """Bytes from an offset. With ``wait`` answered when there are some, or will never be."""
        container = self._container(head["container"])
        begin, data = container.log.read(int(head.get("offset") or 0), BLOB_BYTES)
        over = container.phase == "exited"
        if not data and head.get("wait") and not over:
            return None
        return {"offset": begin, "over": over and begin + len(data) >= container.log.end}, data

    def call_exec(self, head: dict[str, Any], _blob: bytes) -> Answer:
        container = self._container(head["container"])
        if container.phase != "running":
            raise Refused("the container does not run", "not-running")
        size = (int(head.get("width") or 0), int(head.get("height") or 0))
        argv = tuple(str(one) for one in head["argv"])
        session = beside(container, argv, tty=bool(head.get("tty")), stdin=bool(head.get("stdin")), size=size)
        return {"session": self._add(session)}, b""

    def call_attach(self, head: dict[str, Any], blob: bytes) -> Answer:
        """A session with the container's own program: its output from now on, and its input."""
        return {"session": self._add(Session(of=self._container(head["container"])))}, b""

    def call_connect(self, head: dict[str, Any], _blob: bytes) -> Answer:
        """A connection to a port of the pod's."""
        import socket  # noqa: PLC0415 - takes its time, and few ask

        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            made = socket.socket(family)
            made.settimeout(5)
            try:
                made.connect((address, int(head["port"])))
            except OSError:
                made.close()
                continue
            made.setblocking(False)
            descriptor = made.detach()
            session = Session(outputs={descriptor: "stdout"}, input=descriptor, is_socket=True)
            return {"session": self._add(session)}, b""
        raise Refused(f"nothing listens at port {head['port']} in the pod", "no-listener")

    def _add(self, session: Session) -> int:
        self._count += 1
        self._sessions[self._count] = session
        return self._count

    def call_read(self, head: dict[str, Any], _blob: bytes) -> Answer | None:
        session = self._session(head)
        found = session.read()
        if found is not None:
            return {"stream": found[0]}, found[1]
        if session.outputs:
            self._wanted.update(dict.fromkeys(session.outputs, select.POLLIN))
            return None
        return None if session.ended is None else ({"code": session.ended}, b"")

    def call_write(self, head: dict[str, Any], blob: bytes) -> Answer | None:
        session = self._session(head)
        sent = head["sent"] = int(head.get("sent") or 0) + session.write(blob[int(head.get("sent") or 0) :])
        if sent >= len(blob):
            return {}, b""
        self._wanted[session.receives] = select.POLLOUT
        return None

    def call_end(self, head: dict[str, Any], _blob: bytes) -> Answer:
        self._session(head).end_input()
        return {}, b""

    def call_resize(self, head: dict[str, Any], _blob: bytes) -> Answer:
        self._session(head).resize(int(head["width"]), int(head["height"]))
        return {}, b""

    def call_close(self, head: dict[str, Any], _blob: bytes) -> Answer:
        session = self._sessions.get(int(head["session"]))
        if session is not None:
            session.close()
            if session.code is not None or not session.pid:
                del self._sessions[int(head["session"])]
        return {}, b""

    def call_file(self, head: dict[str, Any], _blob: bytes) -> Answer:
        """The end of a file in a volume."""
        path = str(head["path"])
        if "/" in path or path in {"", ".", ".."}:
            raise Refused("there is no such file")
        descriptor = os.open(f"{self._volume(str(head['volume']))}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - FILE_BYTES))
            return {}, file.read(FILE_BYTES)

    def call_usage(self, _head: dict[str, Any], _blob: bytes) -> Answer:
        return {"usage": {one.id: one.usage() for one in self._containers.values() if one.phase == "running"}}, b""

    def _volume(self, name: str) -> str:
        if not name.isalnum():
            raise Refused("a volume's name has letters and digits only")
        return f"{self._volumes}/{name}"

    def _container(self, id: Any) -> Container:
        found = self._containers.get(str(id))
        if found is None:
            raise Refused(f"there is no container {id}", "not-there")
        return found

    def _session(self, head: dict[str, Any]) -> Session:
        found = self._sessions.get(int(head["session"]))
        if found is None:
            raise Refused("there is no such session", "not-there")
        return found

    def _run(self, *words: str) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(_busybox(words, {}), 0)[1])
        if status:
            raise Refused(f"{' '.join(words)} ended with {status}")


class Unpacking:
    """A tar on its way into a folder. ``code`` once all of it is there, or none of it will be."""

    def __init__(self, target: str) -> None:
        given, self.input = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.input, False)
        self.code: int | None = None
        self.pid = _busybox(("tar", "-x", "-f", "-", "-C", target), {0: given})
        os.close(given)


def _busybox(words: tuple[str, ...], descriptors: dict[int, int]) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, theirs, place) for place, theirs in descriptors.items()]
    return os.posix_spawn(BUSYBOX, [BUSYBOX, *words], {}, file_actions=actions)


def main() -> None:
    """As the first program: what a system needs, then the agent, for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    linux.mount("cgroup2", CGROUPS, "cgroup2")
    files.write(f"{CGROUPS}/cgroup.subtree_control", "+cpu +memory +pids")
    channel = os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC)
    Agent(channel).run()


if __name__ == "__main__":
    if sys.argv[1:] == ["--modules"]:  # for whoever packs what this needs
        import json
        import socket  # noqa: F401 - what connections are made with

        json.dump(sorted(filter(None, (getattr(m, "__file__", None) for m in sys.modules.values()))), sys.stdout)
    else:
        main()
