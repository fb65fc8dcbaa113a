"""What a manager shows the outside: ``/healthz``, ``/livez``, ``/readyz`` and ``/metrics``, on one small HTTP server.

Not healthy means: restart me. Not ready means: wait for me. A candidate that does not lead is both healthy and ready.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from fleetplane.controller.manager import Manager


def routes(manager: Manager) -> web.RouteTableDef:
    table = web.RouteTableDef()

    @table.get("/healthz")
    @table.get("/livez")
    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok")  # that it is answered is the answer: the loop runs

    @table.get("/readyz")
    async def readyz(_request: web.Request) -> web.Response:
        if manager.is_ready:
            return web.Response(text="ok")
        waiting = [one for one in manager.informers.all if not one.has_synced]
        names = "\n".join(f"waiting for {one.resource.qualified}: {one.last_error or 'listing'}" for one in waiting)
        return web.Response(status=503, text=names or "stopping")

    @table.get("/metrics")
    async def metrics(_request: web.Request) -> web.Response:
        manager.observe()
        body = generate_latest(manager.metrics.registry)
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_LATEST})

    return table


@asynccontextmanager
async def serving(manager: Manager, host: str = "127.0.0.1", port: int = 8080) -> AsyncIterator[int]:
    """Serve while entered; gives the port, which is a free one for ``port=0``."""
    app = web.Application()
    app.add_routes(routes(manager))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
