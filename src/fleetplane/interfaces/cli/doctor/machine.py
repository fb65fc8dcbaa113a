"""The machine: what a node needs (``node.check``), the port, the clock, room on the disk."""

from __future__ import annotations

import errno
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from fleetplane.model.environment import Environment
from fleetplane.node.check import Finding, check_node
from fleetplane.node.processes import CommandFailure, run_command
from fleetplane.settings import Settings

NEEDED_BYTES: Final = 256 * 1024 * 1024
"""Below this a plane soon refuses writes."""
_WITHOUT: Final = frozenset({"Podman", "Containers"})
"""What a plane can do without: it simulates."""


async def check_machine(settings: Settings, environment: Environment) -> AsyncIterator[Finding]:
    for one in await check_node(settings.data_dir, environment):
        if one.subject in _WITHOUT and one.verdict == "missing":
            yield replace(one, verdict="limited")
        elif one.subject != "Disk" or one.verdict != "works":
            yield one
        if one.subject == "Podman" and one.verdict != "missing":
            yield await check_oci_runtime()
    yield check_room(settings.data_dir)
    yield check_clock(settings.data_dir, environment)


async def check_oci_runtime() -> Finding:
    """The program under Podman that starts containers."""
    found = []
    for name in ("crun", "runc"):
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/usr/local/sbin:/usr/local/bin")
        if path:
            try:
                first = (await run_command([path, "--version"])).decode(errors="replace").splitlines()[0]
            except (CommandFailure, IndexError) as error:
                words = f"{name} is installed but does not run: {error}."
                return Finding("OCI runtime", "limited", words, f"Install the package {name} again.")
            found.append(first)
    if not found:
        return Finding(
            "OCI runtime", "limited", "Neither crun nor runc is installed.", "Install the package crun, or runc."
        )
    return Finding("OCI runtime", "works", f"{' and '.join(found)}.")


def check_room(data_dir: Path) -> Finding:
    place = _existing(data_dir)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(
            "Room", "missing", f"{place} cannot be looked at: {error.strerror}.", "Choose another --data-dir."
        )
    shown = f"{free / 2**20:,.0f} MiB are free for {data_dir}"
    if free < NEEDED_BYTES // 16:
        return Finding("Room", "missing", f"Only {shown}; writes will be refused.", "Free some space.")
    if free < NEEDED_BYTES:
        return Finding("Room", "limited", f"Only {shown}.", "Free some space.")
    return Finding("Room", "works", f"{shown}.")


def check_clock(data_dir: Path, environment: Environment) -> Finding:
    """A clock that is behind what was written here already makes certificates invalid and tokens live too long."""
    now = environment.now()
    written = [Path(__file__), *data_dir.glob("*.db*"), *(data_dir / "pki").glob("*")]
    newest = max(_written(one) for one in written)
    if newest > now + timedelta(minutes=5):
        behind = newest - now
        words = f"The clock says {now:%Y-%m-%d %H:%M} UTC, but files here were written {_span(behind)} later."
        return Finding("Clock", "limited", words, "Set the clock, or let systemd-timesyncd or chrony do it.")
    return Finding("Clock", "works", f"{now:%Y-%m-%d %H:%M:%S} UTC.")


def check_port(settings: Settings, *, ours: bool) -> Finding:
    """Whether a plane could listen. ``ours`` says that the plane of this folder listens there already."""
    where = f"{settings.host} port {settings.port}"
    if ours:
        return Finding("Port", "works", f"The plane of {settings.data_dir} listens on {where}.")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((settings.host, settings.port))
        except OSError as error:
            return _port_taken(settings, where, error)
    return Finding("Port", "works", f"{where} is free.")


def _port_taken(settings: Settings, where: str, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        who = listener(settings.port)
        words = f"{where} is used by {who or 'another program'}."
        return Finding("Port", "missing", words, "Stop it, or choose another with --port or FLEETPLANE_PORT.")
    if error.errno in {errno.EACCES, errno.EPERM}:
        words = f"{where} may be used by root only."
        return Finding("Port", "missing", words, "Choose a port from 1024 up with --port.")
    words = f"{where} cannot be used: {error.strerror}."
    return Finding("Port", "missing", words, "Choose an address of this machine with --host.")


def listener(port: int) -> str:
    """The program that listens on a TCP port, as far as the kernel tells us: ``nginx (process 4711)``; else empty."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            words = row.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{words[9]}]")
    if not sockets:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(one.readlink()) in sockets for one in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue
    return ""


def _existing(path: Path) -> Path:
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _written(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.fromtimestamp(0, UTC)


def _span(length: timedelta) -> str:
    if length.days:
        return f"{length.days} days"
    return f"{length.seconds // 60} minutes"
