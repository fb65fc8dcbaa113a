"""Reading the server's OpenAPI v3: finding a kind's schema, walking its fields, and putting that on a screen.

References are followed as far as one looks, never all at once: schemas refer to themselves (JSONSchemaProps).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from fleetplane.interfaces.cli.connection import Session
from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.interfaces.cli.resources import resource_named
from fleetplane.interfaces.cli.terminal import Terminal, printable
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, split_api_version
from fleetplane.model.resources import ResourceType

_REFERENCE: Final = "#/components/schemas/"
_KINDS: Final = "x-kubernetes-group-version-kind"
_MAX_DEPTH: Final = 12
_WIDTH: Final = 90


async def find_kind(session: Session, words: str, api_version: str) -> tuple[ResourceType, list[str]]:
    """(kind, path of fields) of ``deployments.spec.replicas`` or ``deployments.apps.spec``. Raises CommandError."""
    parts = [part for part in words.split(".") if part]
    if not parts:
        raise CommandError("name a kind, for example 'pods' or 'pods.spec'")
    catalogue = await session.discovery.catalogue()
    # The longest beginning that names a kind: a group's name has dots as paths of fields do.
    for length in range(len(parts), 0, -1):
        found = catalogue.find(".".join(parts[:length]))
        if found is not None:
            break
    else:
        await resource_named(session, parts[0])
        raise CommandError(f"the server has no kind {parts[0]!r}")
    resource = found.type
    if api_version:
        group, version = split_api_version(api_version)
        other = next(
            (
                one.type
                for one in catalogue.resources
                if (one.type.group, one.type.version, one.type.kind) == (group, version, resource.kind)
            ),
            None,
        )
        if other is None:
            raise CommandError(f"the server has no {resource.kind} in {api_version}")
        resource = other
    return resource, parts[length:]


@dataclass(frozen=True, slots=True)
class Document:
    """The OpenAPI v3 document of one group and version."""

    schemas: Object

    @classmethod
    async def fetch(cls, session: Session, resource: ResourceType) -> Document:
        key = f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"
        try:
            paths = orjson.loads(await session.client.raw("GET", "/openapi/v3")).get("paths") or {}
            address = str((paths.get(key) or {}).get("serverRelativeURL") or "")
            path, _, query = address.partition("?")
            pairs = [tuple(pair.split("=", 1)) for pair in query.split("&") if "=" in pair]
            body = await session.client.raw("GET", path, query=pairs) if path else b"{}"  # type: ignore[arg-type]
        except ApiError as error:
            if error.code != 404:
                raise
            raise CommandError("the server has no OpenAPI v3 documents, which describe its kinds") from None
        return cls(((orjson.loads(body).get("components") or {}).get("schemas")) or {})

    def kind(self, resource: ResourceType) -> Object | None:
        wanted = (resource.group, resource.version, resource.kind)
        for schema in self.schemas.values():
            for one in schema.get(_KINDS) or []:
                if (one.get("group") or "", one.get("version"), one.get("kind")) == wanted:
                    found: Object = schema
                    return found
        return None

    def resolved(self, schema: Object) -> Object:
        """The schema a reference leads to, with what was said beside the reference."""
        for _ in range(_MAX_DEPTH):
            inner = schema.get("allOf") or []
            reference = schema.get("$ref") or (inner[0].get("$ref") if len(inner) == 1 else None)
            if not isinstance(reference, str) or not reference.startswith(_REFERENCE):
                return schema
            beside = {key: value for key, value in schema.items() if key not in {"$ref", "allOf"}}
            schema = {**(self.schemas.get(reference.removeprefix(_REFERENCE)) or {}), **beside}
        return schema

    def fields(self, schema: Object) -> Object:
        """The fields of an object, or of the items of a list or values of a map."""
        found = self.resolved(schema)
        for _ in range(_MAX_DEPTH):
            properties = found.get("properties")
            inner = found.get("items") or found.get("additionalProperties")
            if isinstance(properties, dict) or not isinstance(inner, dict):
                return properties if isinstance(properties, dict) else {}
            found = self.resolved(inner)
        return {}

    def required(self, schema: Object) -> frozenset[str]:
        found = self.resolved(schema)
        while "properties" not in found and isinstance(found.get("items") or found.get("additionalProperties"), dict):
            found = self.resolved(found.get("items") or found["additionalProperties"])
        return frozenset(found.get("required") or ())

    def type_of(self, schema: Object) -> str:
        """``string``, ``[]Container``, ``map[string]integer``: short, as people write types."""
        reference = schema.get("$ref") or (
            (schema.get("allOf") or [{}])[0].get("$ref") if schema.get("allOf") else None
        )
        found = self.resolved(schema)
        kind = found.get("type")
        if kind == "array":
            return "[]" + self.type_of(found.get("items") or {})
        if isinstance(found.get("additionalProperties"), dict):
            return "map[string]" + self.type_of(found["additionalProperties"])
        if isinstance(reference, str) and (kind == "object" or kind is None):
            return reference.rpartition(".")[2]
        if found.get("x-kubernetes-int-or-string") or found.get("format") == "int-or-string":
            return "integer or string"
        return str(kind or "any")

    def walk(self, schema: Object, path: Sequence[str]) -> list[Object]:
        """The schema and those of each field on the path. Raises CommandError with what was perhaps meant."""
        found = [schema]
        for at, part in enumerate(path):
            fields = self.fields(found[-1])
            if part not in fields:
                from difflib import get_close_matches

                near = get_close_matches(part, fields, n=1)
                where = ".".join(path[:at]) or "the top"
                hint = f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(sorted(fields)) or 'nothing'}"
                raise CommandError(f"there is no field {part!r} at {where}; {hint}")
            found.append(fields[part])
        return found


def print_explanation(
    terminal: Terminal,
    document: Document,
    resource: ResourceType,
    path: Sequence[str],
    schema: Object,
    *,
    recursive: bool,
) -> None:
    found = document.resolved(schema)
    facts = [("KIND", resource.kind), ("VERSION", resource.api_version)]
    if path:
        facts.append(("FIELD", f"{'.'.join(path)} <{document.type_of(schema)}>"))
    for label, value in facts:
        terminal.line(terminal.style(f"{label + ':':<9}", "bold") + value)
    if values := found.get("enum"):
        terminal.line(terminal.style("ONE OF:", "bold") + " " + ", ".join(map(str, values)))
    if found.get("default") not in (None, {}, ""):
        terminal.line(terminal.style("DEFAULT:", "bold") + f" {orjson.dumps(found['default']).decode()}")
    terminal.line()
    _paragraphs(terminal, str(found.get("description") or "There is no description."), "")
    fields = document.fields(schema)
    if not fields:
        return
    terminal.line()
    terminal.line(terminal.style("FIELDS:", "bold"))
    if recursive:
        for depth, text in _below(document, schema, 0):
            terminal.line("  " * (depth + 1) + text)
        return
    required = document.required(schema)
    for name in sorted(fields):
        mark = terminal.style(" (required)", "yellow") if name in required else ""
        terminal.line(f"  {terminal.style(name, 'bold')} <{document.type_of(fields[name])}>{mark}")
        text = str(document.resolved(fields[name]).get("description") or "")
        if text:
            _paragraphs(terminal, text, "    ")


def _below(document: Document, schema: Object, depth: int, above: tuple[int, ...] = ()) -> Iterator[tuple[int, str]]:
    fields = document.fields(schema)
    if depth >= _MAX_DEPTH or id(fields) in above:
        return
    required = document.required(schema)
    for name in sorted(fields):
        yield depth, f"{name} <{document.type_of(fields[name])}>" + (" (required)" if name in required else "")
        yield from _below(document, fields[name], depth + 1, (*above, id(fields)))


def _paragraphs(terminal: Terminal, text: str, indent: str) -> None:
    for paragraph in printable(text).split("\n"):
        if not paragraph.strip():
            continue
        for line in textwrap.wrap(paragraph.strip(), _WIDTH - len(indent)) or [""]:
            terminal.line(indent + line)
