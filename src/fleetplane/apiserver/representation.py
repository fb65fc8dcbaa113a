"""Respond: the committed bytes in the form the client asked for.

A plain JSON answer is the stored bytes with the revision spliced in. Everything else (another version, a Table, partial
metadata, YAML, protobuf) decodes; those are the slow, human-facing or exceptional ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from fleetplane.apiserver.encoding import decode, rendered
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.negotiation import JSON, PROTOBUF, YAML, Representation
from fleetplane.apiserver.registry import Served
from fleetplane.apiserver.storage import convert_all
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.objects import Object
from fleetplane.model.schema import apply_defaults, prune
from fleetplane.model.table import render_table
from fleetplane.store.protocol import Record

_METADATA_OF_LIST = "metadata"


async def load(served: Served, record: Record) -> Object:
    """A fresh object in the version of ``served``; the caller may change it."""
    if plain(served, record):
        return decode(record)
    return (await load_all(served, [record]))[0]


async def load_all(served: Served, records: Sequence[Record]) -> list[Object]:
    """Fresh objects in the version of ``served``; what needs a conversion is converted together.

    A custom resource that is converted, or was stored under an older schema, comes out as the schema of ``served``
    has it: without what it does not know, with its defaults.
    """
    objects = [decode(record) for record in records]
    others = [index for index, record in enumerate(records) if not plain(served, record)]
    if others:
        converted = await convert_all(served, [objects[index] for index in others], served.type.api_version)
        for index, obj in zip(others, converted, strict=True):
            if served.custom and served.schema is not None:
                prune(served.schema, obj)
                apply_defaults(served.schema, obj)
            objects[index] = obj
    return objects


async def bodies_of(served: Served, records: Sequence[Record]) -> list[bytes]:
    """The JSON of records in the version of ``served``."""
    if all(plain(served, record) for record in records):
        return [rendered(record) for record in records]
    return [orjson.dumps(obj) for obj in await load_all(served, records)]


async def body_of(served: Served, record: Record) -> bytes:
    """The JSON of a record in the version of ``served``."""
    if plain(served, record):
        return rendered(record)
    return (await bodies_of(served, [record]))[0]


def plain(served: Served, record: Record) -> bool:
    """Whether the stored bytes can be sent as they are."""
    return record.encoding == served.storage.encoding and served.is_storage_version


def encode_object(obj: Mapping[str, Any], representation: Representation) -> tuple[bytes, str]:
    """(bytes, content type) of any JSON-shaped answer. Kinds protobuf does not know go out as JSON, as it must be."""
    if representation.encoding == YAML:
        return kube_yaml.dump(dict(obj)).encode(), YAML
    if representation.encoding == PROTOBUF:
        from fleetplane.model.protobuf import EncodeError, encode  # noqa: PLC0415  (the field table loads on first use)

        try:
            return encode(dict(obj)), PROTOBUF
        except EncodeError:
            return orjson.dumps(obj), JSON
    options = orjson.OPT_INDENT_2 if representation.pretty else 0
    return orjson.dumps(obj, option=options), JSON


def partial(obj: Mapping[str, Any], meta_version: str = "v1") -> Object:
    """``PartialObjectMetadata`` of an object."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{meta_version}",
        "metadata": obj.get("metadata") or {},
    }


def table(
    served: Served,
    objects: Sequence[Object],
    representation: Representation,
    *,
    now: datetime,
    include_object: str = "Metadata",
    list_metadata: Mapping[str, Any] | None = None,
    headers: bool = True,
) -> Object:
    """A meta.k8s.io Table of the objects with the kind's columns."""
    made: Object = render_table(served.columns, objects, now, include_object)
    made["apiVersion"] = f"meta.k8s.io/{representation.meta_version}"
    made["metadata"] = dict(list_metadata or {})
    if not headers:
        made["columnDefinitions"] = None
    return made


async def respond_record(
    served: Served,
    record: Record,
    representation: Representation,
    *,
    status: int = 200,
    now: datetime,
    include_object: str = "Metadata",
) -> Response:
    """One object, as asked for."""
    if representation.shape == "object" and representation.encoding == JSON and not representation.pretty:
        return Response(status, await body_of(served, record))
    return respond_object(
        served, await load(served, record), representation, status=status, now=now, include_object=include_object
    )


def respond_object(
    served: Served,
    obj: Object,
    representation: Representation,
    *,
    status: int = 200,
    now: datetime,
    include_object: str = "Metadata",
) -> Response:
    shown: Mapping[str, Any] = obj
    if representation.shape == "Table":
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        shown = table(served, [obj], representation, now=now, include_object=include_object, list_metadata=meta)
    elif representation.shape == "PartialObjectMetadata":
        shown = partial(obj, representation.meta_version)
    body, content_type = encode_object(shown, representation)
    return Response(status, body, content_type)


def list_envelope(api_version: str, kind: str, metadata: Mapping[str, Any], items: Iterable[bytes]) -> bytes:
    """A list document around encoded items."""
    head = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})[:-1]
    return b'%b,"items":[%b]}' % (head, b",".join(items))
