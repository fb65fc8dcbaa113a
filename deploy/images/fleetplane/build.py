#!/usr/bin/env python3
"""Make the node image for virtual clusters of Fleetplane itself, from this machine, without a registry.

    python deploy/images/fleetplane/build.py [--name localhost/fleetplane-vnode:1] [--preload IMAGE]... [--output FILE]

What goes in: the Python this runs on, Fleetplane with the libraries it needs, Podman with what it needs to run containers,
busybox (static) for everything else, and the scripts beside this file. Programs are copied with the shared libraries they
are linked against, so nothing is downloaded and the image fits this machine's kernel and processor.

Needs (Debian): podman, runc or crun, conmon, catatonit, nftables, iproute2, util-linux, busybox-static.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fleetplane

HERE = Path(__file__).parent
NAME = "localhost/fleetplane-vnode:1"
PROGRAMS = ("podman", "conmon", "nft", "ip", "flock", "setsid")
OPTIONAL = ("runc", "crun", "catatonit", "modprobe")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/podman"
LIBRARIES = "/opt/fleetplane"
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages"}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
    "etc/containers/registries.conf": 'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "permissive"\n',
    "etc/containers/storage.conf": (
        '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n'
    ),
}
DIRECTORIES = (
    "dev",
    "proc",
    "sys",
    "run",
    "root",
    "var/log",
    "var/lib",
    "etc/kubernetes",
    "vk8s-backup",
    "vk8s/images",
)


class Missing(Exception):
    """Something the image needs is not on this machine; the message says what to install."""


def program(name: str) -> Path | None:
    found = shutil.which(name, path=PATH)
    return Path(found) if found else None


def linked(path: Path) -> Iterator[Path]:
    """The shared libraries a program or library is linked against."""
    done = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if found := re.search(r"(?:=> )?(/\S+) \(0x", line):
            yield Path(found[1])


def distributions(name: str, seen: dict[str, importlib.metadata.Distribution]) -> None:
    """A distribution and all that it needs here."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # needed on other machines
    seen[key] = found
    for requirement in found.requires or ():
        if "extra ==" not in requirement and (named := re.match(r"[A-Za-z0-9_.-]+", requirement)):
            distributions(named[0], seen)


