"""The earlier forms of workloads: which there are, and going back to one.

A Deployment keeps them as ReplicaSets, StatefulSets and DaemonSets as ControllerRevisions; both become ``Revision``s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.podselect import selector_of
from fleetplane.interfaces.cli.reporting import Report
from fleetplane.interfaces.cli.resources import Target, reference
from fleetplane.model.objects import Object, metadata, name, namespace, owner_references, uid
from fleetplane.model.resources import ResourceType

REPLICA_SETS: Final = ResourceType("apps", "v1", "ReplicaSet", "replicasets")
CONTROLLER_REVISIONS: Final = ResourceType("apps", "v1", "ControllerRevision", "controllerrevisions")
REVISION: Final = "deployment.kubernetes.io/revision"
CHANGE_CAUSE: Final = "kubernetes.io/change-cause"
_HASH: Final = "pod-template-hash"
MANAGER: Final = "fleetplane-rollout"

RESTARTABLE: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet"})


@dataclass(frozen=True, slots=True)
class Revision:
    """``template`` is the pod template; ``patch`` what brings a StatefulSet or DaemonSet back to it."""

    number: int
    name: str
    cause: str
    created: str
    template: Object
    patch: Object | None = None

    @property
    def images(self) -> str:
        containers = (self.template.get("spec") or {}).get("containers") or []
        return ", ".join(str(one.get("image")) for one in containers)


def check_kind(target: Target, doing: str, kinds: frozenset[str] = RESTARTABLE) -> None:
    if target.resource.group != "apps" or target.resource.kind not in kinds:
        shown = ", ".join(sorted(kinds))
        raise CommandError(f"{reference(target.resource, target.name)} cannot be {doing}; that is for: {shown}")


async def revisions(session: Session, obj: Object) -> list[Revision]:
    """Oldest first."""
    resource = REPLICA_SETS if obj.get("kind") == "Deployment" else CONTROLLER_REVISIONS
    labels = selector_of(obj)
    found = []
    async for one in session.client.iterate(resource, namespace(obj), labels=labels or None):
        if any(owner.uid == uid(obj) for owner in owner_references(one)):
            found.append(_of_replica_set(one) if resource is REPLICA_SETS else _of_controller_revision(one))
    return sorted((one for one in found if one.number), key=lambda one: one.number)


def _of_replica_set(obj: Object) -> Revision:
    notes = metadata(obj).get("annotations") or {}
    text = str(notes.get(REVISION) or "0")
    template = (obj.get("spec") or {}).get("template") or {}
    return Revision(
        int(text) if text.isdigit() else 0,
        name(obj),
        str(notes.get(CHANGE_CAUSE) or ""),
        str(metadata(obj).get("creationTimestamp") or ""),
        _without_hash(template),
    )


def _of_controller_revision(obj: Object) -> Revision:
    notes = metadata(obj).get("annotations") or {}
    data: Any = obj.get("data") or {}
    template = ((data.get("spec") or {}).get("template") or {}) if isinstance(data, dict) else {}
    return Revision(
        int(obj.get("revision") or 0),
        name(obj),
        str(notes.get(CHANGE_CAUSE) or ""),
        str(metadata(obj).get("creationTimestamp") or ""),
        {key: value for key, value in template.items() if key != "$patch"},
        data if isinstance(data, dict) else None,
    )


def _without_hash(template: Object) -> Object:
    meta = template.get("metadata") or {}
    kept = {key: value for key, value in (meta.get("labels") or {}).items() if key != _HASH}
    return {**template, "metadata": {**meta, "labels": kept}}


def chosen(found: list[Revision], wanted: int, obj: Object) -> Revision:
    """The revision with a number, or the one before the latest for 0. Raises CommandError."""
    who = f"{str(obj.get('kind')).lower()}/{name(obj)}"
    if wanted:
        for one in found:
            if one.number == wanted:
                return one
        known = ", ".join(str(one.number) for one in found) or "none"
        raise CommandError(f"{who} has no revision {wanted}; it has: {known}")
    if len(found) < 2:
        raise CommandError(f"{who} has no earlier revision to go back to")
    return found[-2]


def report_return(
    report: Report, resource: ResourceType, now: Object | None, changed: Object | None, number: int, *, dry_run: bool
) -> None:
    """Say that an object went back to a revision, or was there already; of a dry run also what would change."""
    from fleetplane.interfaces.cli.differences import print_diff, unified

    if changed is not None and dry_run and report.format.is_text:
        who = f"{changed.get('kind')} {namespace(changed)}/{name(changed)}".replace(" /", " ")
        print_diff(report.session.out, unified(now, changed, who))
    said = f"is at revision {number} already" if changed is None else f"rolled back to revision {number}"
    report.add(resource, changed or now or {}, said)
    report.finish(single=True)


async def go_back(
    session: Session, resource: ResourceType, obj: Object, to: Revision, *, dry_run: bool
) -> Object | None:
    """Make a revision the wanted state again; None when it is already. Raises CommandError, ApiError."""
    spec = obj.get("spec") or {}
    if spec.get("paused"):
        raise CommandError(f"deployment/{name(obj)} is paused; resume it first with 'fleetplane rollout resume'")
    if spec.get("template") == to.template:
        return None
    if to.patch is not None:
        return await session.client.patch(
            resource, name(obj), to.patch, namespace(obj), type="strategic", dry_run=dry_run, field_manager=MANAGER
        )
    # Whole and only if nobody changed it meanwhile: a merge would keep what the newer template added.
    patch: list[Object] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata(obj).get("resourceVersion")},
        {"op": "replace", "path": "/spec/template", "value": to.template},
    ]
    if to.cause:
        patch.append(
            {"op": "add", "path": f"/metadata/annotations/{CHANGE_CAUSE.replace('/', '~1')}", "value": to.cause}
        )
    return await session.client.patch(
        resource, name(obj), patch, namespace(obj), type="json", dry_run=dry_run, field_manager=MANAGER
    )
