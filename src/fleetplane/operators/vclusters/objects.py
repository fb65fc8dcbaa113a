"""Guests' Services, claims, events and nodes: the rest of the data plane, one small controller each.

Services and claims go down and their state comes up; events about the host's pods and the health of its nodes come up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller import Controller, Manager, Request, Result, Watch
from fleetplane.controller.predicates import any_change
from fleetplane.controller.status import update_status
from fleetplane.model.builtin.types import EVENTS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, SERVICES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, metadata
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.model.resources import ResourceType
from fleetplane.operators.vclusters import names
from fleetplane.operators.vclusters.guests import ROOT, Guests, delete, guest_key, is_copy_of, to_guest
from fleetplane.operators.vclusters.kinds import GROUP, OWNER_UID
from fleetplane.operators.vclusters.translate import Guest, marks, virtual_node

FIELD_MANAGER: Final = "vclusters"
DRIVER: Final = "vclusters.fleetplane.io"
"""Of volumes as guests see them: the host's volume is behind the claim of the handle's name."""
HOST_ADDRESS: Final = f"{GROUP}/host-address"
"""On a guest's Service: the address under which its pods reach it."""
NODE_PORTS: Final = f"{GROUP}/node-ports"
_SERVICE_FIELDS: Final = (
    "type",
    "sessionAffinity",
    "sessionAffinityConfig",
    "publishNotReadyAddresses",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "ipFamilyPolicy",
    "loadBalancerClass",
)
_PORT_FIELDS: Final = ("name", "port", "protocol", "targetPort", "appProtocol")
_CLAIM_FIELDS: Final = ("accessModes", "resources", "storageClassName", "volumeMode")


def host_service(service: Mapping[str, Any], guest: Guest) -> Object | None:
    """The Service on the host; None for those that need none (ExternalName, and Services without selector)."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName" or not spec.get("selector"):
        return None
    meta = metadata(service)
    made = {key: spec[key] for key in _SERVICE_FIELDS if key in spec}
    made["ports"] = [{key: port[key] for key in _PORT_FIELDS if key in port} for port in spec.get("ports") or ()]
    if spec.get("clusterIP") == "None":
        made["clusterIP"] = "None"
    selector = {names.label_key(key): value for key, value in spec["selector"].items()}
    made["selector"] = selector | names.ours(meta["namespace"], guest.owner_uid)
    return {"apiVersion": "v1", "kind": "Service", "metadata": marks(guest, service), "spec": made}


def host_claim(claim: Mapping[str, Any], guest: Guest) -> Object:
    spec = claim.get("spec") or {}
    made = {key: spec[key] for key in _CLAIM_FIELDS if key in spec}
    marked = marks(guest, claim)
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": marked, "spec": made}


def _of_guests(
    name: str, resource: ResourceType, reconcile: Callable[[Request], Awaitable[Result | None]]
) -> Controller:
    """For objects of any guest that have a copy in the host's cluster: a change of either is looked at."""
    return Controller(
        name,
        resource,
        reconcile,
        watches=[Watch(resource, to_guest, labels=OWNER_UID)],
        predicate=any_change,
        everywhere=True,
        resync=None,
    )


class Services:
    def __init__(self, manager: Manager, guests: Guests) -> None:
        self._guests = guests

    def controller(self) -> Controller:
        return _of_guests("vcluster-services", SERVICES, self.reconcile)

    async def reconcile(self, request: Request) -> Result | None:
        guest = self._guests.guest(request.cluster) if request.cluster != ROOT else None
        if guest is None:
            return None
        service = self._guests.services.get_key(request)
        key = ObjectKey(ROOT, guest.namespace, guest.host_name(request.name, request.namespace))
        copy = self._guests.host_services.get_key(key)
        wanted = host_service(service, guest) if service is not None and not is_deleting(service) else None
        copy = await settle(self._guests, SERVICES, copy, service, wanted, request)
        if service is not None and copy is not None:
            await self._report(guest, service, copy)
        return None

    async def _report(self, guest: Guest, service: Object, copy: Object) -> None:
        spec = copy.get("spec") or {}
        published = [one for one in spec.get("ports") or () if one.get("nodePort")]
        ports = [f"{one.get('name') or one['port']}={one['nodePort']}" for one in published]
        told = {HOST_ADDRESS: str(spec.get("clusterIP") or ""), NODE_PORTS: ",".join(ports)}
        told = {key: value for key, value in told.items() if value}
        client, meta = self._guests.client(guest.cluster), metadata(service)
        if any(annotations_of(service).get(key) != value for key, value in told.items()):
            patch = {"metadata": {"uid": meta["uid"], "annotations": told}}
            service = await client.patch(SERVICES, meta["name"], patch, meta["namespace"])
        balancer = (copy.get("status") or {}).get("loadBalancer")
        if balancer:
            await update_status(client, SERVICES, service, lambda _: {"loadBalancer": balancer})


