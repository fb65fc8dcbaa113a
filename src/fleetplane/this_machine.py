"""The node a plane makes of its own machine, which may begin before the plane is there.

A node owes its static pods, and those it knows from its disk, to nobody: so it begins to start them at once, while the
rest of the plane is still being loaded, and its requests wait until there is a server. What it cannot do it says only
then, for what keeps the whole plane from starting comes first.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fleetplane.client.protocol import Capabilities, Client, Pairs, Transport
from fleetplane.client.rest import RestClient
from fleetplane.model.environment import Environment
from fleetplane.model.user import UserInfo
from fleetplane.node.agent import NodeAgent, NodeSettings
from fleetplane.node.local import run_local_node
from fleetplane.node.runtime import RuntimeFailure
from fleetplane.plane_error import PlaneError

if TYPE_CHECKING:
    from fleetplane.settings import Settings

PROXY_USER = UserInfo("system:kube-proxy", groups=("system:authenticated",))
CAPABILITIES = Capabilities(logical_clusters=True, watch_list=True, commit=True)


class LaterTransport:
    """A transport that is known later; requests wait for it."""

    def __init__(self, real: asyncio.Future[Callable[[UserInfo], Transport]], user: UserInfo) -> None:
        self._real = real
        self._user = user

    async def _transport(self) -> Transport:
        return (await asyncio.shield(self._real))(self._user)

    async def request(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        return await (await self._transport()).request(method, path, query, headers, body)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, query: Pairs, headers: Pairs, body: bytes
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        async with (await self._transport()).stream(method, path, query, headers, body) as answer:
            yield answer

    async def close(self) -> None:
        """Nothing to close: the server is somebody else's."""


class ThisMachine:
    """``begin``, then ``connect`` as soon as there is a server; ``run`` until cancelled. ``end`` what never ran."""

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self._settings = settings
        self._environment = environment
        self.name = settings.node_name or socket.gethostname().lower()
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[NodeAgent] = loop.create_future()
        self._server: asyncio.Future[Callable[[UserInfo], Transport]] = loop.create_future()
        self._working: asyncio.Task[None] | None = None

    def begin(self) -> None:
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="this machine's node")

    def connect(self, transport_as: Callable[[UserInfo], Transport]) -> None:
        self._server.set_result(transport_as)

    async def run(self) -> None:
        """Raises PlaneError when this machine cannot be a node."""
        self.begin()
        assert self._working is not None
        await self._working

    async def end(self) -> None:
        if self._working is not None:
            self._working.cancel()
            with suppress(asyncio.CancelledError, PlaneError):
                await self._working

    def _client(self, user: UserInfo) -> Client:
        return RestClient(LaterTransport(self._server, user), capabilities=CAPABILITIES)

    async def _work(self) -> None:
        settings = self._settings
        place = settings.data_dir / "nodes" / self.name
        node = NodeSettings(place, name=self.name, static_pods=settings.data_dir / "static-pods")
        user = UserInfo(f"system:node:{self.name}", groups=("system:nodes", "system:authenticated"))
        try:
            await asyncio.to_thread(settings.data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
            await run_local_node(
                self._client(user),
                node,
                self._environment,
                pod_networks=[one.strip() for one in settings.pod_cidrs.split(",")],
                service_client=self._client(PROXY_USER),
                cri_socket=settings.cri_socket if settings.runtime == "cri" else None,
                on_ready=self.ready.set_result,
            )
        except (RuntimeFailure, OSError) as error:
            await asyncio.shield(self._server)
            if isinstance(error, OSError):
                raise
            raise PlaneError(f"this machine cannot run pods: {error}; try --runtime simulated") from error
