"""Requests made from what the served OpenAPI describes: mostly good, a little spoilt, and the same for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetplane.testing.plane import TestServer

from .differential.stories import kinds

Object = dict[str, Any]
REF = "#/components/schemas/"
NOISE: Sequence[Any] = (
    None, True, 0, -1, 1 << 31, 1 << 63, -(1 << 70), 1.5, 1e308, "", "x", "\x00", "\U0001f600", "a" * 300, [], [None], {},
    {"": None}, [{}], [[]], {"a": {"b": [1]}}, "2020-01-01T00:00:00Z", "10.0.0.1", "100%", "1Gi", {"$patch": "delete"},
)  # fmt: skip
QUERIES: Mapping[str, Sequence[str]] = {
    "labelSelector": ("a=b", "a in (b", "!", "a!=,", "x" * 500, "\x00"),
    "fieldSelector": ("metadata.name=a", "spec.nodeName=", "=", "status.phase!=x", "\x00=\x00"),
    "limit": ("1", "-1", "x", "9" * 30, ""),
    "continue": ("x", "eyJ2IjoiZmxlZXRwbGFuZS92MSIsInJ2IjoxLCJhZnRlciI6WzEsMiwzLDQsNV19", "=" * 9, "\x00"),
    "resourceVersion": ("0", "1", "x", "9" * 40, "-1", "\uff11"),
    "resourceVersionMatch": ("Exact", "NotOlderThan", "x"),
    "timeoutSeconds": ("0", "1", "-5", "x", "9" * 30),
    "dryRun": ("All", "x"),
    "fieldManager": ("m", "m" * 500, "\x07"),
    "fieldValidation": ("Strict", "Warn", "Ignore", "x"),
    "force": ("true", "x"),
    "gracePeriodSeconds": ("0", "-1", "x", "9" * 30),
    "propagationPolicy": ("Orphan", "Foreground", "x"),
    "orphanDependents": ("true", "x"),
    "offset": ("1", "x", "9" * 12),
    "includeObject": ("None", "Object", "x"),
    "pretty": ("true",),
}
ACCEPTS = (
    "application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "text/html",
    ";;;q=x",
)
PATCHES = (
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json-patch+json",
)
NAMES = ("a", "b", "default", "kube-system", "Bad Name", "..", "a" * 300, "é", "%00")
STREAMS = ("exec", "attach", "portforward", "proxy", "log")


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    schema: str
    """The name of the body's schema, empty for none."""


@dataclass(frozen=True, slots=True)
class Sent:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.path}?{dict(self.query)} {dict(self.headers)}\n{self.body[:3000]!r}"


