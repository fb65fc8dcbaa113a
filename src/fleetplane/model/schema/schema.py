"""A compiled schema: the type of an object, ready to be walked.

A ``Schema`` is one node of a tree built from an OpenAPI v3 dict (a CRD's structural schema, or a definition of the
built-in kinds). It is expanded the first time anything but its source is asked for, so compiling a kind costs nothing
until it is used, and definitions that refer to themselves are no problem. All walkers (prune, defaults, validate,
patch, apply) read the same nodes; what they ask on every write is worked out once, in ``_expand``.

Nodes never change once expanded. Do not modify what they hold.

Two dialects, told apart by whether there are definitions to refer to:

- custom resources: null is kept where ``nullable``, an object without properties is empty, list types are enforced;
- built-in kinds: null means absent (as it does to Go's decoder), an object without properties is anything, and list
  types only guide merging, because the built-in kinds have their own rules about duplicates.

Sources: KEP-1111 (structural schemas), KEP-555 (list and map types).
"""

from __future__ import annotations

from collections.abc import KeysView, Mapping
from typing import TYPE_CHECKING, Any, Final

from fleetplane.model.schema.accept import Accept, acceptor
from fleetplane.model.schema.objectmeta import with_object_meta

Raw = Mapping[str, Any]

_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
_MAX_REFERENCES: Final = 32
_WORTH_COMPILING: Final = 32
"""How many values must have been asked about before a check is compiled, which takes half a megabyte for a large kind."""


