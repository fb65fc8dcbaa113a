"""Objects every logical cluster has without a row of its own: the default roles and bindings.

One read-only layer lies under all clusters. A stored object of the same name hides the shared one; deleting it brings the
shared one back; changing a shared one stores it. So ten thousand clusters cost no more roles than one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleetplane.apiserver.encoding import encode
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.apiserver.storage import key_of, terms_of
from fleetplane.model.objects import Object, name, namespace
from fleetplane.store.protocol import Key, Record

SHARED_REVISION = 1


class SharedLayer:
    """The shared objects, as records of whichever cluster is asked about."""

    def __init__(self, registry: Registry, objects: Iterable[Object], created: str) -> None:
        """``created`` is the creationTimestamp they show."""
        self._records: dict[tuple[str, str], dict[tuple[str, str], Record]] = {}
        for obj in objects:
            group, _, version = obj["apiVersion"].rpartition("/")
            served = registry.find_kind("root", group, obj["kind"], version)
            if served is None:
                raise ValueError(f"no such kind is served: {obj['apiVersion']} {obj['kind']}")
            whole = obj | {"metadata": obj["metadata"] | {"creationTimestamp": created}}
            key = key_of(served, "", namespace(whole), name(whole))
            record = Record(
                key,
                whole["metadata"]["uid"],
                SHARED_REVISION,
                0,
                served.storage.encoding,
                encode(whole),
                terms_of(served, whole),
            )
            kept = self._records.setdefault((served.storage.group, served.storage.plural), {})
            kept[(key.namespace, key.name)] = record

    def find(self, key: Key) -> Record | None:
        shared = self._records.get((key.group, key.resource))
        found = shared.get((key.namespace, key.name)) if shared else None
        return None if found is None else _in_cluster(found, key.cluster)

    def of(self, served: Served, cluster: str, namespace: str | None) -> Iterator[Record]:
        """All shared objects of a resource, in key order."""
        shared = self._records.get((served.storage.group, served.storage.plural))
        for (where, _), record in sorted(shared.items()) if shared else ():
            if not namespace or where == namespace:
                yield _in_cluster(record, cluster)


def is_shared(record: Record) -> bool:
    """Whether a record comes from the layer and is not stored."""
    return record.created_revision == 0


def _in_cluster(record: Record, cluster: str) -> Record:
    return Record(
        record.key._replace(cluster=cluster),
        record.uid,
        record.revision,
        record.created_revision,
        record.encoding,
        record.value,
        record.terms,
    )
