"""Making an object's children be what they should be, and nothing more.

``apply_children`` takes the whole list of children an owner should have. Each is applied under the operator's own field
manager, so what others put on it stays; those the owner no longer wants are deleted. In steady state nothing is sent at
all: what an apply would do is read off the cached child (see ``applied``), and where that cannot tell, the outcome of the
last apply is remembered with the state it led to.

Children are found by owner reference. A child that cannot carry one (in another namespace than its owner, or
cluster-scoped) carries the owner's uid as a label instead; the garbage collector does not know it, so an operator that
makes such children needs a finalizer and calls ``delete_children``.

It never touches an object that another controller owns: that is a conflict of intent, and raised as ``Permanent``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from fleetplane.client.index import by_owner
from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.applied import is_applied
from fleetplane.controller.errors import Permanent
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, controller_of, metadata
from fleetplane.model.resources import ResourceType

OWNER_UID_LABEL: Final = "fleetplane.io/owner-uid"
"""On children that cannot carry an owner reference."""

_INDEX: Final = "fleetplane.io/owner"
"""The index of child informers: by the uid of every owner, referenced or labelled."""

CONCURRENT: Final = 8
"""Children of one owner are written this many at a time."""


class Owner(NamedTuple):
    """Who the children belong to."""

    api_version: str
    kind: str
    key: ObjectKey
    uid: str

    @classmethod
    def of(cls, obj: Mapping[str, Any], cluster: str) -> Owner:
        meta = metadata(obj)
        key = ObjectKey(cluster, str(meta.get("namespace") or ""), str(meta["name"]))
        return cls(str(obj["apiVersion"]), str(obj["kind"]), key, str(meta["uid"]))

    def reference(self) -> Object:
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.key.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


@dataclass(frozen=True, slots=True)
class ChildrenResult:
    """What was done: the names of the children applied and deleted. Empty in steady state."""

    applied: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.applied or self.deleted)


@dataclass
class Children:
    """The children of one controller's objects.

    Args:
        informers: The child resources' informers; each kind of child must have one.
        manager: The field manager, the operator's own.
    """

    informers: Sequence[Informer]
    manager: str

    def __post_init__(self) -> None:
        for informer in self.informers:
            informer.add_index(_INDEX, _owner_uids)
            informer.keep_managed_fields()

    async def apply(
        self, client: Client, owner: Owner, desired: Iterable[Object], *, prune: bool = True
    ) -> ChildrenResult:
        """Make these, and with ``prune`` only these, the owner's children.

        Args:
            client: In the owner's cluster.
            desired: Whole objects with ``apiVersion``, ``kind`` and ``metadata.name``; the owner's namespace is filled in.

        Raises:
            Permanent: a child of that name belongs to somebody else, or two children have the same name.
            ApiError: what the server said to the first write that failed; the others were tried all the same.
        """
        wanted = self._wanted(owner, desired)
        to_apply = [
            (informer, key, child)
            for (informer, key), child in wanted.items()
            if self._differs(informer, key, child, owner)
        ]
        surplus = self._surplus(owner, wanted) if prune else []
        if not to_apply and not surplus:
            return ChildrenResult()
        work = [self._apply(client, *one) for one in to_apply]
        work += [self._delete(client, informer.resource, snapshot) for informer, snapshot in surplus]
        await _all(work)
        return ChildrenResult(
            tuple(str(key.name) for _, key, _ in to_apply), tuple(snapshot.key.name for _, snapshot in surplus)
        )

    async def delete(self, client: Client, owner: Owner) -> bool:
        """Delete every child; true when none is left."""
        await self.apply(client, owner, [])
        return not any(True for _ in self.find(owner))

    def find(self, owner: Owner) -> Iterable[tuple[Informer, Snapshot]]:
        """The children as the cache has them, those being deleted included."""
        for informer in self.informers:
            for snapshot in informer.snapshots_by_index(_INDEX, owner.uid):
                if snapshot.key.cluster == owner.key.cluster:
                    yield informer, snapshot

    # -- what is to be done

    def _wanted(self, owner: Owner, desired: Iterable[Object]) -> dict[tuple[Informer, ObjectKey], Object]:
        wanted: dict[tuple[Informer, ObjectKey], Object] = {}
        for child in desired:
            informer = self._informer(child)
            owned = owned_by(child, owner, namespaced=informer.resource.namespaced)
            meta = owned["metadata"]
            key = ObjectKey(owner.key.cluster, str(meta.get("namespace") or ""), str(meta.get("name") or ""))
            if not key.name:
                raise Permanent(f"a {child.get('kind')} of {owner.key} has no name", reason="InvalidChild")
            if (informer, key) in wanted:
                raise Permanent(f"two {child['kind']}s of {owner.key} are named {key}", reason="InvalidChild")
            wanted[informer, key] = owned
        return wanted

    def _informer(self, child: Object) -> Informer:
        api_version, kind = child.get("apiVersion"), child.get("kind")
        for informer in self.informers:
            if informer.resource.kind == kind and informer.resource.api_version == api_version:
                return informer
        raise Permanent(f"{kind} of {api_version} is not among what this controller owns", reason="InvalidChild")

    def _differs(self, informer: Informer, key: ObjectKey, child: Object, owner: Owner) -> bool:
        observed = informer.snapshot(key)
        if observed is None:
            return True
        digest = self._digest(child)
        if observed.verified == digest:
            return False
        holder = controller_of(observed.object)
        if holder is not None and holder.uid != owner.uid:
            kind = informer.resource.kind
            raise Permanent(f"{kind} {key} belongs to {holder.kind} {holder.name}", reason="OwnedByAnother")
        if observed.is_deleting or not is_applied(observed.object, child, self.manager):
            return not observed.is_deleting  # one that is going is replaced once it has gone
        observed.verified = digest
        return False

    def _surplus(
        self, owner: Owner, wanted: Mapping[tuple[Informer, ObjectKey], Object]
    ) -> list[tuple[Informer, Snapshot]]:
        return [
            (informer, snapshot)
            for informer, snapshot in self.find(owner)
            if (informer, snapshot.key) not in wanted
            and not snapshot.is_deleting
            and _is_controlled_by(snapshot, owner.uid)
        ]

    # -- doing it

    async def _apply(self, client: Client, informer: Informer, key: ObjectKey, child: Object) -> None:
        answer = await client.apply(
            informer.resource, child, key.namespace or None, field_manager=self.manager, force=True
        )
        known = informer.snapshot(key)  # our own write is there already, unless somebody was faster
        if known is not None and known.resource_version == metadata(answer).get("resourceVersion"):
            known.verified = self._digest(child)

    async def _delete(self, client: Client, resource: ResourceType, snapshot: Snapshot) -> None:
        key = snapshot.key
        try:
            await client.delete(resource, key.name, key.namespace or None, uid=snapshot.uid, propagation="Background")
        except ApiError as error:
            if error.code not in {404, 409}:  # gone already, or made anew by somebody else
                raise

    def _digest(self, child: Object) -> int:
        """Tells two desired states of one child apart within this process; hashing bytes is fast, and enough for that."""
        return hash((self.manager, orjson.dumps(child, option=orjson.OPT_SORT_KEYS))) or 1


async def _all(work: list[Coroutine[Any, Any, None]]) -> None:
    """Do everything, a few at a time, also when something fails; then raise the first failure."""
    if len(work) == 1:
        await work[0]
        return
    limit = asyncio.Semaphore(CONCURRENT)

    async def limited(one: Coroutine[Any, Any, None]) -> None:
        async with limit:
            await one

    for outcome in await asyncio.gather(*map(limited, work), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def owned_by(child: Object, owner: Owner, *, namespaced: bool) -> Object:
    """The child with its namespace and what ties it to its owner. The argument stays as it is."""
    meta = dict(child.get("metadata") or {})
    if namespaced:
        meta.setdefault("namespace", owner.key.namespace)
    # An owner must be in the child's namespace or in none.
    if not owner.key.namespace or meta.get("namespace") == owner.key.namespace:
        meta["ownerReferences"] = [*(meta.get("ownerReferences") or ()), owner.reference()]
    else:
        meta["labels"] = {**(meta.get("labels") or {}), OWNER_UID_LABEL: owner.uid}
    return {**child, "metadata": meta}


def _owner_uids(snapshot: Snapshot) -> Iterable[str]:
    yield from by_owner(snapshot)
    if labelled := snapshot.labels.get(OWNER_UID_LABEL):
        yield labelled


def _is_controlled_by(snapshot: Snapshot, uid: str) -> bool:
    if snapshot.labels.get(OWNER_UID_LABEL) == uid:
        return True
    return any(owner.uid == uid and owner.controller for owner in snapshot.owners)
