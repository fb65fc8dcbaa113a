"""What another server says it serves: discovery in one form, whichever it spoke. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetplane.model.objects import Object


def from_aggregated(document: Mapping[str, Any], group: str, version: str) -> list[Object] | None:
    """The resources (``APIResourceDiscovery``) of one version in an ``APIGroupDiscoveryList``; None if it is not there."""
    for item in document.get("items") or ():
        if (item.get("metadata") or {}).get("name") != group:
            continue
        for one in item.get("versions") or ():
            if one.get("version") == version:
                return list(one.get("resources") or ())
    return None


def from_plain(document: Mapping[str, Any], group: str, version: str) -> list[Object]:
    """The same from an ``APIResourceList``."""
    found: dict[str, Object] = {}
    subresources: list[tuple[str, str, Object]] = []
    for one in document.get("resources") or ():
        plural, _, subresource = str(one.get("name") or "").partition("/")
        kind = {
            "group": one.get("group") or group,
            "version": one.get("version") or version,
            "kind": one.get("kind") or "",
        }
        made: Object = {"responseKind": kind, "verbs": list(one.get("verbs") or ())}
        if subresource:
            subresources.append((plural, subresource, made))
            continue
        made |= {
            "resource": plural,
            "scope": "Namespaced" if one.get("namespaced") else "Cluster",
            "singularResource": one.get("singularName") or kind["kind"].lower(),
        }
        for key in ("shortNames", "categories"):
            if one.get(key):
                made[key] = list(one[key])
        found[plural] = made
    for plural, subresource, made in subresources:
        owner = found.setdefault(plural, {"resource": plural, "scope": "Namespaced", "verbs": []})
        owner.setdefault("subresources", []).append({"subresource": subresource, **made})
    return list(found.values())


def schema_tag(index: Mapping[str, Any], path: str) -> str | None:
    """The hash under which another server offers the OpenAPI v3 document of a path; None when it has none."""
    entry = (index.get("paths") or {}).get(path)
    if not isinstance(entry, Mapping):
        return None
    return str(entry.get("serverRelativeURL") or "").partition("hash=")[2]
