"""Making and removing many pods of one owner, without ever making one twice.

Pods are made in growing batches (1, 2, 4 … 16 at a time), so that a quota or a broken template costs one refusal, not
five hundred. A creation or deletion whose answer never came is remembered and cleared up before the owner's pods are
counted again: a cache that lags must not lead to a second pod, nor to a second victim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fleetplane.client.protocol import Unreachable
from fleetplane.client.snapshot import ObjectKey
from fleetplane.model.builtin.types import PODS
from fleetplane.model.environment import name_suffix
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, name, namespace, uid
from fleetplane.workloads.shared.actor import Actor, is_namespace_ending
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.pods import Pod, name_prefix

LARGEST_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Words:
    """What events on the owner say; ``{pod}``, ``{owner}`` and ``{error}`` are filled in."""

    created: str = "Created pod: {pod}"
    not_created: str = "Error creating: {error}"
    deleted: str = "Deleted pod: {pod}"
    not_deleted: str = "Error deleting: {error}"


class PodControl:
    """One per controller."""

    def __init__(self, actor: Actor, cache: PodCache, words: Words = Words()) -> None:
        self._actor = actor
        self._cache = cache
        self._words = words
        self._made: dict[str, set[ObjectKey]] = {}
        self._gone: dict[str, set[tuple[ObjectKey, str]]] = {}

    async def resolve(self, owner_uid: str) -> bool:
        """Whether all that was done for this owner is accounted for; if not, its pods must not be counted yet."""
        made, gone = self._made.get(owner_uid), self._gone.get(owner_uid)
        for key in list(made or ()):
            if self._cache.get(key) is not None or await self._find(key) is None:
                self._made[owner_uid].discard(key)
        for key, pod_uid in list(gone or ()):
            found = await self._find(key)
            if found is None or uid(found) != pod_uid or is_deleting(found):
                self._cache.note_deleted(key, pod_uid)
            self._gone[owner_uid].discard((key, pod_uid))
        if made:
            return False
        self.forget(owner_uid)
        return True

    async def create(self, cluster: str, owner: Object, count: int, make: Callable[[str], Object]) -> int:
        """Makes ``count`` pods; ``make`` gets the name. How many were made; raises the first refusal."""
        prefix, made, batch = name_prefix(name(owner)), 0, 1
        while made < count:
            size = min(batch, count - made, LARGEST_BATCH)
            pods = [make(prefix + name_suffix(self._actor.environment)) for _ in range(size)]
            done = await asyncio.gather(*(self.create_one(cluster, owner, pod) for pod in pods), return_exceptions=True)
            failed = [one for one in done if isinstance(one, BaseException)]
            if failed:
                raise failed[0]
            made += size
            batch *= 2
        return made

    async def create_one(self, cluster: str, owner: Object, pod: Object) -> None:
        """Makes one pod under the name it has, and says so on the owner. Raises ApiError."""
        try:
            await self._actor.create_child(cluster, PODS, pod)
        except Unreachable:
            key = ObjectKey(cluster, namespace(pod), name(pod))
            self._made.setdefault(uid(owner), set()).add(key)
            raise
        except ApiError as error:
            if not is_namespace_ending(error):
                self._tell(cluster, owner, "FailedCreate", self._words.not_created, name(pod), error.message)
            raise
        self._tell(cluster, owner, "SuccessfulCreate", self._words.created, name(pod))

    async def delete(self, cluster: str, owner: Object, pods: Sequence[Pod]) -> None:
        """Deletes exactly these pods. Raises the first refusal after having tried all."""
        done = await asyncio.gather(*(self.delete_one(cluster, owner, pod) for pod in pods), return_exceptions=True)
        failed = [one for one in done if isinstance(one, BaseException)]
        if failed:
            raise failed[0]

    async def delete_one(self, cluster: str, owner: Object, pod: Pod) -> None:
        key = ObjectKey(cluster, pod.namespace, pod.name)
        try:
            was_there = await self._actor.delete(cluster, PODS, pod.namespace, pod.name, pod.uid)
        except Unreachable:
            self._gone.setdefault(uid(owner), set()).add((key, pod.uid))
            raise
        except ApiError as error:
            self._tell(cluster, owner, "FailedDelete", self._words.not_deleted, pod.name, error.message)
            raise
        self._cache.note_deleted(key, pod.uid)
        if was_there:
            self._tell(cluster, owner, "SuccessfulDelete", self._words.deleted, pod.name)

    def _tell(self, cluster: str, owner: Object, reason: str, words: str, pod_name: str, error: str = "") -> None:
        text = words.format(pod=pod_name, owner=name(owner), error=error)
        self._actor.tell(cluster, owner, "Warning" if error else "Normal", reason, text)

    def forget(self, owner_uid: str) -> None:
        self._made.pop(owner_uid, None)
        self._gone.pop(owner_uid, None)

    async def _find(self, key: ObjectKey) -> Object | None:
        try:
            return await self._actor.client(key.cluster).get(PODS, key.name, key.namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise
