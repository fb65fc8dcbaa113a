"""``fleetplane cordon``, ``uncordon`` and ``drain``: taking a node out of use, gently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.command import client_command, output_option, selector_option, timeout_option
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.output import parse_format
from fleetplane.interfaces.cli.reporting import Report
from fleetplane.interfaces.cli.resources import Target, named, scope, selected
from fleetplane.model.objects import Object, name
from fleetplane.model.resources import ResourceType

_NODES = ResourceType("", "v1", "Node", "nodes", namespaced=False)


def _nodes_argument() -> Callable[[Any], Any]:
    return click.argument("nodes", nargs=-1, metavar="NODE...", shell_complete=completion.of_kind("nodes"))


@client_command(examples=("fleetplane cordon sim-0", "fleetplane cordon -l zone=a"))
@_nodes_argument()
@selector_option()
@output_option()
async def cordon(session: Session, nodes: tuple[str, ...], selector: str, output: str) -> None:
    """Let no new pods come to a node."""
    await _mark(session, nodes, selector, Report(session, parse_format(output)), unschedulable=True)


@client_command(examples=("fleetplane uncordon sim-0",))
@_nodes_argument()
@selector_option()
@output_option()
async def uncordon(session: Session, nodes: tuple[str, ...], selector: str, output: str) -> None:
    """Let new pods come to a node again."""
    await _mark(session, nodes, selector, Report(session, parse_format(output)), unschedulable=False)


@client_command(
    examples=(
        "fleetplane drain sim-0 --ignore-daemonsets",
        "fleetplane drain sim-0 --delete-emptydir-data --timeout 5m",
        "fleetplane drain sim-0 --dry-run",
    )
)
@_nodes_argument()
@selector_option()
@click.option("--ignore-daemonsets", is_flag=True, help="Leave pods of DaemonSets where they are.")
@click.option("--delete-emptydir-data", is_flag=True, help="Also pods whose local data is lost with them.")
@click.option("--force", is_flag=True, help="Also pods that nobody will make again elsewhere.")
@click.option(
    "--grace-period", type=click.IntRange(min=-1), default=-1, help="Seconds that pods get to stop [default: theirs]."
)
@click.option("--disable-eviction", is_flag=True, help="Delete pods, past the budgets that protect them.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@timeout_option("0")
@output_option()
async def drain(
    session: Session,
    nodes: tuple[str, ...],
    selector: str,
    ignore_daemonsets: bool,
    delete_emptydir_data: bool,
    force: bool,
    grace_period: int,
    disable_eviction: bool,
    dry_run: bool,
    timeout: str,
    output: str,
) -> None:
    """Cordon a node and move its pods away, as fast as their disruption budgets allow."""
    from fleetplane.interfaces.cli.draining import Rules, drain_node, obstacles, pods_on
    from fleetplane.interfaces.cli.durations import seconds

    limit = seconds(timeout)
    report = Report(session, parse_format(output), " (dry run)" if dry_run else "")
    rules = Rules(
        ignore_daemonsets, delete_emptydir_data, force, disable_eviction, grace_period if grace_period >= 0 else None
    )
    found = await _found(session, nodes, selector)
    # Everything is looked at before anything is touched: a half-drained node helps nobody.
    plans = []
    for node in found:
        pods = await pods_on(session, name(node))
        if blocked := obstacles(pods, rules):
            raise CommandError(f"node {name(node)} was left alone: {'; '.join(blocked)}")
        plans.append((node, pods))
    if not dry_run:
        await _mark(session, [name(node) for node in found], "", report, unschedulable=True)
    for node, pods in plans:
        await drain_node(session, node, pods, rules, report, limit, dry_run=dry_run)
        report.add(_NODES, node, "drained")
    report.finish()


async def _found(session: Session, nodes: tuple[str, ...] | list[str], selector: str) -> list[Object]:
    targets = [Target(_NODES, one.removeprefix("node/").removeprefix("nodes/")) for one in nodes] or [Target(_NODES)]
    named(targets, selector, False, "change")
    return [obj async for _, obj in selected(session, targets, scope(session), labels=selector)]


async def _mark(
    session: Session, nodes: tuple[str, ...] | list[str], selector: str, report: Report, *, unschedulable: bool
) -> None:
    said = "cordoned" if unschedulable else "uncordoned"
    for node in await _found(session, nodes, selector):
        if bool((node.get("spec") or {}).get("unschedulable")) == unschedulable:
            report.add(_NODES, node, f"{said} already")
            continue
        patch = {"spec": {"unschedulable": True if unschedulable else None}}
        report.add(
            _NODES, await session.client.patch(_NODES, name(node), patch, field_manager="fleetplane-cordon"), said
        )
