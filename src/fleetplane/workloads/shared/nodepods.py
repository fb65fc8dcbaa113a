"""Which pods are on which node."""

from __future__ import annotations

from collections.abc import Iterable

from fleetplane.client.informer import Change, Informer
from fleetplane.client.snapshot import ObjectKey
from fleetplane.workloads.shared.podcache import PodCache


class NodePods:
    """Keys of pods by (cluster, node). It hangs on the pod cache, which has parsed each pod already."""

    def __init__(self, cache: PodCache) -> None:
        self.informer: Informer = cache.informer
        self._cache = cache
        self._nodes: dict[tuple[str, str], dict[ObjectKey, None]] = {}
        self._at: dict[ObjectKey, str] = {}
        self.informer.add_handler(self._take)

    def on(self, cluster: str, node: str) -> list[ObjectKey]:
        return list(self._nodes.get((cluster, node), ()))

    def nodes(self) -> Iterable[tuple[str, str]]:
        """(cluster, node) of every node that has pods, whether or not there is a Node object."""
        return list(self._nodes)

    def _take(self, change: Change) -> None:
        key = change.new.key
        pod = None if change.event == "DELETED" else self._cache.get(key)
        node = pod.node if pod is not None else ""
        old = self._at.get(key, "")
        if node == old:
            return
        if old:
            found = self._nodes[key.cluster, old]
            found.pop(key, None)
            if not found:
                del self._nodes[key.cluster, old]
            del self._at[key]
        if node:
            self._nodes.setdefault((key.cluster, node), {})[key] = None
            self._at[key] = node
