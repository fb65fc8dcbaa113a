"""Our API server without controllers and nodes, to compare with a kube-apiserver that has none either.

``python alone.py DATA_DIR [SIZE_LIMIT [PATIENCE]]`` prints ``ready <url> <admin token>`` and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import yaml

from fleetplane.apiserver.assembly import ServerSettings, assemble
from fleetplane.apiserver.frontend import Frontend
from fleetplane.apiserver.patience import Patience
from fleetplane.apiserver.pki import ensure_pki, server_context, write_admin_kubeconfig
from fleetplane.bootstrap import bootstrap
from fleetplane.client.protocol import Capabilities
from fleetplane.client.rest import RestClient
from fleetplane.model.environment import SystemEnvironment
from fleetplane.plane import BOOTSTRAP_USER, InProcessTransport
from fleetplane.settings import Settings
from fleetplane.store.sqlite import SqliteStore


async def serve(directory: Path, size_limit: int | None, patience: float | None) -> None:
    """``patience`` is how many seconds a slow client has, instead of the usual minute."""
    world = SystemEnvironment()
    store = await SqliteStore.open(directory / "fleetplane.db", environment=world, size_limit=size_limit)
    pki = ensure_pki(directory / "pki", world)
    server = assemble(store, pki, world, ServerSettings(service_cidrs="10.0.0.0/24"))
    async with server.running():
        frontend = (
            Frontend(server.handle)
            if patience is None
            else Frontend(server.handle, Patience(patience, patience, patience))
        )
        port = await frontend.listen("127.0.0.1", 0, server_context(pki))
        url = f"https://127.0.0.1:{port}"
        transport = InProcessTransport(server, BOOTSTRAP_USER)
        await bootstrap(RestClient(transport, capabilities=Capabilities()), Settings(service_cidrs="10.0.0.0/24"), port)
        kubeconfig = directory / "admin.kubeconfig"
        write_admin_kubeconfig(kubeconfig, url, pki)
        token = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]["token"]
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        sys.stdout.write(f"ready {url} {token}\n")
        sys.stdout.flush()
        await stopped.wait()
        await frontend.close()
    await store.close()


if __name__ == "__main__":
    given = [float(one) or None for one in sys.argv[2:]] + [None, None]
    asyncio.run(serve(Path(sys.argv[1]), int(given[0]) if given[0] else None, given[1]))
