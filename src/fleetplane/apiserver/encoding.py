"""How an object becomes the bytes we keep and the bytes we send.

An object is encoded once, when it is written: ``kind`` and ``apiVersion`` first, then ``metadata``, which begins with the
annotations and has no resourceVersion. Every reader gets those bytes with the revision spliced in; nothing is decoded on
the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fleetplane.model.objects import Object
from fleetplane.store.protocol import Record

_METADATA = b'"metadata":{'
_ANNOTATIONS = b'"annotations":{'
_OFFSET = len(_METADATA)
CLUSTER_ANNOTATION = "fleetplane.io/cluster"
"""On every object read over all clusters; never stored."""


def encode(obj: Mapping[str, Any]) -> bytes:
    """The stored form. ``metadata`` must not be empty (every stored object has a name)."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "annotations")}
    annotations = obj["metadata"].get("annotations")
    if annotations:
        metadata = {"annotations": annotations, **metadata}
    ordered: Object = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": metadata}
    for key, value in obj.items():
        if key not in ordered:
            ordered[key] = value
    return bytes(
        memoryview(orjson.dumps(ordered))
    )  # a copy: orjson's own buffer is many times larger, and this is kept


def splice(value: bytes, revision: int) -> bytes:
    """The sent form: the stored bytes with ``metadata.resourceVersion``."""
    at = value.index(_METADATA) + _OFFSET
    return b'%b"resourceVersion":"%d",%b' % (value[:at], revision, value[at:])


def splice_cluster(body: bytes, cluster: str) -> bytes:
    """The form a reader of all clusters gets: an annotation tells where the object lives. ``body`` is a ``splice``."""
    at = body.index(b",", body.index(_METADATA) + _OFFSET) + 1
    name = cluster.encode()
    if body.startswith(_ANNOTATIONS, at):
        at += len(_ANNOTATIONS)
        return b'%b"%b":"%b",%b' % (body[:at], CLUSTER_ANNOTATION.encode(), name, body[at:])
    return b'%b"annotations":{"%b":"%b"},%b' % (body[:at], CLUSTER_ANNOTATION.encode(), name, body[at:])


def rendered(record: Record) -> bytes:
    """``splice`` for a record, shared by all readers of the same in-memory record."""
    return cached(record, "json", lambda: splice(record.value, record.revision))


def cached(record: Record, form: object, make: Callable[[], bytes]) -> bytes:
    """One encoding of a record, made once for all who ask for the same form of the same in-memory record."""
    forms = record.rendered
    if forms is None:
        forms = record.rendered = {}
    body = forms.get(form)
    if body is None:
        body = forms[form] = make()
    return body


def decode(record: Record) -> Object:
    """A fresh object from a record, with its resourceVersion. The caller may change it."""
    obj: Object = orjson.loads(record.value)
    obj["metadata"]["resourceVersion"] = str(record.revision)
    return obj
