"""``fleetplane explain``: what a kind's fields mean, from the server's own OpenAPI v3 documents."""

from __future__ import annotations

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.command import client_command
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.output import parse_format, print_document


@client_command(
    examples=(
        "fleetplane explain pods",
        "fleetplane explain deploy.spec.strategy",
        "fleetplane explain pod.spec.containers --recursive",
        "fleetplane explain cronjobs --api-version batch/v1",
    )
)
@click.argument("field", metavar="KIND[.FIELD]...", shell_complete=completion.kinds)
@click.option("--recursive", is_flag=True, help="Also the fields below each field, without descriptions.")
@click.option("--api-version", default="", help="Of this version: apps/v1.")
@click.option("-o", "--output", default="", metavar="FORMAT", help="How to print: json or yaml, the schema itself.")
async def explain(session: Session, field: str, recursive: bool, api_version: str, output: str) -> None:
    """Tell what a kind and its fields mean."""
    from fleetplane.interfaces.cli.explaining import Document, find_kind, print_explanation

    form = parse_format(output)
    resource, path = await find_kind(session, field, api_version)
    document = await Document.fetch(session, resource)
    found = document.kind(resource)
    if found is None:
        raise CommandError(f"the server publishes no description of {resource.kind} in {resource.api_version}")
    steps = document.walk(found, path)
    if form.is_text:
        print_explanation(session.out, document, resource, path, steps[-1], recursive=recursive)
    else:
        print_document(session.out, form, document.resolved(steps[-1]))
