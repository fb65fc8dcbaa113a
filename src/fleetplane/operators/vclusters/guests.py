"""Which virtual cluster a guest's object belongs to, and the two sides' caches that everything else asks.

``guests`` are objects in logical clusters, ``hosts`` their copies in root, in the namespace of the Vk8s. A copy says for
whom it is there: an annotation with cluster, namespace and name, and one with the uid, so that a copy of a dead object
is never taken for that of its successor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from fleetplane.client.index import by_label
from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller import Manager, Request
from fleetplane.model.builtin.types import PODS, SERVICES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.model.resources import ResourceRef
from fleetplane.operators.vclusters import names
from fleetplane.operators.vclusters.admission import HOST_SCHEDULER
from fleetplane.operators.vclusters.kinds import LOGICAL_CLUSTERS, NETWORK, OWNER, OWNER_UID, STOPPED, Vk8s
from fleetplane.operators.vclusters.translate import Guest

ROOT: Final = "root"
OF_HOST: Final = f"spec.schedulerName={HOST_SCHEDULER}"
_BY_NODE: Final = "guest node"
_BY_CLUSTER: Final = "guest cluster"
_BY_OWNER: Final = "guest owner"


class Guests:
    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.clusters = manager.informer(LOGICAL_CLUSTERS)
        self.vclusters = manager.informer(Vk8s)
        self.pods = manager.informer(PODS, fields=OF_HOST, everywhere=True)
        self.pods.add_index(_BY_NODE, _node)
        self.host_pods = manager.informer(PODS, labels=OWNER_UID)
        self.services = manager.informer(SERVICES, everywhere=True)
        self.services.add_index(_BY_CLUSTER, lambda snapshot: [snapshot.key.cluster])
        self.host_services = manager.informer(SERVICES, labels=OWNER_UID)

    # -- whose is it

    def vcluster(self, cluster: str) -> Object | None:
        """The Vk8s behind a logical cluster; None for clusters that are none of ours."""
        found = self.clusters.get_key(ObjectKey(ROOT, "", cluster))
        if found is None or is_deleting(found):
            return None
        namespace, _, name = annotations_of(found).get(OWNER, "").partition("/")
        owner = self.vclusters.get_key(ObjectKey(ROOT, namespace, name))
        return owner if owner is not None and uid(owner) == labels(found).get(OWNER_UID) else None

    def guest(self, cluster: str) -> Guest | None:
        """What pods of a cluster need to know of it; None for clusters that are none of ours, or are going."""
        owner, found = self.vcluster(cluster), self.clusters.get_key(ObjectKey(ROOT, "", cluster))
        if owner is None or found is None or is_deleting(owner):
            return None
        meta = metadata(owner)
        reference = {"apiVersion": Vk8s.resource.api_version, "kind": Vk8s.resource.kind, "name": meta["name"]}
        return Guest(
            cluster,
            uid(found),
            meta["name"],
            meta["namespace"],
            meta["uid"],
            reference | {"uid": meta["uid"], "blockOwnerDeletion": False},
            self._services(cluster, meta["name"], meta["namespace"]),
        )

    def _services(self, cluster: str, name: str, namespace: str) -> list[tuple[str, str, str, list[Object]]]:
        found = []
        for service in self.services.by_index(_BY_CLUSTER, cluster):
            meta = metadata(service)
            copy_name = names.host_name(meta["name"], meta["namespace"], name)
            copy = self.host_services.get_key(ObjectKey(ROOT, namespace, copy_name))
            spec = (copy or {}).get("spec") or {}
            if spec.get("clusterIP"):
                found.append((meta["namespace"], meta["name"], str(spec["clusterIP"]), list(spec.get("ports") or ())))
        return sorted(found, key=lambda one: one[:2])

    def is_asleep(self, cluster: str) -> bool:
        """Whether its pods must not run now."""
        owner = self.vcluster(cluster)
        if owner is None:
            return True
        known = annotations_of(owner)
        asleep = (owner.get("status") or {}).get("asleepSince")
        return is_deleting(owner) or STOPPED in known or bool(asleep) or known.get(NETWORK) == "false"

    def on_node(self, cluster: str, node: str) -> list[Snapshot]:
        """A cluster's pods on a node."""
        return list(self.pods.snapshots_by_index(_BY_NODE, f"{cluster}/{node}"))

    def clusters_on(self, node: str) -> set[str]:
        return {
            value.partition("/")[0] for value in self.pods.index_values(_BY_NODE) if value.partition("/")[2] == node
        }

    def client(self, cluster: str) -> Client:
        return self.manager.client.in_cluster(cluster)

    @property
    def root(self) -> Client:
        return self.manager.client.in_cluster(ROOT)


def guest_key(obj: Object) -> Request | None:
    """Whose copy an object of the host is."""
    parts = annotations_of(obj).get(names.GUEST, "").split("/")
    return Request(*parts) if len(parts) == 3 else None


def is_copy_of(copy: Object, obj: Object) -> bool:
    return annotations_of(copy).get(names.GUEST_UID) == uid(obj)


def to_guest(snapshot: Snapshot) -> Iterable[Request]:
    """For watches on the host: the guest's object."""
    key = guest_key(snapshot.object)
    return [key] if key is not None else []


async def delete(client: Client, resource: ResourceRef, obj: Object, grace: int | None = None) -> None:
    """Delete exactly this object; fine if it is gone."""
    meta = metadata(obj)
    try:
        await client.delete(resource, meta["name"], meta.get("namespace"), uid=uid(obj), grace_period_seconds=grace)
    except ApiError as error:
        if error.code not in {404, 409}:
            raise


def woken_by_vcluster(informer: Informer, clusters: Informer) -> Callable[[Snapshot], Iterable[Request]]:
    """All objects of an informer that belong to a Vk8s: pausing and resuming concern every one of them."""
    clusters.add_index(_BY_OWNER, by_label(OWNER_UID))
    informer.add_index(_BY_CLUSTER, lambda snapshot: [snapshot.key.cluster])

    def wake(snapshot: Snapshot) -> Iterable[Request]:
        for cluster in clusters.snapshots_by_index(_BY_OWNER, snapshot.uid):
            for found in informer.snapshots_by_index(_BY_CLUSTER, cluster.key.name):
                yield found.key

    return wake


def _node(snapshot: Snapshot) -> Iterable[str]:
    node = (snapshot.object.get("spec") or {}).get("nodeName")
    return [f"{snapshot.key.cluster}/{node}"] if node else []
