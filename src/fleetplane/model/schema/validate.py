"""Is an object what its schema says, and if not, what exactly is wrong with it.

``validate`` first asks the fast check (``accept``); only what that does not accept is walked here, to word the errors as
Kubernetes does. The words are part of the API: clients and tests compare them.

On update, what did not change cannot be an error (ratcheting, KEP-4008): a subtree equal to its old self is skipped.
List items are correlated by key where the list is a map; other lists are equal as a whole or new as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.jsonvalue import MAX_DEPTH, is_too_deep
from fleetplane.model.schema import formats
from fleetplane.model.schema.listtypes import ABSENT, duplicates, map_keys
from fleetplane.model.schema.patterns import Pattern, PatternError

if TYPE_CHECKING:
    from fleetplane.model.schema.schema import Schema

_MAX_ERRORS: Final = 500
_TYPE_NAMES: Final[Mapping[type, str]] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


def validate(schema: Schema, obj: Any, old: Any = ABSENT) -> list[FieldError]:
    """Everything wrong with ``obj``; empty when it is valid.

    ``old`` is the object being replaced, if any: what is unchanged since is not reported. At most 500 errors are
    listed.
    """
    if schema.accepts(obj):
        return []
    if is_too_deep(obj):
        return [FieldError.invalid("", "", f"nested deeper than {MAX_DEPTH} levels")]
    walk = _Walk()
    walk.value(schema, obj, ABSENT if old is None else old, "")
    return walk.errors


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal and of the same types (1 is not true)."""
    if type(one) is not type(other) or one != other:
        return False
    if type(one) is not dict and type(one) is not list:
        return True
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


def old_items(schema: Schema, new: list[Any], old: Any) -> list[Any]:
    """For each new item its old self: by key in a list of type map, otherwise none (ABSENT)."""
    if schema.list_type != "map" or type(old) is not list:
        return [ABSENT] * len(new)
    before = dict(zip(map_keys(schema, old), old, strict=True))
    return [before.get(key, ABSENT) for key in map_keys(schema, new)]


