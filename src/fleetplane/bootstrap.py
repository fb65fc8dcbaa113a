"""What a new plane holds before anyone asks: namespaces, the ``kubernetes`` Service, priority classes.

Every object is created only where it is absent, so a start changes nothing a user changed; the default StorageClass is
offered once (see ``offer_storage``).
"""

from __future__ import annotations

import ipaddress

from fleetplane.client.protocol import Client
from fleetplane.model import objects
from fleetplane.model.builtin import types
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType
from fleetplane.model.schema.formats import is_ip
from fleetplane.settings import Settings

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


async def bootstrap(client: Client, settings: Settings, port: int) -> None:
    """Create what is missing."""
    for name in SYSTEM_NAMESPACES:
        await _ensure(client, types.NAMESPACES, {"metadata": {"name": name}})
    for name, value, description in _PRIORITY_CLASSES:
        await _ensure(
            client, types.PRIORITY_CLASSES, {"metadata": {"name": name}, "value": value, "description": description}
        )
    # A node of ours serves Services itself, so it reads them under its own identity.
    await _ensure(
        client,
        types.CLUSTER_ROLE_BINDINGS,
        {
            "metadata": {"name": "fleetplane:node-proxier"},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "system:node-proxier"},
            "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": "system:nodes"}],
        },
    )
    await _publish_kubernetes(client, settings, port)


_RBAC = "rbac.authorization.k8s.io"
_PRIORITY_CLASSES = (
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods the cluster cannot do without; they may move to another node.",
    ),
    ("system-node-critical", 2_000_001_000, "For pods their node cannot do without."),
)


DEFAULT_CLASS = "standard"
_DEFAULT_MARK = "storageclass.kubernetes.io/is-default-class"
_STORAGE_DECIDED = "fleetplane.io/default-storage-class"


async def offer_storage(client: Client, root: str = "") -> None:
    """Make the StorageClass ``standard`` the default, once in the life of a store: claims that name no class get it.

    It is for planes that run the provisioner. Where there is a default class already none is made, an existing
    ``standard`` is left as it is, and one that was deleted or changed stays so: an annotation of kube-system tells that
    this was decided. ``root`` is where nodes make the directories, if not where they usually do.
    """
    annotations = objects.annotations(await client.get(types.NAMESPACES, "kube-system"))
    if _STORAGE_DECIDED in annotations:
        return
    classes = (await client.list(types.STORAGE_CLASSES)).items
    if not any(objects.annotations(one).get(_DEFAULT_MARK) == "true" for one in classes):
        storage_class: Object = {
            "metadata": {"name": DEFAULT_CLASS, "annotations": {_DEFAULT_MARK: "true"}},
            "provisioner": "fleetplane.io/host-path",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        if root:
            storage_class["parameters"] = {"path": root}
        await _ensure(client, types.STORAGE_CLASSES, storage_class)
    decided = {"metadata": {"annotations": {_STORAGE_DECIDED: "decided"}}}
    await client.patch(types.NAMESPACES, "kube-system", decided)


def service_addresses(settings: Settings) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The first address of each network of Services: that of the Service ``kubernetes``, of every family."""
    return [ipaddress.ip_network(one.strip())[1] for one in settings.service_cidrs.split(",")]


async def _publish_kubernetes(client: Client, settings: Settings, port: int) -> None:
    """The ``default/kubernetes`` Service and its EndpointSlice, which lead to this server."""
    address = ipaddress.ip_address(settings.host) if is_ip(settings.host) else ipaddress.ip_address("127.0.0.1")
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service: Object = {
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "clusterIP": str(service_addresses(settings)[0]),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }
    await _ensure(client, types.SERVICES, service)
    endpoints: Object = {
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": f"IPv{address.version}",
        "endpoints": [{"addresses": [str(address)], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
    await client.apply(
        types.ENDPOINT_SLICES, _typed(types.ENDPOINT_SLICES, endpoints), "default", field_manager="fleetplane"
    )


def _typed(resource: ResourceType, obj: Object) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


async def _ensure(client: Client, resource: ResourceType, obj: Object) -> None:
    try:
        await client.create(resource, _typed(resource, obj), obj["metadata"].get("namespace"))
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
