"""``metrics.k8s.io``: what nodes and pods use now, for ``top`` and for autoscaling.

Nothing is stored: a request asks the nodes of this process, which sample their runtimes. Follows the resource metrics API
(metrics.k8s.io/v1beta1): nanocores and bytes over the window of the last two samples.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import orjson

from fleetplane.apiserver.call import Call
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.registry import Registry, Served, Storage
from fleetplane.apiserver.selection import narrow
from fleetplane.apiserver.storage import ObjectStorage
from fleetplane.model import errors
from fleetplane.model.environment import timestamp
from fleetplane.model.objects import Object
from fleetplane.model.resources import ResourceType

GROUP = "metrics.k8s.io"
NODE_METRICS = ResourceType(GROUP, "v1beta1", "NodeMetrics", "nodes", False)
POD_METRICS = ResourceType(GROUP, "v1beta1", "PodMetrics", "pods", True)


class ContainerUsage(Protocol):
    @property
    def pod_uid(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def cpu_nanocores(self) -> int: ...

    @property
    def memory_bytes(self) -> int: ...


class NodeUsage(Protocol):
    """``time`` is None until the first sample has been taken."""

    @property
    def time(self) -> datetime | None: ...

    @property
    def window_seconds(self) -> float: ...

    @property
    def cpu_nanocores(self) -> int: ...

    @property
    def memory_bytes(self) -> int: ...

    @property
    def containers(self) -> Sequence[ContainerUsage]: ...


UsageOf = Callable[[str], Awaitable[NodeUsage | None]]
"""From a node's name what it uses, None when it cannot be asked."""


def served_metrics(
    storage: ObjectStorage, registry: Callable[[], Registry], clusters: Clusters, usage: UsageOf
) -> list[Served]:
    """The two resources, as every registry serves them."""
    source = _Source(storage, registry, clusters, usage)
    return [_serve(NODE_METRICS, source.nodes), _serve(POD_METRICS, source.pods)]


def _serve(resource: ResourceType, handler: Callable[[Call], Awaitable[Response]]) -> Served:
    return Served(
        type=resource,
        storage=Storage(resource.group, resource.plural, resource.version),
        behaviour=KindBehaviour(has_generation=False, status_subresource=False),
        verbs=("get", "list"),
        custom=True,
        preferred=True,
        handler=handler,
    )


class _Source:
    def __init__(
        self, storage: ObjectStorage, registry: Callable[[], Registry], clusters: Clusters, usage: UsageOf
    ) -> None:
        self._storage = storage
        self._registry = registry
        self._clusters = clusters
        self._usage = usage

    async def nodes(self, call: Call) -> Response:
        found = []
        for node in await self._objects(call, "nodes"):
            usage = await self._usage(node["metadata"]["name"])
            if usage is not None and usage.time is not None:
                use = {"usage": _amounts(usage.cpu_nanocores, usage.memory_bytes)}
                found.append(_metrics(NODE_METRICS, node, usage) | use)
        return _answer(call, NODE_METRICS, found)

    async def pods(self, call: Call) -> Response:
        asked: dict[str, NodeUsage | None] = {}
        found = []
        for pod in await self._objects(call, "pods"):
            node = (pod.get("spec") or {}).get("nodeName") or ""
            if node and node not in asked:
                asked[node] = await self._usage(node)
            usage = asked.get(node)
            if usage is None or usage.time is None:
                continue
            containers = [
                {"name": one.name, "usage": _amounts(one.cpu_nanocores, one.memory_bytes)}
                for one in usage.containers
                if one.pod_uid == pod["metadata"]["uid"]
            ]
            if containers:
                found.append(_metrics(POD_METRICS, pod, usage) | {"containers": containers})
        return _answer(call, POD_METRICS, found)

    async def _objects(self, call: Call, plural: str) -> list[Object]:
        """The nodes or pods a request is about."""
        registry = self._registry()
        served = registry.find_anywhere("", "v1", plural)
        if served is None:
            return []
        target = call.target
        if target.name:
            found = await self._storage.find(served, call.key_cluster, target.namespace, target.name)
            return [] if found is None else [found]
        narrowed = narrow(served, call.cluster, target.namespace, call.request.query)
        objects: list[Object] = []
        async for page in self._storage.store.stream(narrowed.selection):
            for record in page.records:
                if narrowed.matches is None or narrowed.matches(record):
                    obj: Object = orjson.loads(record.value)
                    if call.cluster is None:
                        name = self._clusters.name_of(record.key.cluster)
                        obj["metadata"].setdefault("annotations", {})["fleetplane.io/cluster"] = name
                    objects.append(obj)
        return objects


def _metrics(resource: ResourceType, obj: Mapping[str, Any], usage: NodeUsage) -> Object:
    kept = ("name", "namespace", "labels", "annotations") if obj["metadata"].get("namespace") else ("name", "labels")
    metadata = {key: obj["metadata"][key] for key in kept if key in obj["metadata"]}
    moment = "" if usage.time is None else timestamp(usage.time)
    return {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": metadata | {"creationTimestamp": moment},
        "timestamp": moment,
        "window": f"{usage.window_seconds:.3f}s",
    }


def _amounts(nanocores: int, memory: int) -> Object:
    return {"cpu": f"{nanocores}n", "memory": f"{memory // 1024}Ki"}


def _answer(call: Call, resource: ResourceType, found: list[Object]) -> Response:
    if call.target.name:
        if not found:
            raise errors.not_found(resource.plural, call.target.name, group=resource.group)
        return Response(200, orjson.dumps(found[0]))
    return Response(
        200,
        orjson.dumps({"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": {}, "items": found}),
    )
