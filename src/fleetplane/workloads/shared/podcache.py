"""All pods of a plane as small views, found by owner, as orphans, or by namespace.

It hangs on the shared Pod informer and is exactly as current as that, with one addition: a pod that one of our
controllers deleted counts as being deleted from that moment, because the answer to a deletion does not reach the
informer before the watch does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Generic, TypeVar

from fleetplane.client.informer import Change, Informer
from fleetplane.client.snapshot import ObjectKey
from fleetplane.workloads.shared.pods import Pod

K = TypeVar("K")


class _Groups(Generic[K]):
    """Pods filed under one value each; empty groups do not exist."""

    def __init__(self) -> None:
        self._groups: dict[K, dict[ObjectKey, Pod]] = {}

    def put(self, group: K, key: ObjectKey, pod: Pod) -> None:
        self._groups.setdefault(group, {})[key] = pod

    def remove(self, group: K, key: ObjectKey) -> None:
        found = self._groups.get(group)
        if found is not None:
            found.pop(key, None)
            if not found:
                del self._groups[group]

    def find(self, group: K) -> list[Pod]:
        return list(self._groups.get(group, {}).values())


class PodCache:
    """See the module. Make it before the manager runs, so that it knows of a change before any controller is woken."""

    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self._pods: dict[ObjectKey, Pod] = {}
        self._owned: _Groups[str] = _Groups()
        self._orphans: _Groups[tuple[str, str]] = _Groups()
        self._spaces: _Groups[tuple[str, str]] = _Groups()
        self._deleted: set[str] = set()
        informer.add_handler(self._take)

    def get(self, key: ObjectKey) -> Pod | None:
        return self._pods.get(key)

    def items(self) -> list[tuple[ObjectKey, Pod]]:
        return list(self._pods.items())

    def owned_by(self, owner_uid: str) -> list[Pod]:
        """Pods whose controller is this, in any phase."""
        return self._owned.find(owner_uid)

    def orphans(self, cluster: str, namespace: str) -> list[Pod]:
        """Pods that no controller owns."""
        return self._orphans.find((cluster, namespace))

    def in_namespace(self, cluster: str, namespace: str) -> list[Pod]:
        return self._spaces.find((cluster, namespace))

    def note_deleted(self, key: ObjectKey, uid: str) -> None:
        """The server has accepted the deletion of this pod."""
        pod = self._pods.get(key)
        if pod is not None and pod.uid == uid and not pod.deleting:
            self._deleted.add(uid)
            self._put(key, replace(pod, deleting=True))

    def _take(self, change: Change) -> None:
        key = change.new.key
        if change.event == "DELETED":
            self._remove(key)
            return
        pod = Pod.decode(change.new.encoded)
        if pod.uid in self._deleted:
            if pod.deleting:
                self._deleted.discard(pod.uid)
            else:
                pod = replace(pod, deleting=True)
        self._put(key, pod)

    def _put(self, key: ObjectKey, pod: Pod) -> None:
        old = self._pods.get(key)
        if old is not None and old.owner != pod.owner:
            self._remove(key)
        self._pods[key] = pod
        self._spaces.put((key.cluster, key.namespace), key, pod)
        if pod.owner:
            self._owned.put(pod.owner, key, pod)
        else:
            self._orphans.put((key.cluster, key.namespace), key, pod)

    def _remove(self, key: ObjectKey) -> None:
        pod = self._pods.pop(key, None)
        if pod is None:
            return
        self._deleted.discard(pod.uid)
        self._spaces.remove((key.cluster, key.namespace), key)
        self._owned.remove(pod.owner, key)
        self._orphans.remove((key.cluster, key.namespace), key)
