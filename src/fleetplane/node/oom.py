"""Whether the kernel killed a container for want of memory, from the kernel's own log.

Podman's monitor tells it on most hosts; on a hybrid of cgroup versions it does not, and the cgroup is gone by the time
one could look. The kernel log names the cgroup of what it killed. Read only after an unexplained SIGKILL, and only as
far as the kernel keeps it; where it may not be read the answer is no.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LOG: Final = Path("/dev/kmsg")
RECORD: Final = 8192
MOST_RECORDS: Final = 100_000


def was_killed(container_id: str, log: Path = LOG) -> bool:
    """Whether a record of an out-of-memory kill names this container's cgroup."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    wanted = container_id.encode()
    try:
        for _ in range(MOST_RECORDS):
            try:
                record = os.read(descriptor, RECORD)
            except BrokenPipeError:
                continue  # overwritten while we read: the next record is there
            except OSError:
                return False
            if not record:
                return False
            if b"oom-kill" in record and wanted in record:
                return True
    finally:
        os.close(descriptor)
    return False
