"""The processes of the demo: the plane, which one step kills, and the simulated nodes of the last step.

Each runs in a session of its own, so that Ctrl-C reaches the demo alone, which then ends them in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fleetplane.interfaces.cli.demonstration.steps import StepFailed

READY_SECONDS = 45.0
STOP_SECONDS = 20.0
_MODULE = "fleetplane.interfaces.cli"


class Child:
    """One process that says ``ready …`` on its standard output when it serves; the rest goes to ``log``.

    Not asyncio's: its transports kill a process when the loop closes, and a demo that is kept goes on.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._words = [sys.executable, "-m", module, *arguments]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> list[str]:
        """Start it; the words of its ready line. Raises StepFailed with the last thing it said."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FLEETPLANE_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own program; starting it takes a moment only
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        said = self._process.stdout
        assert said is not None
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = (await asyncio.to_thread(said.readline)).decode()
        except TimeoutError:
            self._process.kill()
            raise StepFailed(f"it was not ready after {READY_SECONDS:.0f} seconds") from None
        if not line.startswith("ready "):
            await self._ended()
            raise StepFailed(_last_words(self._log))
        return line.split()[1:]

    async def kill(self) -> None:
        """As a power cut would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        if not await self._ended():
            self._process.kill()
            await self._ended()

    async def _ended(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True


def plane(data_dir: Path, port: int, runtime: str, nodes: int, log: Path) -> Child:
    options = ["up", "--data-dir", str(data_dir), "--port", str(port), "--runtime", runtime, "--nodes", str(nodes)]
    return Child(_MODULE, options, log)


def simulated_nodes(kubeconfig: Path, log: Path) -> Child:
    return Child(f"{_MODULE}.demonstration.nodes", [str(kubeconfig)], log)


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else "it ended without a word").removeprefix("fleetplane: ")
