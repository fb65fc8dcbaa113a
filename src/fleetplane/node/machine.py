"""What this machine is and has, for its Node object: read from the kernel, never guessed.

Pressure is measured here too: free memory, free disk and free process ids against thresholds, as the kubelet's
defaults have them (100 Mi of memory, a tenth of the disk, a twentieth of its inodes).
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetplane.model.quantity import Format, Quantity

MEMORY_THRESHOLD: Final = 100 * 1024 * 1024
DISK_THRESHOLD: Final = 0.10
INODES_THRESHOLD: Final = 0.05
SYSTEMD_RESOLVED: Final = Path("/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True, slots=True)
class Pressure:
    """Which resource is short, and in words how short."""

    condition: str
    resource: str
    message: str


def capacity(root: Path, pods: int) -> dict[str, str]:
    """CPU, memory, disk of the data directory, and how many pods fit."""
    return {
        "cpu": str(os.cpu_count() or 1),
        "ephemeral-storage": str(Quantity.of(_disk(root)[0] // 1024 * 1024, Format.BINARY_SI)),
        "memory": str(Quantity.of(_meminfo().get("MemTotal", 0), Format.BINARY_SI)),
        "pods": str(pods),
    }


def allocatable(of: Mapping[str, str], reserved: Mapping[str, str]) -> dict[str, str]:
    """Capacity without what is kept for the system and for the eviction threshold."""
    left = dict(of)
    for name, text in {"memory": "100Mi", **reserved}.items():
        if name in left:
            remaining = Quantity.parse(left[name]) - Quantity.parse(text)
            left[name] = str(remaining if remaining > Quantity(0) else Quantity(0))
    return left


def node_info(runtime_name: str, runtime_version: str) -> dict[str, str]:
    return {
        "machineID": _text("/etc/machine-id"),
        "systemUUID": _text("/sys/class/dmi/id/product_uuid"),
        "bootID": _text("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": _os_release(),
        "containerRuntimeVersion": f"{runtime_name}://{runtime_version}",
    }


def host_name() -> str:
    """The node's name: the host's, in the letters object names may have."""
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname().lower())
    return name.strip("-.")[:253] or "node"


def host_addresses() -> tuple[str, ...]:
    """The addresses the machine is reached by: those it would use to reach others; loopback when it is alone."""
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            # Connecting a datagram socket sends nothing; it only chooses the address it would send from.
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return tuple(address for address in found if not address.startswith("fe80")) or ("127.0.0.1",)


def resolv_conf_text() -> str:
    """The host's resolver configuration: not the stub of systemd-resolved, which no pod could reach."""
    for path in (SYSTEMD_RESOLVED, Path("/etc/resolv.conf")):
        try:
            text = path.read_text()
        except OSError:
            continue
        if text.strip():
            return text
    return ""


def pressures(root: Path) -> list[Pressure]:
    """What is short now."""
    found = []
    memory = _meminfo()
    available = memory.get("MemAvailable", MEMORY_THRESHOLD)
    if available < MEMORY_THRESHOLD:
        words = f"The node was low on resource: memory. Available: {available // 1024}Ki."
        found.append(Pressure("MemoryPressure", "memory", words))
    total, free, inodes, free_inodes = _disk(root)
    if total and free / total < DISK_THRESHOLD:
        words = f"The node was low on resource: ephemeral-storage. Available: {free // 1024}Ki."
        found.append(Pressure("DiskPressure", "ephemeral-storage", words))
    elif inodes and free_inodes / inodes < INODES_THRESHOLD:
        found.append(Pressure("DiskPressure", "inodes", "The node was low on resource: inodes."))
    running, most = _processes()
    if most and running > most * 0.95:
        found.append(Pressure("PIDPressure", "pids", "The node was low on resource: pids."))
    return found


def memory_in_use() -> int:
    """The machine's working set, in bytes."""
    memory = _meminfo()
    return max(0, memory.get("MemTotal", 0) - memory.get("MemAvailable", 0))


def cpu_nanoseconds() -> int:
    """CPU time used by the whole machine since it started."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0
    ticks = [int(field) for field in fields]
    busy = sum(ticks[:3]) + sum(ticks[5:8])
    return busy * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _meminfo() -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if words and words[0].isdecimal():
                found[name] = int(words[0]) * (1024 if len(words) > 1 else 1)
    except OSError:
        pass
    return found


def _disk(root: Path) -> tuple[int, int, int, int]:
    """Total and free bytes, total and free inodes, of the file system a path is on."""
    try:
        disk = os.statvfs(root)
    except OSError:
        return 0, 0, 0, 0
    return disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize, disk.f_files, disk.f_favail


def _processes() -> tuple[int, int]:
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
        return running, int(Path("/proc/sys/kernel/pid_max").read_text())
    except (OSError, ValueError, IndexError):
        return 0, 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_release() -> str:
    for line in _text("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"
