"""``fleetplane history``, ``diff`` and ``rollback``: what an object was, what would change, and going back.

Workloads keep their revisions as objects; of every other object a Fleetplane server keeps the versions themselves, also
of one that was deleted. Both can be compared and restored. Another Kubernetes keeps none: there it is shown who last set
which fields, and going back is refused in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from fleetplane.interfaces.cli.command import client_command, files_options, output_option, targets_argument
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import ExitWith, UsageError
from fleetplane.interfaces.cli.output import Format, parse_format, print_document
from fleetplane.interfaces.cli.resources import Target, one_target, reference
from fleetplane.interfaces.cli.revisions import RESTARTABLE, chosen, go_back, report_return, revisions
from fleetplane.interfaces.cli.versions import Version, current, restore, version, version_before, versions
from fleetplane.model.objects import Object, metadata, name, namespace

_MOST_FIELDS = 6
_SHALLOW = re.compile(r"(?:\.metadata\.\w+\..*|(?:\.[^.\[]+){1,3})|.*")


@client_command(examples=("fleetplane history deploy/web", "fleetplane history configmap settings -o json"))
@targets_argument(required=True)
@output_option()
async def history(session: Session, what: tuple[str, ...], output: str) -> None:
    """Show the revisions of an object, and who changed which fields.

    Revisions can be compared with 'diff --revision' and restored with 'rollback'. A workload's are those of its pod
    template; any other object's are the versions that a Fleetplane server keeps, also after it was deleted.
    """
    from fleetplane.interfaces.cli.tables import print_rows
    from fleetplane.model.table import time_since

    form = parse_format(output)
    target, obj, kept = await _known(session, what)
    found = await revisions(session, obj) if obj is not None and not kept and _has_revisions(target) else []
    changes = writers(obj or {})
    if not form.is_text:
        rolled = [
            {"revision": one.number, "name": one.name, "created": one.created, "changeCause": one.cause}
            for one in found
        ]
        print_document(session.out, form, {"revisions": rolled or [_shown(one) for one in kept], "changes": changes})
        return
    now = session.environment.now()
    if kept:
        rows = [
            [str(one.number), time_since(one.time, now) if one.time else "-", one.manager or "-", _what(one)]
            for one in kept
        ]
        print_rows(session.out, [["REVISION", "AGE", "BY", "CHANGED"], *rows])
        return
    if found:
        rows = [[str(one.number), time_since(one.created, now), one.images, one.cause or "-"] for one in found]
        print_rows(session.out, [["REVISION", "AGE", "IMAGES", "CHANGE-CAUSE"], *rows])
        session.out.line()
    rows = [[time_since(one["time"], now), one["manager"], one["operation"], _few(one["fields"])] for one in changes]
    print_rows(session.out, [["LAST CHANGE", "BY", "HOW", "FIELDS"], *rows])


@client_command(
    examples=(
        "fleetplane diff -f app.yaml",
        "fleetplane diff deploy/web --revision 2",
        "fleetplane diff deploy/web --revision 2 --to 3",
        "fleetplane diff configmap settings --revision 112",
    )
)
@targets_argument()
@files_options("Compare the objects that these files make with those that are there.")
@click.option("--revision", type=click.IntRange(min=1), default=None, help="Compare this revision with what is there.")
@click.option("--to", type=click.IntRange(min=1), default=None, help="Compare with this revision instead.")
@click.option("--force-conflicts", is_flag=True, help="As if fields of others were taken over.")
@output_option(formats="text, json or yaml")
async def diff(
    session: Session,
    what: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    revision: int | None,
    to: int | None,
    force_conflicts: bool,
    output: str,
) -> None:
    """Show what would change, or what has changed since a revision.

    Ends with exit code 0 when there is no difference, 1 when there is one and 2 when that could not be found out.
    """
    from fleetplane.interfaces.cli.differences import unified

    form = parse_format(output)
    if filenames:
        if what or revision:
            raise UsageError("give either files or an object with --revision, not both")
        await _diff_files(session, filenames, recursive, force_conflicts, form)
        return
    if revision is None:
        raise UsageError("say what to compare with: -f FILE, or --revision NUMBER ('fleetplane history' lists them)")
    target, obj, kept = await _known(session, what)
    who = reference(target.resource, target.name)
    if obj is not None and _has_revisions(target):
        found = await revisions(session, obj)
        template = chosen(found, to, obj).template if to is not None else (obj.get("spec") or {}).get("template") or {}
        lines = unified(_bare(chosen(found, revision, obj).template), _bare(template), who)
    else:
        then = version(kept, revision, target).object
        lines = unified(then, version(kept, to, target).object if to is not None else obj, who)
    if lines:
        named = f"revision {to}" if to is not None else "now"
        lines[:2] = [f"--- {who} revision {revision}", f"+++ {who} {named}"]
    if _show(session, form, {who: lines}):
        raise ExitWith(1)


def _show(session: Session, form: Format, found: Mapping[str, list[str]]) -> bool:
    """Print the differences, and say whether there are any."""
    from fleetplane.interfaces.cli.differences import print_diff

    if not form.is_text:
        shown = [{"object": who, "differs": bool(lines), "diff": lines} for who, lines in found.items()]
        print_document(session.out, form, shown)
    for lines in found.values():
        if form.is_text:
            print_diff(session.out, lines)
    differs = any(found.values())
    if form.is_text and not differs and not session.failures:
        session.out.warn("There is no difference.")
    return differs


@client_command(
    examples=(
        "fleetplane rollback deploy/web",
        "fleetplane rollback deploy/web --revision 2",
        "fleetplane rollback deploy/web --dry-run",
        "fleetplane rollback configmap settings --revision 112",
    )
)
@targets_argument(required=True)
@click.option("--revision", type=click.IntRange(min=1), default=None, help="Which one [default: the one before].")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@output_option()
async def rollback(session: Session, what: tuple[str, ...], revision: int | None, dry_run: bool, output: str) -> None:
    """Make an earlier revision the wanted state again; what was deleted is made again."""
    from fleetplane.interfaces.cli.reporting import Report

    report = Report(session, parse_format(output), " (server dry run)" if dry_run else "")
    target, obj, kept = await _known(session, what)
    if obj is not None and _has_revisions(target):
        before = chosen(await revisions(session, obj), revision or 0, obj)
        number, changed = before.number, await go_back(session, target.resource, obj, before, dry_run=dry_run)
    else:
        to = version(kept, revision, target) if revision else version_before(kept, obj, target)
        number, changed = to.number, await restore(session, target, obj, to, dry_run=dry_run)
    report_return(report, target.resource, obj, changed, number, dry_run=dry_run)


async def _known(session: Session, what: tuple[str, ...]) -> tuple[Target, Object | None, list[Version]]:
    """The object, None when it is gone, and its versions; a workload that is there has revisions instead."""
    target = await one_target(session, what)
    obj = await current(session, target)
    return target, obj, [] if obj is not None and _has_revisions(target) else await versions(session, target)


def _has_revisions(target: Target) -> bool:
    return target.resource.group == "apps" and target.resource.kind in RESTARTABLE


def _bare(template: Object) -> Object:
    """A pod template in a form whose times do not count as differences."""
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if key != "creationTimestamp"}
    return {"metadata": meta, **{key: value for key, value in template.items() if key != "metadata"}}


async def _diff_files(session: Session, filenames: tuple[str, ...], recursive: bool, force: bool, form: Format) -> None:
    from fleetplane.interfaces.cli.applying import Options, apply_all
    from fleetplane.interfaces.cli.differences import unified
    from fleetplane.interfaces.cli.manifests import read_all
    from fleetplane.interfaces.cli.progress import progress
    from fleetplane.interfaces.cli.reporting import Report

    manifests = read_all(filenames, recursive)
    silent = Report(session, Format("json"))
    async with progress(session.out, "comparing") as shown:
        applied = await apply_all(session, manifests, Options(force=force, dry_run="server"), silent, shown)
    found = {}
    for one in applied:
        after = one.after or one.manifest.object
        if not one.error:
            who = f"{one.manifest.kind} {namespace(after)}/{name(after)}".replace(" /", " ")
            found[who] = unified(one.before, after, who)
    differs = _show(session, form, found)
    if session.failures or differs:
        raise ExitWith(2 if session.failures else 1)


def _shown(one: Version) -> Object:
    return {
        "revision": one.number,
        "created": one.time,
        "deleted": one.deleted,
        "manager": one.manager,
        "fields": list(one.fields),
    }


def _what(one: Version) -> str:
    if one.deleted:
        return "deleted"
    return "created" if one.fields == (".",) else _few(list(one.fields)) or "-"


# --- Who changed what ---------------------------------------------------------------------------------------------


def writers(obj: Object) -> list[Object]:
    """Who last changed which fields, newest first, as the server recorded it (managedFields, KEP-555)."""
    found: list[Object] = [
        {
            "time": str(one.get("time") or ""),
            "manager": str(one.get("manager") or ""),
            "operation": str(one.get("operation") or "") + (f" {one['subresource']}" if one.get("subresource") else ""),
            "fields": list(_paths(one.get("fieldsV1") or {})),
        }
        for one in metadata(obj).get("managedFields") or []
    ]
    return sorted(found, key=lambda one: str(one["time"]), reverse=True)


def _paths(fields: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """``f:spec {f:replicas {}}`` as ``.spec.replicas``; an item of a list by its key: ``.ports[port=80]``."""
    for key, below in fields.items():
        if key == ".":
            continue
        kind, _, value = key.partition(":")
        path = f"{above}.{value}" if kind == "f" else f"{above}[{_item(value)}]"
        deeper = {one: more for one, more in below.items() if one != "."} if isinstance(below, dict) else {}
        if deeper:
            yield from _paths(deeper, path)
        else:
            yield path


def _item(key: str) -> str:
    import json

    try:
        found = json.loads(key)
    except ValueError:
        return key
    return ",".join(f"{one}={value}" for one, value in found.items()) if isinstance(found, dict) else str(found)


def _few(fields: list[str]) -> str:
    """The first of them, and only as deep as a line has room for."""
    fields = list(dict.fromkeys(_SHALLOW.match(path)[0] for path in fields))  # type: ignore[index]
    shown = ", ".join(fields[:_MOST_FIELDS])
    return f"{shown} and {len(fields) - _MOST_FIELDS} more" if len(fields) > _MOST_FIELDS else shown
