"""An OpenAPI v2 document as an aggregated server writes it, to be taken and spoilt."""

from __future__ import annotations

from typing import Any

from fleetplane.model.objects import Object

GROUP, VERSION = "gadgets.example.com", "v1"
BASE = f"/apis/{GROUP}/{VERSION}"
GADGET = "com.example.gadgets.v1.Gadget"
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
OWN = {"group": GROUP, "version": VERSION, "kind": "Gadget"}


def reference(name: str) -> Object:
    return {"$ref": f"#/definitions/{name}"}


def swagger(**more: Any) -> Object:
    """Gadgets, their metadata, a path of another group; ``more`` replaces what is at the top."""
    operation = {
        "operationId": "readGadget",
        "responses": {"200": {"description": "OK", "schema": reference(GADGET)}},
        "x-kubernetes-group-version-kind": OWN,
    }
    return {
        "swagger": "2.0",
        "paths": {
            f"{BASE}/namespaces/{{namespace}}/gadgets/{{name}}": {
                "get": operation,
                "parameters": [{"$ref": "#/parameters/pretty"}],
            },
            "/apis/apps/v1/deployments": {"get": {"responses": {}}},
            "/version/": {"get": {"responses": {}}},
        },
        "parameters": {"pretty": {"name": "pretty", "in": "query", "type": "string"}},
        "definitions": {
            GADGET: {
                "type": "object",
                "description": "A Gadget turns.",
                "properties": {
                    "spec": {
                        "type": "object",
                        "properties": {"size": {"type": "integer", "description": "How large."}},
                    },
                    "metadata": reference(META),
                },
                "x-kubernetes-group-version-kind": [OWN, {"group": "apps", "version": "v1", "kind": "Deployment"}],
            },
            META: {"type": "object", "properties": {"name": {"type": "string"}}},
            "com.example.Unrelated": {"type": "object"},
        },
        **more,
    }
