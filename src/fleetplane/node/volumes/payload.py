"""Files that change all at once: the layout Kubernetes gives configuration volumes.

The files of one version lie in a directory of their own, ``..data`` is a link to it, and each visible name is a link
through ``..data``. Replacing that one link replaces everything, so a reader never sees half of a change, and a program
that watches for it is told once. A payload that has not changed is not written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fleetplane.node.building import ConfigFailure
from fleetplane.node.files import remove_tree

DATA = "..data"
LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int = 0o644


Payload = Mapping[str, File]
"""Relative path to file."""


def write_payload(directory: Path, payload: Payload, version: str, group: int | None = None) -> bool:
    """Make the directory show exactly this; true when something was written. ``version`` names the new directory.

    ``group`` becomes the files' group, with read permission. Raises ConfigFailure, OSError.
    """
    for name in payload:
        check_relative(name)
    if sum(len(file.content) for file in payload.values()) > LARGEST:
        raise ConfigFailure("the volume's files are larger than 16 MiB altogether")
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    current = directory / DATA
    if _shows(current, payload):
        return False
    fresh = directory / f"..{version}"
    remove_tree(fresh)
    fresh.mkdir(mode=0o755)
    fresh.chmod(0o755)
    for name, file in payload.items():
        _write(fresh / name, file, group)
    old = current.readlink() if current.is_symlink() else None
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(current)
    _show_names(directory, payload)
    if old is not None and old.name != fresh.name:
        remove_tree(directory / old.name)
    return True


def _write(target: Path, file: File, group: int | None) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    target.write_bytes(file.content)
    target.chmod(file.mode | (0o040 if group is not None else 0))
    if group is not None:
        os.chown(target, -1, group)


def _show_names(directory: Path, payload: Payload) -> None:
    """A link for each first part of a path; links to nothing are removed."""
    wanted = {PurePosixPath(name).parts[0] for name in payload}
    for name in wanted:
        link = directory / name
        if not link.is_symlink():
            with contextlib.suppress(OSError):
                link.unlink()
            link.symlink_to(f"{DATA}/{name}")
    for entry in directory.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()


def _shows(current: Path, payload: Payload) -> bool:
    """Whether the version in place has the same files."""
    if not current.is_dir():
        return False
    found = {str(path.relative_to(current)): path for path in current.rglob("*") if path.is_file()}
    if found.keys() != payload.keys():
        return False
    return all(path.read_bytes() == payload[name].content for name, path in found.items())


def check_relative(name: str) -> None:
    """A path that stays inside the volume. Raises ConfigFailure."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise ConfigFailure(f"the path {name!r} would leave its volume")
