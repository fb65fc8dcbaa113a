"""What is kept for a pod's processes: CPUs, memory, a realtime policy. Applied to containers that have just started.

A pod says it in the annotation ``node.fleetplane.io/reservation`` (JSON; the fields of the vehicles' ``Reservation``).
Each part is applied where the host allows and reported where it does not: a missing controller, a right the agent lacks,
a CPU the machine has not. Nothing here ever fails a container.

Sources: cpuset(7), sched(7), sched_setattr(2), the kernel's documentation of cgroup v1 (cpu, cpuset) and v2.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from fleetplane.model.quantity import Quantity

RESERVATION: Final = "node.fleetplane.io/reservation"
ROOT: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")
_MOST_CPUS: Final = 4096
_LONGEST: Final = 4096
_PASSES: Final = 3
_DEADLINE: Final = 6
_POLICIES: Final[Mapping[str, int]] = {
    "SCHED_OTHER": os.SCHED_OTHER,
    "SCHED_FIFO": os.SCHED_FIFO,
    "SCHED_RR": os.SCHED_RR,
    "SCHED_DEADLINE": _DEADLINE,
}
_SETATTR: Final[Mapping[str, int]] = {"x86_64": 314, "aarch64": 274, "armv7l": 380, "riscv64": 274}
_RESET_ON_FORK: Final = 1


class ReservationError(ValueError):
    """The annotation cannot be understood; the message says which part."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Sets of CPUs, bytes, and a policy; times of SCHED_DEADLINE in nanoseconds. Zero and empty mean: not asked for."""

    cpus: frozenset[int] = frozenset()
    affinity: frozenset[int] = frozenset()
    memory_min: int = 0
    memory_low: int = 0
    policy: str = ""
    priority: int = 1
    runtime: int = 0
    deadline: int = 0
    period: int = 0
    realtime_percent: int = 10
    memory_bandwidth: int = 0
    apart: tuple[str, ...] = ()
    """Containers that get CPUs of their own, each its share of ``cpus`` (or of all)."""


def read(text: str) -> Reservation:
    """Raises ReservationError."""
    try:
        found: Any = orjson.loads(text) if len(text) <= _LONGEST else None
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ReservationError("the reservation is not a JSON object")
    policy = str(found.get("schedulingPolicy") or "")
    if policy and policy not in _POLICIES:
        raise ReservationError(f"schedulingPolicy {policy!r} is none of {', '.join(_POLICIES)}")
    made = Reservation(
        cpus=cpu_list(str(found.get("cpuSet") or "")),
        affinity=cpu_list(str(found.get("affinity") or "")),
        memory_min=_bytes(found, "memoryMin"),
        memory_low=_bytes(found, "memoryLow"),
        policy=policy,
        priority=_whole(found, "schedulingPriority", 1, 99, 1),
        runtime=1000 * _whole(found, "runtimeMicroseconds", 0, 10**9, 0),
        deadline=1000 * _whole(found, "deadlineMicroseconds", 0, 10**9, 0),
        period=1000 * _whole(found, "periodMicroseconds", 0, 10**9, 0),
        realtime_percent=_whole(found, "realtimePercent", 1, 95, 10),
        memory_bandwidth=_whole(found, "memoryBandwidthPercent", 0, 100, 0),
        apart=_names(found, "apart"),
    )
    if policy == "SCHED_DEADLINE" and not 0 < made.runtime <= (made.deadline or made.period):
        raise ReservationError("SCHED_DEADLINE needs runtimeMicroseconds and a deadline or period not below it")
    return made


def of_container(wanted: Reservation, container: str, available: Collection[int]) -> tuple[Reservation, list[str]]:
    """What one container gets of it, and in words what it does not. ``available``: the CPUs there are."""
    if container not in wanted.apart or len(wanted.apart) < 2:
        return wanted, []
    pool = sorted(wanted.cpus or available)
    if len(pool) < len(wanted.apart):
        return wanted, [f"CPUs of its own: {len(wanted.apart)} containers share {len(pool)}"]
    # Neighbours stay together: they often share caches.
    place, count = wanted.apart.index(container), len(wanted.apart)
    first, last = place * len(pool) // count, (place + 1) * len(pool) // count
    return replace(wanted, cpus=frozenset(pool[first:last])), []


