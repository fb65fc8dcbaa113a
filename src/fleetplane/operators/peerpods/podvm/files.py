"""What of the node goes into a VM: a pod's own folders and files, as tars, each once.

A VM shares no file system with its node, so a volume is copied when the first container that mounts it is made; containers of
the pod share the copy. Only what is the pod's own is copied: a path of the node itself means something else inside a VM, and
is refused with a word on why.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetplane.node.runtime import Mount, RuntimeFailure

GUEST_VOLUMES: Final = "/run/volumes"
LARGEST_VOLUME: Final = 64 * 1024 * 1024
BACK_BYTES: Final = 64 * 1024
"""So much of a file that a container wrote comes back to the node."""
NOT_BACK: Final = frozenset({"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"})


@dataclass(frozen=True, slots=True)
class Copied:
    """A mount whose source is copied. ``volume`` is its name in the VM, ``file`` the file's where it is one."""

    source: Path
    target: str
    volume: str
    file: str
    read_only: bool

    @property
    def guest_source(self) -> str:
        return f"{GUEST_VOLUMES}/{self.volume}" + (f"/{self.file}" if self.file else "")

    @property
    def comes_back(self) -> bool:
        """Whether the node reads what the container wrote: a single file, as that of the last word."""
        return bool(self.file) and not self.read_only and self.target not in NOT_BACK


def copied(mount: Mount, own: Sequence[Path]) -> Copied:
    """How a mount with a source gets into a VM. Raises RuntimeFailure for what is the node's and not the pod's."""
    source = Path(mount.source)
    real = source.resolve()
    if not any(real.is_relative_to(one.resolve()) for one in own):
        raise RuntimeFailure(
            f"{mount.target} would be {mount.source} of the node, and a peer pod runs in a VM without any of the node's files",
            "CreateContainerConfigError",
        )
    name = hashlib.sha256(str(source).encode()).hexdigest()[:24]
    return Copied(source, mount.target, name, "" if real.is_dir() else source.name, mount.read_only)


def packed(source: Path) -> bytes:
    """A folder's content, or one file, as a tar. Raises RuntimeFailure for more than a VM is handed so."""
    made = io.BytesIO()
    total = 0

    def small(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        nonlocal total
        total += entry.size
        if total > LARGEST_VOLUME:
            raise RuntimeFailure(f"a volume with more than {LARGEST_VOLUME >> 20} MiB cannot be handed into a pod VM")
        return entry if entry.isreg() or entry.isdir() or entry.issym() else None

    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        try:
            tar.add(source, "." if source.is_dir() else source.name, filter=small)
        except OSError as error:
            raise RuntimeFailure(f"{source.name} cannot be handed into the pod VM: {error.strerror}") from None
    return made.getvalue()


def write_back(copy: Copied, data: bytes) -> None:
    """Into the file as it is: whoever made it has it open or mounted."""
    try:
        with copy.source.open("r+b") as file:
            file.truncate(0)
            file.write(data[-BACK_BYTES:])
    except OSError:
        return
