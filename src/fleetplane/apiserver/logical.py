"""Logical clusters as objects: creating one in the root cluster opens ``/clusters/<name>``, deleting it empties it.

A logical cluster costs its objects and nothing else: the default roles are shared, controllers run once over all of them.
It is ``Ready`` when its default namespaces exist, which are made in the same commit as itself; where it came into being in
some other way (an atomic commit of somebody's), they are made as soon as it is seen. Deleting it first closes the door,
then removes what is inside (watchers see every deletion, so nodes stop its pods), then lets the object go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from fleetplane.apiserver import validation
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.cluster_content import KIND as CONTENT_KIND
from fleetplane.apiserver.cluster_credentials import KIND as CREDENTIALS_KIND
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.encoding import encode
from fleetplane.apiserver.http import Request
from fleetplane.apiserver.kinds.behaviour import KindBehaviour
from fleetplane.apiserver.registry import Registry, Served, Storage
from fleetplane.apiserver.routing import ALL_CLUSTERS, ROOT_CLUSTER, Target
from fleetplane.apiserver.writing import Plan, Writes
from fleetplane.model import errors
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
)
from fleetplane.model.objects import Object, finalizers, is_deleting
from fleetplane.model.resources import ResourceType
from fleetplane.model.schema import Schema
from fleetplane.model.table import custom_columns
from fleetplane.model.user import MASTERS_GROUP, UserInfo
from fleetplane.store.protocol import Put, Store, StoreError

log = logging.getLogger(__name__)

LOGICAL_CLUSTERS = ResourceType(
    "fleetplane.io", "v1alpha1", "LogicalCluster", "logicalclusters", False, "logicalcluster", ("lc",)
)
CONTENT_FINALIZER = "fleetplane.io/content"
DEFAULT_NAMESPACES = ("default", "kube-system", "kube-public")
OPERATORS_NAMESPACE = "fleetplane-system"
"""Accounts of this namespace of root may reach into every cluster by their names, so nobody else may have such names."""
DATA_PLANE_LABEL = "fleetplane.io/data-plane"
"""On the namespace ``kube-system`` of a cluster whose pods run on the host's nodes."""
_USER = UserInfo("system:apiserver", groups=(MASTERS_GROUP,))
_AGAIN_SECONDS = 0.5
_OPENING_SECONDS = 10.0
_SCHEMA: Object = {
    "type": "object",
    "description": "A Kubernetes API of its own, kept in this plane and reached under /clusters/<name>.",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "description": {"type": "string", "maxLength": 1024},
                "dataPlane": {
                    "type": "string",
                    "enum": ["Own", "Host"],
                    "description": "Whose nodes run its pods: its own, or those of the root cluster, by an operator.",
                },
                "reportUseSeconds": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "status.lastUsed is written when somebody uses it, at most once in so many seconds.",
                },
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "phase": {"type": "string", "enum": ["Pending", "Ready", "Terminating"]},
                "path": {"type": "string", "description": "The path prefix under which the cluster answers."},
                "lastUsed": {"type": "string", "description": "When somebody last used it, if that is reported."},
            },
        },
    },
}


