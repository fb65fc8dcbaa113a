"""``fleetplane label`` and ``fleetplane annotate``: the two maps that everybody may write into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.command import (
    Command,
    all_namespaces_option,
    client_command,
    field_selector_option,
    files_options,
    output_option,
    selector_option,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import UsageError
from fleetplane.interfaces.cli.output import parse_format
from fleetplane.interfaces.cli.resources import named, parse_targets, reference, scope, selected
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata, name, namespace


def _options(function: Any) -> Any:
    for option in (
        click.argument(
            "words", nargs=-1, metavar="KIND [NAME]... KEY=VALUE|KEY-...", shell_complete=completion.targets
        ),
        click.option("--overwrite", is_flag=True, help="Change values that are there already."),
        click.option("--list", "list_only", is_flag=True, help="Show what is there."),
        click.option("--all", "select_all", is_flag=True, help="Every object of the kind."),
        click.option("--dry-run", is_flag=True, help="Change nothing; let the server check it."),
        selector_option(),
        field_selector_option(),
        all_namespaces_option(),
        files_options("Of the objects that these files name."),
        output_option(),
    )[::-1]:
        function = option(function)
    return function


def _made(verb: str, field: str, doc: str, *examples: str) -> Command:
    async def command(session: Session, **given: Any) -> None:
        await _change(session, field, f"{verb}{'led' if verb == 'label' else 'd'}", **given)

    command.__doc__ = doc
    return client_command(examples=examples, name=verb)(_options(command))


async def _change(
    session: Session,
    field: str,
    done: str,
    *,
    words: tuple[str, ...],
    overwrite: bool,
    list_only: bool,
    select_all: bool,
    dry_run: bool,
    selector: str,
    field_selector: str,
    all_namespaces: bool,
    filenames: tuple[str, ...],
    recursive: bool,
    output: str,
) -> None:
    from fleetplane.interfaces.cli.reporting import Report

    chosen = parse_format(output)
    what, changes = split(words)
    if not changes and not list_only:
        raise UsageError(f"say what to change: KEY=VALUE sets, KEY- removes; --list shows the {field}")
    if filenames:
        from fleetplane.interfaces.cli.manifests import targets_of_files

        targets = await targets_of_files(session, filenames, recursive)
    else:
        targets = await parse_targets(session, what)
        if not list_only:
            named(targets, selector or field_selector, select_all, "change")
    report = Report(session, chosen, " (server dry run)" if dry_run else "")
    found = selected(session, targets, scope(session, all_namespaces), labels=selector, fields=field_selector)
    async for resource, obj in found:
        has: Mapping[str, str] = metadata(obj).get(field) or {}
        if list_only:
            session.out.line(f"{reference(resource, name(obj))}")
            for key, value in sorted(has.items()):
                session.out.line(f"  {key}={value}")
            continue
        held = [key for key, value in changes.items() if value is not None and has.get(key, value) != value]
        if held and not overwrite:
            shown = ", ".join(f"{key}={has[key]}" for key in held)
            session.fail(f"{reference(resource, name(obj))} has {shown} already; change it with --overwrite")
            continue
        if all(has.get(key) == value for key, value in changes.items()):
            report.add(resource, obj, "unchanged")
            continue
        patch = {"metadata": {field: changes}}
        try:
            changed = await session.client.patch(
                resource,
                name(obj),
                patch,
                namespace(obj) or None,
                dry_run=dry_run,
                field_manager=f"fleetplane-{field[:-1]}",
            )
        except ApiError as error:
            session.fail(error)
            continue
        report.add(resource, changed, done)
    report.finish(single=len(targets) == 1)


def split(words: Sequence[str]) -> tuple[list[str], Object]:
    """(which objects, what to change); a value of None removes the key. Raises UsageError."""
    changes: Object = {}
    what: list[str] = []
    for word in words:
        key, is_set, value = word.partition("=")
        is_removal = not is_set and word.endswith("-") and len(word) > 1
        if not is_set and not is_removal:
            if changes:
                raise UsageError(f"{word!r} is neither KEY=VALUE nor KEY-; names come before what to change")
            what.append(word)
            continue
        key = word[:-1] if is_removal else key
        if key in changes:
            raise UsageError(f"{key!r} is given twice")
        changes[key] = None if is_removal else value
    return what, changes


label = _made(
    "label",
    "labels",
    """Set or remove labels.

    KEY=VALUE sets a label, KEY- removes it.
    """,
    "fleetplane label pod web tier=gold",
    "fleetplane label node sim-0 zone=a --overwrite",
    "fleetplane label pods --all tier-",
    "fleetplane label deploy/web --list",
)
annotate = _made(
    "annotate",
    "annotations",
    """Set or remove annotations.

    KEY=VALUE sets an annotation, KEY- removes it.
    """,
    "fleetplane annotate deploy/web owner='team blue'",
    "fleetplane annotate deploy/web owner-",
    "fleetplane annotate deploy/web --list",
)
