"""Whose is this object: claiming what a selector matches, and letting go of what it no longer does.

An object has at most one controlling owner. A controller adopts orphans that its selector matches and releases its own
that it does not match; it never takes from another. Adoption writes, so it is decided here and done by the caller,
who first makes sure by a live read that the owner still exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetplane.model.objects import Object, controller_of, is_deleting, labels, metadata, name, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.selectors import LabelSelector


@dataclass(slots=True)
class Claims:
    """``owned`` are ours already; ``adopt`` want an owner; ``release`` are ours no longer."""

    owned: list[Object] = field(default_factory=list)
    adopt: list[Object] = field(default_factory=list)
    release: list[Object] = field(default_factory=list)


def owner_reference(owner: Mapping[str, Any], resource: ResourceType) -> Object:
    """The controlling reference to ``owner``, which blocks its foreground deletion."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": name(owner),
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def claim(owner: Mapping[str, Any], selector: LabelSelector, candidates: Iterable[Object]) -> Claims:
    """Sorts candidates of the owner's namespace into what is, becomes and ceases to be the owner's."""
    claims = Claims()
    owner_uid = uid(owner)
    owner_deleting = is_deleting(owner)
    for candidate in candidates:
        current = controller_of(candidate)
        if current is not None:
            if current.uid != owner_uid:
                continue
            if selector.matches(labels(candidate)):
                claims.owned.append(candidate)
            elif not owner_deleting:
                claims.release.append(candidate)
        elif not owner_deleting and not is_deleting(candidate) and selector.matches(labels(candidate)):
            claims.adopt.append(candidate)
    return claims


def adoption_patch(candidate: Mapping[str, Any], reference: Object) -> Object:
    """A merge patch that adds the reference; refused by the server when the object changed meanwhile."""
    references = [*(metadata(candidate).get("ownerReferences") or []), reference]
    return _owners_patch(candidate, references)


def release_patch(candidate: Mapping[str, Any], owner_uid: str) -> Object:
    """A merge patch that takes the owner away; refused by the server when the object changed meanwhile."""
    references = [one for one in metadata(candidate).get("ownerReferences") or [] if one.get("uid") != owner_uid]
    return _owners_patch(candidate, references)


def _owners_patch(candidate: Mapping[str, Any], references: list[Object]) -> Object:
    meta = metadata(candidate)
    return {
        "metadata": {
            "uid": meta.get("uid"),
            "resourceVersion": meta.get("resourceVersion"),
            "ownerReferences": references or None,
        }
    }
