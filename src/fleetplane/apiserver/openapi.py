"""OpenAPI v3 and v2: what kubectl explain, client-side validation and code generators read.

``/openapi/v3`` lists one document per group and version; each is made on first request and kept until what is served
changes. Paths declare ``fieldValidation`` on PATCH, because kubectl trusts server-side validation only then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from fleetplane.apiserver.health import KUBERNETES_VERSION
from fleetplane.apiserver.http import JSON, Request, Response
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.apiserver.routing import Target
from fleetplane.model.builtin import definition_name, definitions
from fleetplane.model.objects import Object, split_api_version

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_V2_ANSWER = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"  # "@" is no part of a media type
_SCHEMA = "#/components/schemas/"
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


class OpenApi:
    """Answers OpenAPI requests from a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._made: dict[tuple[str, str], tuple[int, bytes, str]] = {}

    def answer(self, request: Request, target: Target, cluster: str) -> Response | None:
        path = target.path
        if path == "/openapi/v2":
            return self._v2(request, cluster)
        if path == "/openapi/v3":
            return self._index(cluster)
        if path.startswith("/openapi/v3/"):
            return self._document(request, cluster, path[len("/openapi/v3/") :])
        return None

    def _kept(self, cluster: str, name: str, make: Any) -> tuple[bytes, str]:
        """(document, its hash), made again when what is served has changed."""
        generation = self._registry.generation
        kept = self._made.get((cluster, name))
        if kept is None or kept[0] != generation:
            body = make()
            kept = self._made[(cluster, name)] = (generation, body, hashlib.sha512(body).hexdigest().upper()[:128])
        return kept[1], kept[2]

    def _group_versions(self, cluster: str) -> dict[str, list[Served]]:
        found: dict[str, list[Served]] = {}
        for one in self._registry.all(cluster):
            path = f"apis/{one.type.group}/{one.type.version}" if one.type.group else f"api/{one.type.version}"
            found.setdefault(path, []).append(one)
        return found

    def _index(self, cluster: str) -> Response:
        def make() -> bytes:
            paths = {}
            for path in self._group_versions(cluster):
                tag = hashlib.sha256(f"{path}:{self._registry.generation}".encode()).hexdigest().upper()
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={tag}"}
            for (group, version), remote in self._registry.remote(cluster).items():
                if remote.schema_tag is not None:
                    path = f"apis/{group}/{version}"
                    paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={remote.schema_tag}"}
            return orjson.dumps({"paths": paths})

        return Response(200, self._kept(cluster, "v3", make)[0])

    def _document(self, request: Request, cluster: str, path: str) -> Response | None:
        served = self._group_versions(cluster).get(path)
        if served is None:
            return None
        body, tag = self._kept(cluster, "v3/" + path, lambda: orjson.dumps(v3_document(served)))
        headers = {"ETag": f'"{tag}"', "Vary": "Accept"}
        if request.query.get("hash"):
            headers["Cache-Control"] = "public, immutable"
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(304, b"", JSON, headers)
        return Response(200, body, JSON, headers)

    def _v2(self, request: Request, cluster: str) -> Response:
        body, tag = self._kept(cluster, "v2", lambda: orjson.dumps(self._v2_document(cluster)))
        headers = {"ETag": f'"{tag}"', "Vary": "Accept"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(304, b"", JSON, headers)
        accept = request.headers.get("accept", "")
        if V2_PROTOBUF in accept or _V2_ANSWER in accept:
            from fleetplane.model.protobuf.openapi_v2 import encode_document  # noqa: PLC0415  (old clients only)

            encoded, _ = self._kept(cluster, "v2.pb", lambda: encode_document(orjson.loads(body)))
            return Response(200, encoded, _V2_ANSWER, headers)
        return Response(200, body, JSON, headers)

    def _v2_document(self, cluster: str) -> Object:
        document = v2_document(self._registry.all(cluster))
        remote = self._registry.remote(cluster)
        others = [swagger for key in sorted(remote) if (swagger := remote[key].swagger) is not None]
        if others:
            from fleetplane.apiserver.aggregation.merging import merge  # noqa: PLC0415  (where others serve something)

            merge(document, (orjson.loads(one.body) for one in others))
        return document


def definition_of(served: Served) -> str:
    """The schema name of a resource: the published one for built-ins, reversed group otherwise (``org.piccolo.crd…``)."""
    if served.definition:
        return served.definition
    reversed_group = ".".join(reversed(served.type.group.split(".")))
    return f"{reversed_group}.{served.type.version}.{served.type.kind}"


def v3_document(served: list[Served]) -> Object:
    """The OpenAPI v3 document of one group and version."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for one in served:
        _add_schemas(one, schemas)
        paths.update(_paths(one))
    _close(schemas)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Fleetplane", "version": f"v{KUBERNETES_VERSION}.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _add_schemas(served: Served, schemas: dict[str, Any]) -> None:
    name = definition_of(served)
    raw = served.raw_schema()
    resource = served.type
    gvk = [{"group": resource.group, "version": resource.version, "kind": resource.kind}]
    if served.custom or raw is None:
        raw = _with_metadata(raw or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    schemas[name] = dict(raw) | {"x-kubernetes-group-version-kind": gvk}
    if "list" in served.verbs and name + "List" not in definitions():
        schemas[name + "List"] = {
            "type": "object",
            "description": f"{resource.list_kind} is a list of {resource.kind}",
            "required": ["items"],
            "properties": {
                "apiVersion": _string("APIVersion defines the versioned schema of this list."),
                "kind": _string("Kind is the REST resource this list represents."),
                "items": {
                    "type": "array",
                    "items": {"$ref": _SCHEMA + name},
                    "description": f"List of {resource.plural}.",
                },
                "metadata": {"$ref": _SCHEMA + _LIST_META},
            },
            "x-kubernetes-group-version-kind": [
                {"group": resource.group, "version": resource.version, "kind": resource.list_kind}
            ],
        }
    for wanted in (_OBJECT_META, _LIST_META, _STATUS, _DELETE_OPTIONS):
        schemas.setdefault(wanted, definitions()[wanted])
    for api_version, kind in served.subresources.values():
        for candidate, definition in _definitions_of(kind, api_version):
            schemas.setdefault(candidate, definition)


def _definitions_of(kind: str, api_version: str) -> Iterator[tuple[str, Object]]:
    group, version = split_api_version(api_version)
    name = definition_name((group, version, kind))
    if name and name in definitions():
        yield name, definitions()[name]


def _with_metadata(raw: Mapping[str, Any]) -> Object:
    """A custom kind's schema as served: with apiVersion, kind and a typed metadata."""
    properties = dict(raw.get("properties") or {})
    properties["apiVersion"] = _string("APIVersion defines the versioned schema of this representation of an object.")
    properties["kind"] = _string("Kind is a string value representing the REST resource this object represents.")
    properties["metadata"] = {"description": "Standard object's metadata.", "allOf": [{"$ref": _SCHEMA + _OBJECT_META}]}
    return dict(raw) | {"type": "object", "properties": properties}


def _string(description: str) -> Object:
    return {"type": "string", "description": description}


def _close(schemas: dict[str, Any]) -> None:
    """Add every definition that is referred to and not there yet."""
    known = definitions()
    pending = list(schemas.values())
    while pending:
        for name in _references(pending.pop()):
            if name not in schemas and name in known:
                schemas[name] = known[name]
                pending.append(known[name])


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference.rpartition("/")[2]
        for one in value.values():
            yield from _references(one)
    elif isinstance(value, list):
        for one in value:
            yield from _references(one)


_QUERY: Mapping[str, tuple[str, ...]] = {
    "get": ("pretty",),
    "list": (
        "pretty",
        "allowWatchBookmarks",
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "resourceVersionMatch",
        "sendInitialEvents",
        "timeoutSeconds",
        "watch",
    ),
    "create": ("pretty", "dryRun", "fieldManager", "fieldValidation"),
    "update": ("pretty", "dryRun", "fieldManager", "fieldValidation"),
    "patch": ("pretty", "dryRun", "fieldManager", "fieldValidation", "force"),
    "delete": ("pretty", "dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"),
    "deletecollection": (
        "pretty",
        "continue",
        "dryRun",
        "fieldSelector",
        "labelSelector",
        "limit",
        "propagationPolicy",
    ),
}
_BOOLEANS = frozenset({"allowWatchBookmarks", "sendInitialEvents", "watch", "force", "orphanDependents"})
_INTEGERS = frozenset({"limit", "timeoutSeconds", "gracePeriodSeconds"})
_METHODS: Mapping[str, tuple[str, str]] = {
    "get": ("get", "get"),
    "list": ("get", "list"),
    "create": ("post", "post"),
    "update": ("put", "put"),
    "patch": ("patch", "patch"),
    "delete": ("delete", "delete"),
    "deletecollection": ("delete", "deletecollection"),
}


def _paths(served: Served) -> dict[str, Any]:
    resource = served.type
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    collection = (
        f"{base}/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"{base}/{resource.plural}"
    )
    single = collection + "/{name}"
    name = definition_of(served)
    found: dict[str, Any] = {}

    def put(path: str, verb: str, definition: str, suffix: str) -> None:
        method, action = _METHODS[verb]
        item = found.setdefault(path, _path_parameters(path))
        item[method] = _operation(served, verb, action, definition, suffix)

    for verb in ("list", "create", "deletecollection"):
        if verb in served.verbs:
            put(
                collection, verb, name + "List" if verb == "list" else name, "Namespaced" if resource.namespaced else ""
            )
    if resource.namespaced and "list" in served.verbs:
        put(f"{base}/{resource.plural}", "list", name + "List", "ForAllNamespaces")
    for verb in ("get", "update", "patch", "delete"):
        if verb in served.verbs:
            put(single, verb, name, "Namespaced" if resource.namespaced else "")
    if "status" in served.subresources:
        for verb in ("get", "update", "patch"):
            put(f"{single}/status", verb, name, "Status")
    return found


def _path_parameters(path: str) -> Object:
    return {
        "parameters": [
            {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
            for part in path.split("/")
            if part.startswith("{")
        ]
    }


def _operation(served: Served, verb: str, action: str, definition: str, suffix: str) -> Object:
    resource = served.type
    content = {JSON: {"schema": {"$ref": _SCHEMA + definition}}}
    if verb in ("delete", "deletecollection"):
        content = {JSON: {"schema": {"$ref": _SCHEMA + _STATUS}}}
    made: Object = {
        "operationId": f"{verb}{''.join(part.title() for part in resource.group.split('.')) or 'Core'}"
        f"{resource.version.title()}{suffix}{resource.kind}",
        "tags": [f"{resource.group or 'core'}_{resource.version}"],
        "parameters": [
            {
                "name": name,
                "in": "query",
                "schema": {
                    "type": "boolean" if name in _BOOLEANS else "integer" if name in _INTEGERS else "string",
                    "uniqueItems": True,
                },
            }
            for name in _QUERY[verb]
        ],
        "responses": {
            "201" if verb == "create" else "200": {"description": "OK", "content": content},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {
            "group": resource.group,
            "version": resource.version,
            "kind": resource.kind,
        },
    }
    if verb in ("create", "update"):
        made["requestBody"] = {"required": True, "content": {"*/*": {"schema": {"$ref": _SCHEMA + definition}}}}
    elif verb == "patch":
        types = [one for one in _PATCH_TYPES if not (served.custom and "strategic" in one)]
        patch = {"type": "object", "description": "A patch of the media type it is sent as."}
        made["requestBody"] = {"required": True, "content": {one: {"schema": patch} for one in types}}
    return made


def v2_document(served: Iterator[Served]) -> Object:
    """The OpenAPI v2 (swagger) document of everything."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for one in served:
        _add_schemas(one, schemas)
        paths.update(_paths(one))
    _close(schemas)
    return {
        "swagger": "2.0",
        "info": {"title": "Fleetplane", "version": f"v{KUBERNETES_VERSION}.0"},
        "paths": {path: _path_to_v2(item) for path, item in paths.items()},
        "definitions": {name: _schema_to_v2(schema) for name, schema in schemas.items()},
    }


def _path_to_v2(item: Object) -> Object:
    made: Object = {"parameters": [_parameter_to_v2(one) for one in item["parameters"]]}
    for method, operation in item.items():
        if method == "parameters":
            continue
        parameters = [_parameter_to_v2(one) for one in operation["parameters"]]
        body = operation.get("requestBody")
        content = dict(body["content"]) if body else {}
        if content:
            schema = _schema_to_v2(next(iter(content.values()))["schema"])
            parameters.append({"name": "body", "in": "body", "required": True, "schema": schema})
        responses = {}
        for code, response in operation["responses"].items():
            responses[code] = {"description": response["description"]}
            if "content" in response:
                responses[code]["schema"] = _schema_to_v2(response["content"][JSON]["schema"])
        made[method] = {
            key: value for key, value in operation.items() if key not in ("parameters", "requestBody", "responses")
        } | {"parameters": parameters, "responses": responses, "consumes": list(content) or ["*/*"], "produces": [JSON]}
    return made


def _parameter_to_v2(parameter: Object) -> Object:
    schema = parameter["schema"]
    return {key: value for key, value in parameter.items() if key != "schema"} | {
        "type": schema["type"],
        "uniqueItems": True,
    }


_V3_ONLY = frozenset({"oneOf", "anyOf", "not", "nullable"})


def _schema_to_v2(schema: Any) -> Any:
    """A v3 schema in the words of v2: what it lacks is left out, a type it cannot say becomes none."""
    if isinstance(schema, list):
        return [_schema_to_v2(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"].replace(_SCHEMA, "#/definitions/")}
    made: Object = {}
    for key, value in schema.items():
        if key in _V3_ONLY:
            continue
        if key == "properties":
            made[key] = {name: _schema_to_v2(one) for name, one in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            made[key] = _schema_to_v2(value)
        elif key == "allOf":
            references = [one for one in value if "$ref" in one]
            if len(value) == 1 and references:
                made["$ref"] = references[0]["$ref"].replace(_SCHEMA, "#/definitions/")
        else:
            made[key] = value
    if "$ref" in made:
        return {"$ref": made["$ref"]}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made
