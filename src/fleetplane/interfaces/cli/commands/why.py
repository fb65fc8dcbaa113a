"""``fleetplane why``: what keeps an object from being ready, in plain words."""

from __future__ import annotations

import asyncio
from typing import Final

import click

from fleetplane.interfaces.cli import completion
from fleetplane.interfaces.cli.command import client_command
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.diagnosis import Finding, diagnose, owners_of
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.output import parse_format, print_document
from fleetplane.interfaces.cli.resources import Target, one_target, reference
from fleetplane.interfaces.cli.terminal import printable
from fleetplane.model.errors import ApiError
from fleetplane.model.resources import ResourceType
from fleetplane.model.table import time_since

_AT_ONCE: Final = 8
_FIRST: Final = (
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "ReplicaSet",
    "ReplicationController",
    "Pod",
    "Service",
    "PersistentVolumeClaim",
    "Node",
    "Namespace",
    "CustomResourceDefinition",
)


@client_command(examples=("fleetplane why deploy/web", "fleetplane why web", "fleetplane why node sim-0 -o json"))
@click.argument("what", nargs=-1, required=True, metavar="NAME | KIND/NAME", shell_complete=completion.targets)
@click.option("-o", "--output", default="", metavar="FORMAT", help="How to print: json or yaml.")
async def why(session: Session, what: tuple[str, ...], output: str) -> None:
    """Tell what keeps an object from being ready.

    Follows what it owns and needs down to the cause, with the newest warning and what can be done.
    """
    from fleetplane.interfaces.cli.progress import progress

    form = parse_format(output)
    async with progress(session.out, "looking"):
        target = await _target(session, what)
        namespace = session.namespace if target.resource.namespaced else None
        obj = await session.client.get(target.resource, target.name, namespace)
        found = await diagnose(session, target.resource, obj)
        owners = await owners_of(session, obj)
    if not form.is_text:
        print_document(session.out, form, {**found.to_json(), "ownedBy": owners})
        return
    state = session.out.style("is ready", "green") if found.ready else session.out.style("is not ready", "red")
    told = "" if found.why == "is ready" else f": {printable(found.why)}"
    session.out.line(f"{session.out.style(found.reference, 'bold')} {state}{told}")
    if owners:
        session.out.line(f"  belongs to {', which belongs to '.join(owners)}")
    _more(session, found, "  ")
    _print(session, found, 1)


def _print(session: Session, found: Finding, depth: int) -> None:
    for cause in found.causes:
        others = f" and {cause.same} more" if cause.same else ""
        lead = "  " * depth
        session.out.line(f"{lead}because {session.out.style(cause.reference, 'bold')}{others}: {printable(cause.why)}")
        _more(session, cause, lead + "  ")
        _print(session, cause, depth + 1)


def _more(session: Session, found: Finding, lead: str) -> None:
    if found.warning:
        age = time_since(found.warned_at, session.environment.now())
        session.out.line(session.out.style(f"{lead}warning {age} ago: {printable(found.warning)}", "yellow"))
    for line in found.last_words:
        session.out.line(f"{lead}it said: {printable(line)}")
    if found.advice:
        session.out.line(f"{lead}what to do: {found.advice}")


async def _target(session: Session, what: tuple[str, ...]) -> Target:
    """An object by kind and name; by name alone it is whatever has that name, workloads first."""
    if len(what) > 1 or "/" in what[0]:
        return await one_target(session, what)
    found = await _called(session, what[0])
    if not found:
        raise CommandError(
            f"nothing is called {what[0]!r} in namespace {session.namespace}; name it as KIND/NAME, or use -n"
        )
    if len(found) > 1:
        others = ", ".join(reference(one.resource, one.name) for one in found[1:])
        session.out.warn(f"Looking at {reference(found[0].resource, found[0].name)}; also called so: {others}.")
    return found[0]


async def _called(session: Session, name: str) -> list[Target]:
    """Everything with this name whose readiness means something, workloads first."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def there(resource: ResourceType) -> Target | None:
        async with slots:
            try:
                await session.client.get(resource, name, session.namespace if resource.namespaced else None)
            except ApiError as error:
                if error.code in {400, 403, 404, 405, 503}:
                    return None
                raise
            return Target(resource, name)

    kinds = [
        one.type
        for one in (await session.discovery.catalogue()).preferred()
        if {"get", "list"} <= one.verbs and (one.type.kind in _FIRST or not _is_built_in(one.type))
    ]
    kinds.sort(key=lambda kind: _FIRST.index(kind.kind) if kind.kind in _FIRST else len(_FIRST))
    return [one for one in await asyncio.gather(*map(there, kinds)) if one is not None]


def _is_built_in(resource: ResourceType) -> bool:
    return "." not in resource.group or resource.group.endswith(".k8s.io")
