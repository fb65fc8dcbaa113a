"""The earlier versions of any object, where the server keeps them, and going back to one.

A Fleetplane server answers ``GET <object>?history=true`` with the versions that compaction has left; another Kubernetes
ignores the question, and then there are none. A version's number is the revision the server gave it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.differences import written
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.resources import Target, reference
from fleetplane.interfaces.cli.revisions import MANAGER
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata

_MOST: Final = "1000"
_NOISE: Final = frozenset({"managedFields", "resourceVersion", "generation"})


@dataclass(frozen=True, slots=True)
class Version:
    """``time`` and ``manager`` say who made it, as far as the server recorded that; ``fields`` what was changed by it."""

    number: int
    deleted: bool
    object: Object
    time: str
    manager: str
    fields: tuple[str, ...]


async def versions(session: Session, target: Target) -> list[Version]:
    """Oldest first; of an object that is gone, too. Raises ApiError 404 when nothing is known of it."""
    where = session.namespace if target.resource.namespaced else ""
    path = target.resource.path(where, target.name)
    answer = json.loads(await session.client.raw("GET", path, query={"history": "true", "limit": _MOST}))
    if answer.get("kind") != "ObjectHistory":
        return []
    found: list[Version] = []
    before: Object = {}
    for item in reversed(answer.get("items") or []):
        number, deleted, obj = int(item["revision"]), bool(item["deleted"]), item["object"]
        time, manager = _author(before, obj) if not deleted else (str(metadata(obj).get("deletionTimestamp") or ""), "")
        found.append(Version(number, deleted, obj, time, manager, () if deleted else tuple(changed(before, obj))))
        before = {} if deleted else obj
    return found


def changed(before: Object, after: Object) -> Iterator[str]:
    """The paths of the fields that differ, without those that differ in every version."""
    for path in _different(_told(before), _told(after), ""):
        yield path or "."


def _told(obj: Object) -> Object:
    meta = {key: value for key, value in metadata(obj).items() if key not in _NOISE}
    return {**obj, "metadata": meta} if obj else {}


def _different(before: Any, after: Any, above: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before:
        for key in sorted({*before, *after}):
            yield from _different(before.get(key), after.get(key), f"{above}.{key}")
    elif before != after:
        yield above


def _author(before: Object, after: Object) -> tuple[str, str]:
    """When it was made, and by whom: the newest entry of managedFields that the version before did not have.

    Times have seconds: who writes the same fields twice in one leaves the same entry, which is then the newest of all.
    """
    known = metadata(before).get("managedFields") or []
    entries = metadata(after).get("managedFields") or []
    added = [one for one in entries if one not in known] or entries
    newest: Object = max(added, key=lambda one: str(one.get("time") or ""), default={})
    created = "" if before else str(metadata(after).get("creationTimestamp") or "")
    return str(newest.get("time") or created), str(newest.get("manager") or "")


def version(found: Sequence[Version], number: int, target: Target) -> Version:
    """The one with this number. Raises CommandError."""
    for one in found:
        if one.number == number and not one.deleted:
            return one
    who = reference(target.resource, target.name)
    if not found:
        raise CommandError(f"the server keeps no earlier revisions of {who}")
    known = ", ".join(str(one.number) for one in found[-10:] if not one.deleted)
    raise CommandError(f"{who} has no revision {number} any more; the latest are: {known}")


def version_before(found: Sequence[Version], now: Object | None, target: Target) -> Version:
    """The latest in which something that people write was different. Raises CommandError."""
    for one in reversed(found):
        if not one.deleted and (now is None or written(one.object) != written(now)):
            return one
    raise CommandError(
        f"the server keeps no earlier revision of {reference(target.resource, target.name)} to go back to"
    )


async def restore(session: Session, target: Target, now: Object | None, to: Version, *, dry_run: bool) -> Object | None:
    """Make a version the wanted state again; None when it is already. Raises ApiError.

    Finalizers, owners and status stay what they are now: controllers keep them, not people. What was deleted is made
    again without them. Refused as a conflict when somebody changed the object meanwhile.
    """
    then = metadata(to.object)
    words = {key: then[key] for key in ("name", "namespace", "labels", "annotations") if then.get(key)}
    body = {key: value for key, value in to.object.items() if key not in {"metadata", "status"}}
    namespace = words.get("namespace")
    if now is None:
        made = {**body, "metadata": words}
        return await session.client.create(target.resource, made, namespace, dry_run=dry_run, field_manager=MANAGER)
    kept = {key: value for key, value in metadata(now).items() if key not in {"labels", "annotations"}}
    made = {**body, "metadata": {**kept, **words}, **({"status": now["status"]} if "status" in now else {})}
    if written(made) == written(now):
        return None
    return await session.client.update(target.resource, made, namespace, dry_run=dry_run, field_manager=MANAGER)


async def current(session: Session, target: Target) -> Object | None:
    """The object, or None when it is gone."""
    where = session.namespace if target.resource.namespaced else None
    try:
        return await session.client.get(target.resource, target.name, where)
    except ApiError as error:
        if error.code != 404:
            raise
        return None
