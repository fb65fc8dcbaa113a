"""What controllers other than the scheduler want to know of nodes: name, labels, taints, whether they are ready."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from fleetplane.client.informer import Change, Informer
from fleetplane.model.objects import Object, is_condition_true

_NO_NODES: Mapping[str, Object] = {}


class NodeCache:
    """Nodes by cluster and name, each cut down to ``metadata.name``, ``metadata.labels``, ``spec`` and ``ready``."""

    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self._clusters: dict[str, dict[str, Object]] = {}
        informer.add_handler(self._take)

    def of(self, cluster: str) -> Mapping[str, Object]:
        return self._clusters.get(cluster, _NO_NODES)

    def _take(self, change: Change) -> None:
        key = change.new.key
        nodes = self._clusters.setdefault(key.cluster, {})
        if change.event == "DELETED":
            nodes.pop(key.name, None)
            return
        brief = brief_of(orjson.loads(change.new.encoded))
        if nodes.get(key.name) != brief:
            nodes[key.name] = brief


def brief_of(node: Object) -> Object:
    spec = node.get("spec") or {}
    return {
        "metadata": {"name": node["metadata"]["name"], "labels": node["metadata"].get("labels") or {}},
        "spec": {"taints": spec.get("taints") or [], "unschedulable": bool(spec.get("unschedulable"))},
        "ready": is_condition_true(node, "Ready"),
    }


def place_changed(change: Change) -> bool:
    """Whether what pods may be placed by changed: not merely a heartbeat."""
    if change.old is None or change.event != "MODIFIED":
        return True
    if change.old.labels != change.new.labels:
        return True
    return brief_of(orjson.loads(change.old.encoded)) != brief_of(orjson.loads(change.new.encoded))


def taints_of(encoded: bytes) -> list[Object]:
    """The NoExecute taints of a node's JSON."""
    spec = orjson.loads(encoded).get("spec") or {}
    return [one for one in spec.get("taints") or () if one.get("effect") == "NoExecute"]
