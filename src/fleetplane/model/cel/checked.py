"""What the checker found out about a tree; what it and the passes after it share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fleetplane.model.cel.ast import Expr, Ident, Select
from fleetplane.model.cel.library.declarations import Overload
from fleetplane.model.cel.names import escape
from fleetplane.model.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    LIST,
    MAP,
    NULL,
    STRING,
    TIMESTAMP,
    UINT,
    Field,
    Type,
    opaque,
    optional_of,
    parameter,
    type_of,
)
from fleetplane.model.cel.values import TypeValue

TYPE_NAMES: Final[Mapping[str, Type]] = {
    "bool": BOOL,
    "bytes": BYTES,
    "double": DOUBLE,
    "dyn": DYN,
    "int": INT,
    "list": LIST,
    "map": MAP,
    "null_type": NULL,
    "string": STRING,
    "uint": UINT,
    "type": type_of(DYN),
    "optional_type": optional_of(parameter("T")),
    "google.protobuf.Timestamp": TIMESTAMP,
    "google.protobuf.Duration": DURATION,
    "net.IP": opaque("net.IP"),
    "net.CIDR": opaque("net.CIDR"),
    "kubernetes.Quantity": opaque("kubernetes.Quantity"),
    "kubernetes.URL": opaque("kubernetes.URL"),
    "kubernetes.NamedFormat": opaque("kubernetes.NamedFormat"),
    "kubernetes.Semver": opaque("kubernetes.Semver"),
}
"""Names that stand for a type in an expression: ``type(x) == int``."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A tree with what the checker found out.

    ``types``: of every node. ``overloads``: of every call, those that may apply. ``functions``: the name under which a
    call was found (``math.greatest``), whose target is then no argument. ``constants``: names that stand for a type.
    ``fields``: the property each selection from an object reads. ``qualified``: selections that are a variable's name.
    ``structs``: the type of each object that is built. ``free``: the declared variables that are used.
    """

    root: Expr
    types: Mapping[Expr, Type]
    overloads: Mapping[Expr, tuple[Overload, ...]]
    functions: Mapping[Expr, str]
    constants: Mapping[Expr, TypeValue]
    fields: Mapping[Expr, Field]
    qualified: Mapping[Expr, str]
    structs: Mapping[Expr, Type]
    free: frozenset[str]


def qualified_name(node: Expr) -> str | None:
    """``a.b.c`` of a chain of plain selections, else None."""
    names: list[str] = []
    while isinstance(node, Select):
        if node.optional or node.test_only:
            return None
        names.append(node.name)
        node = node.operand
    if not isinstance(node, Ident):
        return None
    names.append(node.name)
    return ".".join(reversed(names))


def find_field(kind: Type, name: str) -> Field | None:
    """An object's field by its CEL name, or by its plain name (``self.namespace``, ``self.`x-dash```)."""
    if kind.fields is None:
        return Field(name, DYN)
    found = kind.fields.get(name)
    if found is None and (escaped := escape(name)) is not None and escaped != name:
        return kind.fields.get(escaped)
    return found
