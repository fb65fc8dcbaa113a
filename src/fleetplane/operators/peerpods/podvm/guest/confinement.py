"""One container's world: its root, its mounts, who it is. What happens between the fork and the program.

The VM is the boundary between pods; between the containers of one pod it is mounts and processes, as people expect: each has
its own root and sees its own processes only, and all share the network, the host name and IPC.
"""

from __future__ import annotations

import os
import stat

from . import files, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

DEFAULT_CAPABILITIES: Final = frozenset(
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT".split()
)
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")


class Spec:
    """What a container is, as the outside says it. Raises TypeError, ValueError where that makes no sense."""

    __slots__ = (
        "add",
        "argv",
        "cpu_period",
        "cpu_quota",
        "drop",
        "env",
        "groups",
        "memory_bytes",
        "mounts",
        "no_new_privileges",
        "own_processes",
        "pids",
        "privileged",
        "read_only_root",
        "stdin",
        "tty",
        "user",
        "working_dir",
    )

    def __init__(self, said: dict[str, Any]) -> None:
        self.argv = tuple(str(one) for one in said["argv"])
        self.env: dict[str, str] = {str(key): str(value) for key, value in said.get("env", {}).items()}
        self.working_dir = str(said.get("working_dir", ""))
        self.user = str(said.get("user", ""))
        """``name``, ``uid``, ``name:group`` or ``uid:gid``."""
        self.groups = [int(one) for one in said.get("groups", ())]
        self.mounts = [(str(source), str(target), bool(ro)) for source, target, ro in said.get("mounts", ())]
        """Source in the VM (empty: memory), target, read-only."""
        self.read_only_root = bool(said.get("read_only_root"))
        self.privileged = bool(said.get("privileged"))
        self.add = _named(said.get("add", ()))
        self.drop = _named(said.get("drop", ()))
        self.no_new_privileges = bool(said.get("no_new_privileges"))
        self.tty = bool(said.get("tty"))
        self.stdin = bool(said.get("stdin"))
        self.own_processes = bool(said.get("own_processes", True))
        self.memory_bytes = int(said.get("memory_bytes", 0))
        self.cpu_quota = int(said.get("cpu_quota", 0))
        self.cpu_period = int(said.get("cpu_period", 0)) or 100_000
        self.pids = int(said.get("pids", 0))
        if not self.argv:
            raise ValueError("neither the container nor its image says what to run")

    @property
    def capabilities(self) -> frozenset[str]:
        everything = frozenset(linux.CAPABILITIES)
        if self.privileged:
            return everything
        base = frozenset[str]() if "ALL" in self.drop else DEFAULT_CAPABILITIES - self.drop
        return base | (everything if "ALL" in self.add else self.add & everything)


def _named(words: Any) -> frozenset[str]:
    return frozenset(str(one).upper().removeprefix("CAP_") for one in words)


def become(root: str, spec: Spec) -> None:
    """In a new mount namespace: make the root the root, and be nobody who may do more than the spec says."""
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount(root, root, flags=linux.MS_BIND | linux.MS_REC)
    _kernel_file_systems(root, spec)
    for source, target, read_only in spec.mounts:
        _put(root, source, target, read_only)
    if spec.read_only_root:
        linux.mount("", root, flags=linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY)
    os.chdir(root)
    linux.mount(root, "/", flags=linux.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    become_user(spec)


def become_user(spec: Spec) -> None:
    """Inside the root."""
    uid, gid, groups, home = identity(spec.user)
    os.environ.clear()
    os.environ.update({"PATH": DEFAULT_PATH, "HOME": home, **spec.env})
    if spec.working_dir:
        os.makedirs(spec.working_dir, exist_ok=True)
        os.chdir(spec.working_dir)
    linux.keep_capabilities(spec.capabilities)
    os.setgroups(sorted({*groups, *spec.groups}))
    os.setgid(gid)
    os.setuid(uid)
    if spec.no_new_privileges:
        linux.no_new_privileges()


def _kernel_file_systems(root: str, spec: Spec) -> None:
    quiet = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    for name in ("proc", "sys", "dev", "tmp"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    linux.mount("proc", f"{root}/proc", "proc", quiet)
    linux.mount("sysfs", f"{root}/sys", "sysfs", quiet | (0 if spec.privileged else linux.MS_RDONLY))
    linux.mount("tmpfs", f"{root}/dev", "tmpfs", linux.MS_NOSUID, "mode=755,size=64k")
    for name in _DEVICES:
        files.touch(f"{root}/dev/{name}")
        linux.mount(f"/dev/{name}", f"{root}/dev/{name}", flags=linux.MS_BIND)
    for name in ("pts", "shm"):
        os.mkdir(f"{root}/dev/{name}")
    linux.mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
    linux.mount("tmpfs", f"{root}/dev/shm", "tmpfs", quiet, "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, leads_to in links.items():
        os.symlink(leads_to, f"{root}/dev/{name}")


def _put(root: str, source: str, target: str, read_only: bool) -> None:
    """Mount something where the container wants it; links in its image never lead out of its root."""
    inside = resolved(root, target)
    if not source or stat.S_ISDIR(os.stat(source).st_mode):
        os.makedirs(inside, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        files.touch(inside)
    if not source:
        linux.mount("tmpfs", inside, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
        return
    linux.mount(source, inside, flags=linux.MS_BIND | linux.MS_REC)
    if read_only:
        linux.mount("", inside, flags=linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY)


def resolved(root: str, target: str, budget: int = 40) -> str:
    """A path inside the root, with links followed as if the root were all there is. Raises OSError."""
    left = [one for one in target.split("/") if one]
    found: list[str] = []
    while left:
        part = left.pop(0)
        if part == "..":
            found = found[:-1]
        elif part != ".":
            try:
                link = os.readlink("/".join([root, *found, part]))
            except OSError:
                found.append(part)
                continue
            if (budget := budget - 1) < 0:
                raise OSError(40, f"too many links on the way to {target}")
            found = [] if link.startswith("/") else found
            left = [one for one in link.split("/") if one] + left
    return "/".join([root, *found])


def identity(user: str, people: str = "/etc/passwd", groups: str = "/etc/group") -> tuple[int, int, list[int], str]:
    """User, group, further groups and home, by the root's own files. Raises ValueError for a name nobody has."""
    name, _, group = user.partition(":")
    known = next((one for one in _rows(people, 7) if name in {one[0], one[2]}), None) if name else None
    if known is None and name and not name.isdecimal():
        raise ValueError(f"the image has no user {name}")
    gid = int(known[3]) if known and known[3].isdecimal() else 0
    listed = _rows(groups, 4)
    if group:
        found = next((one for one in listed if group in {one[0], one[2]}), None)
        if found is None and not group.isdecimal():
            raise ValueError(f"the image has no group {group}")
        gid = int(found[2]) if found else int(group)
    called = known[0] if known else ""
    others = [int(one[2]) for one in listed if called and called in one[3].split(",")]
    return int(known[2]) if known else int(name or 0), gid, others, (known[5] if known else "") or "/"


def _rows(path: str, width: int) -> list[list[str]]:
    try:
        text = files.read(path)
    except OSError:
        return []
    rows = [line.split(":") for line in text.splitlines()]
    return [row for row in rows if len(row) >= width and row[2].isdecimal()]