class Claims:
    def __init__(self, manager: Manager, guests: Guests) -> None:
        self._guests = guests
        self._claims = manager.informer(PERSISTENT_VOLUME_CLAIMS, everywhere=True)
        self._copies = manager.informer(PERSISTENT_VOLUME_CLAIMS, labels=OWNER_UID)

    def controller(self) -> Controller:
        return _of_guests("vcluster-claims", PERSISTENT_VOLUME_CLAIMS, self.reconcile)

    async def reconcile(self, request: Request) -> Result | None:
        guest = self._guests.guest(request.cluster) if request.cluster != ROOT else None
        if guest is None:
            return None
        claim = self._claims.get_key(request)
        key = ObjectKey(ROOT, guest.namespace, guest.host_name(request.name, request.namespace))
        copy = self._copies.get_key(key)
        # A claim that is being deleted waits for the pods that use it; the volume goes when the claim has gone.
        wanted = host_claim(claim, guest) if claim is not None else None
        copy = await settle(self._guests, PERSISTENT_VOLUME_CLAIMS, copy, claim, wanted, request)
        client = self._guests.client(guest.cluster)
        if claim is None:
            await self._remove_volume(client, key.name)
        elif copy is not None and is_bound(copy) and not (claim.get("spec") or {}).get("volumeName"):
            await _create_if_absent(client, PERSISTENT_VOLUMES, guests_volume(claim, copy))
        return None

    async def _remove_volume(self, client: Client, volume: str) -> None:
        try:
            found = await client.get(PERSISTENT_VOLUMES, volume)
        except ApiError as error:
            if error.code != 404:
                raise
            return
        if ((found.get("spec") or {}).get("csi") or {}).get("driver") == DRIVER:
            await delete(client, PERSISTENT_VOLUMES, found)


def is_bound(claim: Mapping[str, Any]) -> bool:
    return (claim.get("status") or {}).get("phase") == "Bound"


def guests_volume(claim: Mapping[str, Any], copy: Mapping[str, Any]) -> Object:
    """The volume a guest sees behind its claim; the guest's own binder ties the two, since it names the claim."""
    meta, spec, status = metadata(claim), claim.get("spec") or {}, copy.get("status") or {}
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": meta["name"]}
    requested = (spec.get("resources") or {}).get("requests") or {}
    made: Object = {
        "capacity": status.get("capacity") or requested,
        "accessModes": status.get("accessModes") or spec.get("accessModes") or [],
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": reference | {"namespace": meta["namespace"], "uid": meta["uid"]},
        "csi": {"driver": DRIVER, "volumeHandle": metadata(copy)["name"]},
    }
    made |= {key: spec[key] for key in ("storageClassName", "volumeMode") if key in spec}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": metadata(copy)["name"]},
        "spec": made,
    }


