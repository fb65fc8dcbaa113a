"""``fleetplane events``: what happened, oldest first, so that the newest stands above the prompt."""

from __future__ import annotations

from contextlib import aclosing

import click

from fleetplane.interfaces.cli.command import (
    all_namespaces_option,
    client_command,
    output_option,
    selector_option,
    targets_argument,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.output import columns, parse_format, print_objects
from fleetplane.interfaces.cli.resources import one_target, scope
from fleetplane.model.objects import Object, namespace


@client_command(
    examples=(
        "fleetplane events",
        "fleetplane events deploy/web",
        "fleetplane events -A --types Warning",
        "fleetplane events -w",
    )
)
@targets_argument()
@click.option("-w", "--watch", is_flag=True, help="Then show every new one until Ctrl-C.")
@click.option("--types", default="", help="Only these types: Normal,Warning.")
@click.option("--for", "for_object", default="", hidden=True)
@all_namespaces_option()
@selector_option()
@output_option()
async def events(
    session: Session,
    what: tuple[str, ...],
    watch: bool,
    types: str,
    for_object: str,
    all_namespaces: bool,
    selector: str,
    output: str,
) -> None:
    """Show what happened, oldest first.

    With KIND/NAME only what happened to this object.
    """
    from fleetplane.interfaces.cli.happenings import EVENTS, HEADING, colour, in_order, row
    from fleetplane.interfaces.cli.watching import changes

    chosen = parse_format(output)
    where = scope(session, all_namespaces).namespace
    words = what or ((for_object,) if for_object else ())
    fields = ""
    if words:
        target = await one_target(session, words)
        fields = f"involvedObject.kind={target.resource.kind},involvedObject.name={target.name}"
        if not target.resource.namespaced:
            where = None
    wanted = {one.strip().lower() for one in types.split(",") if one.strip()}
    pending: list[Object] = []
    widths = [len(title) for title in HEADING]

    def is_wanted(event: Object) -> bool:
        return not wanted or str(event.get("type")).lower() in wanted

    def show(found: list[Object], heading: bool) -> None:
        lines = [row(event, session.environment.now()) for event in found]
        titles = ["NAMESPACE", *HEADING] if where is None else list(HEADING)
        if where is None:
            lines = [[namespace(event), *line] for event, line in zip(found, lines, strict=True)]
        widths.extend([0] * (len(titles) - len(widths)))
        for line in lines:
            widths[:] = [max(width, len(cell)) for width, cell in zip(widths, line, strict=True)]
        pads = [" " * width for width in widths]
        texts = columns([pads, titles, *lines])[1:]
        if heading:
            session.out.line(session.out.style(texts[0], "bold"))
        for event, text in zip(found, texts[1:], strict=True):
            session.out.line(colour(session.out, text, event))
        session.out.flush()

    synced = False
    async with aclosing(changes(session.client, EVENTS, where, labels=selector, fields=fields)) as stream:
        async for event in stream:
            if event.type == "BOOKMARK" and not synced:
                synced = True
                found = in_order(pending)
                if not chosen.is_text:
                    print_objects(session.out, chosen, [(EVENTS, one) for one in found], single=False)
                elif found or watch:
                    show(found, heading=True)
                else:
                    session.out.warn("Nothing has happened here lately.")
                if not watch:
                    return
            elif event.type in {"ADDED", "MODIFIED"} and is_wanted(event.object):
                if not synced:
                    pending.append(event.object)
                elif chosen.is_text:
                    show([event.object], heading=False)
                else:
                    print_objects(session.out, chosen, [(EVENTS, event.object)], single=True)
                    session.out.flush()
