"""Rules for volumes: those of pods, and the sources that PersistentVolumes share with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fleetplane.apiserver.kinds.checks import (
    Errors,
    annotation_errors,
    in_range,
    label_errors,
    named,
    quantity,
    required,
    required_name,
    supported,
)
from fleetplane.apiserver.kinds.container_rules import field_reference, no_backsteps, relative_path, resource_reference
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.selectors import validate_label_selector

ACCESS_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES: Final = ("Block", "Filesystem")
_HOST_PATH_TYPES: Final = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_DOWNWARD_FIELDS: Final = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
_MODE_DETAIL: Final = "must be a number between 0 and 0777 (octal), both inclusive"
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "awsElasticBlockStore": ("volumeID",),
    "azureDisk": ("diskName", "diskURI"),
    "azureFile": ("secretName", "shareName"),
    "cephfs": ("monitors",),
    "cinder": ("volumeID",),
    "flexVolume": ("driver",),
    "gcePersistentDisk": ("pdName",),
    "gitRepo": ("repository",),
    "glusterfs": ("endpoints", "path"),
    "hostPath": ("path",),
    "iscsi": ("targetPortal", "iqn"),
    "local": ("path",),
    "nfs": ("server", "path"),
    "persistentVolumeClaim": ("claimName",),
    "photonPersistentDisk": ("pdID",),
    "portworxVolume": ("volumeID",),
    "quobyte": ("registry", "volume"),
    "rbd": ("monitors", "image"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "secret": ("secretName",),
    "configMap": ("name",),
    "storageos": ("volumeName",),
    "vsphereVolume": ("volumePath",),
}
"""Fields of a source that must not be empty."""


def volumes(found: Sequence[Object], path: str) -> Errors:
    """The volumes of a pod."""
    seen: set[str] = set()
    for index, volume in enumerate(found):
        here = f"{path}[{index}]"
        name = volume.get("name") or ""
        yield from required_name(names.dns1123_label, name, f"{here}.name")
        if name in seen:
            yield FieldError.duplicate(f"{here}.name", name)
        seen.add(name)
        yield from sources({key: value for key, value in volume.items() if key != "name"}, here)


def sources(found: Mapping[str, Any], path: str) -> Errors:
    """Exactly one source, and that one right. ``found`` maps the kind of source to it."""
    told = [key for key, value in found.items() if isinstance(value, dict)]
    if not told:
        yield FieldError.required(path, "must specify a volume type")
        return
    for extra in told[1:]:
        yield FieldError.forbidden(f"{path}.{extra}", "may not specify more than 1 volume type")
    kind = told[0]
    source, here = found[kind], f"{path}.{kind}"
    for key in _REQUIRED.get(kind, ()):
        yield from required(source.get(key), f"{here}.{key}")
    check = _CHECKS.get(kind)
    if check is not None:
        yield from check(source, here)


def _empty_dir(source: Object, path: str) -> Errors:
    if source.get("sizeLimit") is not None:
        yield from quantity(source["sizeLimit"], f"{path}.sizeLimit")


def _host_path(source: Object, path: str) -> Errors:
    yield from no_backsteps(source.get("path") or "", f"{path}.path")
    yield from supported(source.get("type") or "", _HOST_PATH_TYPES, f"{path}.type")


def _local(source: Object, path: str) -> Errors:
    yield from no_backsteps(source.get("path") or "", f"{path}.path")


def _nfs(source: Object, path: str) -> Errors:
    if source.get("path") and not source["path"].startswith("/"):
        yield FieldError.invalid(f"{path}.path", source["path"], "must be an absolute path")


def _iscsi(source: Object, path: str) -> Errors:
    iqn = source.get("iqn") or ""
    if iqn and not re.match(r"iqn\.|eui\.|naa\.", iqn):
        yield FieldError.invalid(f"{path}.iqn", iqn, "must be valid format starting with iqn, eui, or naa")
    yield from in_range(source.get("lun") or 0, 0, 255, f"{path}.lun")


def _fc(source: Object, path: str) -> Errors:
    targets, wwids = source.get("targetWWNs"), source.get("wwids")
    if not targets and not wwids:
        yield FieldError.required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both")
    if targets and wwids:
        detail = "targetWWNs and wwids can not be specified simultaneously"
        yield FieldError.invalid(f"{path}.targetWWNs", targets, detail)
    if targets:
        if source.get("lun") is None:
            yield FieldError.required(f"{path}.lun", "lun is required if targetWWNs is specified")
        else:
            yield from in_range(source["lun"], 0, 255, f"{path}.lun")


def _mode(value: int | None, path: str) -> Errors:
    if value is not None and not 0 <= value <= 0o777:
        yield FieldError.invalid(path, value, _MODE_DETAIL)


def _files(source: Object, path: str) -> Errors:
    """A Secret or ConfigMap as files."""
    yield from _mode(source.get("defaultMode"), f"{path}.defaultMode")
    for index, item in enumerate(source.get("items") or ()):
        here = f"{path}.items[{index}]"
        yield from required(item.get("key"), f"{here}.key")
        yield from _file_path(item.get("path") or "", f"{here}.path")
        yield from _mode(item.get("mode"), f"{here}.mode")


def _file_path(value: str, path: str) -> Errors:
    if not value:
        yield FieldError.required(path)
        return
    yield from relative_path(value, path)
    if value.startswith("..") and not value.startswith("../"):
        yield FieldError.invalid(path, value, "must not start with '..'")


def _downward_api(source: Object, path: str) -> Errors:
    yield from _mode(source.get("defaultMode"), f"{path}.defaultMode")
    for index, item in enumerate(source.get("items") or ()):
        here = f"{path}.items[{index}]"
        yield from _file_path(item.get("path") or "", f"{here}.path")
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is not None:
            yield from field_reference(field, _DOWNWARD_FIELDS, f"{here}.fieldRef")
            if resource is not None:
                detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
                yield FieldError.invalid(here, "resource", detail)
        elif resource is not None:
            yield from resource_reference(resource, f"{here}.resourceFieldRef", container_needed=True)
        else:
            yield FieldError.required(here, "one of fieldRef and resourceFieldRef is required")
        yield from _mode(item.get("mode"), f"{here}.mode")


def _projected(source: Object, path: str) -> Errors:
    yield from _mode(source.get("defaultMode"), f"{path}.defaultMode")
    paths: set[str] = set()
    for index, projection in enumerate(source.get("sources") or ()):
        here = f"{path}.sources[{index}]"
        told = [key for key, value in projection.items() if isinstance(value, dict)]
        for extra in told[1:]:
            yield FieldError.forbidden(f"{here}.{extra}", "may not specify more than 1 volume type")
        for kind in told[:1]:
            one = projection[kind]
            yield from _projection(kind, one, f"{here}.{kind}")
            items = [item.get("path") for item in one.get("items") or ()]
            if kind in ("serviceAccountToken", "clusterTrustBundle"):
                items = [one.get("path")]
            for target in items:
                if target and target in paths:
                    yield FieldError.invalid(f"{here}.{kind}", target, "conflicting duplicate paths")
                paths.add(target or "")


def _projection(kind: str, source: Object, path: str) -> Errors:
    if kind in ("secret", "configMap"):
        yield from required(source.get("name"), f"{path}.name")
        yield from _files(source, path)
    elif kind == "downwardAPI":
        yield from _downward_api(source, path)
    elif kind == "serviceAccountToken":
        seconds = source.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            detail = "may not specify a duration less than 10 minutes"
            yield FieldError.invalid(f"{path}.expirationSeconds", seconds, detail)
        elif seconds is not None and seconds > 1 << 32:
            detail = "may not specify a duration larger than 2^32 seconds"
            yield FieldError.invalid(f"{path}.expirationSeconds", seconds, detail)
        yield from _file_path(source.get("path") or "", f"{path}.path")
    elif kind == "clusterTrustBundle":
        if bool(source.get("name")) == bool(source.get("signerName")):
            yield FieldError.required(path, "exactly one of name and signerName must be specified")
        yield from _file_path(source.get("path") or "", f"{path}.path")


def _csi(source: Object, path: str) -> Errors:
    yield from required_name(csi_driver_name, source.get("driver") or "", f"{path}.driver")
    secret = source.get("nodePublishSecretRef")
    if secret is not None:
        yield from required_name(names.dns1123_subdomain, secret.get("name") or "", f"{path}.nodePublishSecretRef.name")


def csi_driver_name(value: str) -> list[str]:
    return names.dns1123_subdomain(value.lower()) if len(value) <= 63 else ["must be no more than 63 characters"]


def _ephemeral(source: Object, path: str) -> Errors:
    template = source.get("volumeClaimTemplate")
    if template is None:
        yield FieldError.required(f"{path}.volumeClaimTemplate")
        return
    metadata = template.get("metadata") or {}
    here = f"{path}.volumeClaimTemplate"
    for key in metadata:
        if key not in ("labels", "annotations"):
            yield FieldError.forbidden(f"{here}.metadata.{key}", "cannot be set")
    yield from label_errors(metadata.get("labels") or {}, f"{here}.metadata.labels")
    yield from annotation_errors(metadata.get("annotations") or {}, f"{here}.metadata.annotations")
    yield from claim_spec(template.get("spec") or {}, f"{here}.spec")


def _image(source: Object, path: str) -> Errors:
    yield from required(source.get("reference"), f"{path}.reference")
    yield from supported(source.get("pullPolicy") or "", ("Always", "IfNotPresent", "Never"), f"{path}.pullPolicy")


_CHECKS: Final[Mapping[str, Callable[[Object, str], Errors]]] = {
    "configMap": _files,
    "csi": _csi,
    "downwardAPI": _downward_api,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "fc": _fc,
    "hostPath": _host_path,
    "image": _image,
    "iscsi": _iscsi,
    "local": _local,
    "nfs": _nfs,
    "projected": _projected,
    "secret": _files,
}


def access_modes(modes: Sequence[str], path: str, detail: str = "") -> Errors:
    if not modes:
        yield FieldError.required(path, detail)
    for mode in modes:
        yield from supported(mode, ACCESS_MODES, path)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield FieldError.forbidden(path, "may not use ReadWriteOncePod with other access modes")


def claim_spec(spec: Object, path: str) -> Errors:
    """A ``PersistentVolumeClaimSpec``."""
    yield from access_modes(spec.get("accessModes") or (), f"{path}.accessModes", "at least 1 access mode is required")
    if spec.get("selector") is not None:
        yield from validate_label_selector(spec["selector"], f"{path}.selector")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        yield FieldError.required(f"{path}.resources[storage]")
    else:
        yield from quantity(storage, f"{path}.resources[storage]", allow_zero=False)
    if spec.get("storageClassName"):
        yield from named(names.dns1123_subdomain, spec["storageClassName"], f"{path}.storageClassName")
    if spec.get("volumeMode") is not None:
        yield from supported(spec["volumeMode"], VOLUME_MODES, f"{path}.volumeMode")
    for key in ("dataSource", "dataSourceRef"):
        source = spec.get(key)
        if source is None:
            continue
        for field in ("name", "kind"):
            yield from required(source.get(field), f"{path}.{key}.{field}")
        if not source.get("apiGroup") and source.get("kind") not in (None, "", "PersistentVolumeClaim"):
            detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
            yield FieldError.invalid(f"{path}.{key}", source.get("kind"), detail)
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and reference is not None and not reference.get("namespace") and source != reference:
        yield FieldError.invalid(path, "dataSource", "must match dataSourceRef")
