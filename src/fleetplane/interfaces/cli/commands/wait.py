"""``fleetplane wait``: until objects meet a condition, have a value, exist or are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fleetplane.interfaces.cli.command import (
    all_namespaces_option,
    client_command,
    files_options,
    output_option,
    selector_option,
    targets_argument,
    timeout_option,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError, UsageError
from fleetplane.interfaces.cli.output import parse_format
from fleetplane.interfaces.cli.resources import Scope, Target, named, parse_targets, scope, selected
from fleetplane.model.objects import Object

if TYPE_CHECKING:
    from fleetplane.interfaces.cli.waiting import Goal, Verdict, Waited


@client_command(
    examples=(
        "fleetplane wait deploy/web",
        "fleetplane wait pods -l app=web --for=condition=Ready --timeout 2m",
        "fleetplane wait pod/web --for=delete",
        "fleetplane wait job/import --for=condition=Complete",
        "fleetplane wait pod/web --for=jsonpath='{.status.phase}'=Running",
        "fleetplane wait configmap/web --for=create",
    )
)
@targets_argument()
@click.option(
    "--for",
    "goal",
    default="ready",
    show_default=True,
    help="ready, delete, create, condition=NAME[=VALUE] or jsonpath='{.path}'[=VALUE].",
)
@output_option()
@selector_option()
@click.option("--all", "select_all", is_flag=True, help="Every object of the kind.")
@all_namespaces_option()
@files_options("Wait for the objects that these files name.")
@timeout_option("30s")
async def wait(
    session: Session,
    what: tuple[str, ...],
    goal: str,
    output: str,
    selector: str,
    select_all: bool,
    all_namespaces: bool,
    filenames: tuple[str, ...],
    recursive: bool,
    timeout: str,
) -> None:
    """Wait until objects are ready, changed or gone.

    'ready' knows what it means for every built-in kind; for others it is their Ready or Available condition.
    """
    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.interfaces.cli.reporting import Report
    from fleetplane.interfaces.cli.waiting import wait_for

    chosen = parse_format(output)
    limit = seconds(timeout)
    reached, aim = parse_goal(goal)
    if filenames:
        from fleetplane.interfaces.cli.manifests import targets_of_files

        targets = await targets_of_files(session, filenames, recursive)
    else:
        targets = await parse_targets(session, what)
        named(targets, selector, select_all, "wait for")
    waited = await _waited(
        session, targets, scope(session, all_namespaces), selector, must_exist=goal not in {"create", "delete"}
    )
    if not waited:
        if goal == "delete":
            return
        raise CommandError("no object matches, so there is nothing to wait for; check the selector and the namespace")
    report = Report(session, chosen)

    def tell(one: Waited, obj: Object | None) -> None:
        gone: Object = {
            "apiVersion": one.resource.api_version,
            "kind": one.resource.kind,
            "metadata": {"name": one.name},
        }
        report.add(one.resource, obj or gone, _done(goal))

    await wait_for(session, waited, reached, limit, aim, tell, explain=goal == "ready")
    report.finish(single=len(waited) == 1)


async def until_ready(session: Session, waited: Sequence[Waited], timeout: float | None) -> None:
    from fleetplane.interfaces.cli.waiting import wait_for

    goal, aim = parse_goal("ready")
    await wait_for(session, waited, goal, timeout, aim, explain=True)


async def _waited(
    session: Session, targets: Sequence[Target], where: Scope, selector: str, *, must_exist: bool
) -> list[Waited]:
    from fleetplane.interfaces.cli.waiting import Waited

    if all(target.name for target in targets):
        found = [Waited(target.resource, target.name, where.of(target)) for target in targets]
        if must_exist:
            for one in found:
                await session.client.get(one.resource, one.name, one.namespace)
        return found
    return [Waited.of(resource, obj) async for resource, obj in selected(session, targets, where, labels=selector)]


def parse_goal(text: str) -> tuple[Goal, str]:
    """(goal, what one waits for in words). Raises CommandError."""
    kind, _, rest = text.partition("=")
    match kind:
        case "ready" if not rest:
            return _ready, "to be ready"
        case "delete" if not rest:
            return _gone, "to be gone"
        case "create" if not rest:
            return _there, "to be created"
        case "condition" if rest:
            name, _, value = rest.partition("=")
            return _condition(name, value or "True"), f"to have condition {name}={value or 'True'}"
        case "jsonpath" if rest:
            return _jsonpath(rest)
    raise UsageError(
        f"--for {text!r} is not known; use ready, delete, create, condition=NAME[=VALUE] or jsonpath='{{.path}}'[=VALUE]"
    )


def _ready(obj: Object | None) -> Verdict:
    from fleetplane.interfaces.cli.readiness import readiness
    from fleetplane.interfaces.cli.waiting import Verdict

    if obj is None:
        return Verdict(False, "it is not there")
    found = readiness(obj)
    return Verdict(found.ready, found.why, found.failed)


def _gone(obj: Object | None) -> Verdict:
    from fleetplane.interfaces.cli.waiting import Verdict

    if obj is None:
        return Verdict(True)
    metadata = obj.get("metadata") or {}
    if not metadata.get("deletionTimestamp"):
        return Verdict(False, "nobody has deleted it yet")
    held = metadata.get("finalizers") or []
    doing = "it is being stopped" if obj.get("kind") == "Pod" else "it is being deleted"
    return Verdict(False, f"held by the finalizers {', '.join(held)}" if held else doing)


def _there(obj: Object | None) -> Verdict:
    from fleetplane.interfaces.cli.waiting import Verdict

    return Verdict(obj is not None, "it is not there")


def _condition(name: str, wanted: str) -> Goal:
    from fleetplane.interfaces.cli.waiting import Verdict
    from fleetplane.model.objects import generation

    def goal(obj: Object | None) -> Verdict:
        if obj is None:
            return Verdict(False, "it is not there")
        conditions = (obj.get("status") or {}).get("conditions") or []
        found = next((one for one in conditions if str(one.get("type")).lower() == name.lower()), None)
        if found is None:
            return Verdict(False, f"it does not report {name}")
        seen = found.get("observedGeneration")
        if isinstance(seen, int) and seen < generation(obj):
            return Verdict(False, "its controller has not seen the last change yet")
        if str(found.get("status")).lower() == wanted.lower():
            return Verdict(True)
        why = found.get("message") or found.get("reason")
        return Verdict(False, f"{name} is {found.get('status')}" + (f", {why}" if why else ""))

    return goal


def _jsonpath(text: str) -> tuple[Goal, str]:
    from fleetplane.interfaces.cli.waiting import Verdict
    from fleetplane.model.jsonpath import JsonPath, printed

    at = text.rfind("}") + 1
    path, wanted = (text[:at], text[at:]) if at else (text.partition("=")[0], text[len(text.partition("=")[0]) :])
    if wanted and not wanted.startswith("="):
        raise UsageError(f"--for jsonpath={text!r} cannot be read; write jsonpath='{{.path}}'=VALUE")
    try:
        compiled = JsonPath.parse(path)
    except ValueError as error:
        raise UsageError(f"--for jsonpath cannot be read: {error}") from None
    value = wanted[1:].strip("'\"") if wanted else None

    def goal(obj: Object | None) -> Verdict:
        if obj is None:
            return Verdict(False, "it is not there")
        found = [printed(one) for one in compiled.find(obj)]
        if value is None:
            return Verdict(bool(found), f"it has no {path}")
        return Verdict(value in found, f"{path} is {', '.join(found) or 'not set'}")

    return goal, f"to have {path}" + (f" = {value}" if value is not None else "")


def _done(goal: str) -> str:
    if goal == "delete":
        return "deleted"
    return {"ready": "ready", "create": "created"}.get(goal, "condition met")
