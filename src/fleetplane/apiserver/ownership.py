"""Which containers of a new built-in object its creator owns, beside the fields in them.

A custom resource comes out of nothing, so everything in it is new. A built-in one is a typed structure: parts that are
always there (a Deployment's ``spec``, its template) are nobody's, only what is optional belongs to whoever adds it.
managedFields say so with a ``.`` beside the fields of a container. The facts of each type are those of the wire format.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from fleetplane.model.objects import Object
from fleetplane.model.protobuf.facts import Field, message_fields, message_name


def disown_fixed_parts(obj: Object) -> None:
    """Take the marks of what is always there out of the managedFields of an object that is being created, in place."""
    message = message_name(str(obj.get("apiVersion") or ""), str(obj.get("kind") or ""))
    if message is None:
        return
    entries = obj["metadata"].get("managedFields") or []
    for entry in entries:
        _walk(message, obj, entry["fieldsV1"])
    kept = [entry for entry in entries if entry["fieldsV1"]]
    if kept:
        obj["metadata"]["managedFields"] = kept
    else:
        obj["metadata"].pop("managedFields", None)


def _walk(message: str, value: Object, fields: Object) -> None:
    """What is optional or an item of a list is new as a whole, so nothing below it is looked at."""
    for name, type_, is_list in _fixed(message):
        key = "f:" + name
        node, below = fields.get(key), value.get(name)
        if node is None:
            continue
        if not below:
            del fields[key]
        elif node:
            node.pop(".", None)
            if not is_list and isinstance(below, dict):
                _walk(type_, below, node)


@cache
def _fixed(message: str) -> tuple[tuple[str, str, bool], ...]:
    """(name, message, whether it is a list or map) of the containers that are always there."""
    return tuple(
        (field.name, field.type, field.shape != "one")
        for field in _fields(message)
        if (not field.pointer if field.shape == "one" else not field.omit_zero)
    )


def _fields(message: str) -> Iterator[Field]:
    for field in message_fields(message):
        if field.inline:
            yield from _fields(field.type)
        elif field.shape != "one" or "." in field.type:
            yield field
