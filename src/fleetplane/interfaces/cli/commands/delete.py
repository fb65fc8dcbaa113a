"""``fleetplane delete``: by name, selector or file; waits until the objects are really gone unless told not to."""

from __future__ import annotations

import click

from fleetplane.interfaces.cli.command import (
    all_namespaces_option,
    client_command,
    field_selector_option,
    files_options,
    output_option,
    selector_option,
    targets_argument,
    timeout_option,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import UsageError
from fleetplane.interfaces.cli.output import parse_format
from fleetplane.interfaces.cli.resources import named, parse_targets, scope, selected
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name, namespace, uid
from fleetplane.model.resources import ResourceType

_PROPAGATIONS = {
    "background": "Background",
    "foreground": "Foreground",
    "orphan": "Orphan",
    "true": "Background",
    "false": "Orphan",
}


@client_command(
    examples=(
        "fleetplane delete pod web",
        "fleetplane delete deploy/web svc/web",
        "fleetplane delete -f app.yaml",
        "fleetplane delete pods -l app=web --wait=false",
        "fleetplane delete pod web --now",
        "fleetplane delete deploy web --cascade=orphan",
    )
)
@targets_argument()
@output_option()
@selector_option()
@field_selector_option()
@click.option("--all", "select_all", is_flag=True, help="Every object of the kind in the namespace.")
@all_namespaces_option()
@files_options("Delete the objects that these files name.")
@click.option("--wait", type=bool, default=True, show_default=True, help="Wait until they are gone.")
@timeout_option("0")
@click.option(
    "--grace-period", type=click.IntRange(min=-1), default=-1, help="Seconds that pods get to stop [default: theirs]."
)
@click.option("--now", is_flag=True, help="Give pods one second to stop.")
@click.option("--force", is_flag=True, help="With --grace-period 0: do not wait for the node to confirm.")
@click.option(
    "--cascade",
    type=click.Choice(list(_PROPAGATIONS)),
    default="background",
    show_default=True,
    help="What happens to what they own: deleted after them, before them, or left alone.",
)
@click.option("--ignore-not-found", is_flag=True, help="An object that is not there is no error.")
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    is_flag=False,
    flag_value="server",
    default="none",
    help="Delete nothing, only say what would be deleted.",
)
async def delete(
    session: Session,
    what: tuple[str, ...],
    output: str,
    selector: str,
    field_selector: str,
    select_all: bool,
    all_namespaces: bool,
    filenames: tuple[str, ...],
    recursive: bool,
    wait: bool,
    timeout: str,
    grace_period: int,
    now: bool,
    force: bool,
    cascade: str,
    ignore_not_found: bool,
    dry_run: str,
) -> None:
    """Delete objects by name, selector or file."""
    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.interfaces.cli.reporting import Report

    chosen = parse_format(output)
    limit = seconds(timeout)
    grace = 1 if now else grace_period if grace_period >= 0 else None
    if force:
        grace = 0 if grace is None else grace
    elif grace == 0:
        raise UsageError("--grace-period 0 needs --force: the containers may go on running on their node")
    if filenames:
        from fleetplane.interfaces.cli.manifests import targets_of_files
        from fleetplane.interfaces.cli.ordering import rank

        targets = await targets_of_files(session, filenames, recursive)
        targets.sort(key=lambda target: rank(target.resource.kind), reverse=True)
    else:
        targets = await parse_targets(session, what)
        named(targets, selector or field_selector, select_all, "delete")
    where = scope(session, all_namespaces)
    suffix = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
    report = Report(session, chosen, suffix)
    deleted: list[tuple[ResourceType, Object]] = []
    found = selected(session, targets, where, labels=selector, fields=field_selector, missing_ok=ignore_not_found)
    async for resource, obj in found:
        try:
            if dry_run != "client":
                await session.client.delete(
                    resource,
                    name(obj),
                    namespace(obj) or None,
                    propagation=_PROPAGATIONS[cascade],  # type: ignore[arg-type]
                    grace_period_seconds=grace,
                    uid=uid(obj),
                    dry_run=dry_run == "server",
                )
        except ApiError as error:
            if error.code not in {403, 404, 409, 422, 429}:
                raise
            if error.code != 404:
                session.fail(error)
            continue
        report.add(resource, obj, "deleted")
        deleted.append((resource, obj))
    report.finish(single=len(targets) == 1 and bool(targets[0].name))
    if not deleted and not session.failures and chosen.is_text:
        session.out.warn("There is nothing to delete.")
    if wait and dry_run == "none" and grace != 0 and deleted:
        from fleetplane.interfaces.cli.commands.wait import parse_goal
        from fleetplane.interfaces.cli.waiting import Waited, wait_for

        goal, aim = parse_goal("delete")
        waited = [Waited(resource, name(obj), namespace(obj) or None, uid(obj)) for resource, obj in deleted]
        await wait_for(session, waited, goal, limit, aim)
