"""What is served: every resource, in every version, in every logical cluster.

Built-in resources are the same for all clusters and are made once; custom ones come and go with their definitions. A
``Served`` is everything the stages need to know of one (group, version, resource); the versions of one kind share a
``Storage``, which says how its objects are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from fleetplane.apiserver.kinds import BEHAVIOURS
from fleetplane.apiserver.kinds.behaviour import GENERIC, KindBehaviour
from fleetplane.model.builtin import BuiltinResource, catalog, definitions
from fleetplane.model.builtin.conversion import convert as convert_builtin
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.schema import Schema, SchemaSet
from fleetplane.model.table import Column

if TYPE_CHECKING:
    from fleetplane.apiserver.rules import RuleSet

GroupVersionPlural = tuple[str, str, str]
Converter = Callable[[Sequence[Object], str], Any]
"""``await converter(objects, api_version)`` -> the objects in that version. Raises ApiError."""

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(slots=True)
class Storage:
    """How the objects of one kind are kept: under one group and plural, in one version, whatever version is served.

    ``generation`` changes whenever stored bytes might no longer be what the schema says; it is part of the encoding a
    row records, so that stale rows are found.
    """

    group: str
    plural: str
    version: str
    generation: str = "1"

    @property
    def encoding(self) -> str:
        return f"{self.version}:{self.generation}"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(slots=True)
class Scale:
    """JSON paths (as key tuples) that the scale subresource reads and writes."""

    spec_replicas: tuple[str, ...]
    status_replicas: tuple[str, ...]
    label_selector: tuple[str, ...] | None


@dataclass(slots=True)
class Served:
    """One resource in one version, as the stages need it.

    ``subresources`` maps a name to the (apiVersion, kind) that travels there.
    """

    type: ResourceType
    storage: Storage
    behaviour: KindBehaviour
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    raw_schema: Callable[[], Object | None] = lambda: None
    make_schema: Callable[[], Schema | None] = lambda: None
    columns: tuple[Column, ...] = ()
    custom: bool = False
    preferred: bool = False
    definition: str = ""
    scale: Scale | None = None
    converter: Converter | None = None
    handler: Callable[[Any], Awaitable[Any]] | None = None
    """Answers every call on the resource itself, for resources that are not kept."""
    deprecated: str = ""
    terminating: bool = False
    _rules: RuleSet | None = None
    _schema: Schema | None = None
    _schema_made: bool = False

    @property
    def schema(self) -> Schema | None:
        if not self._schema_made:
            self._schema = self.make_schema()
            self._schema_made = True
        return self._schema

    def rules(self) -> RuleSet:
        """The CEL rules of the schema. Only for resources that have one."""
        if self._rules is None:
            if self.schema is None:
                raise RuntimeError("a resource without a schema has no rules")
            from fleetplane.apiserver.rules import RuleSet  # noqa: PLC0415 - CEL is loaded where there are rules

            self._rules = RuleSet(self.schema)
        return self._rules

    @property
    def is_storage_version(self) -> bool:
        return self.type.version == self.storage.version and self.type.group == self.storage.group


@dataclass(frozen=True, slots=True, eq=False)
class Swagger:
    """What another server's OpenAPI v2 document adds to ours (JSON of ``paths`` and ``definitions``), and its ETag."""

    tag: str
    body: bytes


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """A group and version another server serves, as discovery tells it (``APIResourceDiscovery`` objects).

    ``schema_tag`` is the hash of its OpenAPI v3 document, None where it has none; ``stale`` is set while the server does
    not answer. ``swagger`` is None where it has no OpenAPI v2, or none that can be used.
    """

    resources: tuple[Object, ...]
    schema_tag: str | None = None
    stale: bool = False
    swagger: Swagger | None = None


@cache
def _builtin_schemas() -> SchemaSet:
    return SchemaSet(definitions())


