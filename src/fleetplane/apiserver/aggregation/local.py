"""The APIServices of what we serve ourselves: there for who looks, in every cluster, kept nowhere."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Final

from fleetplane.apiserver.registry import Registry
from fleetplane.model.objects import Object

_NAMESPACE: Final = uuid.UUID("6f1f2b1c-3c0e-5a55-9d0a-6b6f0f5b7f11")
_CORE_PRIORITY: Final = 18000
_FIRST_PRIORITY: Final = 17850
_VERSION_PRIORITIES: Final = ((1, "alpha"), (9, "beta"))


def local_api_services(registry: Registry, created: str) -> Iterator[Object]:
    """One for every built-in group and version; ``created`` is since when they are available."""
    seen: dict[tuple[str, str], int] = {}
    groups: dict[str, int] = {}
    for served in registry.all(""):
        resource = served.type
        key = (resource.group, resource.version)
        if key in seen:
            continue
        priority = groups.setdefault(resource.group, _FIRST_PRIORITY - 10 * len(groups))
        seen[key] = priority
        yield _local(*key, priority if resource.group else _CORE_PRIORITY, created)


def _local(group: str, version: str, priority: int, created: str) -> Object:
    name = f"{version}.{group}"
    version_priority = next((number for number, word in _VERSION_PRIORITIES if word in version), 15)
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": name,
            "uid": str(uuid.uuid5(_NAMESPACE, name)),
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
        },
        "spec": {
            "group": group,
            "groupPriorityMinimum": priority,
            "version": version,
            "versionPriority": version_priority,
        },
        "status": {
            "conditions": [
                {
                    "lastTransitionTime": created,
                    "message": "Local APIServices are always available",
                    "reason": "Local",
                    "status": "True",
                    "type": "Available",
                }
            ]
        },
    }
