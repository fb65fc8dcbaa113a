"""``fleetplane scale``: how many replicas of anything that has a scale."""

from __future__ import annotations

import click

from fleetplane.interfaces.cli.command import (
    client_command,
    files_options,
    output_option,
    selector_option,
    targets_argument,
    timeout_option,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.output import parse_format
from fleetplane.interfaces.cli.resources import named, parse_targets, reference, scope, selected
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name, namespace
from fleetplane.model.resources import ResourceType


@client_command(
    examples=(
        "fleetplane scale deploy/web --replicas 3",
        "fleetplane scale deploy/web sts/db --replicas 0",
        "fleetplane scale deploy -l app=web --replicas 2 --wait",
        "fleetplane scale deploy/web --current-replicas 2 --replicas 3",
    )
)
@targets_argument()
@click.option("--replicas", type=click.IntRange(min=0), required=True, help="How many there should be.")
@click.option("--current-replicas", type=click.IntRange(min=0), default=None, help="Only if there are so many now.")
@selector_option()
@click.option("--all", "select_all", is_flag=True, help="Every object of the kind.")
@files_options("Scale the objects that these files name.")
@click.option("--wait", is_flag=True, help="Then wait until they are there.")
@timeout_option("5m")
@output_option()
async def scale(
    session: Session,
    what: tuple[str, ...],
    replicas: int,
    current_replicas: int | None,
    selector: str,
    select_all: bool,
    filenames: tuple[str, ...],
    recursive: bool,
    wait: bool,
    timeout: str,
    output: str,
) -> None:
    """Set how many replicas of an object there should be."""
    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.interfaces.cli.reporting import Report

    chosen = parse_format(output)
    limit = seconds(timeout)
    if filenames:
        from fleetplane.interfaces.cli.manifests import targets_of_files

        targets = await targets_of_files(session, filenames, recursive)
    else:
        targets = await parse_targets(session, what)
        named(targets, selector, select_all, "scale")
    report = Report(session, chosen)
    scaled: list[tuple[ResourceType, Object]] = []
    async for resource, obj in selected(session, targets, scope(session), labels=selector):
        try:
            await _scale(session, resource, obj, replicas, current_replicas)
        except ApiError as error:
            session.fail(error)
            continue
        now = await session.client.get(resource, name(obj), namespace(obj) or None)
        scaled.append((resource, now))
        report.add(resource, now, f"scaled to {replicas}")
    report.finish(single=len(targets) == 1)
    if wait and scaled:
        from fleetplane.interfaces.cli.commands.wait import until_ready
        from fleetplane.interfaces.cli.waiting import Waited

        await until_ready(session, [Waited.of(resource, obj) for resource, obj in scaled], limit)


async def _scale(session: Session, resource: ResourceType, obj: Object, replicas: int, expected: int | None) -> None:
    who = reference(resource, name(obj))
    where = namespace(obj) or None
    try:
        found = await session.client.get_subresource(resource, name(obj), "scale", where)
    except ApiError as error:
        if error.code == 404:
            raise CommandError(f"{who} cannot be scaled: its kind has no replicas") from None
        raise
    current = int((found.get("spec") or {}).get("replicas") or 0)
    if expected is not None and current != expected:
        raise CommandError(f"{who} has {current} replicas, not {expected}; it was left as it is")
    patch: Object = {"spec": {"replicas": replicas}}
    if expected is not None:
        patch["metadata"] = {"resourceVersion": (found.get("metadata") or {}).get("resourceVersion")}
    await session.client.patch(resource, name(obj), patch, where, subresource="scale", field_manager="fleetplane-scale")
