"""Holding and killing processes so that no other is ever hit: by descriptors, and by cgroups that bear a container's id."""

# pathlib is large, and not used here.
# ruff: noqa: PTH112, PTH123, PTH208
from __future__ import annotations

import contextlib
import os
import select
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from fleetplane.node.watchdog.watch import Process

PROC: Final = "/proc"
CGROUPS: Final = "/sys/fs/cgroup"
LEAST_LETTERS: Final = 12
"""Of a container's id, for a cgroup to be known by it: real ones have 64."""


class Grip:
    """A process by the kernel's own name for it; ``groups`` are the directories of its container's cgroups."""

    __slots__ = ("descriptor", "groups", "pid")

    def __init__(self, descriptor: int, pid: int, groups: list[str]) -> None:
        self.descriptor, self.pid, self.groups = descriptor, pid, groups

    def is_dead(self) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> str:
        """Why it could not be; empty where it could, or was dead."""
        try:
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except OSError as error:
            return f"process {self.pid}: {error.strerror}"
        return ""

    def close(self) -> None:
        os.close(self.descriptor)


def grip(process: Process) -> Grip | None:
    """Hold it, if it is the one that was meant and lives. The order matters: only what is held can be compared."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return None
    if began(process.pid) != process.began or not process.began:
        os.close(descriptor)
        return None
    return Grip(descriptor, process.pid, groups_of(process.pid, process.id))


def began(pid: int) -> int:
    """When a process began, in clock ticks since the boot; 0 where there is none."""
    try:
        text = read(f"{PROC}/{pid}/stat")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(65_536)


def part_of(path: str, container: str) -> str:
    """A cgroup's path up to the part that bears the container's id; empty where none does. Its monitor has one too."""
    parts = path.split("/")
    if len(container) < LEAST_LETTERS:
        return ""
    for number, part in enumerate(parts):
        if container in part and "conmon" not in part and ".." not in parts:
            return "/".join(parts[: number + 1])
    return ""


def groups_of(pid: int, container: str) -> list[str]:
    """Directories of the cgroups of this container that the process is in."""
    found = []
    try:
        lines = read(f"{PROC}/{pid}/cgroup").splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not (part := part_of(path, container)):
            continue
        places = controllers.split(",") if controllers else ["", "unified"]
        found += [CGROUPS + (f"/{place}" if place else "") + part for place in places]
    return [one for one in found if os.path.isdir(one)]


def members(container: str) -> list[Grip]:
    """All processes in cgroups of this container."""
    found: list[Grip] = []
    if len(container) < LEAST_LETTERS:
        return found
    for name in os.listdir(PROC):
        if not name.isdecimal():
            continue
        pid = int(name)
        try:
            if container not in read(f"{PROC}/{name}/cgroup"):
                continue
            held = Grip(os.pidfd_open(pid), pid, [])
        except OSError:
            continue
        held.groups = groups_of(pid, container)  # once more, now that it is held
        if held.groups:
            found.append(held)
        else:
            held.close()
    return found


def kill_group(directory: str) -> None:
    """By the kernel at once, where it can (v2); what it cannot do is done process by process."""
    write(f"{directory}/cgroup.kill", "1")


def freeze(directory: str, *, frozen: bool) -> None:
    """v1: so that nothing forks while it is counted. SIGKILL takes effect when it goes on."""
    write(f"{directory}/freezer.state", "FROZEN" if frozen else "THAWED")


def write(path: str, text: str) -> None:
    """Files of cgroups: none of them is made, and not every kernel has them all."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.write(descriptor, text.encode())
    os.close(descriptor)


def kill(container: str, held: Grip | None) -> tuple[int, str]:
    """Kill a container: how many processes there were, and why some could not be killed.

    Its first process goes first, by its descriptor, and takes its process namespace with it; the rest is for containers
    that have none of their own.
    """
    refused = ""
    groups = list(held.groups) if held is not None else []
    if held is not None:
        refused = held.kill()
    found = members(container)
    groups += [one for member in found for one in member.groups if one not in groups]
    for group in groups:
        kill_group(group)
        freeze(group, frozen=True)
    try:
        if groups:
            found += members(container)
        for member in found:
            refused = member.kill() or refused
            member.close()
    finally:
        for group in groups:
            freeze(group, frozen=False)
    return len(found), refused
