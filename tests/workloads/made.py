"""Short ways to make objects for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fleetplane.model.environment import timestamp

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
Object = dict[str, Any]


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def template(image: str = "web:1", **labels: str) -> Object:
    return {
        "metadata": {"labels": labels or {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }


def pod(
    name: str,
    *,
    phase: str = "Running",
    ready: bool | None = None,
    ready_at: datetime = NOW,
    node: str = "n1",
    deleting: bool = False,
    owner: Object | None = None,
    created: datetime = NOW,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    restarts: int = 0,
    **status: Any,
) -> Object:
    ready = phase == "Running" if ready is None else ready
    meta: Object = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": timestamp(created),
        "labels": labels if labels is not None else {"app": "web"},
    }
    if annotations:
        meta["annotations"] = annotations
    if deleting:
        meta["deletionTimestamp"] = timestamp(NOW)
    if owner is not None:
        meta["ownerReferences"] = [reference(owner)]
    conditions = [
        {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": timestamp(ready_at)},
    ]
    return {
        "metadata": meta,
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [{"name": "main", "restartCount": restarts}],
            **status,
        },
    }


def reference(owner: Object, *, controller: bool = True) -> Object:
    return {
        "apiVersion": owner.get("apiVersion", "v1"),
        "kind": owner.get("kind", ""),
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": controller,
        "blockOwnerDeletion": True,
    }


def replica_set(name: str = "web", replicas: int = 3, *, status: Object | None = None, **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(),
            **spec,
        },
        "status": status or {},
    }


def deployment(name: str = "web", replicas: int = 3, *, image: str = "web:1", **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(image),
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **spec,
        },
        "status": {},
    }
