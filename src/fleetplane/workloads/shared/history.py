"""Keeps the ControllerRevisions of an owner on the server: claims them, makes the present one, forgets old ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleetplane.client.informer import Informer
from fleetplane.model.builtin.types import CONTROLLER_REVISIONS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name, namespace, uid
from fleetplane.model.resources import ResourceType
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.shared import revisions
from fleetplane.workloads.shared.actor import Actor
from fleetplane.workloads.shared.indexes import add_ownership, candidates
from fleetplane.workloads.shared.ownership import claim, owner_reference
from fleetplane.workloads.shared.templates import same_meaning


@dataclass(frozen=True, slots=True)
class Collision:
    """Another revision has the name that the present template's would get: the owner must count a collision."""


class History:
    """For all owners of one kind."""

    def __init__(self, actor: Actor, resource: ResourceType, informer: Informer) -> None:
        self._actor = actor
        self._resource = resource
        self._informer = informer
        add_ownership(informer)

    async def of(self, cluster: str, owner: Object, selector: LabelSelector) -> list[Object]:
        """All of the owner's revisions, after adopting and releasing."""
        found = candidates(self._informer, uid(owner), cluster, namespace(owner))
        claims = claim(owner, selector, found)
        reference = owner_reference(owner, self._resource)
        return await self._actor.settle_claims(cluster, self._resource, owner, reference, claims, CONTROLLER_REVISIONS)

    async def present(self, cluster: str, owner: Object, known: list[Object]) -> Object | Collision:
        """The revision of the owner's present template: found and made the newest, or made."""
        wanted = revisions.next_number(known)
        found = revisions.find(owner, known)
        if found is not None:
            if revisions.number(found) == wanted - 1:
                return found
            guard = {"resourceVersion": found["metadata"].get("resourceVersion")}
            patch = {"metadata": guard, "revision": wanted}
            client = self._actor.client(cluster)
            return await client.patch(CONTROLLER_REVISIONS, name(found), patch, namespace(owner))
        collisions = int((owner.get("status") or {}).get("collisionCount") or 0)
        made = revisions.make(owner, owner_reference(owner, self._resource), wanted, collisions)
        try:
            return await self._actor.create_child(cluster, CONTROLLER_REVISIONS, made)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        there = await self._actor.client(cluster).get(CONTROLLER_REVISIONS, name(made), namespace(owner))
        return there if same_meaning(there.get("data"), made["data"]) else Collision()

    async def forget(self, cluster: str, old: Iterable[Object]) -> None:
        for one in old:
            await self._actor.delete(cluster, CONTROLLER_REVISIONS, namespace(one), name(one), uid(one))
