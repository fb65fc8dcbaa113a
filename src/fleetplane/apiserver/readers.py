"""How the server's own stages read objects: straight from the store, in the storage version, without a request.

An admission plug-in gets what it said it reads (``AdmissionPlugin.reads``) from views instead. A view is as new as the last
write that this server has answered, so an edit holds for the very next request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleetplane.apiserver.admission.views import View
from fleetplane.apiserver.encoding import decode
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.apiserver.selection import narrow
from fleetplane.apiserver.storage import ObjectStorage, key_of
from fleetplane.model.admission import Reader
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceRef, ResourceType, resource_of

Views = Mapping[tuple[str, str], View]
"""By group and plural."""
_NO_VIEWS: Views = {}


class StoreReader:
    """Reads any served resource of any cluster; what is not served does not exist."""

    def __init__(self, storage: ObjectStorage, registry: Registry) -> None:
        self._storage = storage
        self._registry = registry

    def _served(self, cluster: str, resource: ResourceType) -> Served | None:
        return self._registry.find(cluster, resource.group, resource.version, resource.plural)

    async def get(self, cluster: str, resource: ResourceType, namespace: str, name: str) -> Object | None:
        served = self._served(cluster, resource)
        if served is None:
            return None
        record = await self._storage.store.get(key_of(served, cluster, namespace, name))
        return None if record is None else decode(record)

    async def list(
        self, cluster: str, resource: ResourceType, namespace: str | None = None, *, labels: str | None = None
    ) -> Sequence[Object]:
        served = self._served(cluster, resource)
        if served is None:
            return []
        narrowed = narrow(served, cluster, namespace or "", {"labelSelector": labels or ""})
        found: list[Object] = []
        async for page in self._storage.store.stream(narrowed.selection):
            found += [decode(one) for one in page.records if narrowed.matches is None or narrowed.matches(one)]
        return found

    def in_cluster(self, cluster: str, views: Views = _NO_VIEWS) -> Reader:
        """The admission ``Reader`` of one cluster, by id. What there are ``views`` of, these answer for."""
        return _ClusterReader(self, views, cluster)


class _ClusterReader:
    __slots__ = ("_cluster", "_reader", "_views")

    def __init__(self, reader: StoreReader, views: Views, cluster: str) -> None:
        self._reader = reader
        self._views = views
        self._cluster = cluster

    async def get(self, resource: ResourceRef, name: str, namespace: str | None = None) -> Object | None:
        kind = resource_of(resource)
        view = self._views.get((kind.group, kind.plural))
        if view is not None:
            return view.get(self._cluster, name, namespace or "")
        return await self._reader.get(self._cluster, kind, namespace or "", name)

    async def list(
        self, resource: ResourceRef, namespace: str | None = None, *, labels: str | None = None
    ) -> Sequence[Object]:
        return await self._reader.list(self._cluster, resource_of(resource), namespace, labels=labels)
