"""``fleetplane rollout``: following, stopping and taking back a change of a Deployment, StatefulSet or DaemonSet."""

from __future__ import annotations

from collections.abc import Sequence

import click

from fleetplane.interfaces.cli.command import (
    Group,
    client_command,
    output_option,
    selector_option,
    targets_argument,
    timeout_option,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError, UsageError
from fleetplane.interfaces.cli.output import parse_format, print_document
from fleetplane.interfaces.cli.reporting import Report
from fleetplane.interfaces.cli.resources import Target, named, one_target, parse_targets, reference, scope, selected
from fleetplane.interfaces.cli.revisions import (
    MANAGER,
    RESTARTABLE,
    check_kind,
    chosen,
    go_back,
    report_return,
    revisions,
)
from fleetplane.model.environment import timestamp
from fleetplane.model.objects import Object, name, namespace

_DEPLOYMENTS = frozenset({"Deployment"})


@client_command(
    group="rollout", examples=("fleetplane rollout status deploy/web", "fleetplane rollout status sts/db --timeout 5m")
)
@targets_argument()
@click.option("-w", "--watch", type=bool, default=True, show_default=True, help="Wait until it is done.")
@timeout_option("0")
@selector_option()
@output_option()
async def status(
    session: Session, what: tuple[str, ...], watch: bool, timeout: str, selector: str, output: str
) -> None:
    """Show how far a roll-out is, until it is done.

    Ends with exit code 1 when it failed or the time is over.
    """
    from fleetplane.interfaces.cli.commands.wait import parse_goal
    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.interfaces.cli.readiness import readiness
    from fleetplane.interfaces.cli.waiting import Waited, wait_for

    form = parse_format(output)
    limit = seconds(timeout)
    targets = await _targets(session, what, selector, "followed")
    found = [one async for one in selected(session, targets, scope(session), labels=selector)]
    if not watch:
        for resource, obj in found:
            state = readiness(obj)
            if form.is_text:
                session.out.line(
                    f"{reference(resource, name(obj))} {'done' if state.ready else 'not done'}: {state.why}"
                )
            else:
                shown = {
                    "object": reference(resource, name(obj)),
                    "done": state.ready,
                    "failed": state.failed,
                    "message": state.why,
                }
                print_document(session.out, form, shown)
        return
    report = Report(session, form)

    def tell(one: Waited, obj: Object | None) -> None:
        report.add(one.resource, obj or {}, "successfully rolled out")

    goal, _ = parse_goal("ready")
    await wait_for(
        session,
        [Waited.of(resource, obj) for resource, obj in found],
        goal,
        limit,
        "to be rolled out",
        tell,
        explain=True,
    )
    report.finish(single=len(found) == 1)


@client_command(
    group="rollout",
    examples=("fleetplane rollout history deploy/web", "fleetplane rollout history deploy/web --revision 2"),
)
@targets_argument(required=True)
@click.option("--revision", type=click.IntRange(min=1), default=None, help="Show the pod template of this one.")
@output_option()
async def history(session: Session, what: tuple[str, ...], revision: int | None, output: str) -> None:
    """List the revisions that one can go back to."""
    from fleetplane.interfaces.cli.tables import print_rows
    from fleetplane.model.table import time_since

    form = parse_format(output)
    target = await one_target(session, what)
    check_kind(target, "asked for revisions")
    obj = await session.client.get(target.resource, target.name, session.namespace)
    found = await revisions(session, obj)
    if revision is not None:
        print_document(
            session.out, parse_format(output if form.kind == "json" else "yaml"), chosen(found, revision, obj).template
        )
        return
    if not form.is_text:
        shown = [
            {"revision": one.number, "name": one.name, "changeCause": one.cause, "template": one.template}
            for one in found
        ]
        print_document(session.out, form, shown)
        return
    now = session.environment.now()
    rows = [[str(one.number), time_since(one.created, now), one.images, one.cause or "-"] for one in found]
    print_rows(session.out, [["REVISION", "AGE", "IMAGES", "CHANGE-CAUSE"], *rows])


@client_command(
    group="rollout",
    examples=(
        "fleetplane rollout undo deploy/web",
        "fleetplane rollout undo deploy/web --to-revision 2",
        "fleetplane rollout undo deploy/web --dry-run",
    ),
)
@targets_argument(required=True)
@click.option("--to-revision", type=click.IntRange(min=0), default=0, help="Which one [default: the one before].")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@output_option()
async def undo(session: Session, what: tuple[str, ...], to_revision: int, dry_run: bool, output: str) -> None:
    """Go back to an earlier revision."""
    report = Report(session, parse_format(output), " (server dry run)" if dry_run else "")
    target = await one_target(session, what)
    check_kind(target, "undone")
    obj = await session.client.get(target.resource, target.name, session.namespace)
    to = chosen(await revisions(session, obj), to_revision, obj)
    changed = await go_back(session, target.resource, obj, to, dry_run=dry_run)
    report_return(report, target.resource, obj, changed, to.number, dry_run=dry_run)


@client_command(
    group="rollout", examples=("fleetplane rollout restart deploy/web", "fleetplane rollout restart deploy -l app=web")
)
@targets_argument()
@selector_option()
@output_option()
async def restart(session: Session, what: tuple[str, ...], selector: str, output: str) -> None:
    """Replace every pod by a new one, in the way the object rolls out changes."""
    now = timestamp(session.environment.now())
    patch: Object = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}}
    targets = await _targets(session, what, selector, "restarted")
    await _patch_all(session, targets, selector, patch, "restarted", output)


