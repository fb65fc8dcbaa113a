"""Completing words in a shell: kinds and names from the server, namespaces, contexts.

A shell waits for us while a person types, so the server gets a short time and every failure is silence: no word is
better than an error message in the middle of a command line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import click

    from fleetplane.interfaces.cli.connection import Session

_SECONDS: Final = 1.5
_MOST: Final = 300
"""More words than this help nobody."""


def namespaces(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return _ask(ctx, lambda session: _names(session, "namespaces", incomplete))


def contexts(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from fleetplane.client.kubeconfig import ConfigError, load

    named = ctx.params.get("kubeconfig")
    try:
        found = load([Path(named)] if named else None).contexts
    except (ConfigError, OSError):
        return []
    return [name for name in found if name.startswith(incomplete)]


def targets(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """``KIND [NAME]...`` and ``KIND/NAME...``."""
    before = [str(word) for word in ctx.params.get(parameter.name or "") or ()]
    if "/" in incomplete:
        kind, _, start = incomplete.partition("/")
        return _ask(ctx, lambda session: _names(session, kind, start, prefix=f"{kind}/"))
    if before and "/" not in before[0]:
        kind = before[0].split(",")[0]
        taken = set(before[1:])
        return [name for name in _ask(ctx, lambda session: _names(session, kind, incomplete)) if name not in taken]
    return _ask(ctx, lambda session: _kinds(session, incomplete))


def kinds(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return _ask(ctx, lambda session: _kinds(session, incomplete))


def of_kind(kind: str) -> Callable[[Any, Any, str], list[str]]:
    """Names of one kind, for arguments that take nothing else."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        return _ask(ctx, lambda session: _names(session, kind, incomplete))

    return complete


async def _kinds(session: Session, incomplete: str) -> list[str]:
    done, _, start = incomplete.rpartition(",")
    head = f"{done}," if done else ""
    catalogue = await session.discovery.catalogue()
    names = dict.fromkeys(one.type.plural for one in catalogue.preferred() if "list" in one.verbs)
    return [head + name for name in names if name.startswith(start)]


async def _names(session: Session, kind: str, start: str, prefix: str = "") -> list[str]:
    from fleetplane.model.objects import name

    resource = (await session.discovery.find(kind)).type
    namespace = session.namespace if resource.namespaced else None
    found = await session.client.list(resource, namespace, limit=_MOST)
    return [prefix + name(obj) for obj in found.items if name(obj).startswith(start)]


def _ask(ctx: click.Context, question: Callable[[Session], Awaitable[list[str]]]) -> list[str]:
    import asyncio
    import contextlib

    from fleetplane.interfaces.cli.command import Connection
    from fleetplane.interfaces.cli.connection import find, open_session

    given = {key: ctx.params.get(key) for key in ("kubeconfig", "context", "namespace", "cluster")}
    if given["kubeconfig"] is not None:
        given["kubeconfig"] = Path(given["kubeconfig"])
    answers: list[str] = []

    async def run() -> None:
        connection = Connection(**given)  # type: ignore[arg-type]
        async with asyncio.timeout(_SECONDS):
            session = await open_session(connection, find(connection))
            try:
                answers.extend(await question(session))
            finally:
                await session.client.close()

    with contextlib.suppress(Exception):
        asyncio.run(run())
    return answers


def pods(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """A pod's name, or KIND/NAME of something that has pods."""
    if "/" in incomplete:
        return targets(ctx, parameter, incomplete)
    return _ask(ctx, lambda session: _names(session, "pods", incomplete))
