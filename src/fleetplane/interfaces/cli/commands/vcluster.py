"""``fleetplane vcluster``: virtual clusters, from their making to their end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.command import (
    Group,
    all_namespaces_option,
    client_command,
    output_option,
    selector_option,
    timeout_option,
)
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError, ExitWith, UsageError
from fleetplane.interfaces.cli.output import LIST_FORMATS, parse_format, print_document
from fleetplane.interfaces.cli.reporting import Report

if TYPE_CHECKING:
    from fleetplane.interfaces.cli.vclusters import Change

_called = click.argument("called", metavar="NAME", shell_complete=completion.of_kind("vk8s"))
_no_wait = click.option("--no-wait", is_flag=True, help="Do not wait until it is done.")


@client_command(
    group="vcluster",
    examples=(
        "fleetplane vcluster create team-a",
        "fleetplane vcluster create team-a --ttl 8h --sleep-after 30m",
        "fleetplane vcluster create lab --image registry:5000/kink:v1.23-ubuntu --workers 2 --port web=80:30080",
        "fleetplane vcluster create lab --image registry:5000/kink:v1.23-ubuntu --ip-pool vnodes --dry-run -o yaml",
    ),
)
@click.argument("called", metavar="NAME")
@click.option("--image", default="", help="Node image: makes a cluster of pods. Without one it is logical.")
@click.option("--workers", type=click.IntRange(0, 99), default=0, show_default=True, help="Nodes beside the master.")
@click.option("--cpu", default="2", show_default=True, help="Of each node.")
@click.option("--memory", default="4Gi", show_default=True, help="Of each node.")
@click.option("--port", "ports", multiple=True, metavar="[NAME=]PORT[:NODEPORT]", help="Publish a port of the nodes.")
@click.option("--ip-pool", default="", help="IPPool that gives the nodes their addresses.")
@click.option("--wait-for-network", is_flag=True, help="Install only when an outside agent has connected the network.")
@click.option("--ttl", default="", help="Delete it after so long: 8h.")
@click.option("--sleep-after", default="", help="Stop its pods when nobody has used it for so long: 30m.")
@click.option("--dry-run", is_flag=True, help="Only ask the server whether it could be made, and what it warns of.")
@_no_wait
@timeout_option("20m")
@output_option()
async def create(
    session: Session,
    called: str,
    image: str,
    workers: int,
    cpu: str,
    memory: str,
    ports: tuple[str, ...],
    ip_pool: str,
    wait_for_network: bool,
    ttl: str,
    sleep_after: str,
    dry_run: bool,
    no_wait: bool,
    timeout: str,
    output: str,
) -> None:
    """Make a virtual cluster and wait until it runs.

    Without --image it is logical: an API of its own whose pods run on this server's nodes, ready in a moment. Ports that
    somebody else has are told before anything is made.
    """
    from fleetplane.interfaces.cli import vclusters
    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.model.objects import Object

    form, limit = parse_format(output), seconds(timeout)
    if not image and (workers or ports or ip_pool):
        raise UsageError("--workers, --port and --ip-pool are for clusters of pods; name their node image with --image")
    spec: Object = {"mode": "pods" if image else "logical"}
    if image:
        names = [(f"{called}-m", "master"), *((f"{called}-w{number}", "worker") for number in range(workers))]
        spec["nodes"] = [vclusters.node(node, role, image, cpu, memory) for node, role in names]
        spec["ports"] = [vclusters.parse_port(one) for one in ports]
    if ip_pool:
        spec["ipPool"] = ip_pool
    times = {"ttlSeconds": seconds(ttl, "--ttl") if ttl else None}
    times["sleepAfterSeconds"] = seconds(sleep_after, "--sleep-after") if sleep_after else None
    if lifetime := {key: int(value) for key, value in times.items() if value}:
        spec["lifetime"] = lifetime
    noted = {} if wait_for_network or not image else {vclusters.NETWORK: "true"}
    meta = {"name": called, "namespace": session.namespace, "annotations": noted}
    wanted = {"apiVersion": vclusters.VCLUSTERS.api_version, "kind": "Vk8s", "metadata": meta, "spec": spec}
    made = await vclusters.create(session, wanted, dry_run=dry_run)
    report = Report(session, form, " (server dry run)" if dry_run else "")
    if not dry_run and not no_wait:
        made = await vclusters.follow(session, made, "Running", limit)
    report.add(vclusters.VCLUSTERS, made, "created")
    report.finish(single=True)


@client_command(
    name="list",
    group="vcluster",
    examples=("fleetplane vcluster list", "fleetplane vcluster list -A -o json"),
)
@selector_option()
@all_namespaces_option()
@output_option(formats=LIST_FORMATS)
async def list_(session: Session, selector: str, all_namespaces: bool, output: str) -> None:
    """Show the virtual clusters."""
    from fleetplane.interfaces.cli.listing import Asked, Layout, print_whole
    from fleetplane.interfaces.cli.listing import print_tables as tables
    from fleetplane.interfaces.cli.resources import parse_targets, scope

    form = parse_format(output)
    asked = Asked(await parse_targets(session, ["vk8s"]), scope(session, all_namespaces), selector, "", None, False)
    if form.is_text:
        await tables(session, asked, Layout(wide=form.kind == "wide", namespaces=all_namespaces))
    else:
        await print_whole(session, asked, form)


@client_command(
    group="vcluster",
    examples=(
        "fleetplane vcluster kubeconfig team-a > team-a.kubeconfig",
        "fleetplane vcluster kubeconfig team-a --file ~/.kube/team-a",
        "fleetplane vcluster kubeconfig team-a --rotate --file ~/.kube/team-a",
        "fleetplane vcluster kubeconfig team-a --server https://plane.example.com:6443",
    ),
)
@_called
@click.option("--file", type=click.Path(path_type=Path), help="Write it there, readable by you alone.")
@click.option("--server", default="", metavar="URL", help="The address under which you reach the server.")
@click.option("--rotate", is_flag=True, help="Have new credentials made first.")
@timeout_option("1m")
@output_option("", "yaml (the default) or json")
async def kubeconfig(
    session: Session, called: str, file: Path | None, server: str, rotate: bool, timeout: str, output: str
) -> None:
    """Print the kubeconfig of a virtual cluster."""
    from fleetplane.interfaces.cli import vclusters
    from fleetplane.interfaces.cli.durations import seconds

    form, limit = parse_format(output or "yaml"), seconds(timeout)
    obj = await vclusters.find(session, called)
    config = await vclusters.kubeconfig(session, obj, limit, rotate=rotate)
    if server:
        if not server.startswith(("https://", "http://")):
            raise UsageError(f"--server {server!r} is not an address such as https://plane.example.com:6443")
        config = vclusters.at_server(config, server)
    if file is None:
        print_document(session.out, form, config)
        return
    vclusters.write_private(file, config)
    if output in {"json", "yaml"}:
        shown = {"file": str(file), "server": config["clusters"][0]["cluster"]["server"]}
        print_document(session.out, form, shown)
    else:
        session.out.line(f"{file} written; use it with --kubeconfig {file}")


@client_command(
    group="vcluster",
    examples=(
        "fleetplane vcluster connect team-a",
        "fleetplane vcluster connect team-a -- kubectl get pods -A",
        "fleetplane vcluster connect team-a -- fleetplane get namespaces -o json",
    ),
)
@_called
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--server", default="", metavar="URL", help="The address under which you reach the server.")
@timeout_option("1m")
@output_option("", "json: tell the server and command on stderr first")
async def connect(
    session: Session, called: str, command: tuple[str, ...], server: str, timeout: str, output: str
) -> None:
    """Run a shell, or a command, whose KUBECONFIG is a virtual cluster.

    The file is gone when it ends. Ends with the command's own exit code.
    """
    from fleetplane.interfaces.cli import vclusters
    from fleetplane.interfaces.cli.durations import seconds

    limit, form = seconds(timeout), parse_format(output)
    words = list(command) or vclusters.shell()
    obj = await vclusters.find(session, called)
    config = await vclusters.kubeconfig(session, obj, limit)
    if server:
        config = vclusters.at_server(config, server)
    address = config["clusters"][0]["cluster"]["server"]
    if form.is_text and not command:
        session.out.warn(f"KUBECONFIG is {called} at {address} until you leave this shell")
    elif not form.is_text:
        import json

        session.out.warn(json.dumps({"cluster": called, "server": address, "command": words}))
    session.out.flush()
    with vclusters.borrowed(config) as path:
        code = await vclusters.run(words, path)
    if code:
        raise ExitWith(code)


@client_command(
    group="vcluster", examples=("fleetplane vcluster pause team-a", "fleetplane vcluster pause a b -o json")
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.of_kind("vk8s"))
@_no_wait
@timeout_option("5m")
@output_option()
async def pause(session: Session, names: tuple[str, ...], no_wait: bool, timeout: str, output: str) -> None:
    """Stop everything that runs in virtual clusters; what they hold is kept."""
    from fleetplane.interfaces.cli import vclusters

    await _change(session, names, vclusters.paused(True, ""), "paused", "Paused", no_wait, timeout, output)


@client_command(group="vcluster", examples=("fleetplane vcluster resume team-a",))
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.of_kind("vk8s"))
@_no_wait
@timeout_option("20m")
@output_option()
async def resume(session: Session, names: tuple[str, ...], no_wait: bool, timeout: str, output: str) -> None:
    """Run virtual clusters again that were paused, or sleep because nobody used them."""
    from fleetplane.interfaces.cli import vclusters
    from fleetplane.model.environment import timestamp

    make = vclusters.paused(False, timestamp(session.environment.now()))
    await _change(session, names, make, "resumed", "Running", no_wait, timeout, output)


@client_command(
    group="vcluster",
    examples=("fleetplane vcluster scale lab --workers 3", "fleetplane vcluster scale lab --workers 0 --no-wait"),
)
@_called
@click.option("--workers", type=click.IntRange(0, 99), required=True, help="How many nodes beside the master.")
@_no_wait
@timeout_option("20m")
@output_option()
async def scale(session: Session, called: str, workers: int, no_wait: bool, timeout: str, output: str) -> None:
    """Set how many workers a cluster of pods has.

    New ones are as the last one is; when there are too many, those added last are drained and go first.
    """
    from fleetplane.interfaces.cli import vclusters

    done = f"scaled to {workers} workers"
    await _change(session, (called,), vclusters.scaled(workers), done, "Running", no_wait, timeout, output)


@client_command(
    group="vcluster", examples=("fleetplane vcluster upgrade lab --image registry:5000/kink:v1.23-ubuntu --timeout 1h",)
)
@_called
@click.option("--image", required=True, help="The node image of the next minor version.")
@_no_wait
@timeout_option("1h")
@output_option()
async def upgrade(session: Session, called: str, image: str, no_wait: bool, timeout: str, output: str) -> None:
    """Bring the nodes of a cluster of pods to another version, one minor at a time."""
    from fleetplane.interfaces.cli import vclusters

    done = f"upgraded to {image}"
    await _change(session, (called,), vclusters.upgraded(image), done, "Running", no_wait, timeout, output)


@client_command(
    group="vcluster",
    examples=(
        "fleetplane vcluster snapshot team-a",
        "fleetplane vcluster snapshot team-a --name before-upgrade -o json",
    ),
)
@_called
@click.option("--name", "snapshot_name", default="", help="Of the snapshot [default: NAME and the time].")
@_no_wait
@timeout_option("10m")
@output_option()
async def snapshot(session: Session, called: str, snapshot_name: str, no_wait: bool, timeout: str, output: str) -> None:
    """Keep the content of a virtual cluster as it is now."""
    from fleetplane.interfaces.cli import vclusters
    from fleetplane.interfaces.cli.connection import FIELD_MANAGER
    from fleetplane.interfaces.cli.durations import seconds

    form, limit = parse_format(output), seconds(timeout)
    await vclusters.find(session, called)
    named = snapshot_name or f"{called}-{session.environment.now():%Y%m%d-%H%M%S}"
    kind = vclusters.SNAPSHOTS
    wanted = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": named},
        "spec": {"cluster": called},
    }
    made = await session.client.create(kind, wanted, session.namespace, field_manager=FIELD_MANAGER)
    if not no_wait:
        made = await vclusters.follow_snapshot(session, made, limit)
    report = Report(session, form)
    report.add(kind, made, "created" if no_wait else "taken")
    report.finish(single=True)


@client_command(
    group="vcluster",
    examples=(
        "fleetplane vcluster restore team-a --from team-a-20260101-120000",
        "fleetplane vcluster restore copy --from before-upgrade --no-wait",
    ),
)
@click.argument("called", metavar="NAME")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="SNAPSHOT",
    shell_complete=completion.of_kind("vk8ssnapshots"),
    help="The snapshot, of the same namespace.",
)
@_no_wait
@timeout_option("20m")
@output_option()
async def restore(session: Session, called: str, source: str, no_wait: bool, timeout: str, output: str) -> None:
    """Make a new virtual cluster whose content is that of a snapshot.

    It is made as the cluster of the snapshot is, where that still exists; else a logical one with the defaults.
    """
    from fleetplane.interfaces.cli import vclusters
    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.model.errors import ApiError
    from fleetplane.model.objects import annotations

    form, limit = parse_format(output), seconds(timeout)
    found = await vclusters.find_snapshot(session, source)
    if not vclusters.is_taken(found):
        raise CommandError(f"snapshot {source} is not complete; wait for it, or look with 'fleetplane describe'")
    mode = (found.get("status") or {}).get("mode") or "logical"
    spec, noted = {"mode": mode}, {}
    try:
        origin = await session.client.get(vclusters.VCLUSTERS, found["spec"]["cluster"], session.namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        if mode == "pods":
            what = f"the cluster {found['spec']['cluster']} is gone, and so are the sizes of its nodes"
            raise CommandError(f"{what}; apply a Vk8s with those nodes and restoreFrom: {source}") from None
    else:
        spec = vclusters.copied_spec(origin, called)
        noted = {key: value for key, value in annotations(origin).items() if key == vclusters.NETWORK}
    meta = {"name": called, "namespace": session.namespace, "annotations": noted}
    spec = {**spec, "restoreFrom": source}
    wanted = {"apiVersion": vclusters.VCLUSTERS.api_version, "kind": "Vk8s", "metadata": meta, "spec": spec}
    made = await vclusters.create(session, wanted, dry_run=False)
    if not no_wait:
        made = await vclusters.follow(session, made, "Running", limit)
    report = Report(session, form)
    report.add(vclusters.VCLUSTERS, made, f"restored from {source}" if not no_wait else "created")
    report.finish(single=True)


@client_command(
    group="vcluster", examples=("fleetplane vcluster delete team-a", "fleetplane vcluster delete a b --no-wait")
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.of_kind("vk8s"))
@_no_wait
@timeout_option("10m")
@output_option()
async def delete(session: Session, names: tuple[str, ...], no_wait: bool, timeout: str, output: str) -> None:
    """Delete virtual clusters with everything in them."""
    from fleetplane.interfaces.cli import vclusters
    from fleetplane.interfaces.cli.durations import seconds
    from fleetplane.model.objects import uid

    form, limit = parse_format(output), seconds(timeout)
    report = Report(session, form)
    found = [await vclusters.find(session, called) for called in names]
    for obj in found:
        await session.client.delete(vclusters.VCLUSTERS, obj["metadata"]["name"], session.namespace, uid=uid(obj))
    for obj in found:
        if not no_wait:
            await vclusters.gone(session, obj, limit)
        report.add(vclusters.VCLUSTERS, obj, "deleted")
    report.finish(single=len(names) == 1)


async def _change(
    session: Session,
    names: tuple[str, ...],
    make: Change,
    done: str,
    phase: str,
    no_wait: bool,
    timeout: str,
    output: str,
) -> None:
    """Change clusters one after the other, then wait for all of them."""
    from fleetplane.interfaces.cli import vclusters
    from fleetplane.interfaces.cli.durations import seconds

    form, limit = parse_format(output), seconds(timeout)
    report = Report(session, form)
    results = [await vclusters.change(session, called, make) for called in names]
    for obj, is_changed in results:
        now = obj if no_wait else await vclusters.follow(session, obj, phase, limit)
        report.add(vclusters.VCLUSTERS, now, done if is_changed else f"unchanged: it is {done} already")
    report.finish(single=len(names) == 1)


vcluster = Group(
    "vcluster",
    "Make, use and end virtual clusters.",
    [create, list_, kubeconfig, connect, pause, resume, scale, upgrade, snapshot, restore, delete],
)
