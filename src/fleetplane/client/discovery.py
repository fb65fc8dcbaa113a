"""Which resources a server has, and finding one by whatever name people or owner references use.

One request where the server aggregates discovery (KEP-3352), else one per group version. A ``Catalogue`` is an immutable
picture of one moment; ``Discovery`` keeps the latest and looks again when it is asked for something it does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from fleetplane.client.protocol import Client
from fleetplane.model.environment import Environment
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, split_api_version
from fleetplane.model.resources import ResourceType

AGGREGATED: Final = ",".join(
    (
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        "application/json",
    )
)
REFRESH_SECONDS: Final = 2.0
"""A name that is not known makes us look again, but not more often than this."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """One resource in one version. ``subresources`` are names (``status``, ``scale``)."""

    type: ResourceType
    verbs: frozenset[str]
    subresources: frozenset[str] = frozenset()


class Catalogue:
    """What a server had at one moment, in its order: core first, each group's preferred version first."""

    def __init__(self, resources: Sequence[Discovered]) -> None:
        self.resources = tuple(resources)
        self._by_kind = {(one.type.api_version, one.type.kind): one for one in reversed(self.resources)}

    def by_kind(self, api_version: str, kind: str) -> Discovered | None:
        """As an object or owner reference names its kind."""
        return self._by_kind.get((api_version, kind))

    def by_group_kind(self, group: str, kind: str) -> Discovered | None:
        """In whatever version the group prefers."""
        found = (one for one in self.resources if one.type.group == group and one.type.kind == kind)
        return next(found, None)

    def by_owner(self, api_version: str, kind: str) -> Discovered | None:
        """As an owner reference means it: a version that is no longer served falls back to the preferred one."""
        return self.by_kind(api_version, kind) or self.by_group_kind(split_api_version(api_version)[0], kind)

    def find(self, text: str) -> Discovered | None:
        """By plural, singular, kind or short name, with ``.group`` or ``.version.group`` behind it where wanted.

        As kubectl resolves names: case does not matter, the longest reading of the suffix wins, full names win over
        short ones, and what the server lists first wins over the rest.
        """
        wanted, _, suffix = text.lower().partition(".")
        version, _, group = suffix.partition(".")
        readings = [(version, group), ("", suffix)] if suffix else [("", None)]
        for names in (_full_names, _short_names):
            for in_version, in_group in readings:
                for one in self.resources:
                    if in_version and one.type.version != in_version:
                        continue
                    if in_group is not None and not _is_group(one.type.group, in_group, exact=bool(in_version)):
                        continue
                    if wanted in names(one.type):
                        return one
        return None

    def in_category(self, category: str) -> list[Discovered]:
        """``all``, ``api-extensions``…: each resource once, in its preferred version."""
        found: dict[tuple[str, str], Discovered] = {}
        for one in self.resources:
            if category in one.type.categories:
                found.setdefault((one.type.group, one.type.plural), one)
        return list(found.values())

    def preferred(self) -> list[Discovered]:
        """Every resource once, in its preferred version."""
        found: dict[tuple[str, str], Discovered] = {}
        for one in self.resources:
            found.setdefault((one.type.group, one.type.plural), one)
        return list(found.values())


@dataclass
class Discovery:
    """The latest catalogue. Concurrent callers share one look at the server."""

    client: Client
    environment: Environment
    _catalogue: Catalogue | None = None
    _looked_at: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def catalogue(self) -> Catalogue:
        return self._catalogue or await self.refresh()

    async def refresh(self) -> Catalogue:
        async with self._lock:
            if self._catalogue is None or self._may_look_again():
                self._catalogue = await discover(self.client)
                self._looked_at = self.environment.monotonic()
            return self._catalogue

    async def find(self, text: str) -> Discovered:
        """Raises ApiError 404, worded for people."""
        found = (await self.catalogue()).find(text) or (await self.refresh()).find(text)
        if found is None:
            raise ApiError(404, f'the server doesn\'t have a resource type "{text}"', reason="NotFound")
        return found

    async def by_kind(self, api_version: str, kind: str) -> Discovered:
        """The resource an owner reference means. Raises ApiError 404."""
        found = (await self.catalogue()).by_owner(api_version, kind)
        found = found or (await self.refresh()).by_owner(api_version, kind)
        if found is not None:
            return found
        raise ApiError(404, f'no matches for kind "{kind}" in version "{api_version}"', reason="NotFound")

    def _may_look_again(self) -> bool:
        return self.environment.monotonic() - self._looked_at >= REFRESH_SECONDS


