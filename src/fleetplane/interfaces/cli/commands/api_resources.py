"""``fleetplane api-resources``: which kinds of objects the server has."""

from __future__ import annotations

import click

from fleetplane.interfaces.cli.command import client_command
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import UsageError
from fleetplane.interfaces.cli.output import parse_format, print_document


@client_command(
    examples=(
        "fleetplane api-resources",
        "fleetplane api-resources --api-group apps",
        "fleetplane api-resources --namespaced=false -o name",
    )
)
@click.option("--api-group", default=None, help="Only this group; '' is the core group.")
@click.option("--namespaced", type=bool, default=None, help="Only kinds that live in namespaces, or only the others.")
@click.option("--verbs", default="", help="Only kinds that can do all of this: list,watch.")
@click.option("-o", "--output", default="", metavar="FORMAT", help="How to print: wide, name, json or yaml.")
async def api_resources(
    session: Session, api_group: str | None, namespaced: bool | None, verbs: str, output: str
) -> None:
    """List the kinds of objects the server has."""
    from fleetplane.interfaces.cli.tables import print_rows

    chosen = parse_format(output)
    if chosen.render is not None:
        raise UsageError("--output must be wide, name, json or yaml here")
    wanted = {verb for verb in verbs.split(",") if verb}
    found = [
        one
        for one in (await session.discovery.catalogue()).preferred()
        if (api_group is None or one.type.group == api_group)
        and (namespaced is None or one.type.namespaced == namespaced)
        and wanted <= one.verbs
    ]
    if chosen.kind == "name":
        for one in found:
            session.out.line(one.type.qualified)
    elif not chosen.is_text:
        shown = [
            {
                "name": one.type.plural,
                "kind": one.type.kind,
                "apiVersion": one.type.api_version,
                "namespaced": one.type.namespaced,
                "shortNames": list(one.type.short_names),
                "categories": list(one.type.categories),
                "verbs": sorted(one.verbs),
            }
            for one in found
        ]
        print_document(session.out, chosen, shown)
    else:
        wide = chosen.kind == "wide"
        heading = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", *(["VERBS", "CATEGORIES"] if wide else [])]
        rows = []
        for one in found:
            row = [
                one.type.plural,
                ",".join(one.type.short_names),
                one.type.api_version,
                "true" if one.type.namespaced else "false",
                one.type.kind,
            ]
            rows.append([*row, ",".join(sorted(one.verbs)), ",".join(one.type.categories)] if wide else row)
        print_rows(session.out, [heading, *rows])
