"""An exec into a simulated container: says what its script says, or repeats what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fleetplane.node.runtime import Stream, Terminal
from fleetplane.node.scripts import FOREVER, Script


class SimulatedSession:
    """A command that says what its script says; with ``echo`` it repeats its input instead, as ``cat`` would."""

    def __init__(self, script: Script, *, echo: bool) -> None:
        self._script = script
        self._echo = echo
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=64)

    async def read(self) -> AsyncIterator[tuple[Stream, bytes]]:
        if self._script.output:
            yield "stdout", self._script.output
        if self._script.seconds and self._script.seconds != FOREVER:
            await asyncio.sleep(self._script.seconds)
        while self._echo:
            data = await self._input.get()
            if data is None:
                return
            yield "stdout", data

    async def write(self, data: bytes) -> None:
        if self._echo:
            await self._input.put(data)

    async def end_input(self) -> None:
        if self._echo:
            await self._input.put(None)

    async def resize(self, size: Terminal) -> None:
        return

    async def exit_code(self) -> int:
        return self._script.exit_code

    async def close(self) -> None:
        self._echo = False
