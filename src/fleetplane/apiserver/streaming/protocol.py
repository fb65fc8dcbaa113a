"""What the server needs of whoever runs a pod: the streams, and nothing of how they get there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fleetplane.model.objects import Object


@dataclass(frozen=True, slots=True)
class LogQuery:
    """The options of ``pods/log``. ``since_time`` is RFC 3339; ``tail_lines`` None means all."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since_seconds: int | None = None
    since_time: str = ""
    tail_lines: int | None = None
    limit_bytes: int | None = None


class Session(Protocol):
    """A running exec, attach or forwarded connection; always closed by whoever opened it."""

    def read(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        """Output as it comes, until it ends."""

    async def write(self, data: bytes) -> None: ...

    async def end_input(self) -> None: ...

    async def resize(self, width: int, height: int) -> None: ...

    async def exit_code(self) -> int:
        """The command's exit code, once ``read`` has ended. Raises ApiError when it cannot be known."""

    async def close(self) -> None: ...


class PodStreams(Protocol):
    """The streams of the pods on one node. All raise ApiError with a reason a person can act on."""

    async def logs(self, pod: Object, container: str, query: LogQuery) -> AsyncIterator[bytes]: ...

    async def exec(self, pod: Object, container: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Session: ...

    async def attach(self, pod: Object, container: str, *, stdin: bool, tty: bool) -> Session: ...

    async def port_forward(self, pod: Object, port: int) -> Session: ...


StreamsOf = Callable[[str], PodStreams | None]
"""From a node's name its streams, None when the node cannot be reached now. The pods it is given carry the name of their
logical cluster in the annotation ``fleetplane.io/cluster``, unless that is root."""
