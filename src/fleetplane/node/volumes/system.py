"""Mounting and unmounting, straight from the C library: no program has to be run, no string parsed."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_BIND: Final = 0x1000
_REC: Final = 0x4000
_NOSUID: Final = 2
_NODEV: Final = 4
_DETACH: Final = 2


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: Path, kind: str, flags: int, data: str) -> None:
    done = _library().mount(
        source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def mount_tmpfs(target: Path, size_bytes: int) -> None:
    """A file system in memory, usable by everyone. Raises OSError."""
    data = "mode=1777" + (f",size={size_bytes}" if size_bytes else "")
    _mount("tmpfs", target, "tmpfs", _NOSUID | _NODEV, data)


def bind(descriptor: int, target: Path) -> None:
    """Show at ``target`` what the descriptor stands for, whatever its path means by now. Raises OSError."""
    _mount(f"/proc/self/fd/{descriptor}", target, "", _BIND | _REC, "")


def unmount(target: Path) -> None:
    """Take a mount away at once, also from under users. Raises OSError."""
    if _library().umount2(os.fsencode(target), _DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def mounts_below(directory: Path) -> list[Path]:
    """Mount points in a directory, innermost first."""
    found = []
    prefix = f"{directory.resolve()}/"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split(" ")[4].encode().decode("unicode_escape")
        if target.startswith(prefix):
            found.append(Path(target))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)
