"""The image the demo's containers run: Debian's static busybox, imported into Podman without a registry."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

IMAGE = "localhost/fleetplane-demo:1"
_COMMANDS = ("sh", "sleep", "echo", "cat", "ls", "ps", "id", "env", "hostname", "kill", "true")
_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))


def import_demo_image() -> str | None:
    """Make the image known to Podman; returns what is missing in a sentence, None when it is there."""
    podman = shutil.which("podman")
    if podman is None:
        return "Podman is not installed (Debian: apt-get install podman runc)"
    busybox = next((one for one in _BUSYBOX if one.is_file()), None)
    if busybox is None:
        return "busybox is not installed (Debian: apt-get install busybox-static)"
    done = subprocess.run(  # noqa: S603 - a fixed command
        [podman, "import", "--change", "ENV=PATH=/bin", "-", IMAGE],
        input=_root_file_system(busybox.read_bytes()),
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        return f"podman import failed: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}"
    return None


def _root_file_system(busybox: bytes) -> bytes:
    """A tar of ``/bin`` with busybox under its names, and ``/tmp``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("bin", "tmp", "etc"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(busybox), 0o755
        tar.addfile(program, io.BytesIO(busybox))
        for command in _COMMANDS:
            link = tarfile.TarInfo(f"bin/{command}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()
