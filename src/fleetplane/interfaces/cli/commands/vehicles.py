"""``fleetplane vehicles``: vehicle applications without a plane."""

from __future__ import annotations

from pathlib import Path

import click

from fleetplane.interfaces.cli.command import Group, files_options, plain_command
from fleetplane.interfaces.cli.errors import CommandError, UsageError


@plain_command(
    group="vehicles",
    examples=(
        "fleetplane vehicles render -f camera.yaml | kubectl apply -f -",
        "fleetplane vehicles render -f app/ --format podman | podman kube play -",
        "fleetplane vehicles render -f app/ --format quadlet --into /etc/containers/systemd",
    ),
)
@files_options("Manifests of the applications and of all they name: files, folders, addresses, - for standard input.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["kubernetes", "podman", "quadlet"]),
    default="kubernetes",
    show_default=True,
    help="For a Kubernetes without the operator, for podman kube play, or units of systemd.",
)
@click.option("--into", type=click.Path(path_type=Path), help="Write files into this folder instead of printing.")
def render(filenames: tuple[str, ...], recursive: bool, form: str, into: Path | None) -> None:
    """Print as plain manifests what vehicle manifests make run.

    Nothing is asked of a server: whatever the applications name (DevRes, VehContainerConfig, AppType) must be among the
    files. What the target cannot do is told on stderr.
    """
    from fleetplane.interfaces.cli.manifests import read_all
    from fleetplane.operators.vehicles.render import RenderError
    from fleetplane.operators.vehicles.render import render as rendered

    if not filenames:
        raise UsageError("say what to render: -f FILE or -f FOLDER")
    if form == "quadlet" and into is None:
        raise UsageError("units are files: say where they go with --into FOLDER")
    try:
        files, notes = rendered([one.object for one in read_all(filenames, recursive)], form)
    except RenderError as error:
        raise CommandError(str(error)) from None
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if into is None:
        click.echo("---\n".join(files.values()), nl=False)
        return
    try:
        into.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (into / name).write_text(text)
    except OSError as error:
        raise CommandError(f"cannot write {error.filename or into}: {error.strerror}") from None
    for name in files:
        click.echo(str(into / name))


vehicles = Group("vehicles", "Render and package vehicle applications.", [render])