async def discover(client: Client) -> Catalogue:
    """Ask the server once. A group that cannot be asked (its aggregated server is down) is left out."""
    found: list[Discovered] = []
    for root in ("/api", "/apis"):
        answer = orjson.loads(await client.raw("GET", root, headers={"accept": AGGREGATED}))
        if answer.get("kind") == "APIGroupDiscoveryList":
            found += from_aggregated(answer)
            continue
        versions = answer.get("versions") or [
            version["groupVersion"] for group in answer.get("groups") or [] for version in _preferred_first(group)
        ]
        lists = await asyncio.gather(*(_resource_list(client, f"{root}/{version}") for version in versions))
        found += [one for resources in lists for one in from_resource_list(resources)]
    return Catalogue(found)


def from_aggregated(answer: Mapping[str, Any]) -> list[Discovered]:
    found = []
    for group in answer.get("items") or []:
        for version in group.get("versions") or []:
            for one in version.get("resources") or []:
                kind = one.get("responseKind") or {}
                found.append(
                    Discovered(
                        ResourceType(
                            group=str((group.get("metadata") or {}).get("name") or ""),
                            version=str(version["version"]),
                            kind=str(kind.get("kind") or ""),
                            plural=str(one["resource"]),
                            namespaced=one.get("scope") == "Namespaced",
                            singular=str(one.get("singularResource") or ""),
                            short_names=tuple(one.get("shortNames") or ()),
                            categories=tuple(one.get("categories") or ()),
                        ),
                        frozenset(one.get("verbs") or ()),
                        frozenset(sub["subresource"] for sub in one.get("subresources") or ()),
                    )
                )
    return found


def from_resource_list(answer: Mapping[str, Any]) -> list[Discovered]:
    group, version = split_api_version(str(answer.get("groupVersion") or ""))
    entries = answer.get("resources") or []
    subresources: dict[str, set[str]] = {}
    for one in entries:
        plural, _, sub = str(one["name"]).partition("/")
        if sub:
            subresources.setdefault(plural, set()).add(sub)
    return [
        Discovered(
            ResourceType(
                group=group,
                version=version,
                kind=str(one.get("kind") or ""),
                plural=str(one["name"]),
                namespaced=bool(one.get("namespaced")),
                singular=str(one.get("singularName") or ""),
                short_names=tuple(one.get("shortNames") or ()),
                categories=tuple(one.get("categories") or ()),
            ),
            frozenset(one.get("verbs") or ()),
            frozenset(subresources.get(str(one["name"]), ())),
        )
        for one in entries
        if "/" not in one["name"]
    ]


def _preferred_first(group: Mapping[str, Any]) -> list[Object]:
    preferred = (group.get("preferredVersion") or {}).get("groupVersion")
    return sorted(group.get("versions") or [], key=lambda version: version["groupVersion"] != preferred)


async def _resource_list(client: Client, path: str) -> Object:
    try:
        answer: Object = orjson.loads(await client.raw("GET", path))
    except ApiError as error:
        if error.code in {404, 503}:
            return {}
        raise
    return answer


def _full_names(kind: ResourceType) -> Iterable[str]:
    return (kind.plural.lower(), kind.singular.lower() or kind.kind.lower(), kind.kind.lower())


def _short_names(kind: ResourceType) -> Iterable[str]:
    return kind.short_names


def _is_group(group: str, wanted: str, *, exact: bool) -> bool:
    """``deployments.apps`` names its group; a prefix of it at a dot will do (``roles.rbac``)."""
    return group == wanted or (not exact and bool(wanted) and group.startswith(wanted + "."))
