"""The processes of the demo: the plane, which one step kills, and the simulated nodes of the last step.

Each runs in a session of its own, so that Ctrl-C reaches the demo alone, which then ends them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fleetplane.interfaces.cli.demonstration.steps import StepFailed

READY_SECONDS = 45.0
STOP_SECONDS = 20.0
_MODULE = "fleetplane.interfaces.cli"


class Child:
    """One process that says ``ready …`` on its standard output when it serves; the rest goes to ``log``."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._words = [sys.executable, "-m", module, *arguments]
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> list[str]:
        """Start it; the words of its ready line. Raises StepFailed with the last thing it said."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FLEETPLANE_")}
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = (await self._process.stdout.readline()).decode()
        except TimeoutError:
            raise StepFailed(f"it was not ready after {READY_SECONDS:.0f} seconds; its log is {self._log}") from None
        if not line.startswith("ready "):
            await self._process.wait()
            raise StepFailed(_last_words(self._log))
        return line.split()[1:]

    async def kill(self) -> None:
        """As a power cut would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def let_go(self) -> None:
        """Forget it: it goes on after the demo."""
        if self._process is not None:
            transport = self._process._transport  # type: ignore[attr-defined]
            transport._proc = None
            transport.close()


def plane(data_dir: Path, port: int, runtime: str, nodes: int, log: Path) -> Child:
    options = ["up", "--data-dir", str(data_dir), "--port", str(port), "--runtime", runtime, "--nodes", str(nodes)]
    return Child(_MODULE, options, log)


def simulated_nodes(kubeconfig: Path, log: Path) -> Child:
    return Child(f"{_MODULE}.demonstration.nodes", [str(kubeconfig)], log)


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else "it ended without a word").removeprefix("fleetplane: ")
