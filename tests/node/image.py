"""A tiny image made of the host's static busybox, for tests that run real containers: no registry needed."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

NAME = "localhost/fleetplane-test:busybox"
WORDS = "sh sleep echo cat ls true false nc httpd wget ps kill id env hostname mount df dd touch date tail head grep printf stty test mkdir rm stat tar nslookup readlink wc sync"


def write_root(target: Path) -> Path:
    """A tar of a root file system with busybox under each of its names."""
    binary = shutil.which("busybox")
    assert binary is not None
    with tarfile.open(target, "w") as tar:
        for directory in ("bin", "etc", "proc", "sys", "dev", "root"):
            tar.addfile(_entry(directory, tarfile.DIRTYPE, 0o755))
        tar.addfile(_entry("tmp", tarfile.DIRTYPE, 0o1777))
        data = Path(binary).read_bytes()
        entry = _entry("bin/busybox", tarfile.REGTYPE, 0o755)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
        passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n"
        entry = _entry("etc/passwd", tarfile.REGTYPE, 0o644)
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
        for word in WORDS.split():
            link = _entry(f"bin/{word}", tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox"
            tar.addfile(link)
    return target


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry
