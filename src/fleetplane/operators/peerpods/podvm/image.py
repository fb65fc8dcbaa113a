"""The pod VM's kernel and first file system, made from Debian's packages: fetched by apt, taken apart, never installed.

In it are Debian's cloud kernel with the few modules a VM needs, busybox, Debian's minimal Python with exactly the modules the
agent imports, and the agent. There is no network configuration, no shell on any console, no user and no password.

apt checks what it fetches. The result is kept under a name that says what it was made of, so it is made once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from fleetplane.operators.peerpods.providers.protocol import Failure, ProviderError

GUEST: Final = Path(__file__).parent / "guest"
KERNEL_PACKAGE: Final = "linux-image-cloud-amd64"
MODULES: Final = ("virtio_pci", "virtio_console", "virtio_net", "virtio_rng")
SECONDS: Final = 600.0

_INIT: Final = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mkdir /dev/pts
/bin/busybox mount -t devpts devpts /dev/pts
/bin/busybox mount -t tmpfs -o mode=755 run /run
while read -r one; do /bin/busybox insmod /modules/$one; done < /modules/order
/bin/busybox ip link set lo up
cd /opt
for port in /sys/class/virtio-ports/*; do
  if [ "$(/bin/busybox cat $port/name)" = fleetplane.agent ]; then
    exec /usr/bin/python3 -I -S -E -c \\
      "import sys; sys.path.insert(0, '/opt'); sys.argv[1:] = ['/dev/${port##*/}']; from guest.agent import main; main()"
  fi
done
echo "pod VM: there is no port to the outside" > /dev/console
/bin/busybox poweroff -f
"""


@dataclass(frozen=True, slots=True)
class PodVmImage:
    """What a VM is started from."""

    kernel: Path
    initrd: Path


def podvm_image(cache: Path) -> PodVmImage:
    """The image, made where it is not in the cache yet: some seconds, and the network. Raises ProviderError. Blocks."""
    if os.uname().machine != "x86_64":
        raise ProviderError(
            Failure.UNSUPPORTED, "pod VMs are built for x86_64 only; give a kernel and an initrd yourself"
        )
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(cache / "lock"):
        found = _cached(cache)
        return found if found is not None else _build(cache)


def _cached(cache: Path) -> PodVmImage | None:
    """The newest that was made with this agent."""
    made = sorted(cache.glob(f"*-{_agent_digest()}"), key=lambda one: one.stat().st_mtime)
    return PodVmImage(made[-1] / "vmlinuz", made[-1] / "initrd") if made else None


def _build(cache: Path) -> PodVmImage:
    for program in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(program) is None:
            raise ProviderError(
                Failure.UNSUPPORTED,
                f"pod VMs are built from Debian packages, and {program} is not here; give a kernel and an initrd",
            )
    with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as text:
        work = Path(text)
        packages = _fetch(work)
        release = _release(work / "kernel")
        tree = work / "tree"
        _fill(tree, work / "python", work / "busybox", work / "kernel", release)
        made = work / "made"
        made.mkdir()
        shutil.copyfile(work / "kernel" / "boot" / f"vmlinuz-{release}", made / "vmlinuz")
        with (made / "initrd").open("wb") as file:
            write_cpio(tree, file)
        digest = hashlib.sha256("\n".join(sorted(packages)).encode()).hexdigest()[:16]
        target = cache / f"{digest}-{_agent_digest()}"
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return PodVmImage(target / "vmlinuz", target / "initrd")


def _fetch(work: Path) -> list[str]:
    """Fetch and take apart; the names of the packages' files, which have their versions."""
    kernel = _depends(KERNEL_PACKAGE, "linux-image-")
    python = _depends("python3-minimal", r"python3\.\d+-minimal")
    stem = python.removesuffix("-minimal")
    parts = {
        "kernel": [kernel],
        "busybox": ["busybox-static"],
        "python": [python, f"lib{python}", f"lib{stem}-stdlib", "libc6", "libexpat1", "zlib1g", "libffi8"],
    }
    files: list[str] = []
    for name, packages in parts.items():
        folder = work / f"{name}-packages"
        folder.mkdir()
        # The sandbox user of apt may not write here; what is fetched is checked all the same.
        _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *packages], folder)
        for package in sorted(folder.glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(work / name)], folder)
            files.append(package.name)
    return files


def _depends(package: str, pattern: str) -> str:
    said = _run(["apt-cache", "depends", package], Path("/")).decode()
    found = re.search(rf"Depends: ({pattern}\S*)", said)
    if found is None:
        raise ProviderError(
            Failure.UNAVAILABLE, f"apt knows no package {package}; run apt-get update, or give a kernel and an initrd"
        )
    return found[1]


def _run(words: list[str], folder: Path) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - words of ours, without a shell
            words, cwd=folder, capture_output=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProviderError(Failure.UNAVAILABLE, f"the pod VM cannot be built: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ProviderError(
            Failure.UNAVAILABLE,
            f"the pod VM cannot be built: {' '.join(words[:3])}: {said[-1] if said else done.returncode}",
        )
    return done.stdout


