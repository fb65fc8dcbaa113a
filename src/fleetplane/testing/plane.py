"""A control plane inside a test: the real server on an in-memory store, in milliseconds, without a socket.

    async def test_my_operator() -> None:
        async with running_server() as plane:
            client = plane.client()
            await client.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, "default")

Nothing is faked: requests take the same way through every stage as over the network, save TLS and authentication.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fleetplane.apiserver.assembly import ServerSettings, assemble
from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.pki import Pki, ensure_pki
from fleetplane.apiserver.server import ApiServer
from fleetplane.bootstrap import bootstrap
from fleetplane.client.protocol import Capabilities, Client
from fleetplane.client.rest import RestClient
from fleetplane.model.admission import AdmissionPlugin
from fleetplane.model.environment import Environment, SystemEnvironment
from fleetplane.model.objects import Object
from fleetplane.model.user import MASTERS_GROUP, UserInfo
from fleetplane.plane import InProcessTransport
from fleetplane.settings import Settings
from fleetplane.store.protocol import Store
from fleetplane.store.sqlite import SqliteStore

ADMIN = UserInfo("admin", groups=(MASTERS_GROUP, "system:authenticated"))


@dataclass(slots=True)
class TestServer:
    """A running server. ``call`` is a raw request, ``client`` a client like any other."""

    __test__ = False

    server: ApiServer
    store: Store
    pki: Pki

    def client(self, user: UserInfo = ADMIN, cluster: str | None = "root") -> Client:
        capabilities = Capabilities(logical_clusters=True, watch_list=True, commit=True)
        return RestClient(InProcessTransport(self.server, user), capabilities=capabilities, cluster=cluster)

    async def respond(
        self,
        method: str,
        path: str,
        body: Any = b"",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        user: UserInfo | None = ADMIN,
    ) -> Response:
        """One request; ``body`` is bytes, or any JSON value. ``user`` None means authenticate by ``headers``."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        given = {"content-type": "application/json", "user-agent": "test/1", **(headers or {})}
        asked = dict(query or {})
        queries = {key: [value] for key, value in asked.items()}
        return await self.server.handle(Request(method, path, asked, queries, given, data, None, "test", user))

    async def call(self, method: str, path: str, body: Any = b"", **more: Any) -> tuple[int, Object]:
        """``respond``, with the JSON answer decoded."""
        response = await self.respond(method, path, body, **more)
        answered: Object = orjson.loads(response.body) if response.body else {}
        return response.status, answered


@asynccontextmanager
async def running_server(
    *,
    environment: Environment | None = None,
    plugins: Sequence[AdmissionPlugin] = (),
    store: Store | None = None,
    settings: ServerSettings | None = None,
) -> AsyncIterator[TestServer]:
    """A server with the default namespaces, stopped on the way out."""
    world = environment or SystemEnvironment()
    kept = store or await SqliteStore.open(":memory:", environment=world)
    try:
        with tempfile.TemporaryDirectory() as directory:
            pki = ensure_pki(Path(directory) / "pki", world)
            server = assemble(kept, pki, world, settings or ServerSettings(), plugins=plugins)
            async with server.running():
                made = TestServer(server, kept, pki)
                await bootstrap(made.client(), Settings(), 6443)
                yield made
    finally:
        await kept.close()
