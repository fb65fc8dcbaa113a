"""What a container uses where it has no cgroup of its own (rootless on cgroup v1): the sum over its processes.

Processes that have ended take their CPU time along, so a rate made of this may be too low, never too high.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fleetplane.node.cgroups import Usage

MOST_PROCESSES: Final = 4096
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def usage_of_processes(pid: int, root: Path = Path("/proc")) -> Usage:
    """This process and all below it. What vanishes meanwhile does not count."""
    waiting, count, memory, ticks = [pid], 0, 0, 0
    while waiting and count < MOST_PROCESSES:
        current = root / str(waiting.pop())
        try:
            fields = (current / "stat").read_text().rpartition(")")[2].split()
            memory += int((current / "statm").read_text().split()[1]) * _PAGE
            for children in current.glob("task/*/children"):
                waiting += [int(one) for one in children.read_text().split()]
        except (OSError, ValueError, IndexError):
            continue
        count += 1
        ticks += int(fields[11]) + int(fields[12])
    return Usage(ticks * 1_000_000_000 // _TICKS, memory, 0, count)
