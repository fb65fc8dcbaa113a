"""The shape of an object and small readers on it.

Objects stay plain JSON data so that fields a reader does not know survive every read-modify-write. Functions here never
change their argument unless their name says so.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]
"""One Kubernetes object (or any JSON mapping inside one)."""


class OwnerReference(NamedTuple):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool
    block_owner_deletion: bool


def metadata(obj: Mapping[str, Any]) -> Object:
    """The object's metadata, empty when absent or malformed."""
    found = obj.get("metadata")
    return found if isinstance(found, dict) else {}


def name(obj: Mapping[str, Any]) -> str:
    return str(metadata(obj).get("name") or "")


def namespace(obj: Mapping[str, Any]) -> str:
    return str(metadata(obj).get("namespace") or "")


def uid(obj: Mapping[str, Any]) -> str:
    return str(metadata(obj).get("uid") or "")


def resource_version(obj: Mapping[str, Any]) -> str:
    return str(metadata(obj).get("resourceVersion") or "")


def generation(obj: Mapping[str, Any]) -> int:
    return int(metadata(obj).get("generation") or 0)


def labels(obj: Mapping[str, Any]) -> dict[str, str]:
    return metadata(obj).get("labels") or {}


def annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    return metadata(obj).get("annotations") or {}


def finalizers(obj: Mapping[str, Any]) -> list[str]:
    return metadata(obj).get("finalizers") or []


def is_deleting(obj: Mapping[str, Any]) -> bool:
    return bool(metadata(obj).get("deletionTimestamp"))


def owner_references(obj: Mapping[str, Any]) -> list[OwnerReference]:
    return [
        OwnerReference(
            str(ref.get("apiVersion") or ""),
            str(ref.get("kind") or ""),
            str(ref.get("name") or ""),
            str(ref.get("uid") or ""),
            bool(ref.get("controller")),
            bool(ref.get("blockOwnerDeletion")),
        )
        for ref in metadata(obj).get("ownerReferences") or []
    ]


def controller_of(obj: Mapping[str, Any]) -> OwnerReference | None:
    """The one owner that manages this object, if any."""
    return next((ref for ref in owner_references(obj) if ref.controller), None)


def condition(obj: Mapping[str, Any], condition_type: str) -> Object | None:
    """The status condition of this type, if the object reports it."""
    status = obj.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return next((c for c in conditions or [] if c.get("type") == condition_type), None)


def is_condition_true(obj: Mapping[str, Any], condition_type: str) -> bool:
    found = condition(obj, condition_type)
    return found is not None and found.get("status") == "True"


def split_api_version(api_version: str) -> tuple[str, str]:
    """``apps/v1`` -> (``apps``, ``v1``); ``v1`` -> (````, ``v1``)."""
    group, _, version = api_version.rpartition("/")
    return group, version
