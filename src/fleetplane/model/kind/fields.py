"""What can be said of a field besides its type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple


class Missing(Enum):
    """No default was given."""

    MISSING = "missing"


MISSING = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL rule (``x-kubernetes-validations``). ``self`` is the value it stands at, ``oldSelf`` the stored one."""

    rule: str
    message: str = ""
    message_expression: str = ""
    reason: str = ""
    field_path: str = ""
    optional_old_self: bool = False

    def to_object(self) -> Mapping[str, Any]:
        shown = {
            "rule": self.rule,
            "message": self.message,
            "messageExpression": self.message_expression,
            "reason": self.reason,
            "fieldPath": self.field_path,
            "optionalOldSelf": self.optional_old_self,
        }
        return {key: value for key, value in shown.items() if value}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``. ``path`` is JSONPath (``.spec.text``); ``priority`` above 0 shows with ``-o wide``."""

    name: str
    path: str = ""
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    priority: int = 0
    doc: str = ""

    def to_object(self) -> Mapping[str, Any]:
        shown = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.doc:
            shown["description"] = self.doc
        return shown | ({"priority": self.priority} if self.priority else {})


class Scale(NamedTuple):
    """The ``scale`` subresource, by JSONPath."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    label_selector: str = ""


class Builtin(NamedTuple):
    """Names the built-in definition a field embeds, in an annotation::

    template: Annotated[Object, Builtin("io.k8s.api.core.v1.PodTemplateSpec")]
    """

    definition: str


@dataclass(frozen=True, slots=True)
class FieldInfo:
    default: Any = MISSING
    default_factory: Callable[[], Any] | None = None
    doc: str = ""
    name: str = ""
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str = ""
    format: str = ""
    min_items: int | None = None
    max_items: int | None = None
    min_properties: int | None = None
    max_properties: int | None = None
    list_type: Literal["", "atomic", "set", "map"] = ""
    list_map_keys: tuple[str, ...] = ()
    map_type: Literal["", "atomic", "granular"] = ""
    immutable: bool = False
    embedded_resource: bool = False
    preserve_unknown: bool = False
    index: bool = False
    column: Column | str | None = None
    rules: tuple[Rule, ...] = ()

    @property
    def is_required(self) -> bool:
        return self.default is MISSING and self.default_factory is None


def field(
    *,
    default: Any = MISSING,
    default_factory: Callable[[], Any] | None = None,
    doc: str = "",
    name: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    exclusive_minimum: bool = False,
    exclusive_maximum: bool = False,
    multiple_of: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str = "",
    format: str = "",
    min_items: int | None = None,
    max_items: int | None = None,
    min_properties: int | None = None,
    max_properties: int | None = None,
    list_type: Literal["", "atomic", "set", "map"] = "",
    list_map_keys: Sequence[str] = (),
    map_type: Literal["", "atomic", "granular"] = "",
    immutable: bool = False,
    embedded_resource: bool = False,
    preserve_unknown: bool = False,
    index: bool = False,
    column: Column | str | None = None,
    rules: Sequence[Rule] = (),
) -> Any:
    """Say more about a field; every argument is optional.

    Args:
        default: Filled in by the server when absent (``None``: nothing is, and reading gives ``None``).
        default_factory: What reading gives when absent; nothing is filled in.
        doc: One or two sentences for people; ends up in the schema and the reference page.
        name: The JSON name, where it is not the camelCase form of the Python name.
        list_type, list_map_keys, map_type: How server-side apply merges; giving keys makes the list a map.
        immutable: May not change once set.
        embedded_resource: The value is itself an object with apiVersion, kind and metadata.
        preserve_unknown: Keep fields the schema does not name.
        index: Can be selected on (``fieldSelector``), and is kept as an index term.
        column: Shown by ``kubectl get``: a heading, or a ``Column`` (its path is filled in).
        rules: CEL rules on this field's value.

    The other arguments are JSON Schema's. Inside ``Annotated`` it constrains the items of lists and mappings::

        hosts: list[Annotated[str, field(max_length=253)]]
    """
    if default is not MISSING and default_factory is not None:
        raise TypeError("a field has a default or a default_factory, not both")
    return FieldInfo(
        default,
        default_factory,
        doc,
        name,
        minimum,
        maximum,
        exclusive_minimum,
        exclusive_maximum,
        multiple_of,
        min_length,
        max_length,
        pattern,
        format,
        min_items,
        max_items,
        min_properties,
        max_properties,
        "map" if list_map_keys else list_type,
        tuple(list_map_keys),
        map_type,
        immutable,
        embedded_resource,
        preserve_unknown,
        index,
        column,
        tuple(rules),
    )


def constraints(info: FieldInfo) -> dict[str, Any]:
    """The part of a schema that is said here and not by the type."""
    shown: dict[str, Any] = {
        "description": info.doc,
        "minimum": info.minimum,
        "maximum": info.maximum,
        "exclusiveMinimum": info.exclusive_minimum,
        "exclusiveMaximum": info.exclusive_maximum,
        "multipleOf": info.multiple_of,
        "minLength": info.min_length,
        "maxLength": info.max_length,
        "pattern": info.pattern,
        "format": info.format,
        "minItems": info.min_items,
        "maxItems": info.max_items,
        "minProperties": info.min_properties,
        "maxProperties": info.max_properties,
        "x-kubernetes-list-type": info.list_type,
        "x-kubernetes-list-map-keys": list(info.list_map_keys),
        "x-kubernetes-map-type": info.map_type,
        "x-kubernetes-embedded-resource": info.embedded_resource,
        "x-kubernetes-preserve-unknown-fields": info.preserve_unknown,
    }
    rules = [rule.to_object() for rule in info.rules]
    if info.immutable:
        rules.append({"rule": "self == oldSelf", "message": "field is immutable"})
    shown["x-kubernetes-validations"] = rules
    return {key: value for key, value in shown.items() if value or (value == 0 and value is not False)}
