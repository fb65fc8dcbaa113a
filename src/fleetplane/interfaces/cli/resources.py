"""How people name objects: ``pods``, ``deploy web``, ``po/a svc/b``, ``deploy,rs -l app=web``, ``all``.

Words become ``Target``s by the server's own list of kinds. A target without a name means every object of the kind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from fleetplane.client.discovery import Catalogue, Discovered
from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError, UsageError
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType


@dataclass(frozen=True, slots=True)
class Target:
    """``name`` is empty for every object of the kind; ``namespace`` is set where the object itself says it."""

    resource: ResourceType
    name: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where in a server: ``namespace`` None means all of them."""

    namespace: str | None

    def of(self, target: Target) -> str | None:
        return (target.namespace or self.namespace) if target.resource.namespaced else None


def scope(session: Session, all_namespaces: bool = False) -> Scope:
    return Scope(None if all_namespaces else session.namespace)


async def parse_targets(session: Session, words: Sequence[str]) -> list[Target]:
    """Raises CommandError, worded for people, when a word names no kind."""
    if not words:
        raise UsageError("name a kind, for example 'pods' or 'deploy/web'; 'fleetplane api-resources' lists them")
    slashed = [word for word in words if "/" in word]
    if slashed:
        if len(slashed) != len(words):
            raise UsageError("name objects either as KIND NAME... or as KIND/NAME..., not both at once")
        return [await _slashed(session, word) for word in words]
    kinds, names = words[0], words[1:]
    found = [resource for kind in kinds.split(",") if kind for resource in await _resources(session, kind)]
    if not names:
        return [Target(resource) for resource in found]
    return [Target(resource, name) for resource in found for name in names]


async def one_target(session: Session, words: Sequence[str], default_kind: str = "") -> Target:
    """Exactly one named object; a bare NAME is of ``default_kind``."""
    if default_kind and len(words) == 1 and "/" not in words[0]:
        words = (f"{default_kind}/{words[0]}",)
    targets = await parse_targets(session, words)
    if len(targets) != 1 or not targets[0].name:
        raise UsageError("name exactly one object, for example deploy/web")
    return targets[0]


def named(targets: Sequence[Target], selector: str, select_all: bool, doing: str) -> None:
    """Refuse to do something to every object of a kind when nobody said so, and names mixed with selectors."""
    has_names = any(target.name for target in targets)
    if has_names and (selector or select_all):
        raise UsageError("give either names or a selector, not both")
    if not has_names and not selector and not select_all:
        raise UsageError(f"say which objects to {doing}: by name, with -l or with --all")


async def _slashed(session: Session, word: str) -> Target:
    kind, _, name = word.partition("/")
    if not kind or not name or "/" in name:
        raise UsageError(f"{word!r} does not name an object; write KIND/NAME, for example pod/web")
    return Target(await resource_named(session, kind), name)


async def _resources(session: Session, kind: str) -> list[ResourceType]:
    catalogue = await session.discovery.catalogue()
    if catalogue.find(kind) is None and (members := catalogue.in_category(kind)):
        return [one.type for one in members]
    return [await resource_named(session, kind)]


async def resource_named(session: Session, kind: str) -> ResourceType:
    """One kind by any of its names. Raises CommandError with what was perhaps meant."""
    return (await discovered(session, kind)).type


async def discovered(session: Session, kind: str) -> Discovered:
    try:
        return await session.discovery.find(kind)
    except ApiError as error:
        if error.code != 404:
            raise
        hint = _suggestion(await session.discovery.catalogue(), kind)
        raise CommandError(f"the server has no kind {kind!r}; {hint}") from None


def _suggestion(catalogue: Catalogue, kind: str) -> str:
    from difflib import get_close_matches

    names = {name for one in catalogue.resources for name in (one.type.plural, one.type.kind.lower())}
    near = get_close_matches(kind.lower().partition(".")[0], names, n=1)
    return f"did you mean {near[0]!r}?" if near else "'fleetplane api-resources' lists what it has"


async def selected(
    session: Session,
    targets: Sequence[Target],
    where: Scope,
    *,
    labels: str = "",
    fields: str = "",
    missing_ok: bool = False,
) -> AsyncGenerator[tuple[ResourceType, Object], None]:
    """Every object the targets mean. What is not there is said, and the rest goes on."""
    for target in targets:
        namespace = where.of(target)
        try:
            if target.name:
                if namespace is None and target.resource.namespaced:
                    raise UsageError("an object cannot be found by name in all namespaces; leave out -A")
                yield target.resource, await session.client.get(target.resource, target.name, namespace)
                continue
            found = session.client.iterate(target.resource, namespace, labels=labels or None, fields=fields or None)
            async for obj in found:
                yield target.resource, obj
        except ApiError as error:
            if error.code not in {403, 404, 405}:
                raise
            if not (missing_ok and error.code == 404 and target.name):
                session.fail(error)


def reference(resource: ResourceType, name: str) -> str:
    """``deployment.apps/web``: what scripts and people can give back to any command."""
    kind = resource.kind.lower()
    return f"{kind}.{resource.group}/{name}" if resource.group else f"{kind}/{name}"