def served_logical_clusters() -> Served:
    """The resource, as every registry serves it."""
    return Served(
        type=LOGICAL_CLUSTERS,
        storage=Storage(LOGICAL_CLUSTERS.group, LOGICAL_CLUSTERS.plural, LOGICAL_CLUSTERS.version),
        behaviour=KindBehaviour(),
        subresources={
            "status": (LOGICAL_CLUSTERS.api_version, LOGICAL_CLUSTERS.kind),
            "credentials": (LOGICAL_CLUSTERS.api_version, CREDENTIALS_KIND),
            "content": (LOGICAL_CLUSTERS.api_version, CONTENT_KIND),
        },
        raw_schema=lambda: _SCHEMA,
        make_schema=lambda: Schema.compile(_SCHEMA, root=True),
        columns=custom_columns(
            [
                {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ]
        ),
        custom=True,
        preferred=True,
    )


def logical_cluster_plugin() -> AdmissionPlugin:
    """Only root has logical clusters, and some names are taken from the beginning."""

    async def admit(request: AdmissionRequest, _reader: Reader) -> Decision:
        if request.cluster != ROOT_CLUSTER:
            return Decision(denial=errors.ApiError(403, "logical clusters are made in the root cluster only"))
        if request.name in (ROOT_CLUSTER, ALL_CLUSTERS):
            return Decision(
                denial=errors.already_exists(LOGICAL_CLUSTERS.plural, request.name, group=LOGICAL_CLUSTERS.group)
            )
        obj = request.new
        if obj is None:
            return ALLOWED
        kept = finalizers(obj)
        if CONTENT_FINALIZER in kept:
            return ALLOWED
        return changed(obj | {"metadata": obj["metadata"] | {"finalizers": [*kept, CONTENT_FINALIZER]}})

    rule = AdmissionRule([LOGICAL_CLUSTERS.qualified], ["CREATE"])
    return AdmissionPlugin("logical-clusters.fleetplane.io", "mutate", [rule], admit)


def reserved_namespace_plugin() -> AdmissionPlugin:
    """The namespace of the operators' accounts exists in root only."""

    async def admit(request: AdmissionRequest, _reader: Reader) -> Decision:
        if request.cluster == ROOT_CLUSTER or request.name != OPERATORS_NAMESPACE:
            return ALLOWED
        return Decision(
            denial=errors.forbidden(
                "this name is reserved for the accounts of the host's operators; choose another",
                resource="namespaces",
                name=request.name,
            )
        )

    return AdmissionPlugin(
        "reserved-namespace.fleetplane.io", "validate", [AdmissionRule(["namespaces"], ["CREATE"])], admit
    )


class LogicalClusters:
    """Opens and closes logical clusters; fed by a follower, run in the background."""

    def __init__(self, store: Store, registry: Registry, clusters: Clusters, forget: Callable[[str], None]) -> None:
        """``forget`` is told the id of a cluster that has gone, so that indexes drop what they know of it."""
        self._store = store
        self._registry = registry
        self._clusters = clusters
        self._forget = forget
        self._pending: dict[str, Object] = {}
        self._changed = asyncio.Event()
        self._opened: dict[str, asyncio.Event] = {}

    async def opened(self, obj: Object) -> None:
        """Return when the default namespaces of a cluster exist. Raises ApiError 503 when that takes too long."""
        if (obj.get("status") or {}).get("phase") == "Ready":
            return
        uid = obj["metadata"]["uid"]
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                await self._opened.setdefault(uid, asyncio.Event()).wait()
        except TimeoutError:
            name = obj["metadata"]["name"]
            raise errors.unavailable(f"logical cluster {name} is not open yet; try again") from None

    def apply(self, cluster: str, obj: Object, deleted: bool) -> None:
        if cluster != ROOT_CLUSTER:
            return
        uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]
        if deleted:
            self._opened.pop(uid, None)
            self._clusters.remove(uid)
            self._registry.drop_cluster(uid)
            self._forget(uid)
            return
        if is_deleting(obj):
            self._clusters.retire(uid)
        else:
            self._clusters.add(name, uid)
        if is_deleting(obj) or (obj.get("status") or {}).get("phase") != "Ready":
            self._pending[uid] = obj
            self._changed.set()
        elif (waiting := self._opened.pop(uid, None)) is not None:
            waiting.set()

    async def run(self, writes: Writes) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            failed = False
            for uid, obj in list(self._pending.items()):
                try:
                    await self._settle(writes, uid, obj)
                except (errors.ApiError, StoreError) as error:
                    if not (isinstance(error, errors.ApiError) and error.code == 404):
                        log.warning("logical cluster %s is not settled yet: %s", obj["metadata"]["name"], error)
                        failed = True
                        continue
                if self._pending.get(uid) is obj:  # nothing newer came meanwhile
                    del self._pending[uid]
            if failed:
                await asyncio.sleep(_AGAIN_SECONDS)
                self._changed.set()

    async def change_status(self, writes: Writes, obj: Object, change: Callable[[Object], Object]) -> None:
        """Raises ApiError 404 when the object has gone."""
        await self._change(writes, obj, "status", change)

    async def _settle(self, writes: Writes, uid: str, obj: Object) -> None:
        if is_deleting(obj):
            await self._store.drop_cluster(uid)
            await self._change(writes, obj, "", _without_finalizer)
            return
        for name in DEFAULT_NAMESPACES:
            call, namespace = self._namespace(obj, uid, name)
            try:
                await writes.create_object(call, namespace, [])
            except errors.ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        self._opened.setdefault(uid, asyncio.Event()).set()
        await self._change(writes, obj, "status", _ready)

    async def companions(
        self, writes: Writes, _call: Call, plan: Plan
    ) -> tuple[list[tuple[Served, Plan]], Callable[[], None]]:
        """The default namespaces of a cluster that is being created, which with them is ready from the beginning."""
        uid, name = plan.obj["metadata"]["uid"], plan.obj["metadata"]["name"]
        made = []
        for called in DEFAULT_NAMESPACES:
            inside, namespace = self._namespace(plan.obj, uid, called)
            writes.place(inside, namespace)
            validation.normalise(inside, namespace, [])
            made.append((inside.served, await writes.plan_create(inside, namespace)))
        _ready(plan.obj)
        assert isinstance(plan.change, Put)
        plan.change = replace(plan.change, value=encode(plan.obj))
        self._clusters.announce(name, uid)
        return made, lambda: self._clusters.remove(uid)

    def _namespace(self, cluster: Object, uid: str, name: str) -> tuple[Call, Object]:
        """A default namespace, and the call that creates it."""
        served = self._registry.find(uid, "", "v1", "namespaces")
        if served is None:
            raise errors.internal("namespaces are not served")
        target = Target(cluster["metadata"]["name"], "", "create", True, "", "v1", "namespaces")
        call = Call(Request("POST", ""), target, served, _USER, uid, field_manager="fleetplane")
        namespace: Object = {"metadata": {"name": name}}
        if name == "kube-system" and (cluster.get("spec") or {}).get("dataPlane") == "Host":
            namespace["metadata"]["labels"] = {DATA_PLANE_LABEL: "host"}
        return call, namespace

    async def _change(self, writes: Writes, obj: Object, subresource: str, change: Callable[[Object], Object]) -> None:
        resource = LOGICAL_CLUSTERS
        served = self._registry.find(ROOT_CLUSTER, resource.group, resource.version, resource.plural)
        if served is None:
            raise errors.internal("logical clusters are not served")
        target = Target(
            ROOT_CLUSTER,
            "",
            "update",
            True,
            resource.group,
            resource.version,
            resource.plural,
            subresource,
            "",
            obj["metadata"]["name"],
        )
        call = Call(Request("PUT", ""), target, served, _USER, ROOT_CLUSTER, field_manager="fleetplane")

        async def make(current: Object) -> Object:
            if current["metadata"]["uid"] != obj["metadata"]["uid"]:
                raise errors.not_found(resource.plural, obj["metadata"]["name"], group=resource.group)
            return change(current)

        await writes.change_object(replace(call), make)


def _without_finalizer(obj: Object) -> Object:
    obj["metadata"]["finalizers"] = [one for one in finalizers(obj) if one != CONTENT_FINALIZER]
    return obj


def _ready(obj: Object) -> Object:
    obj["status"] = {"phase": "Ready", "path": f"/clusters/{obj['metadata']['name']}"}
    return obj
