"""What every object carries: ``apiVersion``, ``kind`` and ``metadata``, as raw schemas.

Custom resources and embedded resources have these implicitly: a CRD may restrict ``metadata.name`` and
``metadata.generateName`` and say nothing else about them. List types and map keys are those of ``metav1.ObjectMeta``,
because server-side apply needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_STRING: Final = {"type": "string"}
_TIME: Final = {"type": "string", "format": "date-time"}
_COUNT: Final = {"type": "integer", "format": "int64"}
_STRING_MAP: Final = {"type": "object", "additionalProperties": _STRING}

_OWNER_REFERENCE: Final = {
    "type": "object",
    "required": ["apiVersion", "kind", "name", "uid"],
    "properties": {
        "apiVersion": _STRING,
        "blockOwnerDeletion": {"type": "boolean"},
        "controller": {"type": "boolean"},
        "kind": _STRING,
        "name": _STRING,
        "uid": _STRING,
    },
    "x-kubernetes-map-type": "atomic",
}
_MANAGED_FIELDS: Final = {
    "type": "object",
    "properties": {
        "apiVersion": _STRING,
        "fieldsType": _STRING,
        "fieldsV1": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "manager": _STRING,
        "operation": _STRING,
        "subresource": _STRING,
        "time": _TIME,
    },
}

OBJECT_META: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "annotations": _STRING_MAP,
        "creationTimestamp": {**_TIME, "nullable": True},
        "deletionGracePeriodSeconds": _COUNT,
        "deletionTimestamp": _TIME,
        "finalizers": {
            "type": "array",
            "items": _STRING,
            "x-kubernetes-list-type": "set",
            "x-kubernetes-patch-strategy": "merge",
        },
        "generateName": _STRING,
        "generation": _COUNT,
        "labels": _STRING_MAP,
        "managedFields": {"type": "array", "items": _MANAGED_FIELDS, "x-kubernetes-list-type": "atomic"},
        "name": _STRING,
        "namespace": _STRING,
        "ownerReferences": {
            "type": "array",
            "items": _OWNER_REFERENCE,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "x-kubernetes-patch-merge-key": "uid",
            "x-kubernetes-patch-strategy": "merge",
        },
        "resourceVersion": _STRING,
        "selfLink": _STRING,
        "uid": _STRING,
    },
}


def with_object_meta(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a whole resource: ``raw`` and what it has implicitly."""
    properties = raw.get("properties") or {}
    restricted = (properties.get("metadata") or {}).get("properties") or {}
    known = OBJECT_META["properties"]
    metadata = {
        **OBJECT_META,
        "properties": known | {name: {**known.get(name, {}), **extra} for name, extra in restricted.items()},
    }
    identity = {name: {**_STRING, **(properties.get(name) or {})} for name in ("apiVersion", "kind")}
    return {**raw, "type": "object", "properties": {**properties, **identity, "metadata": metadata}}
