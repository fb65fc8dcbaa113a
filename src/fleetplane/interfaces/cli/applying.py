"""Server-side apply of a set: each step in order, definitions served before their objects, what is gone from the set pruned.

The server merges (KEP-555), so an object is sent as written; what we add is order, waiting, and words: created,
configured or unchanged, and for a conflict whose field it is and what one can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fleetplane.client.discovery import Discovered, Discovery
from fleetplane.interfaces.cli.connection import FIELD_MANAGER, Session, worded
from fleetplane.interfaces.cli.differences import print_diff, unified
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.manifests import Manifest, namespace_of, resource_of
from fleetplane.interfaces.cli.ordering import DEFINITIONS, rank, steps
from fleetplane.interfaces.cli.progress import Progress
from fleetplane.interfaces.cli.reporting import Report
from fleetplane.interfaces.cli.resources import reference
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_condition_true, is_deleting, labels, metadata, name, namespace, uid
from fleetplane.model.resources import ResourceType

DryRun = Literal["none", "client", "server"]

_AT_ONCE: Final = 8
_SERVED_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    force: bool = False
    manager: str = FIELD_MANAGER
    dry_run: DryRun = "none"
    diff: bool = False
    validate: str = "Strict"


@dataclass(frozen=True, slots=True)
class Applied:
    """``error`` is set when the object was refused; ``before`` is None when it was not there."""

    manifest: Manifest
    resource: ResourceType
    before: Object | None = None
    after: Object | None = None
    error: str = ""

    @property
    def what(self) -> str:
        if self.before is None:
            return "created"
        same = self.after is not None and not _differs(self.before, self.after)
        return "unchanged" if same else "configured"


async def apply_all(
    session: Session, manifests: Sequence[Manifest], options: Options, report: Report, shown: Progress
) -> list[Applied]:
    """Apply every step in order. What is refused is said and counted; later steps still go on."""
    coming = _Coming.of(manifests)
    done: list[Applied] = []
    for step in steps(manifests):
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(manifest: Manifest, slots: asyncio.Semaphore = slots) -> Applied:
            async with slots:
                return await _apply(session, manifest, options, coming)

        running = [asyncio.ensure_future(one(manifest)) for manifest in step]
        try:
            for task in running:
                shown.say(f"applying, {len(done)} of {len(manifests)} done")
                applied = await task
                done.append(applied)
                _tell(session, applied, options, report)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if options.dry_run == "none":
            await _until_served(session, [one for one in done if one.manifest in step and not one.error], shown)
    return done


@dataclass(frozen=True, slots=True)
class _Coming:
    """What the set itself will bring: a dry run cannot ask the server about objects that need it."""

    namespaces: frozenset[str]
    kinds: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, manifests: Sequence[Manifest]) -> _Coming:
        kinds = set()
        for one in manifests:
            if one.kind == DEFINITIONS:
                spec = one.object.get("spec") or {}
                kinds.add((str(spec.get("group")), str((spec.get("names") or {}).get("kind"))))
        return cls(frozenset(name(one.object) for one in manifests if one.kind == "Namespace"), frozenset(kinds))


async def _apply(session: Session, manifest: Manifest, options: Options, coming: _Coming) -> Applied:
    group = manifest.api_version.rpartition("/")[0]
    try:
        resource = await resource_of(session, manifest)
    except CommandError as error:
        unserved = ResourceType(
            group, manifest.api_version.rpartition("/")[2], manifest.kind, manifest.kind.lower() + "s"
        )
        if options.dry_run != "none" and (group, manifest.kind) in coming.kinds:
            return Applied(manifest, unserved, None, manifest.object)
        return Applied(manifest, unserved, error=str(error))
    try:
        where = namespace_of(session, manifest, resource)
    except CommandError as error:
        return Applied(manifest, resource, error=str(error))
    obj = manifest.object
    if where and not namespace(obj):
        obj = {**obj, "metadata": {**metadata(obj), "namespace": where}}
    try:
        before = await _before(session, resource, obj, where)
        if options.dry_run == "client" or (
            options.dry_run == "server" and before is None and where in coming.namespaces
        ):
            return Applied(manifest, resource, before, obj if before is None else before)
        after = await session.client.apply(
            resource,
            obj,
            where or None,
            field_manager=options.manager,
            force=options.force,
            dry_run=options.dry_run == "server",
            field_validation=options.validate,
        )
    except ApiError as error:
        if error.code in {401, 503}:
            raise
        return Applied(manifest, resource, error=_refusal(manifest, error))
    return Applied(manifest, resource, before, after)


async def _before(session: Session, resource: ResourceType, obj: Object, where: str) -> Object | None:
    if not name(obj):
        raise ApiError(400, "an object with only a generateName cannot be applied; give it a metadata.name")
    try:
        return await session.client.get(resource, name(obj), where or None)
    except ApiError as error:
        if error.code != 404:
            raise
        return None


def _differs(before: Object, after: Object) -> bool:
    if uid(before) != uid(after):
        return True
    return metadata(before).get("resourceVersion") != metadata(after).get("resourceVersion")


def _refusal(manifest: Manifest, error: ApiError) -> str:
    what = f"{manifest.kind} {name(manifest.object)} of {manifest.source}"
    owned = [cause for cause in error.causes if cause.reason == "FieldManagerConflict"]
    if error.code != 409 or not owned:
        return f"{what} was refused: {worded(error)}"
    fields = "; ".join(f"{cause.field} ({cause.detail.removeprefix('conflict ')})" for cause in owned)
    return (
        f"{what} was not applied, because others own fields that it sets differently: {fields}; "
        "drop these fields from the file, or take them over with --force-conflicts"
    )


def _tell(session: Session, applied: Applied, options: Options, report: Report) -> None:
    if applied.error:
        session.fail(applied.error)
        return
    obj = applied.after or applied.manifest.object
    if options.diff:
        label = f"{namespace(obj)}/{name(obj)}".lstrip("/")
        print_diff(session.out, unified(applied.before, applied.after, f"{applied.manifest.kind} {label}"))
    report.add(applied.resource, obj, applied.what)


async def _until_served(session: Session, applied: Sequence[Applied], shown: Progress) -> None:
    """Wait for applied definitions to be Established and listed, so that objects of their kinds can follow."""
    definitions = [one for one in applied if one.manifest.kind == DEFINITIONS]
    if not definitions:
        return
    for one in definitions:
        shown.say(f"waiting for the server to serve {name(one.manifest.object)}")
        try:
            async with asyncio.timeout(_SERVED_SECONDS):
                await _established(session, one)
        except TimeoutError:
            raise CommandError(
                f"the server does not serve {name(one.manifest.object)} after {_SERVED_SECONDS:.0f} seconds; "
                f"see 'fleetplane describe crd {name(one.manifest.object)}'"
            ) from None


async def _established(session: Session, one: Applied) -> None:
    obj = one.after or {}
    while not is_condition_true(obj, "Established"):
        await asyncio.sleep(_POLL_SECONDS)
        obj = await session.client.get(one.resource, name(one.manifest.object))
    spec = obj.get("spec") or {}
    group, kind = str(spec.get("group")), str((spec.get("names") or {}).get("kind"))
    while True:
        # What discovery remembers is from before; it looks again by itself, but not at once.
        session.discovery = Discovery(session.client, session.environment)
        if (await session.discovery.catalogue()).by_group_kind(group, kind) is not None:
            return
        await asyncio.sleep(_POLL_SECONDS)


# --- Pruning ------------------------------------------------------------------------------------------------------


async def prune(session: Session, applied: Sequence[Applied], selector: str, options: Options, report: Report) -> None:
    """Delete what carries the labels and was once applied by us, and is no longer in the set.

    Only namespaces that the set names are searched, and only objects that this field manager applied are touched:
    what controllers made from them carries the same labels and must stay theirs.
    """
    kept = {uid(one.after) for one in applied if one.after}
    kept_names = {
        (one.resource.group, one.resource.kind, namespace(one.after), name(one.after)) for one in applied if one.after
    }
    namespaces = sorted(
        {namespace(one.after) for one in applied if one.after and namespace(one.after)} or {session.namespace}
    )
    found: list[tuple[ResourceType, Object]] = []
    for one in (await session.discovery.catalogue()).preferred():
        if not _is_prunable(one):
            continue
        for where in namespaces if one.type.namespaced else [None]:
            for obj in await _labelled(session, one.type, where, selector):
                key = (one.type.group, one.type.kind, namespace(obj), name(obj))
                if uid(obj) in kept or key in kept_names or not _is_ours(obj, options.manager) or is_deleting(obj):
                    continue
                kept.add(uid(obj))  # the same object may be listed in two groups
                found.append((one.type, obj))
    for resource, obj in sorted(found, key=lambda one: -rank(one[0].kind)):
        if options.dry_run != "client":
            try:
                await session.client.delete(
                    resource,
                    name(obj),
                    namespace(obj) or None,
                    propagation="Background",
                    uid=uid(obj),
                    dry_run=options.dry_run == "server",
                )
            except ApiError as error:
                if error.code != 404:
                    session.fail(error)
                continue
        report.add(resource, obj, "pruned")


def _is_prunable(one: Discovered) -> bool:
    return {"list", "delete"} <= one.verbs and one.type.kind not in {
        "Event",
        "Pod",
        "Node",
        "Lease",
        "EndpointSlice",
        "Endpoints",
    }


async def _labelled(session: Session, resource: ResourceType, where: str | None, selector: str) -> list[Object]:
    try:
        return [obj async for obj in session.client.iterate(resource, where, labels=selector)]
    except ApiError as error:
        if error.code in {403, 404, 405}:
            return []
        raise


def _is_ours(obj: Object, manager: str) -> bool:
    managed = metadata(obj).get("managedFields") or []
    return bool(labels(obj)) and any(
        one.get("manager") == manager and one.get("operation") == "Apply" for one in managed if isinstance(one, dict)
    )


def described(applied: Applied) -> str:
    return reference(applied.resource, name(applied.after or applied.manifest.object))
