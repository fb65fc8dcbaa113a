"""Which groups and versions are served elsewhere, by logical cluster; fed by a follower of APIServices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleetplane.apiserver.registry import Registry
from fleetplane.model.objects import Object, name

Listener = Callable[[str, Object, bool], None]
"""``listener(cluster, api_service, deleted)``, after the table has changed."""


@dataclass(frozen=True, slots=True)
class Remote:
    """One APIService that leads to a Service."""

    name: str
    group: str
    version: str
    service_namespace: str
    service_name: str
    port: int
    bundle: str
    insecure: bool


def read_remote(service: Object) -> Remote | None:
    """None for a local one, which names no Service."""
    spec = service.get("spec") or {}
    reference = spec.get("service")
    if not reference:
        return None
    return Remote(
        name(service),
        str(spec.get("group") or ""),
        str(spec.get("version") or ""),
        str(reference.get("namespace") or ""),
        str(reference.get("name") or ""),
        int(reference.get("port") or 443),
        str(spec.get("caBundle") or ""),
        bool(spec.get("insecureSkipTLSVerify")),
    )


class Remotes:
    """The table. What Kubernetes itself serves cannot be redirected."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._remotes: dict[str, dict[tuple[str, str], Remote]] = {}
        self._names: dict[tuple[str, str], tuple[str, str]] = {}

    def reset(self) -> None:
        self._remotes.clear()
        self._names.clear()

    def apply(self, cluster: str, service: Object, deleted: bool) -> None:
        before = self._names.pop((cluster, name(service)), None)
        if before is not None:
            self._remotes.get(cluster, {}).pop(before, None)
            if not self._remotes.get(cluster):
                self._remotes.pop(cluster, None)
        remote = None if deleted else read_remote(service)
        if remote is not None and not self._is_ours(cluster, remote):
            key = (remote.group, remote.version)
            self._remotes.setdefault(cluster, {})[key] = remote
            self._names[cluster, remote.name] = key
        elif before is not None:
            self._registry.replace_remote(cluster, before, None)

    def _is_ours(self, cluster: str, remote: Remote) -> bool:
        return any(
            not one.custom and (one.type.group, one.type.version) == (remote.group, remote.version)
            for one in self._registry.all(cluster)
        )

    def find(self, cluster: str, path: str) -> Remote | None:
        """Who serves a path; at no cost where nobody else serves anything."""
        remotes = self._remotes.get(cluster)
        if not remotes:
            return None
        parts = path.split("/", 6)
        if path.startswith("/openapi/v3/apis/"):
            return remotes.get((parts[4], parts[5])) if len(parts) == 6 else None
        if len(parts) > 3 and parts[1] == "apis":
            return remotes.get((parts[2], parts[3]))
        return None

    def of(self, cluster: str) -> Mapping[tuple[str, str], Remote]:
        return self._remotes.get(cluster, {})

    def named(self, cluster: str, service: str) -> Remote | None:
        key = self._names.get((cluster, service))
        return None if key is None else self._remotes[cluster][key]
