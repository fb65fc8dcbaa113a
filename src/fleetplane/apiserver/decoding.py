"""Decode: from the bytes of a body to one object.

JSON, YAML and protobuf are understood. Field names that occur twice are reported, not silently dropped, because the
server would otherwise keep a value the user did not expect. Depth and size are bounded before anything recursive runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson

from fleetplane.model import errors
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.objects import Object

MAX_BODY = 3 * 1024 * 1024
MAX_DEPTH = 200
JSON_TYPES = frozenset({"application/json", "", "*/*"})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
PROTOBUF_TYPE = "application/vnd.kubernetes.protobuf"
SUPPORTED = ("application/json", "application/yaml", PROTOBUF_TYPE)


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def decode_object(body: bytes, content_type: str) -> tuple[Object, list[str]]:
    """The object in the body, and the strict-decoding errors found (``duplicate field "spec.x"``).

    Raises:
        ApiError: 400 for a body that cannot be read, 413 when too large, 415 for an unknown media type.
    """
    media = media_type(content_type)
    if len(body) > MAX_BODY:
        raise errors.too_large(MAX_BODY)
    if media in JSON_TYPES:
        return _mapping(*decode_json(body))
    if media in YAML_TYPES:
        return _mapping(*decode_yaml(body))
    if media == PROTOBUF_TYPE:
        return _from_protobuf(body), []
    raise errors.unsupported_media_type(SUPPORTED)


def decode_json(body: bytes) -> tuple[Any, list[str]]:
    """Any JSON value, with its duplicate fields."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise errors.bad_request(f"the body is not valid JSON: {error}") from None
    check_depth(value, body.count(b"{") + body.count(b"["))
    # A duplicate makes the re-encoded value shorter; only a body that is not compact has to be read again to be sure.
    if len(orjson.dumps(value)) == len(body.rstrip()):
        return value, []
    return value, _duplicates(body)


def decode_yaml(body: bytes) -> tuple[Any, list[str]]:
    """One YAML (or JSON) document, with its duplicate fields."""
    if len(body) > MAX_BODY:
        raise errors.too_large(MAX_BODY)
    if body.lstrip()[:1] == b"{":
        try:
            return decode_json(body)
        except errors.ApiError:
            pass  # flow-style YAML looks like JSON; the YAML reader words the error if it is neither
    try:
        documents = kube_yaml.load_all(body)
    except ValueError as error:
        raise errors.bad_request(f"the body is not valid YAML: {error}") from None
    if len(documents) != 1:
        raise errors.bad_request(f"the body must be one YAML document, not {len(documents)}")
    check_depth(documents[0].value, MAX_DEPTH + 1)
    return documents[0].value, list(documents[0].duplicates)


def part(obj: Mapping[str, Any], key: str) -> Object:
    """The object at a key, empty when there is none. Raises ApiError 400 when it is something else."""
    value = obj.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.bad_request(f"{key} must be an object")
    return value


def check_depth(value: Any, brackets: int) -> None:
    """Raises ApiError 400 for nesting beyond ``MAX_DEPTH``; ``brackets`` is an upper bound that saves the walk."""
    if brackets <= MAX_DEPTH:
        return
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        if not below:
            return
        level = below
    raise errors.bad_request(f"the body is nested more than {MAX_DEPTH} levels deep")


def _duplicates(body: bytes) -> list[str]:
    found: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    found.append(f'duplicate field "{key}"')
                seen.add(key)
        return made

    try:
        json.loads(body, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return found
    return list(dict.fromkeys(found))


def _mapping(value: Any, strict: list[str]) -> tuple[Object, list[str]]:
    if not isinstance(value, dict):
        raise errors.bad_request("the body must be one object")
    return value, strict


def _from_protobuf(body: bytes) -> Object:
    from fleetplane.model.protobuf import DecodeError, decode  # noqa: PLC0415  (the field table loads on first use)

    try:
        return decode(body)
    except DecodeError as error:
        raise errors.bad_request(f"the body is not valid protobuf: {error}") from None
