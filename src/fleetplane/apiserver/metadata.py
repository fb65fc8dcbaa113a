"""What the server sets and checks in metadata, whatever the kind: apimachinery's ``ValidateObjectMeta`` and friends."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object

KNOWN = frozenset(
    {
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    }
)
SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
_MAX_ANNOTATIONS = 256 * 1024
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
_STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})


def check_shape(obj: Mapping[str, Any]) -> list[FieldError]:
    """Whether metadata has the types everything after this relies on. Nulls count as absent and must be gone by now."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        return [FieldError.type_invalid("metadata", metadata, "must be an object")]
    found: list[FieldError] = []
    for key in (
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
    ):
        if key in metadata and not isinstance(metadata[key], str):
            found.append(FieldError.type_invalid(f"metadata.{key}", metadata[key], "must be a string"))
    for key in ("creationTimestamp", "deletionTimestamp"):
        value = metadata.get(key)
        if isinstance(value, str) and not _TIME.fullmatch(value):
            found.append(FieldError.type_invalid(f"metadata.{key}", value, "must be a time like 2006-01-02T15:04:05Z"))
    for key in ("labels", "annotations"):
        value = metadata.get(key)
        if value is None:
            continue
        if not isinstance(value, dict):
            found.append(FieldError.type_invalid(f"metadata.{key}", value, "must be an object"))
        else:
            found += [
                FieldError.type_invalid(f"metadata.{key}[{name}]", one, "must be a string")
                for name, one in value.items()
                if not isinstance(one, str)
            ]
    owners = metadata.get("ownerReferences")
    if owners is not None and not (isinstance(owners, list) and all(isinstance(one, dict) for one in owners)):
        found.append(FieldError.type_invalid("metadata.ownerReferences", owners, "must be a list of objects"))
    finalizers = metadata.get("finalizers")
    if finalizers is not None and not (
        isinstance(finalizers, list) and all(isinstance(one, str) for one in finalizers)
    ):
        found.append(FieldError.type_invalid("metadata.finalizers", finalizers, "must be a list of strings"))
    managed = metadata.get("managedFields")
    if managed is not None and not (isinstance(managed, list) and all(isinstance(one, dict) for one in managed)):
        found.append(FieldError.type_invalid("metadata.managedFields", managed, "must be a list of objects"))
    for key in ("generation", "deletionGracePeriodSeconds"):
        value = metadata.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            found.append(FieldError.type_invalid(f"metadata.{key}", value, "must be a whole number"))
    return found


def validate(
    obj: Object,
    *,
    namespaced: bool,
    validate_name: Callable[[str], Sequence[str]] | None = None,
    any_finalizer: bool = False,
) -> list[FieldError]:
    """What is wrong with the metadata of an object that is to be stored.

    Unless ``any_finalizer``, one that is not Kubernetes' own must name a domain.
    """
    metadata = obj["metadata"]
    found: list[FieldError] = []
    check_name = validate_name or names.dns1123_subdomain
    generate = metadata.get("generateName")
    if generate:
        found += [
            FieldError.invalid("metadata.generateName", generate, problem) for problem in check_name(_masked(generate))
        ]
    name = metadata.get("name") or ""
    if not name:
        found.append(FieldError.required("metadata.name", "name or generateName is required"))
    else:
        found += [FieldError.invalid("metadata.name", name, problem) for problem in check_name(name)]
    namespace = metadata.get("namespace")
    if namespaced:
        if not namespace:
            found.append(FieldError.required("metadata.namespace"))
        else:
            found += [
                FieldError.invalid("metadata.namespace", namespace, problem)
                for problem in names.dns1123_label(namespace)
            ]
    elif namespace:
        found.append(FieldError.forbidden("metadata.namespace", "not allowed on this type"))
    labels = metadata.get("labels")
    if labels:
        found += label_errors(labels, "metadata.labels")
    annotations = metadata.get("annotations")
    if annotations:
        found += _annotation_errors(annotations)
    if metadata.get("ownerReferences"):
        found += _owner_errors(metadata["ownerReferences"])
    finalizers = metadata.get("finalizers")
    if finalizers:
        found += _finalizer_errors(finalizers, any_name=any_finalizer)
    return found


def _finalizer_errors(finalizers: Sequence[str], *, any_name: bool) -> list[FieldError]:
    found: list[FieldError] = []
    for index, one in enumerate(finalizers):
        found += [FieldError.invalid("metadata.finalizers", one, problem) for problem in names.label_key(one)]
        if not any_name and "/" not in one and one not in _STANDARD_FINALIZERS:
            problem = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(FieldError.invalid(f"metadata.finalizers[{index}]", one, problem))
    return found


def _masked(prefix: str) -> str:
    return prefix[:-1] + "a" if prefix.endswith("-") else prefix


def label_errors(labels: Mapping[str, str], path: str) -> list[FieldError]:
    found: list[FieldError] = []
    for key, value in labels.items():
        found += [FieldError.invalid(path, key, problem) for problem in names.label_key(key)]
        found += [FieldError.invalid(path, value, problem) for problem in names.label_value(value)]
    return found


def _annotation_errors(annotations: Mapping[str, str]) -> list[FieldError]:
    found: list[FieldError] = []
    size = 0
    for key, value in annotations.items():
        found += [FieldError.invalid("metadata.annotations", key, problem) for problem in names.label_key(key.lower())]
        size += len(key) + len(value)
    if size > _MAX_ANNOTATIONS:
        found.append(FieldError.too_long("metadata.annotations", _MAX_ANNOTATIONS))
    return found


def _owner_errors(references: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    found: list[FieldError] = []
    controllers = []
    for index, reference in enumerate(references):
        path = f"metadata.ownerReferences[{index}]"
        if not reference.get("apiVersion"):
            found.append(FieldError.invalid(f"{path}.apiVersion", "", "version must not be empty"))
        for key in ("kind", "name", "uid"):
            if not reference.get(key):
                found.append(FieldError.invalid(f"{path}.{key}", "", "must not be empty"))
        if reference.get("controller"):
            controllers.append(f"{reference.get('kind')}/{reference.get('name')}")
    if len(controllers) > 1:
        found.append(
            FieldError.invalid(
                "metadata.ownerReferences",
                list(references),
                "Only one reference can have Controller set to true. "
                f'Found "true" in references for {controllers[0]} and {controllers[1]}',
            )
        )
    return found


def validate_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[FieldError]:
    """Metadata that may not change once an object exists."""
    found: list[FieldError] = []
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        if new.get(key) != old.get(key):
            found.append(FieldError.invalid(f"metadata.{key}", new.get(key), "field is immutable"))
    if old.get("deletionTimestamp"):
        before = set(old.get("finalizers") or ())
        added = [one for one in new.get("finalizers") or () if one not in before]
        if added:
            found.append(
                FieldError.forbidden(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, found new finalizers "
                    + "[]string{"
                    + ", ".join(f'"{one}"' for one in added)
                    + "}",
                )
            )
    return found


def drop_unknown(metadata: Object) -> list[str]:
    """Remove what is not ObjectMeta, in place; returns the paths."""
    unknown = [key for key in metadata if key not in KNOWN]
    for key in unknown:
        del metadata[key]
    return [f"metadata.{key}" for key in unknown]


def drop_nulls(value: Any) -> Any:
    """The value without nulls in objects, as decoding into a typed struct would leave it."""
    if isinstance(value, dict):
        return {key: drop_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [drop_nulls(one) for one in value]
    return value
