"""Filling in what a schema gives by default.

As Kubernetes does for structural schemas: first a null that is not allowed is as good as absent and goes; then absent
fields with a default get it, outermost first, so that a default object is itself filled in. Nulls in lists stay, for
validation to refuse. To the built-in kinds every null means absent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetplane.model.errors import bad_request
from fleetplane.model.jsonvalue import MAX_DEPTH, copied

if TYPE_CHECKING:
    from fleetplane.model.schema.schema import Schema


def apply_defaults(schema: Schema, obj: Any) -> None:
    """Fill in defaults and remove nulls, in place. Raises ApiError when the object nests too deep."""
    try:
        _fill(schema, obj)
    except RecursionError:
        raise bad_request(f"the object is nested deeper than {MAX_DEPTH} levels") from None


def _fill(schema: Schema, value: Any) -> None:
    if type(value) is dict:
        if None in value.values():
            _drop_nulls(schema, value)
        for name, default in schema.defaults:
            if name not in value:
                value[name] = copied(default) if type(default) is dict or type(default) is list else default
        containers = schema.containers
        if containers:
            for name, one in value.items():
                child = containers.get(name)
                if child is not None:
                    _fill(child, one)
        of_values = schema.value_container
        if of_values is not None:
            known = schema.properties
            for name, one in value.items():
                if name not in known:
                    _fill(of_values, one)
    elif type(value) is list:
        if schema.items is not None and None in value:
            _default_items(schema.items, value)
        if schema.item_container is not None:
            for one in value:
                _fill(schema.item_container, one)


def _drop_nulls(schema: Schema, value: dict[str, Any]) -> None:
    for name in [name for name, one in value.items() if one is None]:
        child = schema.field(name)
        if child is None or child.nullable:
            continue
        if name not in schema.properties and child.default is not None:
            value[name] = copied(child.default)
        else:
            del value[name]


def _default_items(items: Schema, value: list[Any]) -> None:
    if items.nullable or items.default is None:
        return
    for index, one in enumerate(value):
        if one is None:
            value[index] = copied(items.default)