class Schema:
    """One node. ``None`` in place of a node means "anything": its type is deduced from the value."""

    __slots__ = (
        "_accept",
        "_asked",
        "_leads_to_map_lists",
        "_leads_to_rules",
        "_source",
        "additional",
        "all_of",
        "any_of",
        "closed_keys",
        "containers",
        "default",
        "defaults",
        "embedded",
        "has_default",
        "int_or_string",
        "is_atomic",
        "item_container",
        "items",
        "list_map_keys",
        "list_type",
        "map_type",
        "name",
        "negated",
        "nullable",
        "one_of",
        "patch_merge_key",
        "patch_strategies",
        "preserves_unknown",
        "properties",
        "raw",
        "rules",
        "schemas",
        "structured",
        "structured_items",
        "structured_values",
        "type",
        "value_container",
    )

    raw: Raw
    """The source with references followed."""
    name: str
    """The definition's name; empty for a node without one."""
    schemas: SchemaSet
    type: str
    """``object``, ``array``, ``string``, ``integer``, ``number``, ``boolean``; empty when it may be anything."""
    nullable: bool
    int_or_string: bool
    preserves_unknown: bool
    embedded: bool
    properties: dict[str, Schema]
    additional: Schema | None
    items: Schema | None
    all_of: tuple[Schema, ...]
    any_of: tuple[Schema, ...]
    one_of: tuple[Schema, ...]
    negated: Schema | None
    list_type: str
    """``atomic``, ``set`` or ``map``."""
    list_map_keys: tuple[str, ...]
    map_type: str
    """``granular`` or ``atomic``."""
    is_atomic: bool
    """Whether a value of this type has one owner: scalars, atomic lists and atomic maps."""
    patch_merge_key: str
    patch_strategies: frozenset[str]
    default: Any
    has_default: bool
    rules: tuple[Raw, ...]
    """The raw ``x-kubernetes-validations`` of this node."""
    closed_keys: KeysView[str] | None
    """The only keys an object may have; None when others are kept."""
    structured: dict[str, Schema]
    """The properties pruning must look into."""
    structured_items: Schema | None
    structured_values: Schema | None
    containers: dict[str, Schema]
    """The properties that hold objects or lists: defaulting looks into them, and removes nulls there."""
    item_container: Schema | None
    value_container: Schema | None
    defaults: tuple[tuple[str, Any], ...]
    """(property, default) of the properties that have one."""

    def __init__(self, source: Raw, schemas: SchemaSet, name: str = "") -> None:
        self._source = source
        self._accept: Accept | None = None
        self._asked = 0
        self._leads_to_rules: bool | None = None
        self._leads_to_map_lists: bool | None = None
        self.schemas = schemas
        self.name = name

    @classmethod
    def compile(
        cls, raw: Raw, definitions: Mapping[str, Raw] | SchemaSet | None = None, *, root: bool = False
    ) -> Schema:
        """A schema from its OpenAPI v3 form.

        ``definitions`` holds what ``$ref`` names, by the last segment of the reference; give the same ``SchemaSet`` to
        schemas that should share compiled definitions. ``root`` says that this is a whole custom resource, which has
        ``apiVersion``, ``kind`` and ``metadata`` implicitly. Raises ValueError for a reference to nothing, when it is
        first followed.
        """
        schemas = definitions if isinstance(definitions, SchemaSet) else SchemaSet(definitions)
        return schemas.child(with_object_meta(raw) if root else raw)

    if not TYPE_CHECKING:  # checkers see the attributes declared above, and no others

        def __getattr__(self, attribute: str) -> Any:
            # Only reached while a slot is still empty: expansion fills all of them.
            if attribute.startswith("__") or attribute not in Schema.__slots__:
                raise AttributeError(attribute)
            self._expand()
            return object.__getattribute__(self, attribute)

    def __repr__(self) -> str:
        return f"<Schema {self.name or self.type or 'any'}>"

    def accepts(self, value: Any) -> bool:
        """Whether the value is certainly valid. False only means that the walker must look; see ``accept``."""
        if self._accept is None:
            self._asked += 1
            if self._asked < _WORTH_COMPILING:
                return False
            self._accept = acceptor(self)
        return self._accept(value)

    def field(self, name: str) -> Schema | None:
        """The type of one field of an object, or of one key of a map."""
        return self.properties.get(name, self.additional)

    def leads_to_rules(self) -> bool:
        """Whether this node or any below has CEL rules; built-in kinds have none."""
        if self._leads_to_rules is None:
            self._leads_to_rules = not self.schemas.is_builtin and (
                bool(self.rules) or any(one.leads_to_rules() for one in self._below())
            )
        return self._leads_to_rules

    def leads_to_map_lists(self) -> bool:
        """Whether this node or any below is a list of type map whose keys must be unique."""
        if self._leads_to_map_lists is None:
            self._leads_to_map_lists = not self.schemas.is_builtin and (
                self.list_type == "map" or any(one.leads_to_map_lists() for one in self._below())
            )
        return self._leads_to_map_lists

    def _below(self) -> list[Schema]:
        return [*self.properties.values(), *(one for one in (self.items, self.additional) if one is not None)]

    def _expand(self) -> None:
        schemas = self.schemas
        raw = schemas.resolved(self._source)
        builtin = schemas.is_builtin
        self.embedded = bool(raw.get("x-kubernetes-embedded-resource"))
        if self.embedded:
            raw = with_object_meta(raw)
        child = schemas.child

        kind = raw.get("type") or ""
        if not isinstance(kind, str):  # a list of types, of which null is one
            kind = next((one for one in kind if one != "null"), "")
        self.int_or_string = bool(raw.get("x-kubernetes-int-or-string")) or raw.get("format") == "int-or-string"
        self.type = "" if self.int_or_string else kind
        self.nullable = bool(raw.get("nullable"))
        self.preserves_unknown = bool(raw.get("x-kubernetes-preserve-unknown-fields"))

        properties: Mapping[str, Raw] = raw.get("properties") or {}
        self.properties = {name: child(one) for name, one in properties.items()}
        additional = raw.get("additionalProperties")
        self.additional = child(additional) if isinstance(additional, Mapping) else None
        items = raw.get("items")
        self.items = child(items) if isinstance(items, Mapping) else None
        self.all_of = tuple(map(child, raw.get("allOf") or ()))
        self.any_of = tuple(map(child, raw.get("anyOf") or ()))
        self.one_of = tuple(map(child, raw.get("oneOf") or ()))
        self.negated = child(raw["not"]) if raw.get("not") is not None else None

        self.list_type = raw.get("x-kubernetes-list-type") or "atomic"
        self.list_map_keys = tuple(raw.get("x-kubernetes-list-map-keys") or ())
        self.map_type = raw.get("x-kubernetes-map-type") or "granular"
        self.is_atomic = (
            self.int_or_string
            or kind in _SCALARS
            or (kind == "array" and self.list_type == "atomic")
            or (kind == "object" and self.map_type == "atomic")
        )
        self.patch_merge_key = raw.get("x-kubernetes-patch-merge-key") or ""
        self.patch_strategies = frozenset((raw.get("x-kubernetes-patch-strategy") or "").split(",")) - {""}
        self.default = raw.get("default")
        self.has_default = self.default is not None
        self.rules = tuple(raw.get("x-kubernetes-validations") or ())

        is_open = (
            self.preserves_unknown
            or self.additional is not None
            or additional is True
            or (builtin and not properties)
            or kind != "object"
        )
        self.closed_keys = None if is_open else self.properties.keys()
        look_into = schemas.is_structured
        self.structured = {name: self.properties[name] for name, one in properties.items() if look_into(one)}
        self.structured_items = self.items if isinstance(items, Mapping) and look_into(items) else None
        self.structured_values = self.additional if isinstance(additional, Mapping) and look_into(additional) else None
        holds = schemas.is_container
        self.containers = {name: self.properties[name] for name, one in properties.items() if holds(one)}
        self.item_container = self.items if isinstance(items, Mapping) and holds(items) else None
        self.value_container = self.additional if isinstance(additional, Mapping) and holds(additional) else None
        resolved = ((name, schemas.resolved(one).get("default")) for name, one in properties.items())
        self.defaults = tuple((name, default) for name, default in resolved if default is not None)
        self.raw = raw