class Api:
    """What the served OpenAPI says there is."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.schemas: dict[str, Any] = {}

    async def read(self, server: TestServer) -> None:
        _, index = await server.call("GET", "/openapi/v3")
        for entry in index["paths"].values():
            path, _, digest = entry["serverRelativeURL"].partition("?")
            status, document = await server.call("GET", path, query={"hash": digest.partition("=")[2]})
            assert status == 200
            self.schemas |= document.get("components", {}).get("schemas", {})
            for where, item in document["paths"].items():
                for method, one in item.items():
                    if isinstance(one, dict) and method in ("get", "put", "post", "patch", "delete"):
                        self.operations.append(Operation(method.upper(), where, _body_schema(one)))
        self.operations.sort(key=lambda one: (one.path, one.method))


def _body_schema(operation: Object) -> str:
    for media in operation.get("requestBody", {}).get("content", {}).values():
        reference: str = media.get("schema", {}).get("$ref", "")
        return reference.removeprefix(REF)
    return ""


@dataclass(frozen=True, slots=True)
class Example:
    """A good object, the schema it has, and where it is created."""

    schema: str
    path: str
    base: Object


def examples(api: Api) -> list[Example]:
    schemas = {one.path: one.schema for one in api.operations if one.method == "POST"}
    found = []
    for kind in kinds():
        schema = schemas.get(kind.path.replace("{ns}", "{namespace}"))
        if schema:
            found.append(Example(schema, kind.path.format(ns="default"), kind.at("default").base))
    custom = "/apis/diff.example.com/v1/namespaces/{namespace}/gadgets"
    spec = {"size": 3, "names": ["x"], "ports": [{"port": 1}], "free": {"a": [1]}, "either": "x", "labels": {"l": "m"}}
    base = {"metadata": {"name": "a"}, "spec": spec, "status": {"replicas": 2, "selector": "a=b"}}
    return [*found, Example(schemas[custom], custom.replace("{namespace}", "default"), base)]


class Maker:
    """Requests for an API, from one seed."""

    def __init__(self, api: Api, dice: random.Random) -> None:
        self._api = api
        self._dice = dice
        self._name = "a"
        self._examples = {one.schema: one.base for one in examples(api)}

    def request(self, operation: Operation) -> Sent:
        dice = self._dice
        self._name = "a" if dice.random() < 0.85 else "b"
        path = "/".join(self._segment(part) for part in operation.path.split("/"))
        keys = dice.sample(sorted(QUERIES), k=dice.choice((0, 0, 0, 0, 0, 1, 1, 2, 4)))
        query = {key: dice.choice(QUERIES[key]) for key in keys}
        if operation.method == "GET" and dice.random() < 0.15:
            query |= {"watch": "true", "timeoutSeconds": "1"}
        headers = {
            "content-type": "application/json",
            "accept": dice.choice(ACCEPTS) if dice.random() < 0.3 else ACCEPTS[0],
        }
        body = b""
        if operation.method == "PATCH":
            headers["content-type"] = dice.choice(PATCHES)
            query.setdefault("fieldManager", "m")
            body = json.dumps(self._patch(operation, headers["content-type"])).encode()
        elif operation.method in ("POST", "PUT"):
            body = json.dumps(self.body(operation.schema)).encode()
            if dice.random() < 0.1:
                headers["content-type"] = dice.choice(
                    ("application/yaml", "application/vnd.kubernetes.protobuf", "x", "")
                )
        elif operation.method == "DELETE" and dice.random() < 0.5:
            body = json.dumps(self.body("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")).encode()
        if body and dice.random() < 0.05:
            cut = dice.randrange(len(body))
            body = body[:cut] + bytes([dice.randrange(256)]) + body[cut + 1 :]
        return Sent(operation.method, path, query, headers, body)

    def body(self, schema: str) -> Any:
        """A value of the schema, spoilt in some places."""
        example = self._examples.get(schema)
        if example is not None and self._dice.random() < 0.6:
            return self.spoilt(example)
        made = self.value({"$ref": REF + schema} if schema else {}, 0)
        if isinstance(made, dict) and self._dice.random() < 0.9:
            if not isinstance(made.get("metadata"), dict) or self._dice.random() < 0.7:
                made["metadata"] = {}
            made["metadata"].setdefault("name", "a")
            if self._dice.random() < 0.9:
                made["metadata"]["name"] = self._name
                for key in ("apiVersion", "kind"):
                    made.pop(key, None)
                for key in ("namespace", "uid", "resourceVersion", "finalizers"):
                    made["metadata"].pop(key, None)
        return made

    def spoilt(self, example: Object) -> Object:
        """A good object with something wrong in up to three places, under one of two names."""
        made: Object = json.loads(json.dumps(example))
        for _ in range(self._dice.choice((0, 1, 1, 2, 3))):
            self._spoil(made)
        if isinstance(made.get("metadata"), dict) and self._dice.random() < 0.9:
            made["metadata"]["name"] = self._name
        return made

    def _noise(self) -> Any:
        return json.loads(json.dumps(self._dice.choice(NOISE)))

    def _spoil(self, value: Any) -> None:
        """Walk down to some place and change what is there."""
        dice = self._dice
        while isinstance(value, dict | list) and value:
            key: Any = dice.choice(list(value)) if isinstance(value, dict) else dice.randrange(len(value))
            below = value[key]
            if isinstance(below, dict | list) and below and dice.random() < 0.8:
                value = below
                continue
            match dice.randrange(4):
                case 0:
                    del value[key]
                case 1 if isinstance(value, list):
                    value.append(json.loads(json.dumps(below)))
                case 2 if isinstance(value, dict):
                    value[dice.choice(("x", "a/b", "$patch", ""))] = below
                case _:
                    value[key] = self._noise()
            return

    def value(self, schema: Object, depth: int) -> Any:
        dice = self._dice
        if dice.random() < 0.02:
            return self._noise()
        for part in schema.get("allOf") or ():
            schema = {**part, **schema}
        reference = schema.get("$ref")
        if reference:
            schema = self._api.schemas.get(reference.removeprefix(REF), {})
        if "enum" in schema and dice.random() < 0.9:
            return dice.choice(schema["enum"])
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                return [self.value(schema.get("items") or {}, depth + 1) for _ in range(dice.choice((0, 1, 1, 2)))]
            case "integer":
                return dice.choice((0, 1, 2, 80, -1, 1 << 31))
            case "number":
                return dice.choice((0, 1.5))
            case "boolean":
                return dice.random() < 0.5
            case "string":
                return dice.choice(("a", "b", "a.example.com", "Always", "", "A b", "1", "10.0.0.1", "x/y", "dg=="))
        return self._noise()

    def _object(self, schema: Object, depth: int) -> Object:
        dice = self._dice
        properties: Object = schema.get("properties") or {}
        wanted = set(schema.get("required") or ())
        if depth < 8 and properties:
            wanted |= set(dice.sample(sorted(properties), k=min(len(properties), dice.choice((0, 1, 2, 4)))))
            wanted |= {"spec", "status"} & properties.keys() if depth == 0 else set()
        made = {name: self.value(properties.get(name) or {}, depth + 1) for name in sorted(wanted)}
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            made |= {
                dice.choice(("a", "b", "x/y")): self.value(additional, depth + 1) for _ in range(dice.choice((0, 1, 2)))
            }
        if dice.random() < 0.02:
            made[dice.choice(("nonsense", "", "$patch", "$retainKeys", "metadata"))] = self._noise()
        return made

    def _patch(self, operation: Operation, media: str) -> Any:
        dice = self._dice
        if media != PATCHES[-1]:
            made = self.body(self._schema_of(operation))
            if isinstance(made, dict) and media != PATCHES[2]:
                made.pop("apiVersion", None)
            return made
        pointers = (
            "/metadata/labels",
            "/spec",
            "/metadata/name",
            "/status/x",
            "",
            "/spec/0",
            "/metadata/labels/a~1b",
            "x",
            "/-",
        )
        return [
            {
                "op": dice.choice(("add", "remove", "replace", "move", "copy", "test", "x")),
                "path": dice.choice(pointers),
                "from": dice.choice(pointers),
                "value": self._noise(),
            }
            for _ in range(dice.choice((0, 1, 2, 5)))
        ]

    def _schema_of(self, operation: Operation) -> str:
        """What an operation on the same path takes as a whole."""
        same = (one for one in self._api.operations if one.path == operation.path and one.method == "PUT")
        return next((one.schema for one in same), "")

    def _segment(self, part: str) -> str:
        if part == "{namespace}":
            return "default" if self._dice.random() < 0.95 else self._dice.choice(NAMES)
        if part.startswith("{"):
            return self._name if self._dice.random() < 0.95 else self._dice.choice(NAMES)
        return part
