"""What this machine lets Podman do, found out by looking, never by trying containers.

Three things differ between hosts and decide how Podman must be called: the cgroup layout (crun refuses a hybrid of v1
and v2, runc does not), whether systemd can manage cgroups, and whether rlimits may be raised (without CAP_SYS_RESOURCE
Podman's own defaults would fail). ``look_at_host`` reads ``/proc`` and ``/sys`` only.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CAP_SYS_RESOURCE = 24
PODMAN_NPROC = 32_768
"""Podman lowers its own limit of processes to this before it starts anything."""

CgroupLayout = Literal["v1", "v2", "hybrid", "none"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """``oci_runtime`` is empty when Podman's own choice works. ``rlimits`` are what containers must not exceed."""

    podman: str
    cgroups: CgroupLayout
    cgroup_manager: Literal["systemd", "cgroupfs"]
    oci_runtime: str
    root: bool
    may_raise_limits: bool
    rlimits: Mapping[str, int]
    least_oom_score: int = -1000
    """The lowest ``oom_score_adj`` processes may have: without root nobody may lower their own."""

    @property
    def needs_flags(self) -> bool:
        """Whether a service somebody else started would not do."""
        return bool(self.oci_runtime) or not self.may_raise_limits or self.cgroup_manager == "cgroupfs"

    @property
    def why_no_limits(self) -> str:
        """Why limits of CPU and memory have no effect here; empty where they have."""
        if self.cgroups == "none":
            return "no cgroups are mounted on this machine"
        if not self.root and self.cgroups != "v2":
            return "without root, cgroup v1 lets nobody set limits"
        return ""

    @property
    def flags(self) -> list[str]:
        """Podman's global options on this host."""
        chosen = [f"--cgroup-manager={self.cgroup_manager}"]
        if self.oci_runtime:
            chosen.append(f"--runtime={self.oci_runtime}")
        return chosen


def look_at_host() -> HostFacts:
    layout = cgroup_layout(Path("/sys/fs/cgroup"))
    return HostFacts(
        podman=shutil.which("podman") or "",
        cgroups=layout,
        cgroup_manager="systemd" if Path("/run/systemd/system").is_dir() else "cgroupfs",
        oci_runtime=choose_oci_runtime(layout, {name for name in ("crun", "runc") if _has_program(name)}),
        root=os.geteuid() == 0,
        may_raise_limits=_has_capability(CAP_SYS_RESOURCE),
        rlimits=_own_rlimits(),
        least_oom_score=-1000 if os.geteuid() == 0 else _own_oom_score(),
    )


def cgroup_layout(root: Path) -> CgroupLayout:
    """v2 has its controllers at the root; a hybrid mounts v2 beside v1 under ``unified``."""
    if (root / "cgroup.controllers").is_file():
        return "v2"
    if (root / "unified" / "cgroup.procs").is_file():
        return "hybrid"
    return "v1" if (root / "memory").is_dir() or (root / "cpu").is_dir() else "none"


def choose_oci_runtime(layout: CgroupLayout, present: set[str]) -> str:
    """The OCI runtime to insist on: runc where crun would refuse, else whatever Podman has as default."""
    if "runc" in present and (layout == "hybrid" or "crun" not in present):
        return "runc"
    return ""


def _has_program(name: str) -> bool:
    return any(shutil.which(name, path=path) for path in (None, "/usr/sbin:/usr/bin:/sbin:/usr/local/sbin"))


def _has_capability(number: int) -> bool:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    except (OSError, ValueError, IndexError):
        pass
    return False


def _own_oom_score() -> int:
    try:
        return int(Path("/proc/self/oom_score_adj").read_text())
    except (OSError, ValueError):
        return 0


def _own_rlimits() -> dict[str, int]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = 1_048_576
    return {
        "nofile": most if files == resource.RLIM_INFINITY else min(files, most),
        "nproc": PODMAN_NPROC if processes == resource.RLIM_INFINITY else min(processes, PODMAN_NPROC),
    }
