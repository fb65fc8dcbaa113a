"""A plane in a process of its own, for the benchmarks."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import find_access
from fleetplane.client.protocol import Client


@dataclass(frozen=True, slots=True)
class Plane:
    directory: Path
    client: Client
    pid: int


@asynccontextmanager
async def plane(*options: str) -> AsyncIterator[Plane]:
    """``fleetplane up`` with these options, from when it is ready until the end of the block."""
    with tempfile.TemporaryDirectory() as name:
        command = ["-m", "fleetplane.interfaces.cli", "up", "--data-dir", name, "--port", "0", *options]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line.startswith(b"ready"), line
            client = await connect_to(find_access(Path(name) / "admin.kubeconfig"))
            try:
                yield Plane(Path(name), client, process.pid)
            finally:
                await client.close()
        finally:
            process.terminate()
            await process.wait()
