"""What another server's OpenAPI v2 document may add to ours: its own paths, and the definitions they need. Pure.

Nothing of the document is taken as it is. One bad schema makes old clients refuse the whole of ours (a reference that
leads nowhere, an array without items), so everything is copied piece by piece, known fields of the right type only, within
a budget of size and depth. A server speaks for the kinds of its own group and version, never for those of others. What
cannot be made whole is refused as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

from fleetplane.model.objects import Object
from fleetplane.model.protobuf.openapi_v2 import encode_document

GVK: Final = "x-kubernetes-group-version-kind"
DEFINITION: Final = "#/definitions/"
MAX_ADDED: Final = 4 * 1024 * 1024
"""So many bytes of JSON one group and version may add."""
_MAX_DEPTH: Final = 64
_MAX_NAME: Final = 512
_NODE: Final = 8
"""What a value costs beside its text."""
_PARAMETER: Final = "#/parameters/"
_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "array", "object"})
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
_TEXTS: Final = ("title", "description", "format", "pattern")
_NUMBERS: Final = ("maximum", "minimum", "multipleOf")
_COUNTS: Final = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")
_FLAGS: Final = ("exclusiveMaximum", "exclusiveMinimum", "uniqueItems", "readOnly")


class Unusable(Exception):
    """The message says why nothing of the document is merged."""


def cut_bytes(document: bytes, group: str, version: str) -> bytes:
    """``cut``, from JSON to JSON; tried out in the form old clients read. Raises Unusable."""
    try:
        parsed = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise Unusable(f"it is not JSON ({error})") from None
    made = cut(parsed, group, version)
    try:
        encode_document(made)
        body = orjson.dumps(made)
    except Exception as error:  # what clients could not be given is not merged, whatever is wrong with it
        raise Unusable(f"it cannot be encoded ({error!r})") from None
    if len(body) > MAX_ADDED:
        raise Unusable(f"its part for {group}/{version} is larger than {MAX_ADDED} bytes")
    return body


def cut(document: Any, group: str, version: str) -> Object:
    """``paths`` and ``definitions`` of one group and version. Raises Unusable."""
    if not isinstance(document, dict) or document.get("swagger") != "2.0":
        raise Unusable("it is not an OpenAPI v2 document")
    return _Cutter(document, group, version).cut()


class _Cutter:
    """Copies parts of one document; ``_wanted`` are the definitions they refer to."""

    def __init__(self, document: Mapping[str, Any], group: str, version: str) -> None:
        self._paths = _mapping(document.get("paths"))
        self._definitions = _mapping(document.get("definitions"))
        self._parameters = _mapping(document.get("parameters"))
        self._group = group
        self._version = version
        self._left = MAX_ADDED
        self._wanted: list[str] = []

    def cut(self) -> Object:
        base = f"/apis/{self._group}/{self._version}"
        paths = {
            self._text(path): self._path(item)
            for path, item in self._paths.items()
            if path == base or path.startswith(f"{base}/")
        }
        definitions: dict[str, Object] = {}
        while self._wanted:
            name = self._wanted.pop()
            if name not in definitions:
                definitions[self._text(name)] = self._definition(name)
        return {"paths": paths, "definitions": definitions}

    def _definition(self, name: str) -> Object:
        found = self._definitions.get(name)
        if not isinstance(found, dict):
            raise Unusable(f"it refers to the definition {name[:_MAX_NAME]!r}, which is not there")
        if "$ref" in found:
            raise Unusable(f"its definition {name!r} is only a reference to another")
        made = self._schema(found, 0)
        kinds = [one for one in made.pop(GVK, None) or () if self._is_own(one)]
        if kinds:
            made[GVK] = kinds
        return made

    def _is_own(self, kind: Any) -> bool:
        return (
            isinstance(kind, dict)
            and (kind.get("group"), kind.get("version")) == (self._group, self._version)
            and isinstance(kind.get("kind"), str)
            and len(kind) == 3
        )

    # -- schemas -------------------------------------------------------------------------------------------------------

    def _schema(self, value: Any, depth: int) -> Object:
        self._enter(depth)
        given = _mapping(value)
        reference = given.get("$ref")
        if reference is not None:
            return {"$ref": self._reference(reference)}
        made: Object = {}
        kind = given.get("type")
        if isinstance(kind, list) and len(kind) == 1:
            kind = kind[0]
        if isinstance(kind, str) and kind in _TYPES:
            made["type"] = kind
        made |= self._simple(given)
        required = self._strings(given.get("required"))
        if required:
            made["required"] = required
        for key in ("default", "enum"):
            if key in given and (key != "enum" or isinstance(given[key], list)):
                made[key] = self._value(given[key], depth + 1)
        if isinstance(given.get("properties"), dict):
            made["properties"] = {
                self._text(name): self._schema(one, depth + 1) for name, one in given["properties"].items()
            }
        if kind == "array" or "items" in given:
            made["items"] = self._schema(given.get("items"), depth + 1)
        more = given.get("additionalProperties")
        if isinstance(more, bool):
            made["additionalProperties"] = more
        elif isinstance(more, dict):
            made["additionalProperties"] = self._schema(more, depth + 1)
        if isinstance(given.get("allOf"), list):
            made["allOf"] = [self._schema(one, depth + 1) for one in given["allOf"]]
        for key, one in given.items():
            if key.startswith("x-kubernetes-") and (key != GVK or isinstance(one, list)):
                made[self._text(key)] = self._value(one, depth + 1)
        return made

    def _simple(self, given: Mapping[str, Any]) -> Object:
        """The fields of a schema or parameter that are one value each."""
        made: Object = {key: self._text(given[key]) for key in _TEXTS if isinstance(given.get(key), str)}
        for key in _NUMBERS:
            if (
                isinstance(given.get(key), int | float)
                and not isinstance(given[key], bool)
                and math.isfinite(given[key])
            ):
                made[key] = given[key]
        for key in _COUNTS:
            if isinstance(given.get(key), int) and not isinstance(given[key], bool) and 0 <= given[key] < 1 << 63:
                made[key] = given[key]
        return made | {key: given[key] for key in _FLAGS if isinstance(given.get(key), bool)}

    def _reference(self, reference: Any) -> str:
        name = reference[len(DEFINITION) :] if isinstance(reference, str) else ""
        if not str(reference).startswith(DEFINITION) or not 0 < len(name) <= _MAX_NAME or not _is_plain(name):
            raise Unusable(f"its reference {str(reference)[:_MAX_NAME]!r} does not name a definition")
        self._wanted.append(name)
        return self._text(reference)

    # -- paths ---------------------------------------------------------------------------------------------------------

    def _path(self, value: Any) -> Object:
        self._enter(0)
        given = _mapping(value)
        made: Object = {method: self._operation(given[method]) for method in _METHODS if method in given}
        return made | {"parameters": self._parameters_of(given)}

    def _operation(self, value: Any) -> Object:
        self._enter(0)
        given = _mapping(value)
        made: Object = {
            key: self._text(given[key])
            for key in ("description", "operationId", "x-kubernetes-action")
            if isinstance(given.get(key), str)
        }
        made |= {key: self._strings(given.get(key)) for key in ("tags", "consumes", "produces")}
        if self._is_own(given.get(GVK)):
            made[GVK] = self._value(given[GVK], 0)
        made["parameters"] = self._parameters_of(given)
        made["responses"] = {
            self._text(code): self._response(one)
            for code, one in _mapping(given.get("responses")).items()
            if code == "default" or (len(code) == 3 and code.isascii() and code.isdigit())
        }
        return made

    def _response(self, value: Any) -> Object:
        self._enter(0)
        given = _mapping(value)
        description = given.get("description")
        made: Object = {"description": self._text(description) if isinstance(description, str) else ""}
        if isinstance(given.get("schema"), dict):
            made["schema"] = self._schema(given["schema"], 1)
        return made

    def _parameters_of(self, given: Mapping[str, Any]) -> list[Object]:
        listed = given.get("parameters")
        made = [self._parameter(one) for one in listed] if isinstance(listed, list) else []
        return [one for one in made if one]

    def _parameter(self, value: Any) -> Object:
        """A parameter in place; newer servers share them under names. Empty for what we have no words for."""
        self._enter(0)
        given = _mapping(value)
        shared = given.get("$ref")
        if isinstance(shared, str) and shared.startswith(_PARAMETER):
            given = _mapping(self._parameters.get(shared[len(_PARAMETER) :]))
        where, name = given.get("in"), given.get("name")
        if where not in ("body", "path", "query") or not isinstance(name, str):
            return {}
        made: Object = {"name": self._text(name), "in": where, "required": given.get("required") is True}
        if isinstance(given.get("description"), str):
            made["description"] = self._text(given["description"])
        if where == "body":
            return made | {"schema": self._schema(given.get("schema"), 1)}
        kind = given.get("type")
        made["type"] = kind if isinstance(kind, str) and kind in _TYPES - {"object", "array"} else "string"
        return made | {"uniqueItems": given.get("uniqueItems") is True}

    # -- plain values, and what they cost ------------------------------------------------------------------------------

    def _value(self, value: Any, depth: int) -> Any:
        self._enter(depth)
        if isinstance(value, dict):
            return {self._text(key): self._value(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list):
            return [self._value(one, depth + 1) for one in value]
        return self._text(value) if isinstance(value, str) else value

    def _strings(self, value: Any) -> list[str]:
        return [self._text(one) for one in value if isinstance(one, str)] if isinstance(value, list) else []

    def _text(self, text: str) -> str:
        self._spend(_NODE + len(text))
        return text

    def _enter(self, depth: int) -> None:
        self._spend(_NODE)
        if depth > _MAX_DEPTH:
            raise Unusable(f"its schemas are nested deeper than {_MAX_DEPTH} levels")

    def _spend(self, amount: int) -> None:
        self._left -= amount
        if self._left < 0:
            raise Unusable(f"its part for {self._group}/{self._version} is larger than {MAX_ADDED} bytes")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_plain(name: str) -> bool:
    return name.isprintable() and not set(name) & set("/~#%")