def _names(found: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = found.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ReservationError(f"{key} is not a list of names of containers")
    return tuple(dict.fromkeys(value))


def _whole(found: Mapping[str, Any], key: str, least: int, most: int, usual: int) -> int:
    value = found.get(key)
    if value is None:
        return usual
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ReservationError(f"{key} is not a whole number from {least} to {most}")
    return value


def _bytes(found: Mapping[str, Any], key: str) -> int:
    value = found.get(key)
    try:
        return Quantity.parse(value).value() if value else 0
    except ValueError:
        raise ReservationError(f"{key} is not a quantity of memory such as 64Mi") from None


def cpu_list(text: str) -> frozenset[int]:
    """``0-1,3`` as cpuset(7) writes it. Raises ReservationError."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ReservationError(f"{text!r} is not a list of CPUs such as 0-1,3")
        low, high = int(first), int(last) if dash else int(first)
        if not low <= high < _MOST_CPUS:
            raise ReservationError(f"{text!r} is not a list of CPUs such as 0-1,3")
        found.update(range(low, high + 1))
    return frozenset(found)


# -- applying


def apply(wanted: Reservation, pid: int, root: Path = ROOT, proc: Path = PROC) -> list[str]:
    """Apply it to every process of the container whose first process this is. Answers what could not be, in words."""
    groups = cgroups_of(pid, root, proc)
    problems: list[str] = []

    def attempt(what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            problems.append(f"{what}: {os.strerror(error.errno) if error.errno else error}")

    if wanted.cpus:
        text = ",".join(map(str, sorted(wanted.cpus)))
        attempt(f"CPU set {text}", lambda: _write(groups, "cpuset", "cpuset.cpus", text))
    if wanted.memory_min:
        attempt("memory minimum", lambda: _write(groups, "memory", "memory.min", str(wanted.memory_min)))
    if wanted.memory_low:
        attempt("low memory protection", lambda: _protect(groups, wanted.memory_low))
    if wanted.memory_bandwidth:
        problems.append("memory bandwidth: not supported by this node")
    if wanted.policy in {"SCHED_FIFO", "SCHED_RR"}:
        attempt("realtime time", lambda: _allow_realtime(groups, wanted.realtime_percent, root))
    if wanted.policy:
        attempt(wanted.policy, lambda: _each_task(groups, pid, proc, lambda task: set_policy(task, wanted)))
    if wanted.affinity:
        shown = ",".join(map(str, sorted(wanted.affinity)))
        attempt(
            f"affinity {shown}",
            lambda: _each_task(groups, pid, proc, lambda task: os.sched_setaffinity(task, wanted.affinity)),
        )
    return problems


def cgroups_of(pid: int, root: Path, proc: Path) -> dict[str, Path]:
    """Controller to the container's directory; the unified hierarchy is under the empty name."""
    found: dict[str, Path] = {}
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inside = path.lstrip("/")
        if number == "0":
            unified = root if (root / "cgroup.controllers").is_file() else root / "unified"
            found[""] = unified / inside
        for one in controllers.split(",") if controllers else ():
            found[one] = root / one / inside
    return found


def _file(groups: Mapping[str, Path], controller: str, name: str) -> Path:
    for key in (controller, ""):
        if key in groups and (groups[key] / name).exists():
            return groups[key] / name
    raise OSError(errno.EOPNOTSUPP, name)


def _write(groups: Mapping[str, Path], controller: str, name: str, text: str) -> None:
    _file(groups, controller, name).write_text(text)


def _protect(groups: Mapping[str, Path], amount: int) -> None:
    """Version 1 has no protection but a soft limit, which is the nearest it knows."""
    try:
        _write(groups, "memory", "memory.low", str(amount))
    except OSError:
        _write(groups, "memory", "memory.soft_limit_in_bytes", str(amount))


def _allow_realtime(groups: Mapping[str, Path], percent: int, root: Path) -> None:
    """Version 1 with RT_GROUP_SCHED gives a new group no realtime at all: some must be set aside, from the top down."""
    try:
        own = _file(groups, "cpu", "cpu.rt_runtime_us").parent
    except OSError:
        return  # this kernel does not divide realtime between groups
    inside = own.relative_to(root / "cpu").parts if own.is_relative_to(root / "cpu") else ()
    for depth in range(1, len(inside)):
        group = (root / "cpu").joinpath(*inside[:depth])
        wanted = sum(_number(one / "cpu.rt_runtime_us") for one in group.iterdir() if one.is_dir())
        wanted += _period(own) * percent // 100
        if _number(group / "cpu.rt_runtime_us") < wanted:
            (group / "cpu.rt_runtime_us").write_text(str(wanted))
    (own / "cpu.rt_runtime_us").write_text(str(_period(own) * percent // 100))


def _period(group: Path) -> int:
    return _number(group / "cpu.rt_period_us") or 1_000_000


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _tasks(groups: Mapping[str, Path], pid: int, proc: Path) -> Iterator[int]:
    """Every thread of every process of the container."""
    pids = {pid}
    for group in groups.values():
        try:
            pids.update(int(line) for line in (group / "cgroup.procs").read_text().split())
            break
        except OSError:
            continue
    for one in sorted(pids):
        try:
            yield from sorted(int(entry.name) for entry in (proc / str(one) / "task").iterdir())
        except OSError:
            continue


def _each_task(groups: Mapping[str, Path], pid: int, proc: Path, work: Callable[[int], None]) -> None:
    """New ones inherit from those that have it, so a few passes meet all of them. What has just ended does not count."""
    done: set[int] = set()
    for _ in range(_PASSES):
        fresh = [task for task in _tasks(groups, pid, proc) if task not in done]
        for task in fresh:
            try:
                work(task)
            except ProcessLookupError:
                continue
            finally:
                done.add(task)
        if not fresh:
            return


def set_policy(task: int, wanted: Reservation) -> None:
    """Raises OSError."""
    if wanted.policy != "SCHED_DEADLINE":
        realtime = wanted.policy in {"SCHED_FIFO", "SCHED_RR"}
        os.sched_setscheduler(task, _POLICIES[wanted.policy], os.sched_param(wanted.priority if realtime else 0))
        return
    number = _SETATTR.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, "sched_setattr")
    deadline = wanted.deadline or wanted.period
    attributes = _Attributes(
        ctypes.sizeof(_Attributes), _DEADLINE, _RESET_ON_FORK, 0, 0, wanted.runtime, deadline, wanted.period or deadline
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), ctypes.c_int(task), ctypes.byref(attributes), ctypes.c_uint(0)) != 0:
        code = ctypes.get_errno()
        if code == errno.ESRCH:
            raise ProcessLookupError(code, os.strerror(code))
        raise OSError(code, os.strerror(code))


class _Attributes(ctypes.Structure):
    """``struct sched_attr``. Tasks of this policy cannot fork, so children go back to the usual one."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    ]
