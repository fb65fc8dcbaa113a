"""PersistentVolumes and the claims on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fleetplane.apiserver.kinds.access import fill, made, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.kinds.checks import (
    Errors,
    collected,
    named,
    parsed_quantity,
    quantity,
    required_name,
    spec_of,
    supported,
)
from fleetplane.apiserver.kinds.columns import UNSET, at, text_column
from fleetplane.apiserver.kinds.pod_defaults import default_volume_source
from fleetplane.apiserver.kinds.scheduling_rules import node_selector
from fleetplane.apiserver.kinds.volume_rules import VOLUME_MODES, access_modes, claim_spec, sources
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object, is_deleting
from fleetplane.model.table import AGE, NAME

_NOT_SOURCES: Final = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)
_OLD_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_CLAIM_IMMUTABLE: Final = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)
_MODE_WORDS: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _default_volume(volume: Object) -> None:
    spec = made(volume, "spec")
    fill(spec, persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    if isinstance(spec.get("hostPath"), dict):
        fill(spec["hostPath"], type="")
    default_volume_source(spec)
    fill(made(volume, "status"), phase="Pending")


def _source_of(spec: Mapping[str, Any]) -> Object:
    return {key: value for key, value in spec.items() if key not in _NOT_SOURCES}


def _validate_volume(volume: Object, old: Object | None) -> Errors:
    spec = spec_of(volume)
    yield from access_modes(spec.get("accessModes") or (), "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        yield FieldError.required("spec.capacity")
    if "storage" not in capacity or len(capacity) > 1:
        yield FieldError.not_supported("spec.capacity", sorted(capacity), ["storage"])
    for name, value in capacity.items():
        yield from quantity(value, f"spec.capacity[{name}]", allow_zero=False)
    policy = text(spec, "persistentVolumeReclaimPolicy")
    if policy:
        choices = ("Delete", "Recycle", "Retain")
        yield from supported(policy, choices, "spec.persistentVolumeReclaimPolicy")
    yield from sources(_source_of(spec), "spec")
    if isinstance(spec.get("csi"), dict):
        yield from required_name(names.dns1123_subdomain, text(spec["csi"], "driver").lower(), "spec.csi.driver")
        if not spec["csi"].get("volumeHandle"):
            yield FieldError.required("spec.csi.volumeHandle")
    affinity = spec.get("nodeAffinity")
    if affinity is not None:
        if affinity.get("required") is None:
            yield FieldError.required("spec.nodeAffinity.required", "must specify required node constraints")
        else:
            yield from node_selector(affinity["required"], "spec.nodeAffinity.required")
    if spec.get("local") is not None and affinity is None:
        yield FieldError.required("spec.nodeAffinity", "Local volume requires node affinity")
    if section(spec, "hostPath").get("path") == "/" and policy == "Recycle":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        yield FieldError.forbidden("spec.persistentVolumeReclaimPolicy", detail)
    for key in ("storageClassName", "volumeAttributesClassName"):
        if spec.get(key):
            yield from named(names.dns1123_subdomain, spec[key], f"spec.{key}")
    if spec.get("volumeMode") is not None:
        yield from supported(spec["volumeMode"], VOLUME_MODES, "spec.volumeMode")
    if old is not None:
        yield from _volume_change(spec, spec_of(old))


def _volume_change(spec: Object, before: Object) -> Errors:
    new, old = _source_of(spec), _source_of(before)
    if "csi" in new and "csi" in old:
        for secret in ("controllerPublishSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"):
            new["csi"] = {k: v for k, v in new["csi"].items() if k != secret}
            old["csi"] = {k: v for k, v in old["csi"].items() if k != secret}
    if new != old:
        detail = "spec.persistentvolumesource is immutable after creation"
        yield FieldError.forbidden("spec.persistentvolumesource", detail)
    if spec.get("volumeMode") != before.get("volumeMode"):
        yield FieldError.invalid("spec.volumeMode", spec.get("volumeMode"), "field is immutable")
    if before.get("nodeAffinity") is not None and spec.get("nodeAffinity") != before.get("nodeAffinity"):
        yield FieldError.invalid("spec.nodeAffinity", spec.get("nodeAffinity"), "field is immutable")


def _modes(values: Any) -> str:
    found = [one for one in values if isinstance(one, str)] if isinstance(values, list) else []
    return ",".join(word for mode, word in _MODE_WORDS.items() if mode in found)


def _phase(obj: Mapping[str, Any]) -> str:
    return "Terminating" if is_deleting(obj) else text(section(obj, "status"), "phase")


def _claim(volume: Mapping[str, Any]) -> str:
    reference = section(volume, "spec", "claimRef")
    return f"{text(reference, 'namespace')}/{text(reference, 'name')}" if reference else ""


def storage_class(obj: Mapping[str, Any]) -> str:
    annotations = section(obj, "metadata", "annotations")
    return text(annotations, _OLD_CLASS) or text(section(obj, "spec"), "storageClassName")


PERSISTENT_VOLUMES: Final = KindBehaviour(
    default=_default_volume,
    prepare_create=lambda volume: volume.__setitem__("status", {"phase": "Pending"}),
    validate=collected(_validate_volume),
    columns=(
        NAME,
        text_column("Capacity", "How much it holds.", at("spec", "capacity", "storage", default="0")),
        text_column(
            "Access Modes", "How it can be mounted.", lambda obj: _modes(section(obj, "spec").get("accessModes"))
        ),
        text_column("Reclaim Policy", "What happens when its claim goes.", at("spec", "persistentVolumeReclaimPolicy")),
        text_column("Status", "Where it is in its life.", _phase),
        text_column("Claim", "The claim it is bound to.", _claim),
        text_column("StorageClass", "Its class.", storage_class),
        text_column(
            "VolumeAttributesClass", "Its class of attributes.", at("spec", "volumeAttributesClassName", default=UNSET)
        ),
        text_column("Reason", "Why it is in this state.", at("status", "reason")),
        AGE,
        text_column("VolumeMode", "Filesystem or block.", at("spec", "volumeMode", default=UNSET), wide=True),
    ),
    has_generation=False,
)


def _default_claim(claim: Object) -> None:
    spec = made(claim, "spec")
    fill(spec, volumeMode="Filesystem")
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if isinstance(source, dict) and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif isinstance(reference, dict) and source is None and _is_known_source(reference):
        spec["dataSource"] = dict(reference)
    fill(made(claim, "status"), phase="Pending")


def _is_known_source(reference: Object) -> bool:
    return not reference.get("namespace") and reference.get("kind") in ("PersistentVolumeClaim", "VolumeSnapshot")


def _validate_claim(claim: Object, old: Object | None) -> Errors:
    spec = spec_of(claim)
    yield from claim_spec(spec, "spec")
    if old is not None:
        yield from _claim_change(spec, spec_of(old), section(old, "status"))


def _claim_change(spec: Object, before: Object, status: Object) -> Errors:
    """A claim may be bound once, grow while bound, and change its attributes class."""
    new, old = dict(spec), dict(before)
    if not old.get("volumeName"):
        new.pop("volumeName", None)
    if old.get("storageClassName") is None:
        # the default class may be given to a claim that waits
        old.pop("storageClassName", None)
        new.pop("storageClassName", None)
    for one in (new, old):
        one.pop("volumeAttributesClassName", None)
        one["resources"] = {
            **(one.get("resources") or {}),
            "requests": {
                k: v for k, v in ((one.get("resources") or {}).get("requests") or {}).items() if k != "storage"
            },
        }
    if new != old:
        changed = sorted(key for key in new.keys() | old.keys() if new.get(key) != old.get(key))
        yield FieldError.forbidden("spec", f"{_CLAIM_IMMUTABLE}\n changed: {', '.join(changed)}")
    wanted, had = _storage(spec), _storage(before)
    if wanted is None or had is None or wanted == had:
        return
    if status.get("phase") != "Bound":
        yield FieldError.forbidden("spec", _CLAIM_IMMUTABLE)
    elif wanted < had:
        yield FieldError.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


def _storage(spec: Object) -> Any:
    return parsed_quantity(section(spec, "resources", "requests").get("storage", "0"))


def _bound(claim: Mapping[str, Any]) -> bool:
    return bool(section(claim, "spec").get("volumeName"))


def _claim_capacity(claim: Mapping[str, Any]) -> str:
    return text(section(claim, "status", "capacity"), "storage") or "0" if _bound(claim) else ""


PERSISTENT_VOLUME_CLAIMS: Final = KindBehaviour(
    default=_default_claim,
    prepare_create=lambda claim: claim.__setitem__("status", {"phase": "Pending"}),
    validate=collected(_validate_claim),
    columns=(
        NAME,
        text_column("Status", "Whether it is bound.", _phase),
        text_column("Volume", "The volume it is bound to.", at("spec", "volumeName")),
        text_column("Capacity", "How much it has.", _claim_capacity),
        text_column(
            "Access Modes",
            "How it can be mounted.",
            lambda obj: _modes(section(obj, "status").get("accessModes")) if _bound(obj) else "",
        ),
        text_column("StorageClass", "Its class.", storage_class),
        text_column(
            "VolumeAttributesClass", "Its class of attributes.", at("spec", "volumeAttributesClassName", default=UNSET)
        ),
        AGE,
        text_column("VolumeMode", "Filesystem or block.", at("spec", "volumeMode", default=UNSET), wide=True),
    ),
    has_generation=False,
)
