"""The structural schema of a kind (apiextensions v1)."""

from __future__ import annotations

from fleetplane.model.kind.embedded import structural
from fleetplane.model.kind.types import Resolve
from fleetplane.model.kind.view import Kind, View
from fleetplane.model.objects import Object

_ROOT = {
    "apiVersion": {"type": "string", "description": "The version of the API this object is written in."},
    "kind": {"type": "string", "description": "What this object is."},
    "metadata": {"type": "object"},
}


def schema_of(view: type[View], resolve: Resolve = structural) -> Object:
    """OpenAPI v3, ready for ``openAPIV3Schema`` when ``view`` is a ``Kind``.

    ``resolve`` gives the schema that stands for a built-in definition; by default it is written out.
    """
    schema = view.object_schema(resolve)
    if not issubclass(view, Kind):
        return schema
    schema["properties"] = {**_ROOT, **{k: v for k, v in schema["properties"].items() if k != "metadata"}}
    # Status is the operator's to fill in: an object without one is complete.
    schema["required"] = [name for name in schema.get("required", ()) if name not in {"metadata", "status"}]
    if not schema["required"]:
        del schema["required"]
    return schema
