"""What a Pod needs in order to run: the objects its node may therefore read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fleetplane.model import objects
from fleetplane.model.objects import Object

Reference = tuple[str, str]
"""(resource, name), in the Pod's namespace."""

SECRETS: Final = "secrets"
CONFIG_MAPS: Final = "configmaps"
CLAIMS: Final = "persistentvolumeclaims"
ACCOUNTS: Final = "serviceaccounts"
RESOURCE_CLAIMS: Final = "resourceclaims"

_SECRET_REF_VOLUMES: Final = ("cephfs", "cinder", "flexVolume", "rbd", "iscsi", "scaleIO", "storageos")
"""Volume sources that name a Secret as ``secretRef.name``."""


def references(pod: Object) -> frozenset[Reference]:
    """Everything a Pod names, wherever it names it; malformed parts name nothing."""
    return frozenset((resource, name) for resource, name in _all(pod) if isinstance(name, str) and name)


def _all(pod: Object) -> Iterator[tuple[str, Any]]:
    spec = _mapping(pod.get("spec"))
    yield ACCOUNTS, spec.get("serviceAccountName")
    for one in _mappings(spec.get("imagePullSecrets")):
        yield SECRETS, one.get("name")
    for field in ("containers", "initContainers", "ephemeralContainers"):
        for container in _mappings(spec.get(field)):
            yield from _environment(container)
    for volume in _mappings(spec.get("volumes")):
        yield from _volume(volume, objects.name(pod))
    for claim in _mappings(spec.get("resourceClaims")):
        yield RESOURCE_CLAIMS, claim.get("resourceClaimName")
    for claim in _mappings(_mapping(pod.get("status")).get("resourceClaimStatuses")):
        yield RESOURCE_CLAIMS, claim.get("resourceClaimName")


def _environment(container: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for source in _mappings(container.get("envFrom")):
        yield SECRETS, _mapping(source.get("secretRef")).get("name")
        yield CONFIG_MAPS, _mapping(source.get("configMapRef")).get("name")
    for variable in _mappings(container.get("env")):
        source = _mapping(variable.get("valueFrom"))
        yield SECRETS, _mapping(source.get("secretKeyRef")).get("name")
        yield CONFIG_MAPS, _mapping(source.get("configMapKeyRef")).get("name")


def _volume(volume: Mapping[str, Any], pod_name: str) -> Iterator[tuple[str, Any]]:
    yield SECRETS, _mapping(volume.get("secret")).get("secretName")
    yield SECRETS, _mapping(volume.get("azureFile")).get("secretName")
    yield SECRETS, _mapping(_mapping(volume.get("csi")).get("nodePublishSecretRef")).get("name")
    for kind in _SECRET_REF_VOLUMES:
        yield SECRETS, _mapping(_mapping(volume.get(kind)).get("secretRef")).get("name")
    yield CONFIG_MAPS, _mapping(volume.get("configMap")).get("name")
    for source in _mappings(_mapping(volume.get("projected")).get("sources")):
        yield SECRETS, _mapping(source.get("secret")).get("name")
        yield CONFIG_MAPS, _mapping(source.get("configMap")).get("name")
    yield CLAIMS, _mapping(volume.get("persistentVolumeClaim")).get("claimName")
    if isinstance(volume.get("ephemeral"), dict):
        yield CLAIMS, f"{pod_name}-{volume.get('name')}"


def volume_secrets(volume: Object) -> frozenset[tuple[str, str]]:
    """The (namespace, name) of Secrets a PersistentVolume names; without a namespace, that of its claim."""
    spec = _mapping(volume.get("spec"))
    home = _mapping(spec.get("claimRef")).get("namespace") or ""
    found: set[tuple[str, str]] = set()
    for source in spec.values():
        if not isinstance(source, dict):
            continue
        for key, ref in source.items():
            if key in {"secretRef", "nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"}:
                ref = _mapping(ref)
                found.add((str(ref.get("namespace") or home), str(ref.get("name") or "")))
        if source.get("secretName"):
            found.add((str(source.get("secretNamespace") or home), str(source["secretName"])))
    return frozenset(one for one in found if all(one))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())
