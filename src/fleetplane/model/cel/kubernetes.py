"""CEL as Kubernetes uses it: types from schemas, names of properties, lazily computed variables.

What a rule may see of an object is what its schema declares: other properties do not exist for it, unknown data is not
reachable, and at the root of a resource (also an embedded one) of ``metadata`` only ``name`` and ``generateName`` are.
Sizes are derived as Kubernetes does (``apiserver/pkg/cel/common/schemas.go``): from ``maxItems``, ``maxLength``,
``maxProperties`` where given, else from what fits into a request of three megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fleetplane.model.cel.cost import PER_CALL_LIMIT
from fleetplane.model.cel.errors import CelCostExceeded, CelError
from fleetplane.model.cel.names import escape
from fleetplane.model.cel.program import Program
from fleetplane.model.cel.types import Field, Kind, Type, object_of

Schema = Mapping[str, Any]
"""A structural OpenAPI v3 schema, as JSON."""

MAX_REQUEST: Final = 3 * 1024 * 1024
"""Bytes of the largest request."""

_STRING_FORMATS: Final[Mapping[str, tuple[Kind, str, int, int]]] = {
    "duration": (Kind.DURATION, "duration", 3, 32),
    "date": (Kind.TIMESTAMP, "timestamp", 12, 12),
    "date-time": (Kind.TIMESTAMP, "timestamp", 21, 32),
}
"""Format -> kind, name, least bytes in JSON, most characters."""


def type_from_schema(schema: Schema, *, is_resource: bool = False, name: str = "object") -> Type | None:
    """The type of what a schema describes; None when rules may not see it.

    That is: data without a type or with preserved unknown fields only, and lists and maps of such.
    ``is_resource``: the root of a custom resource, where type and object metadata are always visible.
    ``name``: what messages call the type.
    """
    if schema.get("x-kubernetes-int-or-string"):
        most = _non_negative(schema.get("maxLength"))
        return Type(Kind.DYN, "dyn", max_size=MAX_REQUEST - 2 if most is None else most * 4)
    if is_resource or schema.get("x-kubernetes-embedded-resource"):
        schema = _with_metadata(schema)
    match schema.get("type"):
        case "object":
            return _object_type(schema, name)
        case "array":
            return _list_type(schema, name)
        case "string":
            return _string_type(schema)
        case "boolean":
            return _BOOL
        case "integer":
            return _INT
        case "number":
            return _DOUBLE
    return None


# Kubernetes' estimator takes scalars, objects and keys of a schema to have no size, so comparing them costs nothing.
_BOOL: Final = Type(Kind.BOOL, "bool", max_size=0, min_json=4)
_INT: Final = Type(Kind.INT, "int", max_size=0)
_DOUBLE: Final = Type(Kind.DOUBLE, "double", max_size=0)
_KEY: Final = Type(Kind.STRING, "string", max_size=0, min_json=2)


def _object_type(schema: Schema, name: str) -> Type | None:
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        value = type_from_schema(values, name=f"{name}.@elem")
        if value is None:
            return None
        most = _non_negative(schema.get("maxProperties"))
        size = (MAX_REQUEST - 2) // (value.min_json + 6) if most is None else most
        return Type(Kind.MAP, "map", (_KEY, value), max_size=size, min_json=2)
    required = set(schema.get("required") or ())
    fields: dict[str, Field] = {}
    smallest = 2
    for key, inner in (schema.get("properties") or {}).items():
        kind = type_from_schema(inner, name=f"{name}.{key}")
        if kind is None:
            continue
        identifier = escape(key)
        if identifier is not None:
            fields[identifier] = Field(key, kind, key in required)
        if key in required and "default" not in inner:
            smallest += len(key) + kind.min_json + 4
    return Type(Kind.OBJECT, name, fields=fields, max_size=0, min_json=smallest)


def _list_type(schema: Schema, name: str) -> Type | None:
    items = schema.get("items")
    element = type_from_schema(items, name=f"{name}.@idx") if isinstance(items, Mapping) else None
    if element is None:
        return None
    most = _non_negative(schema.get("maxItems"))
    return Type(
        Kind.LIST,
        "list",
        (element,),
        max_size=(MAX_REQUEST - 2) // (element.min_json + 1) if most is None else most,
        min_json=2,
        list_type=str(schema.get("x-kubernetes-list-type") or "atomic"),
        list_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
    )


def _string_type(schema: Schema) -> Type:
    most = _non_negative(schema.get("maxLength"))
    found = _STRING_FORMATS.get(str(schema.get("format")))
    if found is not None:
        kind, name, least_json, longest = found
        return Type(kind, name, max_size=longest, min_json=least_json)
    if schema.get("format") == "byte":
        return Type(Kind.BYTES, "bytes", max_size=MAX_REQUEST - 2 if most is None else most, min_json=2)
    if most is not None:
        size = most * 4  # maxLength counts characters, of up to four bytes
    elif schema.get("enum"):
        size = max((len(value) for value in schema["enum"] if isinstance(value, str)), default=0)
    else:
        size = MAX_REQUEST - 2
    return Type(Kind.STRING, "string", max_size=size, min_json=2)


def _non_negative(value: Any) -> int | None:
    return max(value, 0) if isinstance(value, int) else None


def _with_metadata(schema: Schema) -> Schema:
    """The schema with ``apiVersion``, ``kind`` and the two visible names in ``metadata``."""
    text = {"type": "string"}
    metadata = {"type": "object", "properties": {"name": text, "generateName": text}}
    declared = (schema.get("properties") or {}).get("metadata")
    if isinstance(declared, Mapping):
        metadata["properties"] = {
            key: (declared.get("properties") or {}).get(key, text) for key in ("name", "generateName")
        }
    properties = {**(schema.get("properties") or {}), "apiVersion": text, "kind": text, "metadata": metadata}
    return {**schema, "type": "object", "properties": properties}


def cardinality(schema: Schema) -> int:
    """How many elements a list or map of this schema may have (1 for anything else); a rule on what is inside runs as
    often, so its estimated cost is to be multiplied by this for each container around it."""
    kind = type_from_schema(schema)
    if kind is None or kind.kind not in {Kind.LIST, Kind.MAP}:
        return 1
    return kind.max_size or 0


def variables_type(variables: Mapping[str, Type]) -> Type:
    """The type of ``variables`` in a policy: one field for each that was declared before."""
    return object_of("kubernetes.variables", dict(variables))


class LazyVariables(Mapping[str, Any]):
    """The ``variables`` of a policy: each is computed when it is first read, once, and its cost added up.

    Variables may read ``variables`` themselves (those declared before them: types make sure of it). A failed one fails
    each time it is read. Not to be shared between evaluations.
    """

    cel_type_name = "map"

    def __init__(
        self,
        programs: Mapping[str, Program],
        variables: Mapping[str, Any],
        *,
        cost_limit: int = PER_CALL_LIMIT,
        interrupted: Callable[[], bool] | None = None,
    ) -> None:
        self._programs = programs
        self._inputs = {**variables, "variables": self}
        self._limit = cost_limit
        self._interrupted = interrupted
        self._known: dict[str, Any] = {}
        self._failed: dict[str, CelError] = {}
        self.cost = 0

    def __getitem__(self, name: str) -> Any:
        if name in self._failed:
            raise self._failed[name]
        if name not in self._known:
            program = self._programs[name]
            try:
                outcome = program.run(self._inputs, cost_limit=self._limit - self.cost, interrupted=self._interrupted)
            except CelError as error:
                self._failed[name] = CelError(f"composited variable {name!r} fails to evaluate: {error}")
                raise self._failed[name] from error
            except CelCostExceeded:
                self.cost = self._limit
                raise
            self.cost += outcome.cost
            self._known[name] = outcome.value
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._programs)

    def __len__(self) -> int:
        return len(self._programs)

    def __contains__(self, name: object) -> bool:
        return name in self._programs
