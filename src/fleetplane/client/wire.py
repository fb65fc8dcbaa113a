"""How requests and answers are written: media types, queries, lists, watch events and errors, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from fleetplane.client.protocol import (
    CLUSTER_ANNOTATION,
    EncodedEvent,
    EncodedList,
    EventType,
    Pairs,
    PatchType,
    Propagation,
)
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata
from fleetplane.model.resources import ResourceType

JSON: Final = "application/json"
PATCH_MEDIA_TYPES: Final[Mapping[PatchType, str]] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
APPLY_MEDIA_TYPE: Final = "application/apply-patch+yaml"


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int | None = None


class _List(msgspec.Struct):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_decode_list: Final = msgspec.json.Decoder(_List).decode
_decode_event: Final = msgspec.json.Decoder(_Event).decode


def decoded(body: bytes) -> Object:
    try:
        obj = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(500, f"the server answered something that is not JSON: {error}") from None
    if not isinstance(obj, dict):
        raise ApiError(500, "the server answered JSON that is not an object")
    return obj


def decoded_list(body: bytes) -> EncodedList:
    """Each item is copied out of the body, so that keeping one does not keep the whole page."""
    try:
        found = _decode_list(body)
    except msgspec.DecodeError as error:
        raise ApiError(500, f"the server answered a list that cannot be read: {error}") from None
    items = [bytes(item) for item in found.items or ()]
    meta = found.metadata
    return EncodedList(items, meta.resource_version, meta.continue_, meta.remaining_item_count)


def decoded_item(item: bytes, kind: ResourceType) -> Object:
    """A list's item: built-in kinds leave out what the list already says."""
    obj: Object = orjson.loads(item)
    if "kind" not in obj:
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
    return obj


def decoded_event(line: bytes) -> EncodedEvent:
    """One line of a watch. An ERROR event becomes the ``ApiError`` it carries."""
    try:
        event = _decode_event(line)
    except msgspec.DecodeError as error:
        raise ApiError(500, f"the server sent a watch event that cannot be read: {error}") from None
    match event.type:
        case "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK":
            kind: EventType = event.type
            return EncodedEvent(kind, bytes(event.object))
        case "ERROR":
            raise ApiError.from_status(orjson.loads(bytes(event.object)))
        case other:
            raise ApiError(500, f"the server sent a watch event of the unknown type {other!r}")


def encoded(obj: Mapping[str, Any]) -> bytes:
    """The object's JSON, without the annotation that reading over all clusters put on it."""
    annotated = metadata(obj).get("annotations")
    if annotated and CLUSTER_ANNOTATION in annotated:
        kept = {key: value for key, value in annotated.items() if key != CLUSTER_ANNOTATION}
        obj = {**obj, "metadata": {**metadata(obj), "annotations": kept}}
    return orjson.dumps(obj)


def with_type(obj: Mapping[str, Any], kind: ResourceType) -> Mapping[str, Any]:
    if obj.get("kind") and obj.get("apiVersion"):
        return obj
    return {"apiVersion": kind.api_version, "kind": kind.kind, **obj}


def error_from(status: int, body: bytes) -> ApiError:
    """What a refusal says, whether it is a ``Status`` or a proxy's HTML."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    if isinstance(found, dict) and found.get("kind") == "Status":
        return ApiError.from_status(found, status)
    text = body[:200].decode("utf-8", "replace").strip()
    return ApiError(status, f"the server answered {status}" + (f": {text}" if text else ""))


def pairs(given: Mapping[str, str] | Pairs) -> Pairs:
    return list(given.items()) if isinstance(given, Mapping) else given


def namespace_of(kind: ResourceType, obj: Mapping[str, Any]) -> str:
    return str(metadata(obj).get("namespace") or "") if kind.namespaced else ""


def query_of(**parameters: str | int | None) -> Pairs:
    return [(name.rstrip("_"), str(value)) for name, value in parameters.items() if value not in {None, ""}]


def write_query(dry_run: bool, field_manager: str | None, field_validation: str | None) -> Pairs:
    return query_of(dryRun="All" if dry_run else None, fieldManager=field_manager, fieldValidation=field_validation)


def delete_options(propagation: Propagation | None, grace_period_seconds: int | None, dry_run: bool) -> Object:
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if propagation is not None:
        options["propagationPolicy"] = propagation
    if grace_period_seconds is not None:
        options["gracePeriodSeconds"] = grace_period_seconds
    if dry_run:
        options["dryRun"] = ["All"]
    return options


def seconds(header: str | None) -> float:
    """Retry-After in seconds, bounded: a server cannot make a client sleep for hours."""
    return min(float(header), 60.0) if header is not None and header.isdigit() else 0.0
