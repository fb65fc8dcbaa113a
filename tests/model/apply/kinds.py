"""A small kind with every sort of field, for the tests of server-side apply."""

from __future__ import annotations

from typing import Any

from fleetplane.model.schema import Schema

STRING = {"type": "string"}

RAW: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer"},
                "name": STRING,
                "args": {"type": "array", "items": STRING},
                "set": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {
                        "type": "object",
                        "required": ["port"],
                        "properties": {
                            "port": {"type": "integer"},
                            "protocol": {"type": "string", "default": "TCP"},
                            "name": STRING,
                            "x": STRING,
                        },
                    },
                },
                "labels": {"type": "object", "additionalProperties": STRING},
                "selector": {
                    "type": "object",
                    "x-kubernetes-map-type": "atomic",
                    "additionalProperties": STRING,
                },
                "inner": {"type": "object", "properties": {"a": STRING, "b": STRING}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {"type": "object", "properties": {"phase": STRING}},
    },
}
SCHEMA = Schema.compile(RAW, root=True)
VERSION = "test.io/v1"


def thing(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    obj: dict[str, Any] = {"apiVersion": VERSION, "kind": "Thing", "metadata": {"name": "a", **metadata}}
    if spec is not None:
        obj["spec"] = spec
    return obj