class _Walk:
    """Collects errors. ``patterns`` keeps those compiled during this walk."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self.patterns: dict[str, Pattern | None] = {}

    def value(self, schema: Schema, value: Any, old: Any, path: str) -> None:
        """One value against its node, then what it holds."""
        if len(self.errors) >= _MAX_ERRORS or (old is not ABSENT and same(value, old)):
            return
        raw = schema.raw
        typed = self.type(schema, value, path)
        if raw.get("enum") is not None and not any(same(value, one) or _same_number(value, one) for one in raw["enum"]):
            self.enum(value, raw["enum"], path)
        if value is None or not typed:
            return
        kind = type(value)
        if kind is dict:
            self.object(schema, value, old, path)
        elif kind is list:
            self.array(schema, value, old, path)
        elif kind is str:
            self.string(raw, value, path)
        elif kind is not bool:
            self.number(raw, value, path)
        self.junctors(schema, value, path)

    def type(self, schema: Schema, value: Any, path: str) -> bool:
        types = ("integer", "string") if schema.int_or_string else (schema.type,) if schema.type else ()
        if not types:
            return True
        actual = _TYPE_NAMES[type(value)]
        if actual in types or (value is None and schema.nullable):
            return True
        if (actual == "integer" and "number" in types) or (
            actual == "number" and "integer" in types and value.is_integer()
        ):
            return True
        detail = f'{_in_body(path)} must be of type {",".join(types)}: "{actual}"'
        self.errors.append(FieldError.type_invalid(path, actual, detail))
        return False

    def enum(self, value: Any, allowed: list[Any], path: str) -> None:
        shown = [one if isinstance(one, str) else json.dumps(one) for one in allowed]
        self.errors.append(FieldError.not_supported(path, value, shown))

    def invalid(self, path: str, value: Any, detail: str) -> None:
        self.errors.append(FieldError.invalid(path, value, f"{_in_body(path)} {detail}"))

    def object(self, schema: Schema, value: dict[str, Any], old: Any, path: str) -> None:
        raw = schema.raw
        count = len(value)
        if (least := raw.get("minProperties")) is not None and count < least:
            self.invalid(path, count, f"should have at least {least} properties")
        if (most := raw.get("maxProperties")) is not None and count > most:
            self.errors.append(FieldError.too_many(path, count, most))
        prefix = f"{path}." if path else ""
        for name in raw.get("required") or ():
            if name not in value:
                self.errors.append(FieldError.required(prefix + name))
        if schema.embedded:
            self.resource(value, prefix)
        properties, additional = schema.properties, schema.additional
        forbids_others = raw.get("additionalProperties") is False
        before = old if type(old) is dict else {}
        for name, one in value.items():
            child = properties.get(name, additional)
            if child is not None:
                self.value(child, one, before.get(name, ABSENT), prefix + name)
            elif forbids_others and name not in properties:
                detail = f"{prefix}{name} in body is a forbidden property"
                self.errors.append(FieldError.invalid(path, "", detail))

    def resource(self, value: dict[str, Any], prefix: str) -> None:
        """What an embedded resource must have."""
        self.errors += [
            FieldError.required(prefix + field, "must not be empty")
            for field in ("apiVersion", "kind")
            if not value.get(field)
        ]
        metadata = value.get("metadata")
        name = metadata.get("name") if type(metadata) is dict else None
        if type(name) is str:
            for wrong in names.path_segment(name):
                self.errors.append(FieldError.invalid(f"{prefix}metadata.name", name, wrong))

    def array(self, schema: Schema, value: list[Any], old: Any, path: str) -> None:
        raw = schema.raw
        count = len(value)
        if (least := raw.get("minItems")) is not None and count < least:
            self.invalid(path, count, f"should have at least {least} items")
        if (most := raw.get("maxItems")) is not None and count > most:
            self.errors.append(FieldError.too_many(path, count, most))
        if raw.get("uniqueItems") and len({orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in value}) < count:
            self.invalid(path, "", "shouldn't contain duplicates")
        if not schema.schemas.is_builtin:
            self.errors += duplicates(schema, value, path)
        items = schema.items
        if items is not None:
            for index, (one, before) in enumerate(zip(value, old_items(schema, value, old), strict=True)):
                self.value(items, one, before, f"{path}[{index}]")

    def string(self, raw: Mapping[str, Any], value: str, path: str) -> None:
        if (most := raw.get("maxLength")) is not None and len(value) > most:
            self.errors.append(FieldError.too_long(path, most))
        if (least := raw.get("minLength")) is not None and len(value) < least:
            self.invalid(path, value, f"should be at least {least} chars long")
        if pattern := raw.get("pattern"):
            compiled = self.pattern(pattern)
            if compiled is None or not compiled.search(value):
                self.invalid(path, value, f"should match '{pattern}'")
        if (name := raw.get("format")) and (check := formats.check(name)) and not check(value):
            detail = f"{_in_body(path)} must be of type {name}: {json.dumps(value, ensure_ascii=False)}"
            self.errors.append(FieldError.type_invalid(path, value, detail))

    def pattern(self, text: str) -> Pattern | None:
        if text not in self.patterns:
            try:
                self.patterns[text] = Pattern(text)
            except PatternError:
                self.patterns[text] = None
        return self.patterns[text]

    def number(self, raw: Mapping[str, Any], value: float, path: str) -> None:
        if (most := raw.get("maximum")) is not None:
            if raw.get("exclusiveMaximum") and value >= most:
                self.invalid(path, value, f"should be less than {_number(most)}")
            elif value > most:
                self.invalid(path, value, f"should be less than or equal to {_number(most)}")
        if (least := raw.get("minimum")) is not None:
            if raw.get("exclusiveMinimum") and value <= least:
                self.invalid(path, value, f"should be greater than {_number(least)}")
            elif value < least:
                self.invalid(path, value, f"should be greater than or equal to {_number(least)}")
        if (factor := raw.get("multipleOf")) is not None and not _is_multiple(value, factor):
            self.invalid(path, value, f"should be a multiple of {_number(factor)}")
        bounds = formats.NUMBER_RANGES.get(raw.get("format") or "")
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            detail = f"Checked value must be of type {raw.get('type')} with format {raw['format']} in {path}"
            self.errors.append(FieldError.invalid(path, value, detail))

    def junctors(self, schema: Schema, value: Any, path: str) -> None:
        """allOf, anyOf, oneOf and not. Branches restrict values; they are never ratcheted apart."""
        shown = path or "."
        for kind, branches in (("anyOf", schema.any_of), ("oneOf", schema.one_of), ("allOf", schema.all_of)):
            if not branches:
                continue
            tried = [self.branch(one, value, path) for one in branches]
            valid = sum(not errors for errors in tried)
            best = min(tried, key=len)
            if kind == "anyOf" and not valid:
                self.errors.append(_whole(f'"{shown}" must validate at least one schema (anyOf)'))
                self.errors += best
            elif kind == "oneOf" and valid != 1:
                found = "Found none valid" if not valid else f"Found {valid} valid alternatives"
                self.errors.append(_whole(f'"{shown}" must validate one and only one schema (oneOf). {found}'))
                self.errors += best
            elif kind == "allOf" and valid != len(branches):
                none = "" if valid else ". None validated"
                self.errors += [error for errors in tried for error in errors]
                self.errors.append(_whole(f'"{shown}" must validate all the schemas (allOf){none}'))
        if schema.negated is not None and not self.branch(schema.negated, value, path):
            self.errors.append(_whole(f'"{shown}" must not validate the schema (not)'))

    def branch(self, schema: Schema, value: Any, path: str) -> list[FieldError]:
        inner = _Walk()
        inner.patterns = self.patterns
        inner.value(schema, value, ABSENT, path)
        return inner.errors


def _whole(detail: str) -> FieldError:
    """Kubernetes gives these errors no field of their own."""
    return FieldError.invalid("<nil>", "", detail)


def _in_body(path: str) -> str:
    return f"{path} in body"


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e21 else str(value)


def _same_number(one: Any, other: Any) -> bool:
    numbers = (int, float)
    return type(one) in numbers and type(other) in numbers and one == other


def _is_multiple(value: float, factor: float) -> bool:
    if type(value) is int and type(factor) is int:
        return value % factor == 0
    quotient = value / factor
    return abs(quotient - round(quotient)) <= 1e-9 * max(1.0, abs(quotient))
