"""Volumes of a node that is not root: it may mount nothing, and files of containers belong to others.

Memory is a directory of the machine's shared memory, behind one that only we may enter. What containers left under other
user ids is removed from inside Podman's user namespace, where those ids are ours.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from fleetplane.node.building import ConfigFailure
from fleetplane.node.files import remove_tree

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what stands there is behind a private directory
REMOVE_SECONDS: Final = 60


def shared_memory() -> Path:
    return SHARED_MEMORY / f"fleetplane-{os.geteuid()}"


def in_shared_memory(path: Path) -> Path:
    """Make ``path`` a link to a directory in memory, and answer that; it need not exist yet. Raises ConfigFailure."""
    private = shared_memory()
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o77 or not private.is_dir():
        raise ConfigFailure(f"{private} is not ours alone; remove it, so that memory volumes can be made there")
    target = private / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    if not path.is_symlink():
        path.symlink_to(target)
    return target


def remove_owned(path: Path) -> None:
    """Remove a tree, also what containers own in it."""
    remove_tree(path)
    podman = shutil.which("podman")
    if os.geteuid() != 0 and podman and path.exists():
        words = [podman, "unshare", "rm", "-rf", "--", str(path)]
        subprocess.run(words, check=False, capture_output=True, timeout=REMOVE_SECONDS)  # noqa: S603 - words of ours
