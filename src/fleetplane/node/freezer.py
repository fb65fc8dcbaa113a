"""Pausing a container where its runtime has no call for it: the kernel's freezer, on cgroup v1, v2 and hybrids.

The kernel is the memory: whether something is frozen is read from it. Reads are small and quick; ``freeze`` returns when
everything stands still.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from fleetplane.node.cgroups import ROOT
from fleetplane.node.runtime import RuntimeFailure

FREEZE_SECONDS: Final = 5.0


def freeze(path: str, root: Path = ROOT) -> None:
    """``path`` is the cgroup's, from the root of its hierarchy. Raises RuntimeFailure."""
    _set(path, root, frozen=True)


def thaw(path: str, root: Path = ROOT) -> None:
    """Raises RuntimeFailure."""
    _set(path, root, frozen=False)


def why_not(*, root_user: bool, root: Path = ROOT) -> str:
    """Why nothing can be frozen on this machine; empty where it can be, as far as can be told without trying."""
    if (root / "cgroup.controllers").is_file():
        return ""
    if not (root / "freezer").is_dir():
        return "this machine has no cgroup freezer"
    return "" if root_user else "without root, cgroup v1 lets nobody freeze containers"


def is_frozen(path: str, root: Path = ROOT) -> bool:
    """Whether everything in it stands still; also no where nothing can be frozen."""
    file, _, frozen = _file(path, root)
    return _read(file) == frozen


def _file(path: str, root: Path) -> tuple[Path, str, str]:
    """The file to read or write, what says "go on" and what says "stand still"."""
    inside = path.lstrip("/")
    if (root / "cgroup.controllers").is_file():
        return root / inside / "cgroup.freeze", "0", "1"
    return root / "freezer" / inside / "freezer.state", "THAWED", "FROZEN"


def _set(path: str, root: Path, *, frozen: bool) -> None:
    file, thawed_word, frozen_word = _file(path, root)
    word = frozen_word if frozen else thawed_word
    until = time.monotonic() + FREEZE_SECONDS
    try:
        file.write_text(word)
        # v1 freezes one process after the other, and may want to be asked again.
        while _read(file) != word:
            if time.monotonic() > until:
                file.write_text(thawed_word)
                raise RuntimeFailure("the container's processes do not stand still")
            time.sleep(0.01)
            file.write_text(word)
    except OSError as error:
        raise RuntimeFailure(f"the kernel's freezer cannot be used: {error.strerror}") from error


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
