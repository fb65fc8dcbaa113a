"""Makes it so, for one Service at a time: slices and the Endpoints object from the same look at its pods."""

from __future__ import annotations

from collections.abc import Iterable

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import ObjectKey, Snapshot
from fleetplane.controller.controller import Controller, Request, Watch
from fleetplane.model.builtin.types import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from fleetplane.model.environment import name_suffix
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata, name, namespace, uid
from fleetplane.model.selectors import LabelSelector
from fleetplane.workloads.endpoints import legacy, slices
from fleetplane.workloads.endpoints.backends import Backend, backend, has_selector
from fleetplane.workloads.shared.actor import Actor, is_namespace_ending
from fleetplane.workloads.shared.nodecache import NodeCache
from fleetplane.workloads.shared.podcache import PodCache
from fleetplane.workloads.shared.pods import name_prefix
from fleetplane.workloads.shared.templates import same_meaning

_ZONE = "topology.kubernetes.io/zone"
_BY_SERVICE = "service"
_BY_NAMESPACE = "namespace"


class ServiceEndpoints:
    def __init__(
        self,
        actor: Actor,
        services: Informer,
        pods: PodCache,
        nodes: NodeCache,
        slice_informer: Informer,
        endpoints: Informer,
    ) -> None:
        self._actor = actor
        self._services = services
        self._pods = pods
        self._nodes = nodes
        self._slices = slice_informer
        self._endpoints = endpoints
        self._slices.add_index(_BY_SERVICE, _service_of)
        self._services.add_index(_BY_NAMESPACE, lambda one: [f"{one.key.cluster}/{one.key.namespace}"])

    def controller(self) -> Controller:
        watches = [
            Watch(PODS, self._services_of),
            Watch(ENDPOINT_SLICES, _requests_of),
            Watch(ENDPOINTS, lambda one: [one.key]),
        ]
        return Controller("endpoints", SERVICES, self.reconcile, watches=watches, max_concurrent=4, resync=None)

    async def reconcile(self, request: Request) -> None:
        service = self._services.get_key(request)
        if service is None or is_deleting(service):
            await self._remove_endpoints(request)
            return
        if not has_selector(service):
            return
        pods = self._backends(request.cluster, service)
        try:
            await self._keep_slices(request.cluster, service, pods)
            await self._keep_endpoints(request.cluster, service, pods)
        except ApiError as error:
            if not is_namespace_ending(error):
                raise

    def _backends(self, cluster: str, service: Object) -> list[Backend]:
        selector = LabelSelector.from_labels(service["spec"]["selector"])
        zones = {
            node: found["metadata"]["labels"][_ZONE]
            for node, found in self._nodes.of(cluster).items()
            if _ZONE in found["metadata"]["labels"]
        }
        found = []
        for pod in self._pods.in_namespace(cluster, namespace(service)):
            if pod.is_terminal or not selector.matches(pod.labels):
                continue
            snapshot = self._pods.informer.snapshot(ObjectKey(cluster, pod.namespace, pod.name))
            if snapshot is not None and (one := backend(snapshot.encoded, zones)) is not None:
                found.append(one)
        return found

    async def _keep_slices(self, cluster: str, service: Object, pods: list[Backend]) -> None:
        key = f"{cluster}/{namespace(service)}/{name(service)}"
        existing = [one for one in self._slices.by_index(_BY_SERVICE, key) if _is_of(one, service)]
        made = slices.plan(service, pods, existing)
        client, space = self._actor.client(cluster), namespace(service)
        for one in made.create:
            one["metadata"]["name"] = name_prefix(name(service)) + name_suffix(self._actor.environment)
            await self._actor.create_child(cluster, ENDPOINT_SLICES, one)
        for one in made.update:
            await client.update(ENDPOINT_SLICES, one, space)
        for one in made.delete:
            await self._actor.delete(cluster, ENDPOINT_SLICES, space, name(one), uid(one))

    async def _keep_endpoints(self, cluster: str, service: Object, pods: list[Backend]) -> None:
        wanted = legacy.endpoints(service, pods)
        space = namespace(service)
        current = self._endpoints.get(name(service), space, cluster=cluster)
        client = self._actor.client(cluster)
        if current is None:
            try:
                await client.create(ENDPOINTS, wanted, space)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
            return
        notes = wanted["metadata"].get("annotations") or {}
        same = same_meaning(current.get("subsets"), wanted.get("subsets")) and labels(current) == labels(wanted)
        if same and notes.items() <= (metadata(current).get("annotations") or {}).items():
            return
        wanted["metadata"] |= {"resourceVersion": metadata(current).get("resourceVersion"), "uid": uid(current)}
        await client.update(ENDPOINTS, wanted, space)

    async def _remove_endpoints(self, request: Request) -> None:
        """The Service is gone: the Endpoints object has no owner to go with. Slices have."""
        current = self._endpoints.get_key(request)
        if current is not None and labels(current).get(legacy.MANAGED_BY) == legacy.MANAGER:
            await self._actor.delete(request.cluster, ENDPOINTS, request.namespace, request.name, uid(current))

    def _services_of(self, pod: Snapshot) -> Iterable[Request]:
        found = self._services.snapshots_by_index(_BY_NAMESPACE, f"{pod.key.cluster}/{pod.key.namespace}")
        return [one.key for one in found if _selects(one.object, pod)]


def _selects(service: Object, pod: Snapshot) -> bool:
    selector = service["spec"].get("selector")
    return bool(selector) and selector.items() <= pod.labels.items()


def _service_of(one: Snapshot) -> Iterable[str]:
    if one.labels.get(slices.MANAGED_BY) != slices.MANAGER:
        return ()
    service = one.labels.get(slices.SERVICE_NAME, "")
    return (f"{one.key.cluster}/{one.key.namespace}/{service}",)


def _requests_of(one: Snapshot) -> Iterable[Request]:
    service = one.labels.get(slices.SERVICE_NAME)
    return [one.key._replace(name=service)] if service else []


def _is_of(one: Object, service: Object) -> bool:
    """Not a slice of a Service of the same name that is gone."""
    owners = metadata(one).get("ownerReferences") or []
    return not owners or any(owner.get("uid") == uid(service) for owner in owners)
