"""An HTTPS server for tests: what a webhook or an aggregated API server is to ours."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trustme
from aiohttp import web

from fleetplane.model.objects import Object

Answer = Callable[[Object], Object | Awaitable[Object] | web.StreamResponse]


@dataclass
class HttpsServer:
    """``answer`` makes a JSON answer of a JSON request; ``seen`` are the requests, ``requests`` the raw ones."""

    port: int
    bundle: str
    answer: Answer
    seen: list[Object] = field(default_factory=list)
    requests: list[web.BaseRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, path: str = "/") -> Object:
        """The ``clientConfig`` that leads here."""
        return {"url": self.url + path, "caBundle": self.bundle}


@asynccontextmanager
async def https_server(
    answer: Answer,
    *,
    names: tuple[str, ...] = (),
    raw: Callable[[web.BaseRequest], Any] | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[HttpsServer]:
    """``raw`` takes a request before anything is read of it; ``context`` says which client certificates are wanted."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1", *names)
    context = context or ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    made = HttpsServer(0, base64.b64encode(authority.cert_pem.bytes()).decode(), answer)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        made.requests.append(request)
        if raw is not None:
            answered: web.StreamResponse = await raw(request)
            return answered
        asked = await request.json()
        made.seen.append(asked)
        found = made.answer(asked)
        if isinstance(found, web.StreamResponse):
            return found
        return web.json_response(found if isinstance(found, dict) else await found)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield made
    finally:
        await runner.cleanup()
