"""What a Python annotation means: how a value is read, how it is written, what its schema is.

An annotation is worked out once, when its class is first used; reading an attribute is then a lookup and, for most
types, nothing more.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.kind.fields import Builtin, FieldInfo, constraints
from fleetplane.model.objects import Object
from fleetplane.model.quantity import Quantity

Convert = Callable[[Any], Any]
Resolve = Callable[[str], Object]
"""From the name of a built-in definition to the schema that stands for it."""

Schema = Callable[[Resolve], Object]


class _IntOrString:
    """Marks a value that is a whole number or a string (a port, a percentage)."""


IntOrString = Annotated[int | str, _IntOrString()]

_INT_OR_STRING: Final = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
_QUANTITY_PATTERN: Final = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """``read`` makes the Python value of a JSON one, ``write`` the reverse; ``None``: they are the same."""

    schema: Schema
    read: Convert | None = None
    write: Convert | None = None
    is_optional: bool = False
    empty: Callable[[], Any] | None = None
    """What reading gives when the value is absent although nothing says so: an empty list, mapping or view."""
    view: type | None = None
    """The view class, where the value is one."""


def plan_of(annotation: Any) -> Plan:
    """Raises TypeError for an annotation that has no place in an API."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _annotated(annotation)
    if origin in {Union, UnionType}:
        return _optional(annotation)
    if origin is Literal:
        values = list(get_args(annotation))
        return Plan(lambda _: {"type": _json_type(type(values[0])), "enum": values})
    if origin is list:
        return _list(plan_of(get_args(annotation)[0]))
    if origin is dict:
        return _dict(annotation)
    if annotation is Any:
        return Plan(lambda _: {"x-kubernetes-preserve-unknown-fields": True})
    if annotation is dict:
        return Plan(_any_object, empty=dict)
    if isinstance(annotation, type):
        return _class(annotation)
    raise TypeError(f"{annotation!r} cannot be the type of a field")


def _class(annotation: type) -> Plan:
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if issubclass(annotation, Enum):
        values = [member.value for member in annotation]
        return Plan(
            lambda _: {"type": _json_type(type(values[0])), "enum": values},
            read=annotation,
            write=lambda value: annotation(value).value,
        )
    if hasattr(annotation, "view") and hasattr(annotation, "object_schema"):
        return Plan(
            annotation.object_schema,
            read=annotation.view,
            write=lambda value: value.object,
            empty=lambda: annotation.view({}),
            view=annotation,
        )
    raise TypeError(f"{annotation.__name__} cannot be the type of a field; use a View, a scalar, a list or a dict")


def _annotated(annotation: Any) -> Plan:
    base, *extras = get_args(annotation)
    if any(isinstance(extra, _IntOrString) for extra in extras):
        return Plan(lambda _: dict(_INT_OR_STRING))
    embedded = next((extra for extra in extras if isinstance(extra, Builtin)), None)
    if embedded is not None:
        return Plan(lambda resolve: resolve(embedded.definition), empty=dict)
    plan = plan_of(base)
    info = next((extra for extra in extras if isinstance(extra, FieldInfo)), None)
    if info is None:
        return plan
    return Plan(
        lambda resolve: plan.schema(resolve) | constraints(info), plan.read, plan.write, plan.is_optional, plan.empty
    )


def _optional(annotation: Any) -> Plan:
    members = [one for one in get_args(annotation) if one is not NoneType]
    if len(members) != 1:
        raise TypeError(f"{annotation} mixes types; an API field has one type (or is IntOrString)")
    plan = plan_of(members[0])
    return Plan(plan.schema, plan.read, plan.write, is_optional=True, view=plan.view)


def _list(item: Plan) -> Plan:
    read, write = item.read, item.write
    return Plan(
        lambda resolve: {"type": "array", "items": item.schema(resolve)},
        None if read is None else lambda values: [read(value) for value in values],
        None if write is None else lambda values: [write(value) for value in values],
        empty=list,
    )


def _dict(annotation: Any) -> Plan:
    key, value = get_args(annotation)
    if key is not str:
        raise TypeError(f"{annotation}: the keys of a mapping are strings")
    if value is Any:
        return Plan(_any_object, empty=dict)
    item = plan_of(value)
    read, write = item.read, item.write
    return Plan(
        lambda resolve: {"type": "object", "additionalProperties": item.schema(resolve)},
        None if read is None else lambda values: {name: read(one) for name, one in values.items()},
        None if write is None else lambda values: {name: write(one) for name, one in values.items()},
        empty=dict,
    )


def _any_object(_resolve: Resolve) -> Object:
    return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _json_type(python: type) -> str:
    return {str: "string", int: "integer", bool: "boolean", float: "number"}[python]


_SCALARS: Final[Mapping[type, Plan]] = {
    str: Plan(lambda _: {"type": "string"}),
    bool: Plan(lambda _: {"type": "boolean"}),
    int: Plan(lambda _: {"type": "integer", "format": "int64"}),
    float: Plan(lambda _: {"type": "number"}),
    bytes: Plan(
        lambda _: {"type": "string", "format": "byte"},
        base64.b64decode,
        lambda value: base64.b64encode(value).decode(),
    ),
    datetime: Plan(lambda _: {"type": "string", "format": "date-time"}, parse_timestamp, timestamp),
    Quantity: Plan(lambda _: {**_INT_OR_STRING, "pattern": _QUANTITY_PATTERN}, Quantity.parse, str),
}
