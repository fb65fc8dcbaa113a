"""Who owns whom. Pure data, fed by events; it says which objects are worth a look after each.

Only objects that own, are owned or wait for the collector are kept, and of them only identity, owners and three flags:
a plane with a million ConfigMaps of their own costs nothing here. An owner that was named but not yet seen is *virtual*
until an event or a question to the server settles whether it exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from fleetplane.model.resources import ResourceType

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"

Uid = tuple[str, str]
"""(cluster, uid)."""


class Owner(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """An owner reference as it is written."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    block_owner_deletion: bool | None = None


class Meta(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """The part of an object the collector looks at."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    finalizers: list[str] | None = None
    owner_references: list[Owner] | None = None
    annotations: dict[str, str] | None = None


class _Partial(msgspec.Struct, gc=False):
    metadata: Meta = msgspec.field(default_factory=Meta)


decode_meta: Final = msgspec.json.Decoder(_Partial).decode


class Identity(NamedTuple):
    """Where an object is. Two objects of one uid at different places are a lie somewhere."""

    cluster: str
    resource: ResourceType
    namespace: str
    name: str
    uid: str


@dataclass(slots=True, eq=False)
class Node:
    """``identity`` is None while the object is virtual; ``is_absent`` when it is known to be gone for good."""

    uid: Uid
    identity: Identity | None = None
    resource_version: str = ""
    owners: tuple[Owner, ...] = ()
    deleting: bool = False
    waits_for_dependents: bool = False
    orphans_dependents: bool = False
    is_absent: bool = False
    dependents: set[Node] = field(default_factory=set)

    def blocks(self, owner: Node) -> bool:
        """Whether the owner must wait for this one when it is deleted in the foreground."""
        return any(one.uid == owner.uid[1] and one.block_owner_deletion for one in self.owners)


class Graph:
    """See the module. ``observe`` and ``remove`` return the nodes to look at."""

    def __init__(self) -> None:
        self.nodes: dict[Uid, Node] = {}

    def observe(self, cluster: str, resource: ResourceType, meta: Meta) -> set[Node]:
        """The object as it is now."""
        key = (cluster, meta.uid)
        owners = tuple(meta.owner_references or ())
        deleting = meta.deletion_timestamp is not None
        finalizers = (meta.finalizers or ()) if deleting else ()
        waits, orphans = FOREGROUND in finalizers, ORPHAN in finalizers
        node = self.nodes.get(key)
        if node is None:
            if not owners and not waits and not orphans:
                return set()
            node = self.nodes[key] = Node(key)
        first_seen = node.identity is None
        node.is_absent = False
        node.identity = Identity(cluster, resource, meta.namespace, meta.name, meta.uid)
        node.resource_version = meta.resource_version
        worth = self._set_owners(node, owners)
        if waits and not node.waits_for_dependents:
            worth |= {node}
        if orphans and not node.orphans_dependents:
            worth |= {node}
        if deleting and not node.deleting:
            worth |= self._waiting_owners(node)
        node.deleting, node.waits_for_dependents, node.orphans_dependents = deleting, waits, orphans
        if first_seen:
            worth |= {one for one in node.dependents if _is_elsewhere(one, node)}
        self._drop_if_useless(node)
        return worth

    def remove(self, key: Uid) -> set[Node]:
        """The object is gone, or was found never to have existed."""
        node = self.nodes.pop(key, None)
        if node is None:
            return set()
        worth = self._waiting_owners(node)
        for owner in self._owners_of(node):
            owner.dependents.discard(node)
            self._drop_if_useless(owner)
        if node.dependents:
            self.nodes[key] = ghost = Node(key, is_absent=True, dependents=node.dependents)
            worth |= ghost.dependents
        return worth

    def needs_a_look(self, node: Node) -> bool:
        """Whether any of its owners has not been seen as the reference names it, is known to be gone, or waits for it."""
        for one in node.owners:
            owner = self.nodes.get((node.uid[0], one.uid))
            if owner is None or owner.identity is None or _needs_a_look(node, owner):
                return True
            if (owner.identity.name, owner.identity.resource.kind) != (one.name, one.kind):
                return True
        return False

    def of_resource(self, resource: ResourceType) -> list[Node]:
        return [one for one in self.nodes.values() if one.identity is not None and one.identity.resource == resource]

    def _set_owners(self, node: Node, owners: tuple[Owner, ...]) -> set[Node]:
        if owners == node.owners:
            return set()
        before = {one.uid for one in node.owners}
        after = {one.uid for one in owners}
        worth: set[Node] = set()
        for gone in before - after:
            owner = self.nodes.get((node.uid[0], gone))
            if owner is not None:
                owner.dependents.discard(node)
                if owner.waits_for_dependents:
                    worth.add(owner)
                self._drop_if_useless(owner)
        unblocked = [one.uid for one in node.owners if one.block_owner_deletion]
        node.owners = owners
        for one in owners:
            owner = self.nodes.get((node.uid[0], one.uid))
            if owner is None:
                owner = self.nodes[node.uid[0], one.uid] = Node((node.uid[0], one.uid))
            owner.dependents.add(node)
            if one.uid not in before and _needs_a_look(node, owner):
                worth.add(node)
            if one.uid in unblocked and not one.block_owner_deletion and owner.waits_for_dependents:
                worth.add(owner)
        return worth

    def _owners_of(self, node: Node) -> list[Node]:
        found = (self.nodes.get((node.uid[0], one.uid)) for one in node.owners)
        return [one for one in found if one is not None]

    def _waiting_owners(self, node: Node) -> set[Node]:
        return {owner for owner in self._owners_of(node) if owner.waits_for_dependents}

    def _drop_if_useless(self, node: Node) -> None:
        if not node.owners and not node.dependents and not node.waits_for_dependents and not node.orphans_dependents:
            self.nodes.pop(node.uid, None)


def _needs_a_look(node: Node, owner: Node) -> bool:
    return owner.identity is None or owner.waits_for_dependents or _is_elsewhere(node, owner)


def _is_elsewhere(node: Node, owner: Node) -> bool:
    """The reference leads to another namespace or name than the object of that uid has: it is wrong."""
    if node.identity is None or owner.identity is None:
        return True
    space = owner.identity.namespace
    return bool(space) and space != node.identity.namespace


def worth_at_start(nodes: Iterable[Node]) -> set[Node]:
    """After everything was seen once: what has an owner nobody saw or that waits, and what waits itself."""
    found: set[Node] = set()
    for node in nodes:
        found |= {one for one in node.dependents if _needs_a_look(one, node)}
        if node.waits_for_dependents or node.orphans_dependents:
            found.add(node)
    return found
