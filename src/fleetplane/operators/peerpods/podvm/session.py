"""A running exec, attach or connection inside a VM, as the node knows sessions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fleetplane.node.runtime import RuntimeFailure, Stream, Terminal
from fleetplane.operators.peerpods.podvm.connection import AgentConnection, AgentLost, AgentRefused
from fleetplane.operators.peerpods.podvm.guest.wire import BLOB_BYTES


class PodVmSession:
    """Output is asked for piece by piece, so what nobody reads is not written."""

    def __init__(self, agent: AgentConnection, number: int) -> None:
        self._agent = agent
        self._number = number
        self._code: int | None = None

    async def read(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while self._code is None:
            try:
                head, data = await self._agent.call("read", session=self._number)
            except (AgentLost, AgentRefused) as error:
                raise RuntimeFailure(str(error)) from None
            if "code" in head:
                self._code = int(head["code"])
                return
            yield ("stderr" if head.get("stream") == "stderr" else "stdout"), data

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(AgentLost, AgentRefused):
            for start in range(0, len(data), BLOB_BYTES):
                await self._agent.call("write", data[start : start + BLOB_BYTES], session=self._number)

    async def end_input(self) -> None:
        with contextlib.suppress(AgentLost, AgentRefused):
            await self._agent.call("end", session=self._number)

    async def resize(self, size: Terminal) -> None:
        with contextlib.suppress(AgentLost, AgentRefused):
            await self._agent.call("resize", session=self._number, width=size.width, height=size.height)

    async def exit_code(self) -> int:
        return self._code or 0

    async def close(self) -> None:
        with contextlib.suppress(AgentLost, AgentRefused):
            await self._agent.call("close", session=self._number)
