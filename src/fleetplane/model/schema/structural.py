"""Is a CRD's schema structural, and free of contradictions: what is checked when a CRD is created.

The rules are those of KEP-1111 and of apiextensions' validation; the words too. A structural schema gives each field
its type in one place, outside of allOf, anyOf, oneOf and not; inside those it may only restrict values. That is what
makes pruning, defaulting and merging possible without looking at values first.

CEL rules are compiled elsewhere; of them only the shape is looked at here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

from fleetplane.model.errors import FieldError
from fleetplane.model.jsonvalue import MAX_DEPTH, copied, is_too_deep
from fleetplane.model.schema.defaults import apply_defaults
from fleetplane.model.schema.patterns import Pattern, PatternError
from fleetplane.model.schema.prune import prune
from fleetplane.model.schema.schema import Raw, Schema
from fleetplane.model.schema.validate import validate

_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_UNSUPPORTED: Final = ("$ref", "patternProperties", "definitions", "dependencies", "additionalItems", "id", "$schema")
_JUNCTORS: Final = ("allOf", "anyOf", "oneOf")
_INT_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]

_NOT_NESTED: Final[Mapping[str, str]] = {
    "type": "must be empty to be structural",
    "additionalProperties": "must be undefined to be structural",
    "default": "must be undefined to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "nullable": "must be false to be structural",
    "externalDocs": "must be undefined to be structural",
    "x-kubernetes-preserve-unknown-fields": "must be false to be structural",
    "x-kubernetes-embedded-resource": "must be false to be structural",
    "x-kubernetes-int-or-string": "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
    "x-kubernetes-validations": "must be empty to be structural",
}
"""What may only stand in the structure itself, never inside a junctor."""

_LEVEL_WORDS: Final[Mapping[str, str]] = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}


def check_structural(raw: Raw, path: str = "openAPIV3Schema") -> list[FieldError]:
    """Everything that keeps a schema from being used for a custom resource; ``path`` is where it stands in the CRD."""
    too_deep = [FieldError.invalid(path, "", f"the schema is nested deeper than {MAX_DEPTH} levels")]
    if is_too_deep(raw):
        return too_deep
    try:
        errors = [*_node(raw, "root", path), *_complete(raw, raw, path, path)]
        if not errors:
            errors += _defaults(raw, path, is_root=True)
    except RecursionError:
        return too_deep
    return sorted(dict.fromkeys(errors), key=str)


# --- One node of the structure --------------------------------------------------------------------------------------


def _node(raw: Raw, level: str, path: str) -> Iterator[FieldError]:
    yield from _supported(raw, path)
    yield from _type(raw, level, path)
    yield from _lists_and_maps(raw, path)
    yield from _extensions(raw, path)
    yield from _identity(raw, level, path)
    yield from _values(raw, path, is_int_or_string=bool(raw.get("x-kubernetes-int-or-string")))
    for name, one in _properties(raw).items():
        if _is_schema(one):
            yield from _node(one, "field", f"{path}.properties[{name}]")
    items = raw.get("items")
    if _is_schema(items):
        yield from _node(items, "item", f"{path}.items")
    additional = raw.get("additionalProperties")
    if additional is not None and level == "root":
        yield FieldError.forbidden(f"{path}.additionalProperties", "must not be used at the root")
    if _is_schema(additional):
        yield from _node(additional, "field", f"{path}.additionalProperties")


def _supported(raw: Raw, path: str) -> Iterator[FieldError]:
    for key in _UNSUPPORTED:
        if raw.get(key):
            yield FieldError.forbidden(f"{path}.{key}", f"{key} is not supported")
    if raw.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield FieldError.forbidden(f"{path}.uniqueItems", detail)
    additional = raw.get("additionalProperties")
    if additional is False:
        yield FieldError.forbidden(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    if additional is not None and _properties(raw):
        detail = "additionalProperties and properties are mutual exclusive"
        yield FieldError.forbidden(f"{path}.additionalProperties", detail)
    if isinstance(raw.get("items"), list):
        yield FieldError.forbidden(f"{path}.items", "items must be a schema object and not an array")
    if raw.get("x-kubernetes-preserve-unknown-fields") is False:
        yield FieldError.invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined")


def _type(raw: Raw, level: str, path: str) -> Iterator[FieldError]:
    kind = raw.get("type") or ""
    if kind == "null":
        yield FieldError.forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative")
    elif kind and kind not in _TYPES:
        yield FieldError.not_supported(f"{path}.type", kind, _TYPES)
    if kind == "array" and raw.get("items") is None:
        yield FieldError.required(f"{path}.items", "must be specified")
    if raw.get("x-kubernetes-embedded-resource"):
        detail = "must be object if x-kubernetes-embedded-resource is true"
        if not kind:
            yield FieldError.required(f"{path}.type", detail)
        elif kind != "object":
            yield FieldError.invalid(f"{path}.type", kind, detail)
    elif not kind and not raw.get("x-kubernetes-int-or-string") and not _preserves(raw):
        yield FieldError.required(f"{path}.type", _LEVEL_WORDS[level])
    if level == "root" and kind and kind != "object":
        yield FieldError.invalid(f"{path}.type", kind, "must be object at the root")


def _lists_and_maps(raw: Raw, path: str) -> Iterator[FieldError]:
    map_type, list_type = raw.get("x-kubernetes-map-type"), raw.get("x-kubernetes-list-type")
    if map_type is not None:
        yield from _needs_type(raw, "object", "x-kubernetes-map-type", path)
        if map_type not in ("atomic", "granular"):
            yield FieldError.not_supported(f"{path}.x-kubernetes-map-type", map_type, ("atomic", "granular"))
    if list_type is not None:
        yield from _needs_type(raw, "array", "x-kubernetes-list-type", path)
        if list_type not in ("atomic", "set", "map"):
            yield FieldError.not_supported(f"{path}.x-kubernetes-list-type", list_type, ("atomic", "set", "map"))
    keys = raw.get("x-kubernetes-list-map-keys") or []
    if keys and list_type != "map":
        detail = "must be map if x-kubernetes-list-map-keys is non-empty"
        where = f"{path}.x-kubernetes-list-type"
        yield FieldError.required(where, detail) if list_type is None else FieldError.invalid(where, list_type, detail)
    if list_type == "map":
        yield from _map_list(raw, keys, path)
    elif list_type == "set":
        yield from _set_list(raw, path)


def _needs_type(raw: Raw, wanted: str, because: str, path: str) -> Iterator[FieldError]:
    kind = raw.get("type") or ""
    if kind != wanted:
        detail = f"must be {wanted} if {because} is specified"
        where = f"{path}.type"
        yield FieldError.invalid(where, kind, detail) if kind else FieldError.required(where, detail)


def _map_list(raw: Raw, keys: list[str], path: str) -> Iterator[FieldError]:
    if not keys:
        detail = "must not be empty if x-kubernetes-list-type is map"
        yield FieldError.required(f"{path}.x-kubernetes-list-map-keys", detail)
    items = raw.get("items")
    if not _is_schema(items):
        yield FieldError.required(f"{path}.items", "must have a schema if x-kubernetes-list-type is map")
        return
    if items.get("type") != "object":
        detail = "must be object if parent array's x-kubernetes-list-type is map"
        yield FieldError.invalid(f"{path}.items.type", items.get("type"), detail)
    required = items.get("required") or []
    for index, key in enumerate(keys):
        where = f"{path}.x-kubernetes-list-map-keys[{index}]"
        if key in keys[:index]:
            yield FieldError.invalid(where, key, "must not contain duplicate entries")
        field = _properties(items).get(key)
        if not _is_schema(field):
            yield FieldError.invalid(where, key, "entries must all be names of item properties")
            continue
        here = f"{path}.items.properties[{key}]"
        if field.get("type") in ("array", "object"):
            detail = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield FieldError.invalid(f"{here}.type", field["type"], detail)
        if field.get("nullable"):
            detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"
            yield FieldError.forbidden(f"{here}.nullable", detail)
        if field.get("default") is None and key not in required:
            detail = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )
            yield FieldError.required(f"{here}.default", detail)


def _set_list(raw: Raw, path: str) -> Iterator[FieldError]:
    items = raw.get("items")
    if not _is_schema(items):
        yield FieldError.required(f"{path}.items", "must have a schema if x-kubernetes-list-type is set")
        return
    if items.get("nullable"):
        detail = "cannot be nullable when x-kubernetes-list-type is set"
        yield FieldError.forbidden(f"{path}.items.nullable", detail)
    for kind, extension in (("object", "x-kubernetes-map-type"), ("array", "x-kubernetes-list-type")):
        found = items.get(extension)
        # A list without a type is atomic, a map without one is granular.
        is_atomic = found == "atomic" or (kind == "array" and found is None)
        if items.get("type") == kind and not is_atomic:
            detail = "must be atomic as item of a list with x-kubernetes-list-type=set"
            where = f"{path}.items.{extension}"
            yield FieldError.invalid(where, found, detail) if found else FieldError.required(where, detail)


def _extensions(raw: Raw, path: str) -> Iterator[FieldError]:
    if raw.get("x-kubernetes-int-or-string"):
        for extension in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
            if raw.get(extension):
                detail = "must be false if x-kubernetes-int-or-string is true"
                yield FieldError.invalid(f"{path}.{extension}", True, detail)
    if raw.get("x-kubernetes-embedded-resource"):
        if raw.get("additionalProperties") is not None:
            detail = "must not be used if x-kubernetes-embedded-resource is set"
            yield FieldError.forbidden(f"{path}.additionalProperties", detail)
        if not _preserves(raw) and not _properties(raw):
            detail = (
                "must not be empty if x-kubernetes-embedded-resource is true "
                "without x-kubernetes-preserve-unknown-fields"
            )
            yield FieldError.required(f"{path}.properties", detail)


def _identity(raw: Raw, level: str, path: str) -> Iterator[FieldError]:
    """``apiVersion``, ``kind`` and ``metadata`` are implicit; a schema may only restrict names."""
    if level != "root" and not raw.get("x-kubernetes-embedded-resource"):
        return
    for name in ("apiVersion", "kind"):
        field = _properties(raw).get(name)
        if _is_schema(field) and field.get("type") != "string":
            yield FieldError.invalid(f"{path}.properties[{name}].type", field.get("type") or "", "must be string")
    metadata = _properties(raw).get("metadata")
    if not _is_schema(metadata):
        return
    here = f"{path}.properties[metadata]"
    if metadata.get("type") != "object":
        yield FieldError.invalid(f"{here}.type", metadata.get("type") or "", "must be object")
    extra = metadata.keys() - {"type", "properties", "description", "default"}
    if level == "root" and (extra or not _properties(metadata).keys() <= {"name", "generateName"}):
        detail = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield FieldError.forbidden(here, detail)


# --- Restrictions of values, and what stands inside junctors ---------------------------------------------------------


def _values(raw: Raw, path: str, *, is_int_or_string: bool = False) -> Iterator[FieldError]:
    pattern = raw.get("pattern")
    if pattern:
        try:
            Pattern(pattern)
        except PatternError as error:
            detail = f"must be a valid regular expression, but isn't: {error}"
            yield FieldError.invalid(f"{path}.pattern", pattern, detail)
    for index, rule in enumerate(raw.get("x-kubernetes-validations") or ()):
        if not str(rule.get("rule") or "").strip():
            yield FieldError.required(f"{path}.x-kubernetes-validations[{index}].rule", "rule is not specified")
    for keyword in _JUNCTORS:
        for index, branch in enumerate(raw.get(keyword) or ()):
            here = f"{path}.{keyword}[{index}]"
            if is_int_or_string and _is_int_or_string_pattern(raw, keyword, index):
                continue
            yield from _nested(branch, here)
    if _is_schema(raw.get("not")):
        yield from _nested(raw["not"], f"{path}.not")


def _is_int_or_string_pattern(raw: Raw, keyword: str, index: int) -> bool:
    """The two places where types may stand in a junctor: ``anyOf`` itself, or the first branch of ``allOf``."""
    if keyword == "anyOf":
        return bool(raw["anyOf"] == _INT_OR_STRING)
    return bool(keyword == "allOf" and index == 0 and raw["allOf"][0] == {"anyOf": _INT_OR_STRING})


def _nested(raw: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(raw, Mapping):
        yield FieldError.invalid(path, raw, "must be a schema")
        return
    for key, detail in _NOT_NESTED.items():
        if raw.get(key):
            yield FieldError.forbidden(f"{path}.{key}", detail)
    for key in _UNSUPPORTED:
        if raw.get(key):
            yield FieldError.forbidden(f"{path}.{key}", f"{key} is not supported")
    if "metadata" in _properties(raw):
        yield FieldError.forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context")
    yield from _values(raw, path)
    for name, one in _properties(raw).items():
        yield from _nested(one, f"{path}.properties[{name}]")
    if _is_schema(raw.get("items")):
        yield from _nested(raw["items"], f"{path}.items")


def _complete(raw: Raw, values: Raw, path: str, values_path: str) -> Iterator[FieldError]:
    """What a junctor of ``values`` talks about must also stand in the structure ``raw``."""
    branches = [(f"{key}[{n}]", one) for key in _JUNCTORS for n, one in enumerate(values.get(key) or ())]
    if _is_schema(values.get("not")):
        branches.append(("not", values["not"]))
    for name, branch in branches:
        if isinstance(branch, Mapping):
            yield from _specified(raw, branch, path, f"{values_path}.{name}")
    if values is not raw:
        return
    for name, one in _properties(raw).items():
        if _is_schema(one):
            yield from _complete(one, one, f"{path}.properties[{name}]", f"{values_path}.properties[{name}]")
    for key in ("items", "additionalProperties"):
        if _is_schema(raw.get(key)):
            yield from _complete(raw[key], raw[key], f"{path}.{key}", f"{values_path}.{key}")


def _specified(raw: Raw, values: Raw, path: str, values_path: str) -> Iterator[FieldError]:
    yield from _complete(raw, values, path, values_path)
    for name, one in _properties(values).items():
        here, there = f"{path}.properties[{name}]", f"{values_path}.properties[{name}]"
        field = _properties(raw).get(name)
        if not _is_schema(field):
            yield FieldError.required(here, f"because it is defined in {there}")
        elif isinstance(one, Mapping):
            yield from _specified(field, one, here, there)
    if _is_schema(values.get("items")):
        if not _is_schema(raw.get("items")):
            yield FieldError.required(f"{path}.items", f"because it is defined in {values_path}.items")
        else:
            yield from _specified(raw["items"], values["items"], f"{path}.items", f"{values_path}.items")


# --- Defaults ------------------------------------------------------------------------------------------------------


def _defaults(raw: Raw, path: str, *, is_root: bool = False) -> Iterator[FieldError]:
    """Defaults must be valid and hold nothing unknown; the object's own metadata can have none."""
    default = raw.get("default")
    if default is not None:
        yield from _default(raw, default, f"{path}.default")
    for name, one in _properties(raw).items():
        here = f"{path}.properties[{name}]"
        if is_root and name == "metadata":
            yield from _no_defaults(one, here)
        else:
            yield from _defaults(one, here)
    for key in ("items", "additionalProperties"):
        if _is_schema(raw.get(key)):
            yield from _defaults(raw[key], f"{path}.{key}")


def _no_defaults(raw: Raw, path: str) -> Iterator[FieldError]:
    if raw.get("default") is not None:
        yield FieldError.forbidden(f"{path}.default", "must not be set in top-level metadata")
    for name, one in _properties(raw).items():
        yield from _no_defaults(one, f"{path}.properties[{name}]")


def _default(raw: Raw, default: Any, where: str) -> Iterator[FieldError]:
    schema = Schema.compile(raw)
    value = copied(default)
    if prune(schema, value):
        yield FieldError.invalid(where, default, "must not have unknown fields")
        return
    apply_defaults(schema, value)
    for error in validate(schema, value):
        field = where if not error.field else f"{where}.{error.field}"
        yield FieldError(error.reason, field, error.detail)


def _properties(raw: Raw) -> Mapping[str, Any]:
    found = raw.get("properties")
    return found if isinstance(found, Mapping) else {}


def _is_schema(raw: Any) -> TypeGuard[Raw]:
    return isinstance(raw, Mapping)


def _preserves(raw: Raw) -> bool:
    return bool(raw.get("x-kubernetes-preserve-unknown-fields"))
