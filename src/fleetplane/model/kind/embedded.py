"""Built-in types inside custom kinds: their published schemas in structural form.

A CRD cannot refer to a definition, so what a kind embeds is written out. Descriptions are left out: a PodSpec with them
is half a megabyte, and whoever wants them finds them at the Pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from fleetplane.model.builtin.data import definitions
from fleetplane.model.objects import Object

_INT_OR_STRING: Final = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
_KNOWN: Final[Mapping[str, Object]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _INT_OR_STRING,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _INT_OR_STRING,
    # Of metadata inside metadata only what templates use; names and times are given to the objects made from them.
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        },
    },
}
_KEPT: Final = frozenset(
    {
        "type",
        "format",
        "enum",
        "default",
        "required",
        "nullable",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-preserve-unknown-fields",
    }
)
_KEY_DEFAULTS: Final = {"protocol": "TCP"}


def structural(definition: str) -> Object:
    """A copy of the definition's schema. Raises KeyError for a definition that does not exist."""
    return _structural(definition, ())


@cache
def _structural(definition: str, inside: tuple[str, ...]) -> Object:
    if definition in _KNOWN:
        return _KNOWN[definition]
    if definition in inside:  # JSONSchemaProps contains itself: beyond the first level anything goes
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return _converted(definitions()[definition], (*inside, definition))


def _converted(schema: Mapping[str, Any], inside: tuple[str, ...]) -> Object:
    if reference := schema.get("$ref"):
        return dict(_structural(reference.rpartition("/")[2], inside))
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return _converted(schema["allOf"][0], inside) | {k: v for k, v in schema.items() if k in _KEPT}
    result: Object = {key: value for key, value in schema.items() if key in _KEPT}
    if properties := schema.get("properties"):
        result["properties"] = {name: _converted(one, inside) for name, one in properties.items()}
    if "items" in schema:
        result["items"] = _with_keys(_converted(schema["items"], inside), schema.get("x-kubernetes-list-map-keys"))
    if isinstance(schema.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _converted(schema["additionalProperties"], inside)
    is_open = result.get("type") == "object" and not {"properties", "additionalProperties"} & result.keys()
    if is_open or ("type" not in result and "x-kubernetes-int-or-string" not in result):
        result["x-kubernetes-preserve-unknown-fields"] = True
    return result


def _with_keys(item: Object, keys: list[str] | None) -> Object:
    """The keys of a list map are required or have a default: structural schemas insist on it."""
    if not keys or "properties" not in item:
        return item
    properties, required = dict(item["properties"]), list(item.get("required") or ())
    for key in keys:
        if key in required or "default" in properties[key]:
            continue
        if key in _KEY_DEFAULTS:
            properties[key] = {**properties[key], "default": _KEY_DEFAULTS[key]}
        else:
            required.append(key)
    return item | {"properties": properties} | ({"required": required} if required else {})
