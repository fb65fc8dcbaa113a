"""``fleetplane get``: objects as the server's tables, or whole in a format for programs; with ``-w`` their changes, too."""

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
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import UsageError
from fleetplane.interfaces.cli.output import LIST_FORMATS, parse_format
from fleetplane.interfaces.cli.resources import parse_targets, scope


@client_command(
    examples=(
        "fleetplane get pods",
        "fleetplane get deploy,po -l app=web -o wide",
        "fleetplane get pod web -o yaml",
        "fleetplane get pods -A -w",
        "fleetplane get pods -A --cluster '*'",
        "fleetplane get nodes --sort-by .metadata.creationTimestamp",
        "fleetplane get pods -o jsonpath='{.items[*].metadata.name}'",
        "fleetplane get pods -o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName",
    )
)
@targets_argument()
@output_option(formats=LIST_FORMATS)
@selector_option()
@field_selector_option()
@all_namespaces_option()
@files_options("Show the objects that these files name.")
@click.option("-w", "--watch", is_flag=True, help="Then show every change until Ctrl-C.")
@click.option("--watch-only", is_flag=True, help="Show changes only.")
@click.option("--sort-by", default="", metavar="PATH", help="Order by a field: .metadata.creationTimestamp.")
@click.option("-L", "--label-columns", multiple=True, metavar="LABEL", help="Also show these labels as columns.")
@click.option("--show-labels", is_flag=True, help="Also show all labels.")
@click.option("--no-headers", is_flag=True, help="Leave out the heading.")
@click.option("--raw", default="", metavar="PATH", help="Print what the server answers to GET of this path.")
@click.option("--ignore-not-found", is_flag=True, help="An object that is not there is no error.")
async def get(
    session: Session,
    what: tuple[str, ...],
    output: str,
    selector: str,
    field_selector: str,
    all_namespaces: bool,
    filenames: tuple[str, ...],
    recursive: bool,
    watch: bool,
    watch_only: bool,
    sort_by: str,
    label_columns: tuple[str, ...],
    show_labels: bool,
    no_headers: bool,
    raw: str,
    ignore_not_found: bool,
) -> None:
    """Show one or many objects.

    Kinds go by any of their names ('pods', 'po', 'deployments.apps'), several with commas; 'all' is a group of them.
    """
    from fleetplane.interfaces.cli.listing import Asked, Layout, print_whole, sort_key, watch_tables, watch_whole
    from fleetplane.interfaces.cli.listing import print_tables as tables

    if raw:
        await _raw(session, raw)
        return
    chosen = parse_format(output)
    if filenames:
        from fleetplane.interfaces.cli.manifests import targets_of_files

        targets = await targets_of_files(session, filenames, recursive)
    else:
        targets = await parse_targets(session, what)
    is_named = any(target.name for target in targets)
    if is_named and all_namespaces:
        raise UsageError("an object cannot be found by name in all namespaces; leave out -A")
    if is_named and (selector or field_selector):
        raise UsageError("give either names or a selector, not both")
    asked = Asked(
        targets, scope(session, all_namespaces), selector, field_selector, sort_key(sort_by), ignore_not_found
    )
    labels = [label for given in label_columns for label in given.split(",") if label]
    layout = Layout(
        wide=chosen.kind == "wide",
        clusters=session.client.cluster is None,
        namespaces=all_namespaces,
        labels=labels,
        show_labels=show_labels,
        headings=not no_headers,
    )
    if watch or watch_only:
        if chosen.is_text:
            await watch_tables(session, asked, layout, initial=not watch_only)
        else:
            await watch_whole(session, asked, chosen, initial=not watch_only)
    elif chosen.is_text:
        await tables(session, asked, layout)
    else:
        await print_whole(session, asked, chosen)


async def _raw(session: Session, path: str) -> None:
    import sys
    from urllib.parse import parse_qsl, urlsplit

    parts = urlsplit(path)
    if not parts.path.startswith("/"):
        raise UsageError("--raw takes a path of the server, such as /healthz or /api/v1/nodes?limit=1")
    session.out.flush()
    async with session.client.raw_stream("GET", parts.path, query=parse_qsl(parts.query)) as chunks:
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
