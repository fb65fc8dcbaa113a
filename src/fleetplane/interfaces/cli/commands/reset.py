"""``reset``: this machine as it was before."""

from __future__ import annotations

from pathlib import Path

import click

from fleetplane.interfaces.cli.command import plain_command
from fleetplane.interfaces.cli.errors import CommandError


@plain_command(examples=("fleetplane reset", "fleetplane reset --data-dir /var/lib/fleetplane-node --yes"))
@click.option(
    "--data-dir",
    envvar="FLEETPLANE_DATA_DIR",
    type=click.Path(path_type=Path),
    default=Path(".fleetplane"),
    show_default=True,
    help="Where the plane or the node keeps everything.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(data_dir: Path, yes: bool) -> None:
    """Remove a plane or a node from this machine: containers, networks, all its data.

    It must have been stopped. What cannot be brought back is listed first. Data in PostgreSQL is not touched.
    """
    import asyncio
    import sys

    from fleetplane.interfaces.cli.resetting import find_remains, remove
    from fleetplane.model.environment import SystemEnvironment

    remains = find_remains(data_dir)
    for name in remains.nodes:
        click.echo(f"containers, network and volumes of the node {name}")
    for path in remains.paths:
        click.echo(path)
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError("this removes what is listed above for good; say --yes to do it")
        click.confirm("Remove all of this for good?", abort=True)
    left = asyncio.run(remove(remains, SystemEnvironment()))
    click.echo(f"removed; left in {data_dir}: {', '.join(left)}" if left else "removed")
