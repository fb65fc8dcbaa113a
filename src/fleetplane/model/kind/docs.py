"""The reference page of a kind, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fleetplane.model.kind.schema import schema_of
from fleetplane.model.kind.view import Kind
from fleetplane.model.objects import Object


class FieldDoc(NamedTuple):
    """One line of the page. ``path`` is as in ``kubectl explain`` (``spec.hosts[].name``)."""

    path: str
    type: str
    required: bool
    doc: str
    default: Any = None
    limits: tuple[str, ...] = ()


_LIMITS: Mapping[str, str] = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches {}",
    "format": "{}",
}


def docs_of(kind: type[Kind]) -> list[FieldDoc]:
    """Every field in reading order, parents before children; embedded built-in types are named, not opened."""
    return [one for one in _walk(schema_of(kind, _named), "") if one.path not in {"apiVersion", "kind", "metadata"}]


def _named(definition: str) -> Object:
    return {"type": definition.rpartition(".")[2]}


def _walk(schema: Object, path: str) -> Iterator[FieldDoc]:
    required = set(schema.get("required") or ())
    for name, one in (schema.get("properties") or {}).items():
        here = f"{path}.{name}" if path else name
        yield FieldDoc(here, _type(one), name in required, one.get("description", ""), one.get("default"), _limits(one))
        inner, suffix = one, ""
        while inner.get("type") == "array" or isinstance(inner.get("additionalProperties"), dict):
            suffix += "[]" if inner.get("type") == "array" else ".*"
            inner = inner["items"] if inner.get("type") == "array" else inner["additionalProperties"]
        yield from _walk(inner, here + suffix)


def _type(schema: Object) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    return str(schema.get("type") or "any")


def _limits(schema: Object) -> tuple[str, ...]:
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    if "enum" in schema:
        limits.append("one of " + ", ".join(str(value) for value in schema["enum"]))
    limits += [rule.get("message") or rule["rule"] for rule in schema.get("x-kubernetes-validations") or ()]
    return tuple(limits)