async def _create_if_absent(client: Client, resource: ResourceType, obj: Object) -> None:
    try:
        await client.create(resource, obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


async def settle(
    guests: Guests,
    resource: ResourceType,
    copy: Object | None,
    obj: Object | None,
    wanted: Object | None,
    request: Request,
) -> Object | None:
    """Make the copy on the host what it should be: absent, or as wanted. Returns it."""
    if copy is not None and guest_key(copy) != request:
        return None
    if copy is not None and (wanted is None or (obj is not None and not is_copy_of(copy, obj))):
        if not is_deleting(copy):
            await delete(guests.root, resource, copy)
        return None  # its end wakes us
    if wanted is None or (copy is not None and is_deleting(copy)):
        return None
    if copy is not None and _contains(copy, wanted):
        return copy
    return await guests.root.apply(resource, wanted, field_manager=FIELD_MANAGER, force=True)


def _contains(found: Any, wanted: Any) -> bool:
    """Whether everything wanted is there, whatever else is (defaults the server has filled in)."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(key in found and _contains(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_contains(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


class Events:
    """What the host says about a pod is told about the guest's, with the guest's names."""

    def __init__(self, manager: Manager, guests: Guests) -> None:
        self._guests = guests
        self._events = manager.informer(EVENTS, fields="involvedObject.kind=Pod")

    def controller(self) -> Controller:
        return Controller(
            "vcluster-events",
            EVENTS,
            self.reconcile,
            predicate=lambda change: change.event != "DELETED",
            fields="involvedObject.kind=Pod",
            resync=None,
        )

    async def reconcile(self, request: Request) -> Result | None:
        event = self._events.get_key(request)
        about = (event or {}).get("involvedObject") or {}
        copy_key = ObjectKey(ROOT, str(about.get("namespace")), str(about.get("name")))
        copy = self._guests.host_pods.get_key(copy_key)
        key = guest_key(copy) if copy is not None else None
        if event is None or copy is None or key is None or self._guests.guest(key.cluster) is None:
            return None
        pod = self._guests.pods.get_key(key)
        if pod is None or not is_copy_of(copy, pod):
            return None
        made = guests_event(event, copy, pod)
        client = self._guests.client(key.cluster)
        try:
            await client.create(EVENTS, made)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                patch = {key: made[key] for key in ("count", "lastTimestamp", "message", "series") if key in made}
                await client.patch(EVENTS, made["metadata"]["name"], patch, key.namespace)
            elif error.code not in {403, 404, 422}:
                raise
        return None


def guests_event(event: Mapping[str, Any], copy: Mapping[str, Any], pod: Mapping[str, Any]) -> Object:
    """The event as the guest reads it."""
    mine, theirs = metadata(pod), metadata(copy)
    made = {
        key: event[key]
        for key in (
            *("reason", "type", "count", "firstTimestamp", "lastTimestamp", "eventTime", "source", "action", "series"),
            *("reportingComponent", "reportingInstance"),
        )
        if key in event
    }
    message = str(event.get("message") or "").replace(theirs["name"], mine["name"])
    return {
        "apiVersion": "v1",
        "kind": "Event",
        **made,
        "metadata": {"name": metadata(event)["name"], "namespace": mine["namespace"]},
        "message": message.replace(f"{theirs['namespace']}/{mine['name']}", f"{mine['namespace']}/{mine['name']}"),
        "involvedObject": {
            **{key: value for key, value in event["involvedObject"].items() if key == "fieldPath"},
            "apiVersion": "v1",
            "kind": "Pod",
            "name": mine["name"],
            "namespace": mine["namespace"],
            "uid": mine["uid"],
        },
    }


class Nodes:
    """The health and size of the host's nodes, in every cluster that has pods there."""

    def __init__(self, manager: Manager, guests: Guests) -> None:
        self._guests = guests
        self._nodes = manager.informer(NODES)
        self._told: dict[tuple[str, str], int] = {}

    def controller(self) -> Controller:
        return Controller("vcluster-nodes", NODES, self.reconcile, predicate=any_change, resync=None)

    async def reconcile(self, request: Request) -> Result | None:
        node = self._nodes.get_key(request)
        for cluster in sorted(self._guests.clusters_on(request.name)):
            await self._tell(cluster, request.name, node)
        return None

    async def _tell(self, cluster: str, node_name: str, node: Object | None) -> None:
        if self._guests.guest(cluster) is None:
            return
        client = self._guests.client(cluster)
        if node is None:
            return  # its pods are lost soon, and it goes with the last of them
        _, status = virtual_node(node)
        digest = hash(str(status))
        if self._told.get((cluster, node_name)) == digest:
            return
        try:
            await client.patch(NODES, node_name, {"status": status}, subresource="status")
        except ApiError as error:
            if error.code != 404:
                raise
        self._told[cluster, node_name] = digest
