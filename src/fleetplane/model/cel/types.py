"""The types an expression is checked with.

A type that came from a schema also knows how large its values may get (``max_size``), which prices an expression before
it ever runs, and how a list says which elements are the same (``list_type``), which Kubernetes' ``==`` and ``+`` obey.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from fleetplane.model.cel import values


class Kind(Enum):
    DYN = "dyn"
    NULL = "null"
    BOOL = "bool"
    INT = "int"
    UINT = "uint"
    DOUBLE = "double"
    STRING = "string"
    BYTES = "bytes"
    TIMESTAMP = "timestamp"
    DURATION = "duration"
    LIST = "list"
    MAP = "map"
    OBJECT = "object"
    OPTIONAL = "optional_type"
    OPAQUE = "opaque"
    TYPE = "type"
    PARAMETER = "parameter"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Field:
    """A property of an object type. ``key`` is its name in JSON, which may differ from its name in CEL (escaping)."""

    key: str
    type: Type
    required: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """One type; compare with ``same``.

    ``parameters``: element type of a list, key and value of a map, inner type of an optional or a type.
    ``fields``: an object's properties under their CEL names.
    ``max_size``: most characters, bytes, elements or entries; None when nothing is known.
    ``min_json``: fewest bytes of such a value in JSON.
    ``list_type``: ``atomic``, ``set`` or ``map`` (then ``list_keys`` name the identifying properties in JSON).
    """

    kind: Kind
    name: str
    parameters: tuple[Type, ...] = ()
    fields: Mapping[str, Field] | None = None
    max_size: int | None = None
    min_json: int = 1
    list_type: str = "atomic"
    list_keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return shown(self)


DYN: Final = Type(Kind.DYN, "dyn")
NULL: Final = Type(Kind.NULL, "null", min_json=4)
BOOL: Final = Type(Kind.BOOL, "bool", min_json=4)
INT: Final = Type(Kind.INT, "int")
UINT: Final = Type(Kind.UINT, "uint")
DOUBLE: Final = Type(Kind.DOUBLE, "double")
STRING: Final = Type(Kind.STRING, "string", min_json=2)
BYTES: Final = Type(Kind.BYTES, "bytes", min_json=2)
TIMESTAMP: Final = Type(Kind.TIMESTAMP, "timestamp", min_json=12)
DURATION: Final = Type(Kind.DURATION, "duration", min_json=3)
ERROR: Final = Type(Kind.ERROR, "!error!")
TYPE: Final = Type(Kind.TYPE, "type", (DYN,))

SCALARS: Final = frozenset({Kind.BOOL, Kind.INT, Kind.UINT, Kind.DOUBLE, Kind.TIMESTAMP, Kind.DURATION})


def list_of(element: Type) -> Type:
    return Type(Kind.LIST, "list", (element,), min_json=2)


def map_of(key: Type, value: Type) -> Type:
    return Type(Kind.MAP, "map", (key, value), min_json=2)


def optional_of(inner: Type) -> Type:
    return Type(Kind.OPTIONAL, "optional_type", (inner,))


def type_of(inner: Type) -> Type:
    return Type(Kind.TYPE, "type", (inner,))


def opaque(name: str) -> Type:
    """A type known only by its functions, such as ``net.IP``."""
    return Type(Kind.OPAQUE, name)


def object_of(name: str, fields: Mapping[str, Field | Type]) -> Type:
    """An object with exactly these fields; a bare type is a field whose JSON name is its CEL name."""
    made = {key: value if isinstance(value, Field) else Field(key, value) for key, value in fields.items()}
    return Type(Kind.OBJECT, name, fields=made, min_json=2)


def parameter(name: str) -> Type:
    """A type variable of a function's declaration."""
    return Type(Kind.PARAMETER, name)


LIST: Final = list_of(DYN)
MAP: Final = map_of(DYN, DYN)


def same(left: Type, right: Type) -> bool:
    """Whether two types are one; object types are known by name."""
    if left is right:
        return True
    if left.kind is not right.kind or len(left.parameters) != len(right.parameters):
        return False
    if left.kind in {Kind.OBJECT, Kind.OPAQUE, Kind.PARAMETER} and left.name != right.name:
        return False
    return all(map(same, left.parameters, right.parameters))


def shown(kind: Type) -> str:
    """A type as messages print it: ``map(string, int)``."""
    if kind.parameters:
        return f"{kind.name}({', '.join(map(shown, kind.parameters))})"
    return kind.name


_RUNTIME_NAMES: Final[Mapping[Kind, str]] = {
    Kind.NULL: "null_type",
    Kind.TIMESTAMP: "google.protobuf.Timestamp",
    Kind.DURATION: "google.protobuf.Duration",
}


def runtime_name(kind: Type) -> str:
    """The name that ``type(x)`` has for values of this type."""
    return _RUNTIME_NAMES.get(kind.kind, kind.name)


def accepts(kind: Type, value: Any) -> bool:
    """Whether a run-time value fits a declared parameter (one level deep), to choose among overloads."""
    check = _PYTHON_TYPES.get(kind.kind)
    if check is not None:
        return type(value) in check
    if kind.kind in {Kind.MAP, Kind.OBJECT}:
        return isinstance(value, Mapping)
    if kind.kind is Kind.OPAQUE:
        return getattr(value, "cel_type_name", None) == kind.name
    return True


_PYTHON_TYPES: Final[Mapping[Kind, frozenset[type]]] = {
    Kind.NULL: frozenset({type(None)}),
    Kind.BOOL: frozenset({bool}),
    Kind.INT: frozenset({int}),
    Kind.UINT: frozenset({values.Uint}),
    Kind.DOUBLE: frozenset({float}),
    Kind.STRING: frozenset({str}),
    Kind.BYTES: frozenset({bytes}),
    Kind.TIMESTAMP: frozenset({values.Timestamp}),
    Kind.DURATION: frozenset({values.Duration}),
    Kind.LIST: frozenset({list}),
    Kind.OPTIONAL: frozenset({values.Optional}),
    Kind.TYPE: frozenset({values.TypeValue}),
}
