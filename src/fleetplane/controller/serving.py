"""What a manager shows the outside: ``/healthz``, ``/livez``, ``/readyz`` and ``/metrics``, on one small HTTP server.

Not healthy means: restart me. Not ready means: wait for me. A candidate that does not lead is both healthy and ready.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from fleetplane.controller.manager import Manager


def _nothing() -> str:
    return ""


def routes(managers: Sequence[Manager], waiting: Callable[[], str] = _nothing) -> web.RouteTableDef:
    """``waiting`` tells what else is waited for, nothing once that is there."""
    table = web.RouteTableDef()

    @table.get("/healthz")
    @table.get("/livez")
    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok")  # that it is answered is the answer: the loop runs

    @table.get("/readyz")
    async def readyz(_request: web.Request) -> web.Response:
        behind = [manager for manager in managers if not manager.is_ready]
        if not behind and not waiting():
            return web.Response(text="ok")
        unsynced = [one for manager in behind for one in manager.informers.all if not one.has_synced]
        lines = [f"waiting for {one.resource.qualified}: {one.last_error or 'listing'}" for one in unsynced]
        lines += [f"waiting for {waiting()}"] if waiting() else []
        return web.Response(status=503, text="\n".join(lines) or "stopping")

    @table.get("/metrics")
    async def metrics(_request: web.Request) -> web.Response:
        for manager in managers:
            manager.observe()
        # Managers of one process share their metrics; one that has its own is counted with the others.
        registries = dict.fromkeys(manager.metrics.registry for manager in managers)
        body = b"".join(generate_latest(registry) for registry in registries)
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_LATEST})

    return table


@asynccontextmanager
async def serving(
    managers: Manager | Sequence[Manager],
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    waiting: Callable[[], str] = _nothing,
) -> AsyncIterator[int]:
    """Serve while entered, for one manager or for all of a process; gives the port, which is a free one for ``port=0``.

    Ready is when all are, and ``waiting`` names nothing that is still to come.
    """
    app = web.Application()
    app.add_routes(routes([managers] if isinstance(managers, Manager) else managers, waiting))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
