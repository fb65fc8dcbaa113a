"""``fleetplane apply``: make the server's objects what files say, by server-side apply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fleetplane.interfaces.cli.command import (
    client_command,
    files_options,
    output_option,
    selector_option,
    timeout_option,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError, UsageError
from fleetplane.interfaces.cli.output import parse_format

if TYPE_CHECKING:
    from fleetplane.interfaces.cli.manifests import Manifest


@client_command(
    examples=(
        "fleetplane apply -f deployment.yaml",
        "fleetplane apply -f manifests/ -R",
        "fleetplane apply -f https://example.org/app.yaml -n staging",
        "cat app.yaml | fleetplane apply -f -",
        "fleetplane apply -f app.yaml --diff --dry-run=server",
        "fleetplane apply -f app/ --prune -l app=web",
        "fleetplane apply -f app.yaml --wait --timeout 2m",
    )
)
@files_options("File, folder, address or - for standard input; may be repeated.")
@output_option()
@click.option("--force-conflicts", is_flag=True, help="Take over fields that others own.")
@click.option(
    "--field-manager", default="fleetplane-cli", show_default=True, help="Whom the server notes as the fields' owner."
)
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    is_flag=False,
    flag_value="server",
    default="none",
    help="Change nothing: 'client' looks what is there, 'server' lets the server check everything.",
)
@click.option("--diff", is_flag=True, help="Show what changes in each object.")
@click.option(
    "--prune", is_flag=True, help="Delete what was applied earlier with the labels of -l and is no longer there."
)
@selector_option()
@click.option("--wait", is_flag=True, help="Then wait until everything is ready.")
@timeout_option("5m")
@click.option(
    "--validate",
    type=click.Choice(["strict", "warn", "ignore"]),
    default="strict",
    help="What to do about unknown fields.",
)
@click.option("--server-side", is_flag=True, hidden=True)
async def apply(
    session: Session,
    filenames: tuple[str, ...],
    recursive: bool,
    output: str,
    force_conflicts: bool,
    field_manager: str,
    dry_run: str,
    diff: bool,
    prune: bool,
    selector: str,
    wait: bool,
    timeout: str,
    validate: str,
    server_side: bool,
) -> None:
    """Make the server's objects what files say.

    Objects go in an order in which they can exist: namespaces and definitions first, definitions served before their objects.
    """
    from fleetplane.interfaces.cli.applying import Options, apply_all
    from fleetplane.interfaces.cli.applying import prune as prune_all
    from fleetplane.interfaces.cli.manifests import read_all
    from fleetplane.interfaces.cli.progress import progress
    from fleetplane.interfaces.cli.reporting import Report

    if not filenames:
        raise UsageError("say what to apply with -f FILE, -f FOLDER, -f ADDRESS or -f - for standard input")
    if prune and not selector:
        raise UsageError("--prune needs -l with the labels that all objects of this set carry")
    chosen = parse_format(output)
    manifests = read_all(filenames, recursive)
    if selector:
        manifests = _matching(manifests, selector)
    options = Options(force_conflicts, field_manager, dry_run, diff, validate.capitalize())  # type: ignore[arg-type]
    suffix = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
    report = Report(session, chosen, suffix)
    async with progress(session.out, "applying") as shown:
        applied = await apply_all(session, manifests, options, report, shown)
        if prune and not session.failures:
            shown.say("looking for what to prune")
            await prune_all(session, applied, selector, options, report)
        elif prune:
            session.out.warn("fleetplane: nothing was pruned, because not everything could be applied")
    report.finish(single=len(manifests) == 1)
    if wait and dry_run == "none" and not session.failures:
        from fleetplane.interfaces.cli.commands.wait import until_ready
        from fleetplane.interfaces.cli.durations import seconds
        from fleetplane.interfaces.cli.waiting import Waited

        waited = [Waited.of(one.resource, one.after or {}) for one in applied]
        await until_ready(session, waited, seconds(timeout))


def _matching(manifests: Sequence[Manifest], selector: str) -> list[Manifest]:
    from fleetplane.model.objects import labels
    from fleetplane.model.selectors import LabelSelector

    try:
        parsed = LabelSelector.parse(selector)
    except ValueError as error:
        raise UsageError(f"-l cannot be read: {error}") from None
    found = [one for one in manifests if parsed.matches(labels(one.object))]
    if not found:
        raise CommandError(f"no object in the files has the labels {selector}")
    return found
