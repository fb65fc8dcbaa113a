"""``fleetplane ip-manager``: the REST service that operators of 2023 ask for addresses."""

from __future__ import annotations

import click

from fleetplane.interfaces.cli.command import client_command
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError, UsageError

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@client_command(
    name="ip-manager",
    examples=(
        "fleetplane ip-manager --pool vnodes",
        "fleetplane ip-manager --pool vnodes -n vk8s-system --listen 0.0.0.0:5002 --trust-network",
    ),
)
@click.option("--pool", required=True, help="The IPPool that addresses come from.")
@click.option("--listen", default="127.0.0.1:5002", show_default=True, help="Address and port.")
@click.option(
    "--trust-network", is_flag=True, help="Listen on others than loopback: everybody there may take addresses."
)
@click.option("--reserve", default="5m", show_default=True, help="How long a reservation lasts that no pod uses.")
@click.option("--hold", default="24h", show_default=True, help="How long an address is kept after its pod has gone.")
async def ip_manager(session: Session, pool: str, listen: str, trust_network: bool, reserve: str, hold: str) -> None:
    """Serve the IP manager's old REST calls on an address pool.

    The calls are /api/ip, /api/free-ip and /api/free-ips. As ever, they ask nobody for credentials.
    """
    import asyncio

    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.interfaces.ipmanager import IpManager, serve

    host, colon, port = listen.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdigit():
        raise UsageError(f"--listen {listen!r} is not address:port, such as 127.0.0.1:5002")
    if host not in _LOOPBACK and not trust_network:
        raise UsageError(f"whoever reaches {host} could take addresses; say --trust-network if that is meant")
    manager = IpManager(
        session.client,
        pool,
        session.namespace,
        ttl=int(seconds(reserve, "--reserve") or 300),
        hold=int(seconds(hold, "--hold") or 86400),
    )
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    ready.add_done_callback(lambda done: session.out.line(f"ready http://{host}:{done.result()}/api"))
    ready.add_done_callback(lambda _: session.out.flush())
    try:
        await serve(manager, host, int(port), ready)
    except OSError as error:
        raise CommandError(f"cannot listen on {listen}: {error.strerror or error}") from None