def _serve_builtin(entry: BuiltinResource) -> Served:
    group, version = entry.stored_as
    behaviour = BEHAVIOURS.get((group, entry.type.kind), GENERIC)
    return Served(
        type=entry.type,
        storage=Storage(group, entry.type.plural, version),
        behaviour=behaviour,
        verbs=entry.verbs,
        subresources={
            sub.name: (f"{sub.group}/{sub.version}" if sub.group else sub.version, sub.kind)
            for sub in entry.subresources
        },
        raw_schema=lambda: definitions().get(entry.definition),
        make_schema=lambda: _builtin_schemas().named(entry.definition) if entry.definition else None,
        columns=behaviour.columns,
        preferred=entry.preferred,
        definition=entry.definition,
        scale=Scale(("spec", "replicas"), ("status", "replicas"), ("status", "selector"))
        if any(sub.name == "scale" for sub in entry.subresources)
        else None,
    )


async def convert_builtins(objects: Sequence[Object], api_version: str) -> list[Object]:
    return [convert_builtin(obj, api_version) for obj in objects]


class Registry:
    """All that is served. Changes are atomic from the point of view of one event-loop step."""

    def __init__(self, extra: Sequence[Served] = ()) -> None:
        self._builtin: dict[GroupVersionPlural, Served] = {}
        for entry in catalog():
            served = _serve_builtin(entry)
            served.converter = convert_builtins
            self._builtin[(entry.type.group, entry.type.version, entry.type.plural)] = served
        for served in extra:
            self._builtin[(served.type.group, served.type.version, served.type.plural)] = served
        self._custom: dict[str, dict[GroupVersionPlural, Served]] = {}
        self._remote: dict[str, dict[tuple[str, str], RemoteVersion]] = {}
        self.generation = 0
        """Rises with every change, so that discovery and OpenAPI documents know when they are stale."""

    def find(self, cluster: str, group: str, version: str, plural: str) -> Served | None:
        key = (group, version, plural)
        found = self._builtin.get(key)
        if found is None:
            custom = self._custom.get(cluster)
            found = custom.get(key) if custom else None
        return found

    def find_anywhere(self, group: str, version: str, plural: str) -> Served | None:
        """The resource in whichever cluster serves it, for requests over all clusters."""
        key = (group, version, plural)
        if key in self._builtin:
            return self._builtin[key]
        return next((custom[key] for custom in self._custom.values() if key in custom), None)

    def find_kind(self, cluster: str, group: str, kind: str, version: str | None = None) -> Served | None:
        """By kind; the preferred version when none is named."""
        matching = [
            one
            for one in self.all(cluster)
            if one.type.group == group and one.type.kind == kind and (version is None or one.type.version == version)
        ]
        return next((one for one in matching if one.preferred), matching[0] if matching else None)

    def find_plural(self, cluster: str, group: str, plural: str) -> Served | None:
        """By plural, in the version it is stored in where that is served."""
        matching = [one for one in self.all(cluster) if one.type.group == group and one.type.plural == plural]
        return next((one for one in matching if one.is_storage_version), matching[0] if matching else None)

    def all(self, cluster: str) -> Iterator[Served]:
        """Everything served in a cluster, built-in groups first."""
        yield from self._builtin.values()
        yield from self._custom.get(cluster, {}).values()

    def custom(self, cluster: str) -> Mapping[GroupVersionPlural, Served]:
        return self._custom.get(cluster, {})

    def replace_custom(self, cluster: str, group: str, plural: str, served: Sequence[Served]) -> None:
        """Serve these versions of a custom resource and no others; an empty sequence ends it."""
        custom = dict(self._custom.get(cluster, {}))
        for key in [key for key in custom if key[0] == group and key[2] == plural]:
            del custom[key]
        for one in served:
            custom[(one.type.group, one.type.version, one.type.plural)] = one
        self._custom[cluster] = custom
        self.generation += 1

    def remote(self, cluster: str) -> Mapping[tuple[str, str], RemoteVersion]:
        """What other servers serve in a cluster, by (group, version)."""
        return self._remote.get(cluster, {})

    def replace_remote(self, cluster: str, key: tuple[str, str], version: RemoteVersion | None) -> None:
        """Tell of a version another server serves; None ends it."""
        remote = dict(self._remote.get(cluster, {}))
        if version is None:
            remote.pop(key, None)
        else:
            remote[key] = version
        if remote:
            self._remote[cluster] = remote
        else:
            self._remote.pop(cluster, None)
        self.generation += 1

    def drop_cluster(self, cluster: str) -> None:
        self._remote.pop(cluster, None)
        if self._custom.pop(cluster, None) is not None:
            self.generation += 1
