"""What the kernel offers and Python does not: namespaces, mounts and capabilities, through the C library."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_MOVE: Final = 8192
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18

NEW_MOUNTS: Final = 0x00020000
NEW_PIDS: Final = 0x20000000
_SIGCHLD: Final = 17
_SYS_CLONE: Final = {"x86_64": 56, "aarch64": 220}
_CAPBSET_DROP: Final = 24
_NO_NEW_PRIVS: Final = 38

CAPABILITIES: Final = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
"""In the kernel's order: the place is the number."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Raises OSError."""
    words = [one.encode() or None for one in (source, target, kind)]
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def unmount(target: str) -> None:
    """With everything below it, at once for everybody who does not use it any more."""
    _checked(_libc.umount2(target.encode(), 2), f"umount {target}")


def clone(namespaces: int) -> int:
    """Fork into new namespaces: 0 in the child. Only for a process of one thread."""
    number = _SYS_CLONE[os.uname().machine]
    return _checked(_libc.syscall(number, namespaces | _SIGCHLD, 0, 0, 0, 0), "clone")


def enter(pid: int, *kinds: str) -> None:
    """Join namespaces of a process; that of processes counts for children only."""
    for kind in kinds:
        descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(descriptor, 0), f"setns {kind}")
        finally:
            os.close(descriptor)


def keep_capabilities(kept: frozenset[str]) -> None:
    """Whatever this process becomes, it never has others than these."""
    for number, name in enumerate(CAPABILITIES):
        if name not in kept and _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0) < 0:
            continue  # a kernel that does not know it has none to give


def set_host_name(name: str) -> None:
    encoded = name.encode()
    _checked(_libc.sethostname(encoded, len(encoded)), "sethostname")


def no_new_privileges() -> None:
    _checked(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
