"""What a container uses, read from its cgroup: v1, v2 and hybrids; and limits changed where the runtime cannot.

Files of the kernel are small and quick; nothing here blocks. A file that is missing reads as zero: not every kernel
has every controller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU is cumulative nanoseconds; memory is the working set (what cannot be dropped at once), in bytes."""

    cpu_nanoseconds: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    pids: int = 0


def read_usage(path: str, root: Path = ROOT) -> Usage:
    """``path`` is the cgroup's, from the root of each hierarchy."""
    inside = path.lstrip("/")
    if (root / "cgroup.controllers").is_file():
        return _read_v2(root / inside)
    return _read_v1(root, inside)


def _read_v2(group: Path) -> Usage:
    memory = _number(group / "memory.current") - _field(group / "memory.stat", "inactive_file")
    return Usage(
        cpu_nanoseconds=_field(group / "cpu.stat", "usage_usec") * 1000,
        memory_bytes=max(0, memory),
        memory_limit_bytes=_number(group / "memory.max"),
        pids=_number(group / "pids.current"),
    )


def _read_v1(root: Path, inside: str) -> Usage:
    memory = root / "memory" / inside
    used = _number(memory / "memory.usage_in_bytes") - _field(memory / "memory.stat", "total_inactive_file")
    limit = _number(memory / "memory.limit_in_bytes")
    return Usage(
        cpu_nanoseconds=_number(root / "cpuacct" / inside / "cpuacct.usage"),
        memory_bytes=max(0, used),
        memory_limit_bytes=limit if limit < 1 << 60 else 0,
        pids=_number(root / "pids" / inside / "pids.current"),
    )


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _field(path: Path, name: str) -> int:
    try:
        text = path.read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def set_limits(
    path: str, *, memory_bytes: int, cpu_quota: int, cpu_period: int, cpu_shares: int, root: Path = ROOT
) -> None:
    """Write new limits straight into the cgroup. Raises OSError."""
    inside = path.lstrip("/")
    if (root / "cgroup.controllers").is_file():
        group = root / inside
        (group / "memory.max").write_text(str(memory_bytes) if memory_bytes else "max")
        (group / "cpu.max").write_text(f"{cpu_quota or 'max'} {cpu_period}")
        # The kernel's conversion of v1 shares (2 … 262144) to v2 weights (1 … 10000).
        (group / "cpu.weight").write_text(str(1 + (max(2, cpu_shares) - 2) * 9999 // 262142))
        return
    cpu = root / "cpu" / inside
    (cpu / "cpu.shares").write_text(str(max(2, cpu_shares)))
    (cpu / "cpu.cfs_period_us").write_text(str(cpu_period))
    (cpu / "cpu.cfs_quota_us").write_text(str(cpu_quota or -1))
    _set_memory_v1(root / "memory" / inside, memory_bytes)


def _set_memory_v1(group: Path, limit: int) -> None:
    """With swap accounting the two limits must never cross: raise the outer one first, lower it last."""
    plain, both = group / "memory.limit_in_bytes", group / "memory.memsw.limit_in_bytes"
    text = str(limit) if limit else "-1"
    files = [plain, both] if limit and limit < _number(plain) else [both, plain]
    for file in files:
        if file.exists():
            file.write_text(text)