def _release(kernel: Path) -> str:
    return next((kernel / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")


def _fill(tree: Path, python: Path, busybox: Path, kernel: Path, release: str) -> None:
    for name in ("bin", "dev", "proc", "sys", "run", "tmp", "opt", "modules", "usr/bin", "lib64"):
        (tree / name).mkdir(parents=True)
    shutil.copy2(next(busybox.glob("**/bin/busybox")), tree / "bin" / "busybox")
    init = tree / "init"
    init.write_text(_INIT)
    init.chmod(0o755)
    shutil.copytree(GUEST, tree / "opt" / "guest", ignore=shutil.ignore_patterns("__pycache__"))
    _python(tree, python)
    _modules(tree, _one(kernel, "lib/modules") / release)


def _one(tree: Path, name: str) -> Path:
    """A folder that older releases have at the root and newer below /usr."""
    return next(one for one in (tree / name, tree / "usr" / name) if one.exists())


def _python(tree: Path, packages: Path) -> None:
    """The interpreter, its libraries, and the modules that the agent loads: compiled, as nobody will wait for that later."""
    binary = next(one for one in (packages / "usr" / "bin").glob("python3.*") if one.is_file())
    loader = next(packages.glob("**/ld-linux-x86-64.so.2")).resolve()
    libraries = [str(one) for one in packages.glob("**/x86_64-linux-gnu") if one.is_dir()]
    runs = [str(loader), "--library-path", ":".join(libraries), str(binary)]
    home = ["-I", "-S", "-E", "-c"]
    start = f"import sys; sys.path[:] = [p for p in {[str(one) for one in _library(packages, binary.name)]!r}];"
    opt = tree / "opt"
    listed = start + (
        f" sys.path.insert(0, {str(opt)!r}); sys.argv[1:] = ['--modules'];"
        " import runpy; runpy.run_module('guest.agent', run_name='__main__')"
    )
    needed = json.loads(_run([*runs, *home, listed], tree))
    standard = packages / "usr" / "lib" / binary.name
    for text in {*needed, str(standard / "os.py"), *(str(one) for one in (standard / "encodings").glob("__init__.py"))}:
        source = Path(text)
        if source.is_relative_to(standard):
            target = tree / "usr" / "lib" / binary.name / source.relative_to(standard)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    compiling = start + (
        f" import compileall; compileall.compile_dir({str(tree / 'usr')!r}, quiet=2, legacy=True, stripdir={str(tree)!r});"
        f" compileall.compile_dir({str(opt)!r}, quiet=2, legacy=True, stripdir={str(tree)!r})"
    )
    _run([*runs, *home, compiling], tree)
    for source in [*(tree / "usr").rglob("*.py"), *opt.rglob("*.py")]:
        source.unlink()
    shutil.copy2(binary, tree / "usr" / "bin" / binary.name)
    (tree / "usr" / "bin" / "python3").symlink_to(binary.name)
    shutil.copy2(loader, tree / "lib64" / "ld-linux-x86-64.so.2")
    libs = tree / "lib" / "x86_64-linux-gnu"
    libs.mkdir(parents=True)
    for name in ("libc.so.6", "libm.so.6", "libz.so.1", "libexpat.so.1", "libffi.so.8"):
        shutil.copy2(next(packages.glob(f"**/x86_64-linux-gnu/{name}")).resolve(), libs / name)


def _library(packages: Path, version: str) -> list[Path]:
    standard = packages / "usr" / "lib" / version
    return [standard, standard / "lib-dynload"]


def _modules(tree: Path, folder: Path) -> None:
    """The modules and what they need, in the order in which they load."""
    known = {one.name.split(".", 1)[0].replace("-", "_"): one for one in folder.rglob("*.ko*")}
    order: list[str] = []
    for name in MODULES:
        _load(name, known, order)
    for name in order:
        (tree / "modules" / f"{name}.ko").write_bytes(_module(known[name]))
    (tree / "modules" / "order").write_text("".join(f"{name}.ko\n" for name in order))


def _load(name: str, known: dict[str, Path], order: list[str]) -> None:
    if name in order or name not in known:  # not a module: built in
        return
    found = re.search(rb"\0depends=([^\0]*)", _module(known[name]))
    for needed in found[1].decode().split(",") if found else ():
        if needed:
            _load(needed.replace("-", "_"), known, order)
    order.append(name)


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def write_cpio(tree: Path, file: BinaryIO) -> None:
    """The tree as the kernel unpacks it (``newc``), always the same for the same tree; with a console for the first words."""
    entries: list[tuple[str, int, bytes]] = []
    for path in sorted(tree.rglob("*")):
        mode, data = path.lstat().st_mode, b""
        if stat.S_ISLNK(mode):
            data = path.readlink().as_posix().encode()
        elif stat.S_ISREG(mode):
            data = path.read_bytes()
        entries.append((path.relative_to(tree).as_posix(), mode, data))
    for number, (name, mode, data) in enumerate(entries, 1):
        file.write(_cpio_entry(number, name, mode, data))
    file.write(_cpio_entry(len(entries) + 1, "dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    file.write(_cpio_entry(0, "TRAILER!!!", 0, b""))


def _cpio_entry(number: int, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    encoded = name.encode() + b"\0"
    fields: Iterable[int] = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % one for one in fields) + encoded
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def _agent_digest() -> str:
    sources = b"".join(one.read_bytes() for one in sorted(GUEST.glob("*.py")))
    return hashlib.sha256(sources + Path(__file__).read_bytes()).hexdigest()[:16]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One at a time on this machine."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
