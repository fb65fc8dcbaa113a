"""Podman's API process: found where one runs that will do, started by us otherwise.

Ours listens on a socket of its own and outlives an agent that is killed; the next agent finds it there. It uses the
caller's default storage, so ``podman ps`` shows our containers, but flags (and, where rlimits cannot be raised, a
configuration) that fit this host. Containers do not depend on it: they belong to their own monitors.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tomllib
from pathlib import Path
from typing import Any

import aiohttp

from fleetplane.node.podman.host import HostFacts

START_SECONDS = 15.0
EXEC_KNOWN_SECONDS = 30
SYSTEM_CONFIGURATIONS = (
    Path("/usr/share/containers/containers.conf"),
    Path("/etc/containers/containers.conf"),
)

_log = logging.getLogger(__name__)


class ServiceFailure(Exception):
    """Podman's service cannot be had; the message says what to do."""


class PodmanService:
    """``socket`` is where the API answers between ``start`` and ``stop``."""

    def __init__(self, host: HostFacts, directory: Path) -> None:
        self._host = host
        self.directory = directory
        self.socket = str(directory / "podman.sock")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when the API answers. Raises ServiceFailure."""
        if not self._host.podman:
            raise ServiceFailure("Podman is not installed; install the package podman, or use --runtime simulated")
        if not self._host.needs_flags and (found := await self._system_socket()):
            self.socket = found
            return
        if await answers(self.socket):
            return
        environment = self._make_ready()
        log = self.directory / "podman.log"
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                self._host.podman,
                *self._host.flags,
                "system",
                "service",
                "--time=0",
                f"unix://{self.socket}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                # Monitors of containers leave files where they were started from.
                cwd=self.directory,
                start_new_session=True,
            )
        (self.directory / "podman.pid").write_text(str(self._process.pid))
        await self._wait_until_it_answers(log)

    def _make_ready(self) -> dict[str, str]:
        """The directory, and the process's environment."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(self.socket).unlink(missing_ok=True)
        return {**os.environ, "CONTAINERS_CONF": str(self._write_configuration())}

    async def _wait_until_it_answers(self, log: Path) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await answers(self.socket):
                    if self._process is not None and self._process.returncode is not None:
                        raise ServiceFailure(f"podman system service ended at once; see {log}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise ServiceFailure(f"podman system service does not answer; see {log}") from None

    async def _system_socket(self) -> str:
        """A service the system offers, if it answers."""
        places = ["/run/podman/podman.sock"] if self._host.root else []
        if not self._host.root and (runtime := os.environ.get("XDG_RUNTIME_DIR")):
            places.append(f"{runtime}/podman/podman.sock")
        for place in places:
            if await answers(place):
                return place
        return ""

    def _write_configuration(self) -> Path:
        """Podman's own configuration, with what API users need.

        Default rlimits are what the host allows: the infra container has no others. The monitor of a command that was
        run in a container stays for five minutes by default, to tell how it ended; with probes that run a command every
        other second those would be hundreds.
        """
        merged: dict[str, Any] = {}
        for path in (*SYSTEM_CONFIGURATIONS, *([] if self._host.root else [own_configuration()])):
            try:
                read = tomllib.loads(path.read_text())
            except (OSError, tomllib.TOMLDecodeError):
                continue
            for section, values in read.items():
                if isinstance(values, dict):
                    merged.setdefault(section, {}).update(values)
        if not self._host.may_raise_limits:
            limits = [f"{name}={value}:{value}" for name, value in self._host.rlimits.items()]
            merged.setdefault("containers", {})["default_ulimits"] = limits
        merged.setdefault("engine", {})["exit_command_delay"] = EXEC_KNOWN_SECONDS
        target = self.directory / "containers.conf"
        target.write_text(to_toml(merged))
        return target

    async def stop(self) -> None:
        """End the service if it is ours; containers go on."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.terminate()
                await self._process.wait()
        elif (pid := self._inherited_pid()) is not None:
            os.kill(pid, signal.SIGTERM)
        (self.directory / "podman.pid").unlink(missing_ok=True)

    def _inherited_pid(self) -> int | None:
        """The process an earlier agent of this directory started, if it still is that."""
        try:
            pid = int((self.directory / "podman.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if f"unix://{self.directory / 'podman.sock'}".encode() in command else None


def own_configuration() -> Path:
    """Where a user's own configuration is."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "containers" / "containers.conf"


async def answers(socket: str) -> bool:
    """Whether a Podman API answers on this socket."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session,
            session.get("http://podman/libpod/_ping", timeout=aiohttp.ClientTimeout(total=5)) as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def to_toml(sections: dict[str, Any]) -> str:
    """The few shapes ``containers.conf`` has: sections of strings, numbers, booleans and lists of strings."""
    lines: list[str] = []
    for section, values in sections.items():
        plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
        nested = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
        for name, inner in nested.items():
            lines.append(f"[{section}.{name}]")
            lines += [f"{_toml_value(str(key))} = {_toml_value(value)}" for key, value in inner.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(one) for one in value) + "]"
    if isinstance(value, int | float):
        return str(value)
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
