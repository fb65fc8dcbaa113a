"""The informers of one manager, shared: two controllers that watch Pods cost one watch and one copy.

Their objects come without ``managedFields`` unless somebody asks an informer to keep them.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef, ResourceType, resource_of


class _Scope(NamedTuple):
    group: str
    version: str
    plural: str
    namespace: str | None
    labels: str | None
    fields: str | None
    everywhere: bool


class Informers:
    """Gives out informers and runs them. May be asked at any time; what is asked for while running starts at once."""

    def __init__(self, client: Client, environment: Environment) -> None:
        self._client = client
        self._environment = environment
        self._informers: dict[_Scope, Informer] = {}
        self._everywhere: set[Informer] = set()
        self._by_resource: dict[tuple[str, str, str], list[Informer]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def get(
        self,
        resource: ResourceRef,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        decoded: int = 0,
        everywhere: bool = False,
    ) -> Informer:
        """``everywhere``: over all logical clusters, whatever the manager's own; the server has to allow that."""
        kind = resource_of(resource)
        scope = _Scope(kind.group, kind.version, kind.plural, namespace, labels, fields, everywhere)
        found = self._informers.get(scope)
        if found is None:
            found = Informer(
                self._client.in_cluster(None) if everywhere else self._client,
                kind,
                self._environment,
                namespace=namespace,
                labels=labels,
                fields=fields,
                managed_fields=False,
            )
            self._informers[scope] = found
            if everywhere:
                self._everywhere.add(found)
            self._by_resource.setdefault(scope[:3], []).append(found)
            self._start(found)
        found.keep_decoded(decoded)
        return found

    def of(self, kind: ResourceType) -> list[Informer]:
        """Every informer of a resource, whatever its scope."""
        return self._by_resource.get((kind.group, kind.version, kind.plural), [])

    def observe(self, kind: ResourceType, cluster: str, _obj: Object, encoded: bytes) -> None:
        """A ``WriteObserver``: what we wrote is seen without waiting for the watch."""
        elsewhere = self._client.cluster not in {None, cluster}
        for informer in self.of(kind):
            if not elsewhere or informer in self._everywhere:
                informer.observe(encoded, cluster)

    @property
    def all(self) -> list[Informer]:
        return list(self._informers.values())

    @property
    def have_synced(self) -> bool:
        return all(informer.has_synced for informer in self._informers.values())

    def start(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        for informer in self.all:
            self._start(informer)

    def stop(self) -> None:
        self._group = None
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    def _start(self, informer: Informer) -> None:
        if self._group is not None:
            self._tasks.append(self._group.create_task(informer.run(), name=f"informer {informer.resource.qualified}"))
