"""How controllers find cached objects: by the uid of their controller, or as orphans of a namespace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import Snapshot
from fleetplane.model.objects import Object

CONTROLLER: Final = "controller"
ORPHANS: Final = "orphans"


def _controllers(snapshot: Snapshot) -> Iterable[str]:
    return [owner.uid for owner in snapshot.owners if owner.controller]


def _orphans(snapshot: Snapshot) -> Iterable[str]:
    if any(owner.controller for owner in snapshot.owners):
        return ()
    return (f"{snapshot.key.cluster}/{snapshot.key.namespace}",)


def add_ownership(informer: Informer) -> None:
    """Adds both indexes; asking twice is fine."""
    informer.add_index(CONTROLLER, _controllers)
    informer.add_index(ORPHANS, _orphans)


def owned_by(informer: Informer, owner_uid: str) -> list[Object]:
    return informer.by_index(CONTROLLER, owner_uid)


def candidates(informer: Informer, owner_uid: str, cluster: str, namespace: str) -> list[Object]:
    """What the owner has, and what has no owner."""
    return owned_by(informer, owner_uid) + informer.by_index(ORPHANS, f"{cluster}/{namespace}")