@client_command(group="rollout", examples=("fleetplane rollout pause deploy/web",))
@targets_argument()
@selector_option()
@output_option()
async def pause(session: Session, what: tuple[str, ...], selector: str, output: str) -> None:
    """Stop rolling out changes of a Deployment until it is resumed."""
    targets = await _targets(session, what, selector, "paused", _DEPLOYMENTS)
    await _patch_all(session, targets, selector, {"spec": {"paused": True}}, "paused", output)


@client_command(group="rollout", examples=("fleetplane rollout resume deploy/web",))
@targets_argument()
@selector_option()
@output_option()
async def resume(session: Session, what: tuple[str, ...], selector: str, output: str) -> None:
    """Go on rolling out changes of a Deployment."""
    targets = await _targets(session, what, selector, "resumed", _DEPLOYMENTS)
    await _patch_all(session, targets, selector, {"spec": {"paused": None}}, "resumed", output)


async def _targets(
    session: Session, what: Sequence[str], selector: str, doing: str, kinds: frozenset[str] = RESTARTABLE
) -> list[Target]:
    targets = await parse_targets(session, what)
    named(targets, selector, False, "roll out")
    for target in targets:
        check_kind(target, doing, kinds)
    return targets


async def _patch_all(
    session: Session, targets: Sequence[Target], selector: str, patch: Object, done: str, output: str
) -> None:
    report = Report(session, parse_format(output))
    async for resource, obj in selected(session, targets, scope(session), labels=selector):
        before = (obj.get("spec") or {}).get("paused")
        if done == "restarted" and before:
            raise CommandError(
                f"{reference(resource, name(obj))} is paused; resume it first with 'fleetplane rollout resume'"
            )
        if (done == "paused" and before) or (done == "resumed" and not before):
            report.add(resource, obj, f"{'is' if done == 'paused' else 'is not'} paused{' already' if before else ''}")
            continue
        changed = await session.client.patch(resource, name(obj), patch, namespace(obj), field_manager=MANAGER)
        report.add(resource, changed, done)
    if not report.results and not session.failures:
        raise UsageError("no object matches; check the selector and the namespace")
    report.finish(single=len(report.results) == 1)


rollout = Group("rollout", "Follow, stop or take back a change.", [status, history, undo, restart, pause, resume])
