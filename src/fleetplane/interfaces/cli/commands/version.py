"""``fleetplane version``: the first thing people type, so it must be instant."""

from __future__ import annotations

import click

from fleetplane import __version__
from fleetplane.interfaces.cli.command import plain_command


@plain_command(examples=("fleetplane version", "fleetplane version --output json"))
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print.")
def version(output: str) -> None:
    """Print the version."""
    if output == "json":
        import json

        click.echo(json.dumps({"version": __version__}))
    else:
        click.echo(f"fleetplane {__version__}")
