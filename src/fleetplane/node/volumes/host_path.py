"""The types of ``hostPath``: what must be there, and what is made when it is not."""

from __future__ import annotations

import stat
from pathlib import Path

from fleetplane.node.building import ConfigFailure


def check_host_path(path: Path, kind: str) -> None:
    """Have the path be what the type says. Raises ConfigFailure in the kubelet's words."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        _make(path, kind)
        return
    except OSError as error:
        raise ConfigFailure(f"hostPath type check failed: {path}: {error.strerror}") from error
    wanted = {
        "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
        "Directory": (stat.S_ISDIR, "a directory"),
        "FileOrCreate": (stat.S_ISREG, "a file"),
        "File": (stat.S_ISREG, "a file"),
        "Socket": (stat.S_ISSOCK, "a socket file"),
        "CharDevice": (stat.S_ISCHR, "a character device"),
        "BlockDevice": (stat.S_ISBLK, "a block device"),
    }
    if kind in wanted:
        is_it, words = wanted[kind]
        if not is_it(mode):
            raise ConfigFailure(f"hostPath type check failed: {path} is not {words}")
    elif kind:
        raise ConfigFailure(f"hostPath type {kind} is not known")


def _make(path: Path, kind: str) -> None:
    try:
        if kind in {"", "DirectoryOrCreate"}:
            # With no type Kubernetes leaves it to the runtime, which makes a directory.
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif kind == "FileOrCreate":
            path.touch(mode=0o644)
        else:
            words = {"Directory": "a directory", "File": "a file", "Socket": "a socket file"}
            raise ConfigFailure(f"hostPath type check failed: {path} is not {words.get(kind, 'a device')}")
    except OSError as error:
        raise ConfigFailure(f"hostPath {path} cannot be made: {error.strerror}") from error
