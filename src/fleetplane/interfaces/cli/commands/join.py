"""``token`` and ``node``: other machines as nodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetplane.interfaces.cli.command import client_command, plain_command
from fleetplane.interfaces.cli.errors import CommandError, ExitWith

if TYPE_CHECKING:
    from fleetplane.interfaces.cli.connection import Session


@client_command(examples=("fleetplane token", "fleetplane token --ttl 1h --output json"))
@click.option("--ttl", default="24h", show_default=True, help="How long machines may join with it.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format.")
async def token(session: Session, ttl: str, output: str) -> None:
    """Make a token with which another machine can join.

    The token is a secret: whoever has it can become a node until it expires.
    """
    import json
    from datetime import timedelta

    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.interfaces.cli.joining import create_token

    made = await create_token(session.client, timedelta(seconds=seconds(ttl, "--ttl") or 86400), session.environment)
    server = session.access.server
    if output == "json":
        click.echo(json.dumps({"token": made, "server": server}))
        return
    click.echo(made)
    click.echo(f"join with: FLEETPLANE_TOKEN={made} fleetplane node --server {server} --ca-file ca.crt", err=True)


@plain_command(
    examples=(
        "fleetplane node check",
        "FLEETPLANE_TOKEN=abcdef.0123456789abcdef fleetplane node --server https://10.0.0.1:6443 --ca-file ca.crt",
    )
)
@click.argument("action", required=False, type=click.Choice(["check"]))
@click.option("--server", envvar="FLEETPLANE_SERVER", help="Address of the plane, the first time.")
@click.option("--token", envvar="FLEETPLANE_TOKEN", help="Token to join with, better given as FLEETPLANE_TOKEN.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Certificate of the plane's authority (pki/ca.crt).")
@click.option("--name", help="Name of the node; the machine's by default.")
@click.option(
    "--runtime",
    envvar="FLEETPLANE_RUNTIME",
    type=click.Choice(["podman", "cri"]),
    default="podman",
    show_default=True,
    help="What runs pods.",
)
@click.option("--cri-socket", envvar="FLEETPLANE_CRI_SOCKET", default="", help="Where containerd listens.")
@click.option("--pod-cidrs", envvar="FLEETPLANE_POD_CIDRS", default="", help="Networks its pods have addresses of.")
@click.option(
    "--reserve", envvar="FLEETPLANE_RESERVE", default="", help="What is kept from pods, as in cpu=500m,memory=1Gi."
)
@click.option(
    "--data-dir",
    envvar="FLEETPLANE_DATA_DIR",
    type=click.Path(path_type=Path),
    default=Path(".fleetplane-node"),
    show_default=True,
    help="Where the node keeps everything.",
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Format of check."
)
def node(
    action: str | None,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
    name: str | None,
    runtime: str,
    cri_socket: str,
    pod_cidrs: str,
    reserve: str,
    data_dir: Path,
    output: str,
) -> None:
    """Run this machine as a node of a plane elsewhere, or check what works on it.

    The first run joins with a token and keeps the node's identity in its data directory; later runs need no options.
    """
    import asyncio

    if action == "check":
        _check(data_dir, output, cri_socket)
        return
    from fleetplane.interfaces.cli.joining import Arrangement, run_joined_node
    from fleetplane.interfaces.cli.logs import configure_logging
    from fleetplane.model.errors import ApiError
    from fleetplane.node.local import POD_NETWORKS
    from fleetplane.node.runtime import RuntimeFailure

    configure_logging("warning")
    try:
        ca = ca_file.read_bytes() if ca_file is not None else None
    except OSError as error:
        raise CommandError(f"cannot read {ca_file}: {error.strerror}") from None

    def say(text: str) -> None:
        click.echo(text, err=True)

    try:
        arrangement = Arrangement(
            cri_socket=cri_socket if runtime == "cri" else None,
            pod_networks=[one.strip() for one in pod_cidrs.split(",")] if pod_cidrs else POD_NETWORKS,
            reserved=_quantities(reserve),
        )
        asyncio.run(run_joined_node(data_dir, server or "", token or "", ca, name or "", say, arrangement))
    except* (ApiError, RuntimeFailure) as group:
        raise CommandError(f"this machine cannot be a node now: {group.exceptions[0]}") from None


def _quantities(text: str) -> dict[str, str]:
    from fleetplane.model.quantity import Quantity

    found: dict[str, str] = {}
    for one in filter(None, text.split(",")):
        name, _, amount = one.strip().partition("=")
        try:
            Quantity.parse(amount)
        except ValueError:
            raise CommandError(f"--reserve takes pairs such as cpu=500m,memory=1Gi; {one!r} is none") from None
        found[name] = amount
    return found


def _check(data_dir: Path, output: str, cri_socket: str) -> None:
    import asyncio
    import json
    from dataclasses import asdict

    from fleetplane.model.environment import SystemEnvironment
    from fleetplane.node.check import as_text, check_node

    findings = asyncio.run(check_node(data_dir, SystemEnvironment(), cri_socket=cri_socket))
    if output == "json":
        click.echo(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        click.echo(as_text(findings))
    if any(one.verdict == "missing" for one in findings):
        raise ExitWith(1)
