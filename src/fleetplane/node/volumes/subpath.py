"""A part of a volume (``subPath``), safely.

What is in a volume belongs to its containers, and a container may have put a link there that leads out to the host. So
the way is walked one step at a time, each relative to the directory before it and never through a link, and what is
reached is held by a descriptor and bound to a place of ours before anybody else resolves a name again.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from fleetplane.node.building import ConfigFailure
from fleetplane.node.volumes.payload import check_relative
from fleetplane.node.volumes.system import bind

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_PATH


def open_inside(volume: Path, relative: str) -> int:
    """A descriptor of the file or directory; missing directories are made. Raises ConfigFailure."""
    check_relative(relative)
    current = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = PurePosixPath(relative).parts
        for number, part in enumerate(parts):
            following = _step(current, part, make=True)
            os.close(current)
            current = following
            mode = os.fstat(current).st_mode
            if stat.S_ISLNK(mode) or (number + 1 < len(parts) and not stat.S_ISDIR(mode)):
                raise ConfigFailure(f"subPath {relative!r} leads through something that is not a directory")
    except BaseException as error:
        os.close(current)
        if isinstance(error, OSError):
            raise ConfigFailure(f"failed to prepare subPath {relative!r}: {error.strerror}") from error
        raise
    return current


def _step(parent: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _FLAGS, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
        os.mkdir(name, 0o777, dir_fd=parent)
        return os.open(name, _FLAGS, dir_fd=parent)


def bind_inside(volume: Path, relative: str, place: Path) -> Path:
    """Bind the part of the volume to ``place`` and answer where to mount it from. Raises ConfigFailure."""
    descriptor = open_inside(volume, relative)
    try:
        if os.geteuid() != 0:
            # Without the right to mount, the path itself must do; it was free of links a moment ago.
            return volume / relative
        if place.exists() and os.path.ismount(place):
            return place
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        else:
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            place.touch()
        bind(descriptor, place)
    except OSError as error:
        raise ConfigFailure(f"failed to prepare subPath {relative!r}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return place
