"""QEMU for tests: whether it can be had here, and a place for its VMs that is cleaned up whatever happens."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fleetplane.operators.peerpods.podvm.image import podvm_image
from fleetplane.operators.peerpods.providers.protocol import ProviderError
from fleetplane.operators.peerpods.providers.qemu import Qemu, QemuHost


def why_no_qemu() -> str:
    """Why pod VMs cannot be tried here; builds what they boot where that is missing, some seconds once."""
    if not shutil.which("qemu-system-x86_64"):
        return "QEMU is not installed (apt-get install qemu-system-x86)"
    if not shutil.which("busybox"):
        return "busybox is not installed (apt-get install busybox-static)"
    try:
        podvm_image(QemuHost().cache)
    except (ProviderError, OSError) as error:
        return f"the pod VM cannot be built: {error}"
    return ""


@asynccontextmanager
async def qemu_host(**more: object) -> AsyncIterator[tuple[Qemu, QemuHost]]:
    """A provider of its own; all its VMs are gone at the end. The folder's name is short, as sockets are in it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="fpvm-") as folder:
        host = QemuHost(folder=Path(folder), **more)  # type: ignore[arg-type]
        provider = Qemu(host)
        try:
            yield provider, host
        finally:
            for one in await provider.list({}):
                await provider.delete(one.id)


def is_root() -> bool:
    return os.geteuid() == 0
