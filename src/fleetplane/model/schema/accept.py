"""The fast way to say yes: a schema as plain JSON Schema, checked by jsonschema-rs in a few microseconds.

Almost every object written is valid, so validation asks this first. The translation may be stricter than Kubernetes
(then the walker in ``validate`` has the last word, and costs a little), but it must never accept what the walker would
refuse. What JSON Schema cannot say (unique keys in lists of type map) is checked beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from fleetplane.model.schema import formats, patterns
from fleetplane.model.schema.listtypes import lists_are_unique

if TYPE_CHECKING:
    from fleetplane.model.schema.schema import Schema

Accept = Callable[[Any], bool]

_SAME: Final = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "multipleOf",
    "uniqueItems",
)


def acceptor(schema: Schema) -> Accept:
    """The compiled check; it accepts nothing when the schema cannot be translated."""
    translation = _Translation()
    try:
        document = {**translation.node(schema, named=False), "$defs": translation.definitions}
        validator = jsonschema_rs.Draft202012Validator(
            document, formats=translation.formats, validate_formats=True, pattern_options=patterns.OPTIONS
        )
    except (ValueError, jsonschema_rs.ValidationError):
        return _never
    is_valid: Accept = validator.is_valid
    if not schema.leads_to_map_lists():
        return is_valid
    return lambda value: is_valid(value) and lists_are_unique(schema, value)


def _never(_value: Any) -> bool:
    return False


class _Translation:
    """Collects the definitions and formats that the translated nodes refer to."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self.formats: dict[str, Callable[[str], bool]] = {}

    def node(self, schema: Schema, *, named: bool = True) -> dict[str, Any]:
        if named and schema.name:
            if schema.name not in self.definitions:
                self.definitions[schema.name] = {}  # stops the recursion of a type that holds itself
                self.definitions[schema.name] = self.node(schema, named=False)
            return {"$ref": f"#/$defs/{schema.name}"}
        out = self._own(schema)
        if schema.properties:
            out["properties"] = {name: self.node(one) for name, one in schema.properties.items()}
        if schema.additional is not None:
            out["additionalProperties"] = self.node(schema.additional)
        elif schema.raw.get("additionalProperties") is False:
            out["additionalProperties"] = False
        if schema.items is not None:
            out["items"] = self.node(schema.items)
        for keyword, branches in (("allOf", schema.all_of), ("anyOf", schema.any_of), ("oneOf", schema.one_of)):
            if branches:
                out[keyword] = [self.node(one) for one in branches]
        if schema.negated is not None:
            out["not"] = self.node(schema.negated)
        if schema.nullable and "enum" not in out and out.keys() & _NOT_FOR_NULL:
            return {"anyOf": [{"type": "null"}, out]}
        return out

    def _own(self, schema: Schema) -> dict[str, Any]:
        """What the node says about the value itself."""
        raw = schema.raw
        out: dict[str, Any] = {key: raw[key] for key in _SAME if raw.get(key) is not None}
        types = ["integer", "string"] if schema.int_or_string else [schema.type] if schema.type else []
        if types:
            out["type"] = [*types, "null"] if schema.nullable else types[0] if len(types) == 1 else types
        if raw.get("required"):
            out["required"] = list(raw["required"])
        if raw.get("enum") is not None:
            out["enum"] = list(raw["enum"])
        if raw.get("pattern"):
            out["pattern"] = patterns.translated(raw["pattern"])
        if schema.embedded:
            out["required"] = [*out.get("required", ()), "apiVersion", "kind"]
        self._bounds(raw, out)
        self._format(raw.get("format"), out)
        if schema.list_type == "set" and not schema.schemas.is_builtin:
            out["uniqueItems"] = True
        return out

    def _bounds(self, raw: Mapping[str, Any], out: dict[str, Any]) -> None:
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if raw.get(exclusive) is True and bound in out:
                out[exclusive] = out.pop(bound)

    def _format(self, name: str | None, out: dict[str, Any]) -> None:
        if not name:
            return
        if name in formats.NUMBER_RANGES:
            low, high = formats.NUMBER_RANGES[name]
            out["minimum"] = max(low, out.get("minimum", low))
            out["maximum"] = min(high, out.get("maximum", high))
            return
        check = formats.check(name)
        if check is not None:
            # A name of our own: jsonschema-rs knows some of these formats with other rules.
            self.formats[f"k8s:{name}"] = check
            out["format"] = f"k8s:{name}"


_NOT_FOR_NULL: Final = frozenset({"allOf", "anyOf", "oneOf", "not"})
