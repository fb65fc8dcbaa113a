"""The folder of a demo: the plane's data, the manifests to edit, and which processes belong to it.

``remove`` leaves nothing: it ends the processes (only those that still are what they were), removes containers and
networks, then the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.running import disk_full
from fleetplane.model.environment import SystemEnvironment
from fleetplane.node.local import remove_local_node

KEPT: Final = Path(".fleetplane-demo")
"""Where a demo lives that is kept, unless ``--data-dir`` says otherwise."""

_MANIFESTS: Final = ("camera-refused.yaml", "camera.yaml", "brake.yaml", "hello.yaml", "peerpods.yaml")
_VCLUSTER: Final = """\
apiVersion: vk8s.sktelecom.com/v1alpha1
kind: Vk8s
metadata: {{name: {name}}}
spec: {{mode: logical}}
"""
_NEEDED: Final = 64 << 20
_PROCESSES: Final = "processes.json"


@dataclass(frozen=True, slots=True)
class Place:
    """``root`` is the folder; what is in it are the other names."""

    root: Path

    @property
    def plane(self) -> Path:
        return self.root / "plane"

    @property
    def kubeconfig(self) -> Path:
        return self.plane / "admin.kubeconfig"

    @property
    def log(self) -> Path:
        return self.root / "plane.log"

    def prepare(self, device: str, vclusters: list[str]) -> None:
        """Make the folder with its manifests. ``device`` is the host's that stands for the camera."""
        if self.processes() or self.plane.exists():
            raise CommandError(
                f"there is a demo in {self.root} already; remove it with 'fleetplane demo --stop', "
                "or choose another folder with --data-dir"
            )
        if full := disk_full(self.root, _NEEDED):
            raise CommandError(full)
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _MANIFESTS:
                text = resources.files(f"{__package__}.manifests").joinpath(name).read_text()
                (self.root / name).write_text(text.replace("/dev/zero", device))
            documents = [_VCLUSTER.format(name=name) for name in vclusters]
            (self.root / "vclusters.yaml").write_text("---\n".join(documents))
        except OSError as error:
            raise CommandError(f"cannot write to {self.root}: {error.strerror}; choose another --data-dir") from None

    def remember(self, **pids: int) -> None:
        """Note processes, so that ``remove`` finds them in another run."""
        known = self._noted() | {name: {"pid": pid, "began": began(pid)} for name, pid in pids.items()}
        (self.root / _PROCESSES).write_text(json.dumps(known))

    def processes(self) -> dict[str, int]:
        """Those that still run, by name."""
        return {
            name: one["pid"]
            for name, one in self._noted().items()
            if one["began"] and began(one["pid"]) == one["began"]
        }

    def _noted(self) -> dict[str, dict[str, int]]:
        try:
            found: dict[str, dict[str, int]] = json.loads((self.root / _PROCESSES).read_text())
        except (OSError, ValueError):
            return {}
        return found

    async def remove(self) -> None:
        await asyncio.to_thread(end, list(self.processes().values()))
        for directory in sorted((self.plane / "nodes").glob("*")):
            await remove_local_node(directory, SystemEnvironment())
        await asyncio.to_thread(shutil.rmtree, self.root, True)


def began(pid: int) -> int:
    """When a process began, in the kernel's ticks; 0 when it is not there. With its id it is one process, for ever."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if words[0] == "Z" else int(words[19])


def end(pids: list[int], patience: float = 20.0) -> None:
    """End processes, politely first."""
    known = {pid: began(pid) for pid in pids}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid, start in known.items():
            if start and began(pid) == start:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        deadline = time.monotonic() + patience
        while any(start and began(pid) == start for pid, start in known.items()) and time.monotonic() < deadline:
            time.sleep(0.05)