class Image:
    """A root file system in the making, with ``/usr`` merged."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._have: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        for parent in reversed(Path(path).parents):
            if str(parent) not in {".", "/"}:
                self._directory(str(parent), 0o755)
        self._directory(path, mode)

    def _directory(self, path: str, mode: int) -> None:
        if path in self._have:
            return
        self._have.add(path)
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(entry)

    def link(self, path: str, target: str) -> None:
        if path in self._have:
            return
        self._have.add(path)
        entry = tarfile.TarInfo(path)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)

    def text(self, path: str, data: bytes, mode: int = 0o644, mtime: int = 0) -> None:
        if path in self._have:
            return
        self.directory(str(Path(path).parent))
        self._have.add(path)
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode, entry.mtime = len(data), mode, mtime
        self._tar.addfile(entry, io.BytesIO(data))

    def file(self, source: Path, path: str = "") -> None:
        """A file, under its own path unless another is given."""
        target = merged(path or str(source))
        status = source.stat()  # compiled Python says which version of its source it is of
        self.text(target, source.read_bytes(), 0o755 if status.st_mode & 0o111 else 0o644, int(status.st_mtime))

    def program(self, source: Path) -> None:
        """A program or library with everything it is linked against."""
        self.file(source.resolve(), str(source))
        for library in linked(source):
            self.file(library)

    def tree(self, source: Path, path: str) -> None:
        for folder, names, files in os.walk(source):
            names[:] = sorted(set(names) - LEFT_OUT)
            for name in sorted(files):
                found = Path(folder) / name
                if found.is_file() and is_wanted(name):
                    self.file(found, f"{path}/{found.relative_to(source)}")
                    if ".so" in name:
                        for library in linked(found):
                            if not library.is_relative_to(source):
                                self.file(library)


def is_wanted(name: str) -> bool:
    """Of compiled Python only what this very Python uses."""
    return not name.endswith(".pyc") or name.endswith(f".{sys.implementation.cache_tag}.pyc")


def merged(path: str) -> str:
    """Relative, and below ``usr`` what Debian keeps there."""
    path = path.lstrip("/")
    return f"usr/{path}" if path.split("/")[0] in {"bin", "sbin", "lib", "lib64"} else path


def write(image: Image, preload: list[str]) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        image.directory(f"usr/{name}")
        image.link(name, f"usr/{name}")
    for name in DIRECTORIES:
        image.directory(name)
    for name in ("tmp", "var/tmp"):
        image.directory(name, 0o1777)
    for path, text in FILES.items():
        image.text(path, text.encode())
    for source in sorted((HERE / "root").rglob("*")):
        if source.is_file():
            image.file(source, str(source.relative_to(HERE / "root")))
    _programs(image)
    _python(image)
    for number, name in enumerate(preload):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "image.tar"
            subprocess.run(["podman", "save", "--quiet", "--output", str(file), name], check=True)
            image.file(file, f"vk8s/images/{number}.tar")


def _programs(image: Image) -> None:
    wanted = {name: program(name) for name in (*PROGRAMS, *OPTIONAL)}
    missing = [name for name in PROGRAMS if wanted[name] is None]
    if wanted["runc"] is None and wanted["crun"] is None:
        missing.append("runc")
    busybox = program("busybox")
    if missing or busybox is None:
        names = ", ".join([*missing, *(["busybox"] if busybox is None else [])])
        raise Missing(f"this machine lacks {names}; see the packages named at the top of build.py")
    for found in wanted.values():
        if found is not None:
            image.program(found)
    image.file(busybox, "usr/bin/busybox")
    applets = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in applets:
        if wanted.get(name) is None:
            image.link(f"usr/bin/{name}", "busybox")


def _python(image: Image) -> None:
    executable = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    image.program(executable)
    image.link("usr/bin/python3", str(executable))
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
    image.tree(library, str(library))
    image.tree(Path(fleetplane.__file__).parent, f"{LIBRARIES}/fleetplane")
    found: dict[str, importlib.metadata.Distribution] = {}
    distributions("fleetplane", found)
    own = found.pop("fleetplane")
    image.text(f"{LIBRARIES}/fleetplane.dist-info/METADATA".lstrip("/"), (own.read_text("METADATA") or "").encode())
    image.text(
        f"{LIBRARIES}/fleetplane.dist-info/entry_points.txt".lstrip("/"),
        (own.read_text("entry_points.txt") or "").encode(),
    )
    for one in found.values():
        for file in one.files or ():
            source = Path(str(one.locate_file(file)))
            if source.is_file() and ".." not in file.parts and is_wanted(source.name):
                image.file(source, f"{LIBRARIES}/{file}")
                if ".so" in source.name:
                    for needed in linked(source):
                        if not str(needed).startswith(str(source.parent)):
                            image.file(needed)


def build(name: str, preload: list[str], output: Path | None) -> None:
    """Raises Missing, or CalledProcessError when Podman refuses."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        target = output or Path(folder) / "root.tar"
        with tarfile.open(target, "w") as tar:
            write(Image(tar), preload)
        if output is None:
            environment = {"PATH": PATH.rpartition(":")[0], "PYTHONPATH": LIBRARIES}
            changes = [f"ENV={key}={value}" for key, value in environment.items()]
            changes += ["WORKDIR=/vk8s", 'ENTRYPOINT=["/vk8s/boot"]', "STOPSIGNAL=SIGTERM"]
            command = ["podman", "import", "--quiet", *(f"--change={one}" for one in changes), str(target), name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default=NAME, help="Name of the image (default %(default)s).")
    parser.add_argument(
        "--preload", action="append", default=[], help="An image of this machine that nodes have inside."
    )
    parser.add_argument("--output", type=Path, help="Write the root file system as a tar file, and import nothing.")
    options = parser.parse_args()
    try:
        build(options.name, options.preload, options.output)
    except Missing as missing:
        sys.exit(f"build.py: {missing}")


if __name__ == "__main__":
    main()
