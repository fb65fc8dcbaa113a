"""VMs of this machine's QEMU: with KVM where the processor has it for us, emulated elsewhere.

A VM is a folder, named after its token: what was wished for (written first), QEMU's monitor, the agent's channel and a file
that QEMU holds locked for as long as it lives. There is no other memory, so whoever looks into the folders sees the same:
a provider that is killed between any two steps leaves either a folder without QEMU, which is started or deleted by the next
that asks, or a VM that is found again. QEMU runs on its own; nobody has to be its parent.

QEMU's words are never secret: what a pod is told goes through the agent's channel, user data through a file only its owner can
read. QEMU is kept from starting programs and raising its rights, and has no network but the one it is put into.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import orjson

from fleetplane.operators.peerpods.podvm.image import PodVmImage, podvm_image
from fleetplane.operators.peerpods.providers.protocol import (
    RECORD_TAG,
    Failure,
    Instance,
    Provider,
    ProviderError,
    Size,
    Surroundings,
    VmSpec,
)
from fleetplane.operators.peerpods.providers.qmp import QmpFailure, qmp

PROGRAM: Final = "qemu-system-x86_64"
DEFAULT_MEMORY_MIB: Final = 256
LEAST_MEMORY_MIB: Final = 128
START_SECONDS: Final = 60.0
QUIT_SECONDS: Final = 2.0
LOCK_SECONDS: Final = 5.0
SOCKET_PATH_BYTES: Final = 100
"""Sockets may have 107 letters."""
CONSOLE_BYTES: Final = 65_536

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QemuHost:
    """What the machine gives: said by whoever runs the operator, never by a ConfigMap, which tenants may write.

    Attributes:
        folder: Where VMs are; a short path, as sockets are in it.
        image: A kernel and an initrd; made from Debian's packages in ``cache`` where absent.
        accelerator: ``kvm`` or ``tcg``; empty for the better of those that work here.
        max_vms: More are refused as over quota.
        max_memory_mib: Of all VMs together; half of the machine's if zero.
    """

    folder: Path = field(default_factory=lambda: _runtime_folder() / "podvms")
    cache: Path = field(default_factory=lambda: _cache_folder() / "podvm")
    image: PodVmImage | None = None
    program: str = PROGRAM
    accelerator: str = ""
    max_vms: int = 100
    max_memory_mib: int = 0

    @property
    def memory_mib(self) -> int:
        return self.max_memory_mib or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 21


def _runtime_folder() -> Path:
    if os.geteuid() == 0:
        return Path("/run/fleetplane")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/fleetplane-{os.geteuid()}") / "fleetplane"  # noqa: S108


def _cache_folder() -> Path:
    if os.geteuid() == 0:
        return Path("/var/cache/fleetplane")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleetplane"


def why_no_kvm(cpu_info: Path = Path("/proc/cpuinfo"), device: Path = Path("/dev/kvm")) -> str:
    """Why VMs are emulated here; empty where they are not. A device alone says nothing: some machines have it in vain."""
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} cannot be used"
    try:
        flags = next(line for line in cpu_info.read_text().splitlines() if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return "the processor's flags are not known"
    return "" if {"vmx", "svm"} & set(flags) else "the processor has no virtualisation for us (neither vmx nor svm)"


def qemu(host: QemuHost | None = None) -> Callable[[Mapping[str, str], Surroundings], Provider]:
    """A factory. Settings: ``QEMU_CPU`` and ``QEMU_MEMORY`` (MiB), for VMs that ask for nothing."""
    there = host or QemuHost()

    def factory(settings: Mapping[str, str], surroundings: Surroundings) -> Provider:
        return Qemu(there, _number(settings, "QEMU_CPU", 1), _number(settings, "QEMU_MEMORY", DEFAULT_MEMORY_MIB))

    return factory


def _number(settings: Mapping[str, str], key: str, default: int) -> int:
    text = settings.get(key) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 24):
        raise ProviderError(Failure.REFUSED, f"{key} {text[:20]!r} is no whole number above zero")
    return int(text)


class Qemu:
    """A Provider. ``channel`` leads to the agent of a VM."""

    def __init__(self, host: QemuHost, vcpus: int = 1, memory_mib: int = DEFAULT_MEMORY_MIB) -> None:
        self._host = host
        self._default = Size(vcpus, memory_mib)
        self._image = host.image

    def channel(self, id: str) -> Path:
        """The socket of a VM's agent. One may be connected at a time."""
        return self._folder(id) / "agent.sock"

    async def create(self, spec: VmSpec) -> Instance:
        program = shutil.which(self._host.program)
        if program is None:
            raise ProviderError(
                Failure.UNSUPPORTED, f"{self._host.program} is not installed; as root: apt-get install qemu-system-x86"
            )
        folder = self._folder(_id_of(spec.token))
        if len(str(folder / "agent.sock")) > SOCKET_PATH_BYTES:
            raise ProviderError(
                Failure.REFUSED, f"the folder of VMs, {self._host.folder}, has too long a name for sockets"
            )
        if self._image is None:
            self._image = await asyncio.to_thread(podvm_image, self._host.cache)
        async with _alone(self._host.folder, _id_of(spec.token)):
            if (wish := await asyncio.to_thread(self._intend, folder, spec)) is None:
                raise ProviderError(Failure.REFUSED, f"the wish of {folder.name} cannot be read; delete that VM")
            if _holder(folder) is None:
                await self._start(program, folder, wish, self._image)
        found = _look(folder)
        if found is None:
            raise ProviderError(Failure.UNAVAILABLE, f"QEMU ended at once: {folder.name}")
        return found

    async def describe(self, *, id: str = "", token: str = "") -> Instance | None:
        return await asyncio.to_thread(_look, self._folder(id or _id_of(token)))

    async def delete(self, id: str) -> None:
        folder = self._folder(id)
        if not folder.is_dir() and not _unwritten(folder).is_dir():
            return
        async with _alone(self._host.folder, id):
            with contextlib.suppress(QmpFailure):
                await qmp(folder / "qmp.sock", "quit", seconds=QUIT_SECONDS)
            if not await _released(folder, QUIT_SECONDS):
                if (pid := _holder(folder)) is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if not await _released(folder, QUIT_SECONDS):
                    raise ProviderError(Failure.TIMED_OUT, f"QEMU of {id} does not end")
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            await asyncio.to_thread(shutil.rmtree, _unwritten(folder), ignore_errors=True)

    async def list(self, tags: Mapping[str, str]) -> Sequence[Instance]:
        found = await asyncio.to_thread(lambda: [_look(one) for one in self._folders()])
        return [one for one in found if one is not None and tags.items() <= one.tags.items()]

    async def resize(self, id: str, size: Size) -> Instance:
        raise ProviderError(Failure.UNSUPPORTED, "a VM under QEMU keeps its size; make a new peer pod")

    async def last_words(self, id: str) -> str:
        """The end of what the VM's kernel said on its console."""
        arguments = {"device": "console", "size": CONSOLE_BYTES, "format": "utf8"}
        with contextlib.suppress(QmpFailure):
            return str(await qmp(self._folder(id) / "qmp.sock", "ringbuf-read", arguments))
        return ""

    # -- below

    def _folder(self, id: str) -> Path:
        if not id.startswith("vm-") or not id[3:].isalnum():
            return self._host.folder / "vm-none"  # of another provider, or made up
        return self._host.folder / id

    def _folders(self) -> Sequence[Path]:
        root = self._host.folder
        return sorted(one for one in root.glob("vm-*") if one.is_dir()) if root.is_dir() else []

    def _intend(self, folder: Path, spec: VmSpec) -> dict[str, Any] | None:
        """The wish of this folder, written down before anything is started. Raises ProviderError for one too many."""
        if (known := _wish(folder)) is not None or folder.is_dir():
            return known
        asked = spec.size
        memory = max(LEAST_MEMORY_MIB, asked.memory_mib or self._default.memory_mib)
        vcpus = min(asked.vcpus or self._default.vcpus, os.cpu_count() or 1)
        if asked.gpus:
            raise ProviderError(Failure.UNSUPPORTED, "VMs under QEMU get no GPUs here")
        if asked.instance_type or spec.image:
            raise ProviderError(
                Failure.REFUSED, "VMs under QEMU have no instance types and one image; ask for vcpus and memory"
            )
        others = [one for one in map(_wish, self._folders()) if one is not None]
        used = sum(int(one["memory_mib"]) for one in others)
        if len(others) >= self._host.max_vms:
            raise ProviderError(Failure.QUOTA, f"this machine may have {self._host.max_vms} VMs, and has them")
        if used + memory > self._host.memory_mib:
            raise ProviderError(
                Failure.QUOTA,
                f"VMs may have {self._host.memory_mib} MiB together; {used} are taken, {memory} are wanted",
            )
        wish = {
            "token": spec.token,
            "name": spec.name,
            "tags": {**spec.tags, RECORD_TAG: spec.tags.get(RECORD_TAG, spec.token)},
            "vcpus": vcpus,
            "memory_mib": memory,
            "network_namespace": spec.network_namespace,
            "addresses": list(spec.addresses),
            "mac": spec.mac,
        }
        fresh = _unwritten(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        _write(fresh / "user-data", spec.user_data.encode())
        _write(fresh / "wish.json", orjson.dumps(wish))
        fresh.rename(folder)
        return wish

    async def _start(self, program: str, folder: Path, wish: Mapping[str, Any], image: PodVmImage) -> None:
        # It becomes nobody's child at once: it must outlive us, and end without anybody to wait for it.
        words = ["setsid", "--fork", *_inside(str(wish.get("network_namespace") or ""))]
        words += [program, *self._arguments(folder, wish, image)]
        alive_read, alive_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with (folder / "qemu.log").open("wb") as log:
                launched = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[alive_write],
                    env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
                )
            await launched.wait()
            os.close(alive_write)
            await _started(folder, alive_read)
        except OSError as error:
            raise ProviderError(Failure.UNAVAILABLE, f"QEMU cannot be started: {error.strerror or error}") from None
        finally:
            for one in (alive_read, alive_write):
                with contextlib.suppress(OSError):
                    os.close(one)
        _write(folder / "started", b"")

    def _arguments(self, folder: Path, wish: Mapping[str, Any], image: PodVmImage) -> Sequence[str]:
        """QEMU's words. Paths with a comma in them would be read as two words; it wants it doubled."""

        def path(of: Path) -> str:
            return str(of).replace(",", ",,")

        accelerator = self._host.accelerator or ("tcg" if why_no_kvm() else "kvm")
        network = []
        if wish.get("network_namespace"):
            mac = str(wish.get("mac") or "")
            network = ["-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no"]
            network += ["-device", "virtio-net-pci,netdev=net,romfile=" + (f",mac={mac}" if mac else "")]
        return [
            *("-name", f"{wish['name']}".replace(",", ",,")[:64]),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-machine", "pc", "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max"),
            *("-m", f"{wish['memory_mib']}M", "-smp", str(wish["vcpus"])),
            *("-pidfile", str(folder / "qemu.pid")),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", "console=ttyS0 quiet panic=-1 reboot=t no_timer_check"),
            *("-qmp", f"unix:{path(folder / 'qmp.sock')},server=on,wait=off"),
            *("-chardev", f"ringbuf,id=console,size={CONSOLE_BYTES}", "-serial", "chardev:console"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,path={path(folder / 'agent.sock')},server=on,wait=off"),
            *("-device", "virtserialport,chardev=agent,name=fleetplane.agent"),
            *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"),
            *("-fw_cfg", f"name=opt/fleetplane/user-data,file={path(folder / 'user-data')}"),
            *network,
        ]


TAP: Final = "tap0"
"""The VM's interface in the network namespace it is put into."""


async def _started(folder: Path, alive: int) -> None:
    """Wait until QEMU answers. ``alive`` ends when QEMU does. Raises ProviderError."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while True:
                with contextlib.suppress(BlockingIOError):
                    os.read(alive, 1)
                    if _holder(folder) is not None:
                        return  # another one, of somebody who was killed meanwhile, was faster
                    said = (folder / "qemu.log").read_text(errors="replace").strip().splitlines()
                    why = said[-1][:300] if said else "it said nothing"
                    raise ProviderError(Failure.UNAVAILABLE, f"QEMU did not start: {why}")
                if _holder(folder) is not None and (folder / "agent.sock").exists():
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise ProviderError(Failure.TIMED_OUT, "QEMU did not start in time") from None


def _inside(namespace: str) -> list[str]:
    return ["nsenter", f"--net={namespace}", "--"] if namespace else []


def _unwritten(folder: Path) -> Path:
    """Where a wish is until it is whole; it may stay if whoever writes it is killed, and the next one of it takes its place."""
    return folder.with_name(f".new-{folder.name}")


def _id_of(token: str) -> str:
    return "vm-" + hashlib.sha256(token.encode()).hexdigest()[:20]


def _look(folder: Path) -> Instance | None:
    """The VM of a folder; one whose QEMU has ended is gone for good, and so is its folder then."""
    if (wish := _wish(folder)) is None:
        return None
    runs = _holder(folder) is not None
    if not runs and (folder / "started").exists():
        _log.warning("the VM %s (%s) has ended", folder.name, wish.get("name"))
        shutil.rmtree(folder, ignore_errors=True)
        return None
    size = Size(int(wish["vcpus"]), int(wish["memory_mib"]))
    addresses = tuple(str(one) for one in wish.get("addresses") or ())
    return Instance(
        folder.name, "running" if runs else "pending", str(wish["token"]), dict(wish["tags"]), addresses, size
    )


def _wish(folder: Path) -> dict[str, Any] | None:
    try:
        found = orjson.loads((folder / "wish.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


_FLOCK: Final = struct.Struct("hhqqi4x")


def _holder(folder: Path) -> int | None:
    """The process that has the pid file locked: QEMU, for as long as it lives. Its number could be another's by now."""
    try:
        descriptor = os.open(folder / "qemu.pid", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)


async def _released(folder: Path, seconds: float) -> bool:
    for _ in range(int(seconds / 0.02)):
        if _holder(folder) is None:
            return True
        await asyncio.sleep(0.02)
    return _holder(folder) is None


@asynccontextmanager
async def _alone(root: Path, id: str) -> AsyncIterator[None]:
    """Nobody else makes or deletes this VM meanwhile. Raises ProviderError when somebody does, for long."""
    os.makedirs(root, mode=0o700, exist_ok=True)  # noqa: PTH103 - a moment, and nothing to wait for
    path = root / f".lock-{id}"
    for _ in range(int(LOCK_SECONDS / 0.02)):
        with path.open("w") as file:
            if _locked(file, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        await asyncio.sleep(0.02)
    raise ProviderError(Failure.THROTTLED, f"{id} is being made or deleted by somebody else", 1.0)


def _locked(file: TextIO, path: Path) -> bool:
    """Whether this very file, the one others would open, is ours now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except OSError:
        return False
