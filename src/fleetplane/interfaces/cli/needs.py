"""What a pod needs before it can start: ConfigMaps, Secrets, volumes. Read from its specification alone."""

from __future__ import annotations

from typing import Any, Final

from fleetplane.model.objects import Object, name
from fleetplane.model.resources import ResourceType

CLAIMS: Final = ResourceType("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
CONFIG_MAPS: Final = ResourceType("", "v1", "ConfigMap", "configmaps")
SECRETS: Final = ResourceType("", "v1", "Secret", "secrets")


def needed_by_pod(pod: Object) -> list[tuple[ResourceType, str]]:
    """The ConfigMaps, Secrets and claims without which a pod cannot start."""
    spec = pod.get("spec") or {}
    found: dict[tuple[ResourceType, str], None] = {}

    def add(kind: ResourceType, where: Any, key: str) -> None:
        if isinstance(where, dict) and where.get(key) and not where.get("optional"):
            found[kind, str(where[key])] = None

    for volume in spec.get("volumes") or []:
        add(CONFIG_MAPS, volume.get("configMap"), "name")
        add(SECRETS, volume.get("secret"), "secretName")
        add(CLAIMS, volume.get("persistentVolumeClaim"), "claimName")
        for source in (volume.get("projected") or {}).get("sources") or []:
            add(CONFIG_MAPS, source.get("configMap"), "name")
            add(SECRETS, source.get("secret"), "name")
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        for source in container.get("envFrom") or []:
            add(CONFIG_MAPS, source.get("configMapRef"), "name")
            add(SECRETS, source.get("secretRef"), "name")
        for variable in container.get("env") or []:
            value = variable.get("valueFrom") or {}
            add(CONFIG_MAPS, value.get("configMapKeyRef"), "name")
            add(SECRETS, value.get("secretKeyRef"), "name")
    return list(found)


def claims_of_pod(pod: Object) -> list[str]:
    """The names of its claims, also of those that are made for it alone."""
    found = []
    for volume in (pod.get("spec") or {}).get("volumes") or []:
        if "ephemeral" in volume:
            found.append(f"{name(pod)}-{volume.get('name')}")
        elif called := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
            found.append(str(called))
    return found
