"""What really runs, asked of Podman and of the kernel, not of the plane: the demo's witness."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from fleetplane.interfaces.cli.demo_image import import_demo_image
from fleetplane.node import freezer
from fleetplane.node.podman.host import HostFacts, look_at_host
from fleetplane.node.processes import CommandFailure, run_command
from fleetplane.node.runtime import Label


def why_not_real() -> str | None:
    """Why the demo cannot run real containers here, None when it can. Makes their image known to Podman."""
    missing = import_demo_image()
    if missing is not None:
        return missing
    host = look_at_host()
    if not host.root and host.cgroups != "v2":
        return "without root, Podman freezes containers (the standby of the brake monitor) on cgroup v2 only"
    return None


@dataclass(frozen=True, slots=True)
class Container:
    """``pid`` is its first process on this machine, ``began`` when Podman started it."""

    id: str
    pod: str
    pid: int
    began: str
    status: str

    @property
    def running(self) -> bool:
        """It has a process, frozen or not."""
        return self.status in {"running", "paused"}

    def is_frozen(self) -> bool:
        """By Podman, or behind its back by the kernel's freezer."""
        try:
            lines = Path(f"/proc/{self.pid}/cgroup").read_text().splitlines()
        except OSError:
            return False
        groups = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
        path = groups.get("freezer") or groups.get("")
        return self.status == "paused" or (path is not None and freezer.is_frozen(path))


class Containers:
    """The containers of the plane in this folder. Raises CommandFailure when Podman does not answer."""

    def __init__(self, plane: Path) -> None:
        self._plane = plane
        self._host: HostFacts = look_at_host()

    async def list(self) -> list[Container]:
        instance = self._instance()
        if not instance:
            return []
        words = ["ps", "--all", "--quiet", "--filter", f"label={Label.INSTANCE}={instance}"]
        ids = (await self._podman(*words)).decode().split()
        if not ids:
            return []
        try:
            found = json.loads(await self._podman("container", "inspect", *ids))
        except CommandFailure as error:
            if "no such" not in str(error):
                raise
            return await self.list()  # one has gone in between
        return [
            Container(
                one["Id"],
                (one["Config"].get("Labels") or {}).get(Label.UID, ""),
                one["State"]["Pid"],
                one["State"]["StartedAt"],
                one["State"]["Status"],
            )
            for one in found
        ]

    async def of_pod(self, uid: str) -> Container | None:
        return next((one for one in await self.list() if one.pod == uid and one.running), None)

    async def kill(self, container: Container) -> None:
        """SIGKILL, straight to the process where we may."""
        try:
            os.kill(container.pid, signal.SIGKILL)
        except PermissionError:  # rootless: the process belongs to a user of its namespace
            await self._podman("kill", "--signal", "KILL", container.id)

    def _instance(self) -> str:
        found = next((self._plane / "nodes").glob("*/instance"), None)
        return found.read_text().strip() if found else ""

    async def _podman(self, *words: str) -> bytes:
        return await run_command([self._host.podman, *self._host.flags, *words])
