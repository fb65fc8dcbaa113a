"""Looks at objects one by one: asks what their owners are, decides, and does it.

Nothing is deleted on the graph's word alone. That an owner is absent was either seen (its deletion came by) or is asked
of the server, by the name the reference gives and compared by uid. Every deletion carries the uid and the version the
decision was made on, so an object that was adopted meanwhile survives.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from fleetplane.client.protocol import Client
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, finalizers, is_deleting, metadata, owner_references, uid
from fleetplane.workloads.garbage.graph import FOREGROUND, ORPHAN, Graph, Identity, Node, Owner
from fleetplane.workloads.garbage.plan import (
    Action,
    Delete,
    DropOwners,
    LookAt,
    Nothing,
    OrphanAll,
    Release,
    State,
    decide,
    decide_for_waiting,
)
from fleetplane.workloads.shared.actor import Actor

_REMEMBERED: Final = 10_000


class Unresolvable(Exception):
    """An owner's kind is not known to the server now; nothing may be concluded from that."""


class Collector:
    """``look`` is one look at one node; it returns the nodes to look at next. Raises ApiError or Unresolvable."""

    def __init__(self, actor: Actor, graph: Graph) -> None:
        self._actor = actor
        self._graph = graph
        self._absent: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def look(self, node: Node) -> set[Node]:
        identity = node.identity
        if identity is None or self._graph.nodes.get(node.uid) is not node:
            return set()
        if node.waits_for_dependents or node.orphans_dependents:
            if not node.deleting:
                return set()
            return await self._do(node, identity, decide_for_waiting(node))
        if node.deleting or not node.owners:
            return set()
        states = [(owner, await self._state(identity, owner)) for owner in node.owners]
        return await self._do(node, identity, decide(node, states))

    # what owners are

    async def _state(self, identity: Identity, owner: Owner) -> State:
        node = self._graph.nodes.get((identity.cluster, owner.uid))
        if node is not None and node.is_absent:
            return State.ABSENT
        if node is not None and node.identity is not None and _is_where(owner, identity, node.identity):
            return State.WAITING if node.waits_for_dependents and node.deleting else State.SOLID
        key = (identity.cluster, owner.uid, identity.namespace)
        if key in self._absent:
            return State.ABSENT
        found = await self._ask(identity, owner)
        if found is None:
            self._absent[key] = None
            if len(self._absent) > _REMEMBERED:
                self._absent.popitem(last=False)
            if node is not None and node.identity is not None:
                self._tell_misplaced(identity, owner)
            return State.ABSENT
        waits = is_deleting(found) and FOREGROUND in finalizers(found)
        return State.WAITING if waits else State.SOLID

    async def _ask(self, identity: Identity, owner: Owner) -> Object | None:
        """The owner as the reference names it; None when there is none, or another of that name."""
        discovery = self._actor.discovery(identity.cluster)
        try:
            kind = (await discovery.by_kind(owner.api_version, owner.kind)).type
        except ApiError as error:
            raise Unresolvable(error.message) from None
        if kind.namespaced and not identity.namespace:
            self._tell_misplaced(identity, owner)
            raise Unresolvable("a cluster-scoped object cannot have an owner in a namespace")
        client = self._actor.client(identity.cluster)
        try:
            found = await client.get(kind, owner.name, identity.namespace if kind.namespaced else None)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return found if uid(found) == owner.uid else None

    def _tell_misplaced(self, identity: Identity, owner: Owner) -> None:
        key = (identity.uid, owner.uid)
        if key in self._told:
            return
        self._told[key] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        where = f"namespace: {identity.namespace}, " if identity.namespace else ""
        text = (
            f"ownerRef [{owner.api_version}/{owner.kind}, {where}name: {owner.name}, uid: {owner.uid}] "
            f'does not exist in namespace "{identity.namespace}"'
        )
        subject = {
            "apiVersion": identity.resource.api_version,
            "kind": identity.resource.kind,
            "metadata": {"name": identity.name, "namespace": identity.namespace, "uid": identity.uid},
        }
        self._actor.tell(identity.cluster, subject, "Warning", "OwnerRefInvalidNamespace", text)

    # doing it

    async def _do(self, node: Node, identity: Identity, action: Action) -> set[Node]:
        match action:
            case Nothing():
                return set()
            case LookAt(nodes):
                return set(nodes)
            case DropOwners(uids):
                await self._change_owners(node, identity, uids)
            case Delete():
                await self._delete(node, identity, action)
            case Release():
                await self._remove_finalizer(identity, FOREGROUND)
            case OrphanAll(nodes):
                for dependent in nodes:
                    if dependent.identity is not None:
                        await self._change_owners(dependent, dependent.identity, frozenset({identity.uid}))
                await self._remove_finalizer(identity, ORPHAN)
        return set()

    def _client(self, identity: Identity) -> Client:
        return self._actor.client(identity.cluster)

    async def _delete(self, node: Node, identity: Identity, action: Delete) -> None:
        if action.unblock:
            await self._unblock(node, identity)
        try:
            await self._client(identity).delete(
                identity.resource,
                identity.name,
                identity.namespace or None,
                uid=identity.uid,
                resource_version=None if action.unblock else node.resource_version,
                propagation=action.policy,  # said outright: some kinds would leave their dependents behind
            )
        except ApiError as error:
            if error.code == 404:
                return
            if error.code == 409:
                await self._look_again(node, identity)
            raise

    async def _look_again(self, node: Node, identity: Identity) -> None:
        """The object is not as the graph has it: takes in what it is now, before it is looked at again."""
        fresh = await self._get(identity)
        if fresh is None:
            self._graph.remove(node.uid)

    async def _get(self, identity: Identity) -> Object | None:
        try:
            found = await self._client(identity).get(identity.resource, identity.name, identity.namespace or None)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return found if uid(found) == identity.uid else None

    async def _change_owners(self, node: Node, identity: Identity, gone: frozenset[str]) -> None:
        """Takes references off, guarded by the version that was read."""
        obj = await self._get(identity)
        if obj is None or not any(one.uid in gone for one in owner_references(obj)):
            return
        kept = [one for one in metadata(obj).get("ownerReferences") or [] if one.get("uid") not in gone]
        await self._patch(identity, obj, {"ownerReferences": kept or None})

    async def _unblock(self, node: Node, identity: Identity) -> None:
        obj = await self._get(identity)
        if obj is None or not any(one.block_owner_deletion for one in owner_references(obj)):
            return
        freed = [{**one, "blockOwnerDeletion": False} for one in metadata(obj).get("ownerReferences") or []]
        await self._patch(identity, obj, {"ownerReferences": freed})

    async def _remove_finalizer(self, identity: Identity, finalizer: str) -> None:
        obj = await self._get(identity)
        if obj is None or finalizer not in finalizers(obj):
            return
        kept = [one for one in finalizers(obj) if one != finalizer]
        await self._patch(identity, obj, {"finalizers": kept or None})

    async def _patch(self, identity: Identity, obj: Object, change: Object) -> None:
        meta = metadata(obj)
        guard = {"uid": identity.uid, "resourceVersion": meta.get("resourceVersion")}
        try:
            await self._client(identity).patch(
                identity.resource, identity.name, {"metadata": {**guard, **change}}, identity.namespace or None
            )
        except ApiError as error:
            if error.code != 404:
                raise


def _is_where(owner: Owner, dependent: Identity, found: Identity) -> bool:
    """Whether the object of that uid is the one the reference means."""
    if found.name != owner.name or found.resource.kind != owner.kind:
        return False
    return not found.resource.namespaced or found.namespace == dependent.namespace
