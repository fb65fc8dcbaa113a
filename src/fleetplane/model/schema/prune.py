"""Dropping what a schema does not know.

Runs on every write, so the usual case, nothing to drop, is one comparison of key sets per object and builds no paths:
those are put together on the way back up, from what was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetplane.model.errors import bad_request
from fleetplane.model.jsonvalue import MAX_DEPTH

if TYPE_CHECKING:
    from fleetplane.model.schema.schema import Schema


def prune(schema: Schema, obj: Any) -> list[str]:
    """Remove, in place, every field the schema does not know; returns their paths (``spec.containers[0].foo``).

    A client that asked for strict field validation is told of each as ``unknown field "<path>"``. Raises ApiError when
    the object nests too deep.
    """
    try:
        dropped = _prune(schema, obj)
    except RecursionError:
        raise bad_request(f"the object is nested deeper than {MAX_DEPTH} levels") from None
    return [path.removeprefix(".") for path in dropped] if dropped else []


def _prune(schema: Schema, value: Any) -> list[str] | None:
    """The paths dropped below ``value``, relative to it; None when there are none."""
    dropped: list[str] | None = None
    if type(value) is dict:
        closed = schema.closed_keys
        if closed is not None and not value.keys() <= closed:
            unknown = [name for name in value if name not in closed]
            for name in unknown:
                del value[name]
            dropped = [f".{name}" for name in unknown]
        structured = schema.structured
        if structured:
            for name, one in value.items():
                child = structured.get(name)
                if child is not None and one and (found := _prune(child, one)):
                    dropped = (dropped or []) + [f".{name}{path}" for path in found]
        of_values = schema.structured_values
        if of_values is not None:
            known = schema.properties
            for name, one in value.items():
                if name not in known and (found := _prune(of_values, one)):
                    dropped = (dropped or []) + [f".{name}{path}" for path in found]
    elif type(value) is list:
        of_items = schema.structured_items
        if of_items is not None:
            for index, one in enumerate(value):
                if found := _prune(of_items, one):
                    dropped = (dropped or []) + [f"[{index}]{path}" for path in found]
    return dropped
