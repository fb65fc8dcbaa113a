"""``doctor``: what works here and what must be mended."""

from __future__ import annotations

from pathlib import Path

import click

from fleetplane.interfaces.cli.command import plain_command
from fleetplane.interfaces.cli.errors import CommandError, ExitWith


@plain_command(examples=("fleetplane doctor", "fleetplane doctor --data-dir ./plane --output json"))
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the plane [default: .fleetplane].")
@click.option("--host", help="Address a plane would serve on [default: 127.0.0.1].")
@click.option("--port", type=int, help="Port a plane would serve on [default: 6443].")
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path), envvar="FLEETPLANE_KUBECONFIG", help="Kubeconfig to check."
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
)
def doctor(data_dir: Path | None, host: str | None, port: int | None, kubeconfig: Path | None, output: str) -> None:
    """Check this machine, this installation and the plane here.

    Says in plain words what works, what is limited and what must be mended, and how. Changes nothing. Exits 1 when something
    must be mended.
    """
    import asyncio
    import os

    from fleetplane.interfaces.cli.command import Connection
    from fleetplane.interfaces.cli.doctor.examine import examine, report
    from fleetplane.model.environment import SystemEnvironment
    from fleetplane.settings import SettingsError, load_settings

    try:
        settings = load_settings({"data_dir": data_dir, "host": host, "port": port}, os.environ)
    except SettingsError as error:
        raise CommandError(str(error)) from None
    findings = asyncio.run(examine(settings, Connection(kubeconfig=kubeconfig), SystemEnvironment()))
    click.echo(report(findings, output))
    if any(one.verdict == "missing" for one in findings):
        raise ExitWith(1)
