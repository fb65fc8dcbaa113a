"""Discovery: what is served, told in the three forms clients ask for.

Per group (``/api``, ``/apis``, ``/apis/<group>``, ``/apis/<group>/<version>``) for everyone, and aggregated (``v2`` and
``v2beta1`` of apidiscovery.k8s.io) for those whose Accept header says so. Documents are made once per change of what is
served, and carry an ETag.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from fleetplane.apiserver.http import JSON, Request, Response
from fleetplane.apiserver.negotiation import PROTOBUF, parse_accept
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.apiserver.routing import Target
from fleetplane.model.objects import Object, split_api_version

_SUBRESOURCE_VERBS: Mapping[str, tuple[str, ...]] = {
    "status": ("get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "finalize": ("update",),
    "approval": ("get", "patch", "update"),
    "ephemeralcontainers": ("get", "patch", "update"),
    "resize": ("get", "patch", "update"),
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
    "log": ("get",),
    "exec": ("create", "get"),
    "attach": ("create", "get"),
    "portforward": ("create", "get"),
    "proxy": ("create", "delete", "get", "patch", "update"),
}


class Discovery:
    """Answers discovery requests from a registry."""

    def __init__(self, registry: Registry, server_address: str = "") -> None:
        self._registry = registry
        self._server_address = server_address
        self._made: dict[tuple[str, str], tuple[int, bytes]] = {}

    def answer(self, request: Request, target: Target, cluster: str) -> Response | None:
        """The discovery document of a path, None when the path is not one."""
        path = target.path
        if path in ("/api", "/apis"):
            wanted = _aggregated_version(request.headers.get("accept", ""))
            if wanted:
                return self._aggregated(request, cluster, wanted, core=path == "/api")
            make = self._core_versions if path == "/api" else self._groups
            return self._cached(cluster, path, make)
        parts = path.split("/")[1:]
        if parts[0] == "api" and len(parts) == 2:
            return self._resources(cluster, "", parts[1], path)
        if parts[0] == "apis" and len(parts) == 2:
            return self._group(cluster, parts[1], path)
        if parts[0] == "apis" and len(parts) == 3:
            return self._resources(cluster, parts[1], parts[2], path)
        return None

    def _cached(self, cluster: str, path: str, make: Any) -> Response:
        key = (cluster, path)
        made = self._made.get(key)
        if made is None or made[0] != self._registry.generation:
            made = self._made[key] = (self._registry.generation, orjson.dumps(make(cluster)))
        return Response(200, made[1])

    def _core_versions(self, _cluster: str) -> Object:
        return {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._server_address}],
        }

    def _by_group(self, cluster: str) -> dict[str, dict[str, list[Served]]]:
        """group -> version -> resources, groups and versions in order of preference."""
        found: dict[str, dict[str, list[Served]]] = {}
        for one in self._registry.all(cluster):
            found.setdefault(one.type.group, {}).setdefault(one.type.version, []).append(one)
        return {group: dict(sorted(versions.items(), key=_version_order)) for group, versions in found.items()}

    def _versions(self, cluster: str) -> dict[str, list[str]]:
        """group -> versions, in order of preference; those of other servers too."""
        found = {group: list(versions) for group, versions in self._by_group(cluster).items() if group}
        for group, version in sorted(self._registry.remote(cluster)):
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
                versions.sort(key=lambda one: _version_order((one, None)))
        return found

    def _groups(self, cluster: str) -> Object:
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [_group_object(group, versions) for group, versions in self._versions(cluster).items()],
        }

    def _group(self, cluster: str, group: str, path: str) -> Response | None:
        versions = self._versions(cluster).get(group)
        if not versions:
            return None
        made = {"kind": "APIGroup", "apiVersion": "v1"} | _group_object(group, versions)
        return self._cached(cluster, path, lambda _cluster: made)

    def _resources(self, cluster: str, group: str, version: str, path: str) -> Response | None:
        def make(cluster: str) -> Object:
            served = [
                one for one in self._registry.all(cluster) if (one.type.group, one.type.version) == (group, version)
            ]
            resources: list[Object] = []
            for one in sorted(served, key=lambda one: one.type.plural):
                resources += _api_resources(one)
            group_version = f"{group}/{version}" if group else version
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": group_version,
                "resources": resources,
            }

        if not any((one.type.group, one.type.version) == (group, version) for one in self._registry.all(cluster)):
            return None
        return self._cached(cluster, path, make)

    def _aggregated(self, request: Request, cluster: str, version: str, *, core: bool) -> Response:
        def make(cluster: str) -> Object:
            items: list[Object] = []
            for group, versions in self._by_group(cluster).items():
                if (group == "") is not core:
                    continue
                items.append(
                    {
                        "metadata": {"name": group, "creationTimestamp": None}
                        if group
                        else {"creationTimestamp": None},
                        "versions": [
                            {
                                "version": name,
                                "resources": [
                                    _aggregated_resource(one) for one in sorted(served, key=lambda one: one.type.plural)
                                ],
                                "freshness": "Current",
                            }
                            for name, served in versions.items()
                        ],
                    }
                )
            if not core:
                self._add_remote(cluster, items)
            return {
                "kind": "APIGroupDiscoveryList",
                "apiVersion": f"apidiscovery.k8s.io/{version}",
                "metadata": {},
                "items": items,
            }

        response = self._cached(cluster, f"{'/api' if core else '/apis'}#{version}", make)
        response.content_type = f"{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        tag = f'"{hashlib.sha256(response.body).hexdigest()[:32].upper()}"'
        response.headers |= {"ETag": tag, "Vary": "Accept", "Cache-Control": "public"}
        if request.headers.get("if-none-match") == tag:
            return Response(304, b"", response.content_type, dict(response.headers))
        return response

    def _add_remote(self, cluster: str, items: list[Object]) -> None:
        """What other servers serve, in groups of their own or among ours."""
        for (group, version), remote in sorted(self._registry.remote(cluster).items()):
            item = next((one for one in items if one["metadata"].get("name") == group), None)
            if item is None:
                item = {"metadata": {"name": group, "creationTimestamp": None}, "versions": []}
                items.append(item)
            freshness = "Stale" if remote.stale else "Current"
            told = {"version": version, "resources": list(remote.resources), "freshness": freshness}
            item["versions"] = [one for one in item["versions"] if one["version"] != version]
            item["versions"].append(told)
            item["versions"].sort(key=lambda one: _version_order((one["version"], None)))


def _aggregated_version(accept: str) -> str:
    """The version of apidiscovery.k8s.io asked for first, empty when plain discovery is."""
    for media in parse_accept(accept):
        if media.name == PROTOBUF:
            continue
        if media.parameters.get("as") == "APIGroupDiscoveryList" and media.name == JSON:
            version = media.parameters.get("v", "")
            if version in ("v2", "v2beta1"):
                return version
        elif media.name in (JSON, "*/*", "application/*") and "as" not in media.parameters:
            return ""
    return ""


def _version_order(item: tuple[str, Any]) -> tuple[int, int, int]:
    """Stable before beta before alpha, higher first (KEP-less rule of the API version priority)."""
    name = item[0].removeprefix("v")
    for rank, word in ((2, "alpha"), (1, "beta")):
        major, found, minor = name.partition(word)
        if found:
            return rank, -_int(major), -_int(minor)
    return (0, -_int(name), 0) if name.isdigit() else (3, 0, 0)


def _int(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _group_object(group: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _api_resources(served: Served) -> list[Object]:
    resource = served.type
    main: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": sorted(served.verbs),
    }
    if resource.short_names:
        main["shortNames"] = list(resource.short_names)
    if resource.categories:
        main["categories"] = list(resource.categories)
    if "list" in served.verbs:
        main["storageVersionHash"] = _storage_version_hash(served)
    listed = [main]
    for name, (api_version, kind) in sorted(served.subresources.items()):
        group, version = split_api_version(api_version)
        entry: Object = {
            "name": f"{resource.plural}/{name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": kind,
            "verbs": list(_SUBRESOURCE_VERBS.get(name, ("get", "patch", "update"))),
        }
        if (group, version) != (resource.group, resource.version):
            entry |= {"group": group, "version": version}
        listed.append(entry)
    return listed


def _storage_version_hash(served: Served) -> str:
    text = f"{served.storage.group}/{served.storage.version}/{served.type.kind}"

    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def _aggregated_resource(served: Served) -> Object:
    resource = served.type
    made: Object = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular or resource.kind.lower(),
        "verbs": sorted(served.verbs),
    }
    if resource.short_names:
        made["shortNames"] = list(resource.short_names)
    if resource.categories:
        made["categories"] = list(resource.categories)
    subresources = []
    for name, (api_version, kind) in sorted(served.subresources.items()):
        group, version = split_api_version(api_version)
        subresources.append(
            {
                "subresource": name,
                "responseKind": {"group": group, "version": version, "kind": kind},
                "verbs": list(_SUBRESOURCE_VERBS.get(name, ("get", "patch", "update"))),
            }
        )
    if subresources:
        made["subresources"] = subresources
    return made