class SchemaSet:
    """Schemas that share their definitions, each of which is compiled at most once."""

    __slots__ = ("_by_name", "_definitions", "is_builtin")

    is_builtin: bool
    """Whether these are the built-in kinds, whose dialect differs; see the module."""

    def __init__(self, definitions: Mapping[str, Raw] | None = None) -> None:
        self._definitions: Mapping[str, Raw] = {} if definitions is None else definitions
        self._by_name: dict[str, Schema] = {}
        self.is_builtin = definitions is not None

    def named(self, name: str) -> Schema:
        """The schema of a definition. Raises ValueError when there is none."""
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name[name] = Schema(self._definition(name), self, name)
        return found

    def child(self, raw: Raw) -> Schema:
        """The schema of a raw node; a plain reference shares its definition's schema."""
        reference = raw.get("$ref")
        if reference is not None and raw.keys() <= _NO_CONSTRAINT:
            return self.named(_last_segment(reference))
        return Schema(raw, self)

    def resolved(self, raw: Raw) -> Raw:
        """The node with its reference replaced by what it names; what stands beside the reference wins."""
        for _ in range(_MAX_REFERENCES):
            reference = raw.get("$ref")
            if reference is None:
                return raw
            beside = {key: value for key, value in raw.items() if key != "$ref"}
            raw = {**self._definition(_last_segment(reference)), **beside}
        raise ValueError(f"the schema reference {reference!r} leads to itself")

    def is_structured(self, raw: Raw) -> bool:
        """Whether a value of this type can hold fields the schema does not know."""
        for _ in range(_MAX_REFERENCES):
            raw = self.resolved(raw)
            if raw.get("properties") or raw.get("x-kubernetes-embedded-resource"):
                return True
            inner = raw.get("items") or raw.get("additionalProperties")
            if not isinstance(inner, Mapping):
                is_open = self.is_builtin or raw.get("x-kubernetes-preserve-unknown-fields") or inner is True
                return raw.get("type") == "object" and not is_open
            raw = inner
        return True

    def is_container(self, raw: Raw) -> bool:
        """Whether a value of this type is an object or a list whose insides are typed."""
        raw = self.resolved(raw)
        has_inside = raw.get("properties") or raw.get("items") or isinstance(raw.get("additionalProperties"), Mapping)
        return bool(has_inside) or bool(raw.get("x-kubernetes-embedded-resource"))

    def _definition(self, name: str) -> Raw:
        try:
            return self._definitions[name]
        except KeyError:
            raise ValueError(f"the schema refers to {name!r}, which is not defined") from None


_NO_CONSTRAINT: Final = frozenset({"$ref", "description", "title"})


def _last_segment(reference: str) -> str:
    return reference.rpartition("/")[2]
