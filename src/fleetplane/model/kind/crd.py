"""The CustomResourceDefinition of a declared kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from fleetplane.model.kind.fields import Column
from fleetplane.model.kind.schema import schema_of
from fleetplane.model.kind.versions import Versions
from fleetplane.model.kind.view import Attribute, Kind, View
from fleetplane.model.objects import Object

HOME_ANNOTATION: Final = "fleetplane.io/home"
UNIQUE_ANNOTATION: Final = "fleetplane.io/unique"
"""JSON: a field's name to the JSONPaths whose values, joined by slashes, at most one object of a cluster may have."""
AGE: Final = Column("Age", ".metadata.creationTimestamp", "date")


def crd_manifest(kind: type[Kind] | Versions, *, conversion: Object | None = None) -> Object:
    """The manifest to apply. ``conversion`` is the webhook's stanza, where versions need one on a foreign server."""
    versions = kind if isinstance(kind, Versions) else Versions(kind)
    hub = versions.hub.resource
    names: Object = {
        "kind": hub.kind,
        "listKind": hub.list_kind,
        "plural": hub.plural,
        "singular": hub.singular,
    }
    if hub.short_names:
        names["shortNames"] = list(hub.short_names)
    if hub.categories:
        names["categories"] = list(hub.categories)
    spec: Object = {
        "group": hub.group,
        "names": names,
        "scope": "Namespaced" if hub.namespaced else "Cluster",
        "versions": [_version(one, storage=one is versions.hub) for one in versions.kinds],
    }
    if conversion is not None:
        spec["conversion"] = conversion
    annotations: dict[str, str] = {HOME_ANNOTATION: versions.hub.home}
    if unique := versions.hub.unique:
        annotations[UNIQUE_ANNOTATION] = json.dumps({field: list(paths) for field, paths in unique.items()})
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{hub.plural}.{hub.group}", "annotations": annotations},
        "spec": spec,
    }


def _version(kind: type[Kind], *, storage: bool) -> Object:
    shown: Object = {
        "name": kind.resource.version,
        "served": kind.served,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema_of(kind)},
    }
    if kind.deprecated:
        shown |= {"deprecated": True, "deprecationWarning": kind.deprecated}
    subresources: Object = {}
    if "status" in kind.attributes:
        subresources["status"] = {}
    if kind.scale is not None:
        subresources["scale"] = {
            "specReplicasPath": kind.scale.spec_replicas,
            "statusReplicasPath": kind.scale.status_replicas,
        }
        if kind.scale.label_selector:
            subresources["scale"]["labelSelectorPath"] = kind.scale.label_selector
    if subresources:
        shown["subresources"] = subresources
    columns = [*_columns(kind), *kind.columns, AGE]
    shown["additionalPrinterColumns"] = [dict(column.to_object()) for column in columns]
    if indexed := [{"jsonPath": path} for path, attribute in fields_of(kind) if attribute.info.index]:
        shown["selectableFields"] = indexed
    return shown


def _columns(kind: type[Kind]) -> Iterator[Column]:
    for path, attribute in fields_of(kind):
        column = attribute.info.column
        if column is None:
            continue
        if isinstance(column, str):
            column = Column(column, type=_column_type(attribute))
        yield Column(column.name, column.path or path, column.type, column.priority, column.doc or attribute.info.doc)


def _column_type(attribute: Attribute) -> Any:
    schema = attribute.plan.schema(lambda _definition: {})
    if schema.get("format") == "date-time":
        return "date"
    return schema.get("type") if schema.get("type") in {"integer", "number", "boolean"} else "string"


def fields_of(view: type[View], path: str = "") -> Iterator[tuple[str, Attribute]]:
    """Every field that can be reached without passing through a list or mapping, with its JSONPath."""
    for attribute in view.attributes.values():
        if issubclass(view, Kind) and attribute.json_name == "metadata":
            continue
        here = f"{path}.{attribute.json_name}"
        yield here, attribute
        nested = attribute.view
        if nested is not None:
            yield from fields_of(nested, here)
