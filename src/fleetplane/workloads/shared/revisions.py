"""ControllerRevisions: the history of a StatefulSet's or DaemonSet's template.

A revision's data is the template as a patch. Its name ends in a hash of that data, so the same template always finds
its revision again. Pure, but for names nothing here touches the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fleetplane.client.protocol import CLUSTER_ANNOTATION
from fleetplane.model.builtin.types import CONTROLLER_REVISIONS
from fleetplane.model.objects import Object, metadata, name, namespace
from fleetplane.workloads.shared.templates import safe_digest, same_meaning

HASH_LABEL: Final = "controller.kubernetes.io/hash"
POD_REVISION: Final = "controller-revision-hash"
_CHANGE_CAUSE: Final = frozenset({"kubectl.kubernetes.io/last-applied-configuration", CLUSTER_ANNOTATION})


def template_data(owner: Mapping[str, Any]) -> Object:
    """What a revision keeps: enough to put the template back by a strategic merge patch."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def template_of(revision: Mapping[str, Any]) -> Object:
    """The template a revision kept."""
    template = ((revision.get("data") or {}).get("spec") or {}).get("template") or {}
    return {key: value for key, value in template.items() if key != "$patch"}


def number(revision: Mapping[str, Any]) -> int:
    return int(revision.get("revision") or 0)


def by_number(revisions: Iterable[Object]) -> list[Object]:
    """Oldest first; equal numbers by age, then name."""
    return sorted(revisions, key=lambda one: (number(one), metadata(one).get("creationTimestamp") or "", name(one)))


def find(owner: Mapping[str, Any], revisions: Sequence[Object]) -> Object | None:
    """The newest revision that keeps the owner's present template."""
    data = template_data(owner)
    return next((one for one in reversed(by_number(revisions)) if same_meaning(one.get("data"), data)), None)


def make(owner: Mapping[str, Any], reference: Object, new_number: int, collisions: int) -> Object:
    """A revision for the owner's present template."""
    data = template_data(owner)
    digest = safe_digest(data, collisions)
    labels = {**((owner["spec"]["template"].get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    notes = {
        key: value for key, value in (metadata(owner).get("annotations") or {}).items() if key not in _CHANGE_CAUSE
    }
    made: Object = {"name": f"{name(owner)}-{digest}", "namespace": namespace(owner), "labels": labels}
    if notes:
        made["annotations"] = notes
    return {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {**made, "ownerReferences": [reference]},
        "data": data,
        "revision": new_number,
    }


def next_number(revisions: Sequence[Object]) -> int:
    return max(map(number, revisions), default=0) + 1


def beyond_history(revisions: Sequence[Object], live: Iterable[str], limit: int) -> list[Object]:
    """Revisions to forget: the oldest of those that nobody lives on, beyond ``limit``."""
    kept = set(live)
    dead = [one for one in by_number(revisions) if name(one) not in kept]
    return dead[: max(0, len(dead) - limit)]
