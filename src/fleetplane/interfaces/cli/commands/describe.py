"""``fleetplane describe``: everything about an object that a person wants to know at once."""

from __future__ import annotations

import click

from fleetplane.interfaces.cli.command import (
    all_namespaces_option,
    client_command,
    files_options,
    output_option,
    selector_option,
    targets_argument,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import UsageError
from fleetplane.interfaces.cli.output import parse_format, print_document, without_noise
from fleetplane.interfaces.cli.resources import parse_targets, scope, selected
from fleetplane.model.objects import Object

_WORKLOADS = frozenset(
    {
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("batch", "Job"),
        ("batch", "CronJob"),
        ("", "ReplicationController"),
    }
)


@client_command(
    examples=(
        "fleetplane describe pod web",
        "fleetplane describe deploy/web",
        "fleetplane describe nodes",
        "fleetplane describe pods -l app=web",
        "fleetplane describe deploy/web -o json",
    )
)
@targets_argument()
@selector_option()
@all_namespaces_option()
@files_options("Describe the objects that these files name.")
@click.option("--show-events", type=bool, default=True, show_default=True, help="Also what happened to it.")
@output_option(formats="text, json or yaml")
async def describe(
    session: Session,
    what: tuple[str, ...],
    selector: str,
    all_namespaces: bool,
    filenames: tuple[str, ...],
    recursive: bool,
    show_events: bool,
    output: str,
) -> None:
    """Show everything about an object: fields, conditions, events.

    Values of Secrets are not shown.
    """
    from fleetplane.interfaces.cli.happenings import events_of

    chosen = parse_format(output)
    if chosen.kind not in {"", "json", "yaml"}:
        raise UsageError("--output must be text, json or yaml here")
    if filenames:
        from fleetplane.interfaces.cli.manifests import targets_of_files

        targets = await targets_of_files(session, filenames, recursive)
    else:
        targets = await parse_targets(session, what)
    count = 0
    documents = []
    async for _, obj in selected(session, targets, scope(session, all_namespaces), labels=selector):
        events = await events_of(session, obj) if show_events else []
        if not chosen.is_text:
            documents.append(
                {"object": _without_secrets(without_noise(obj)), "events": [without_noise(one) for one in events]}
            )
            continue
        if count:
            session.out.line()
            session.out.line()
        count += 1
        await _print(session, obj, events, show_events)
    if not chosen.is_text:
        single = len(targets) == 1 and bool(targets[0].name) and len(documents) == 1
        print_document(session.out, chosen, documents[0] if single else documents)
    elif not count and not session.failures:
        session.out.warn("There is nothing to describe.")


async def _print(session: Session, obj: Object, events: list[Object], show_events: bool) -> None:
    from fleetplane.interfaces.cli.describing import generic
    from fleetplane.interfaces.cli.describing.sheet import Sheet

    sheet = Sheet()
    generic.head(session, sheet, obj)
    generic.state(sheet, obj)
    kind = (str(obj.get("apiVersion")).rpartition("/")[0], str(obj.get("kind")))
    if kind == ("", "Pod"):
        from fleetplane.interfaces.cli.describing import pods

        pods.describe(session, sheet, obj)
    elif kind == ("", "Node"):
        from fleetplane.interfaces.cli.describing import nodes

        await nodes.describe(session, sheet, obj)
    elif kind in _WORKLOADS:
        from fleetplane.interfaces.cli.describing import workloads

        await workloads.describe(session, sheet, obj)
    else:
        generic.body(sheet, obj)
    generic.conditions(session, sheet, obj)
    if show_events:
        generic.events(session, sheet, events)
    sheet.print(session.out)


def _without_secrets(obj: Object) -> Object:
    if obj.get("kind") != "Secret" or obj.get("apiVersion") != "v1":
        return obj
    return {**obj, "data": dict.fromkeys(obj.get("data") or {}, "")}
