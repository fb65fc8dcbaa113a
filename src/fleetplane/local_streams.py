"""The bridge between the API server and nodes of the same process: a node's streams as the server asks for them.

Server and node know nothing of each other; each declares what it needs or offers, and here the two meet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

from fleetplane.apiserver.streaming.protocol import LogQuery
from fleetplane.client.protocol import cluster_of
from fleetplane.model import errors
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import Object, name, namespace, uid
from fleetplane.node.runtime import Session as NodeSession
from fleetplane.node.runtime import Terminal
from fleetplane.node.streams import ExecRequest, LogRequest, NodeStreams, PodRef


class LocalStreams:
    """A ``PodStreams`` of the server on a ``NodeStreams`` of a node in this process."""

    def __init__(self, node: NodeStreams) -> None:
        self._node = node

    async def logs(self, pod: Object, container: str, query: LogQuery) -> AsyncIterator[bytes]:
        try:
            since = parse_timestamp(query.since_time) if query.since_time else None
        except ValueError:
            raise errors.bad_request(f"sinceTime must be an RFC 3339 time, not {query.since_time!r}") from None
        request = LogRequest(
            container,
            query.follow,
            query.previous,
            query.timestamps,
            query.since_seconds,
            since,
            query.tail_lines,
            query.limit_bytes,
        )
        return await self._node.logs(_ref(pod), request)

    async def exec(self, pod: Object, container: str, command: Sequence[str], *, stdin: bool, tty: bool) -> _Session:
        return _Session(await self._node.exec(_ref(pod), ExecRequest(container, tuple(command), stdin, tty)))

    async def attach(self, pod: Object, container: str, *, stdin: bool, tty: bool) -> _Session:
        return _Session(await self._node.attach(_ref(pod), ExecRequest(container, (), stdin, tty)))

    async def port_forward(self, pod: Object, port: int) -> _Session:
        return _Session(await self._node.port_forward(_ref(pod), port))


class _Session:
    def __init__(self, session: NodeSession) -> None:
        self._session = session

    def read(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        return self._session.read()

    async def write(self, data: bytes) -> None:
        await self._session.write(data)

    async def end_input(self) -> None:
        await self._session.end_input()

    async def resize(self, width: int, height: int) -> None:
        await self._session.resize(Terminal(width, height))

    async def exit_code(self) -> int:
        return await self._session.exit_code()

    async def close(self) -> None:
        await self._session.close()


def _ref(pod: Object) -> PodRef:
    return PodRef(namespace(pod), name(pod), uid(pod), cluster_of(pod))
