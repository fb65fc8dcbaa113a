"""What a logical cluster holds, given out and taken in: ``logicalclusters/<name>/content``, for snapshots.

GET answers with every object that is somebody's work: not what controllers make again (events, leases, endpoints, pods that
have a controller, service-account tokens), not nodes and volumes, which belong to the place, and not jobs that have ended,
which would run again. Each kind is shown as it was at one moment.

POST takes such objects into a cluster, in the order given, through admission like any create. They get identities of their
own; references to owners follow where the owner came along, and are left out where it did not. What exists already stays,
but for the labels and annotations of namespaces. Definitions are waited for until their kinds are served.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import orjson

from fleetplane.apiserver.call import Call
from fleetplane.apiserver.decoding import decode_object
from fleetplane.apiserver.encoding import decode
from fleetplane.apiserver.http import Request, Response
from fleetplane.apiserver.registry import Registry, Served
from fleetplane.apiserver.routing import Target
from fleetplane.apiserver.subresources import Handler
from fleetplane.apiserver.writing import Writes
from fleetplane.model import errors
from fleetplane.model.objects import Object, is_condition_true, is_deleting, metadata
from fleetplane.model.user import MASTERS_GROUP, UserInfo
from fleetplane.store.protocol import Selection, Store

KIND: Final = "LogicalClusterContent"
LIMIT: Final = 64 << 20
"""Bytes of objects that are given out; more is refused, not cut."""
SERVED_SECONDS: Final = 20.0
_USER = UserInfo("system:apiserver", groups=(MASTERS_GROUP,))
_DEFINITIONS: Final = ("apiextensions.k8s.io", "customresourcedefinitions")
_FIRST: Final = (_DEFINITIONS, ("", "namespaces"), ("", "serviceaccounts"), ("", "configmaps"), ("", "secrets"))
_MADE_AGAIN: Final = frozenset(
    {
        *(("", one) for one in ("events", "endpoints", "nodes", "persistentvolumes", "bindings")),
        ("events.k8s.io", "events"),
        ("discovery.k8s.io", "endpointslices"),
        ("coordination.k8s.io", "leases"),
        ("certificates.k8s.io", "certificatesigningrequests"),
        ("apiregistration.k8s.io", "apiservices"),
        ("fleetplane.io", "logicalclusters"),
    }
)


class ClusterContent:
    """``bind`` gives it the writes, which exist only when the server does."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._store = store
        self._writes: Writes | None = None

    def bind(self, writes: Writes) -> None:
        self._writes = writes

    def handler(self, find: Any) -> Handler:
        """``find(call)`` returns the LogicalCluster that is meant, or raises ApiError 404."""

        async def answer(call: Call) -> Response:
            found: Object = await find(call)
            uid, name = metadata(found)["uid"], metadata(found)["name"]
            if call.target.verb == "get":
                return Response(200, await self._given(uid, name))
            if call.target.verb == "create":
                wanted, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
                return Response(201, orjson.dumps(await self._take(uid, name, wanted)))
            raise errors.method_not_allowed()

        return answer

    # -- out

    async def _given(self, cluster: str, name: str) -> bytes:
        items: list[bytes] = []
        size = 0
        for served in self._kinds(cluster):
            async for obj in self._objects(served, cluster):
                items.append(orjson.dumps(obj))
                size += len(items[-1])
                if size > LIMIT:
                    raise errors.ApiError(
                        413, f"logical cluster {name} holds more than {LIMIT >> 20} MiB", reason="RequestEntityTooLarge"
                    )
        head = {"apiVersion": "fleetplane.io/v1alpha1", "kind": KIND, "metadata": {"name": name}}
        return orjson.dumps(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"

    def _kinds(self, cluster: str) -> list[Served]:
        """One for each resource that is kept, in its storage version; what others need comes first."""
        found: dict[tuple[str, str], Served] = {}
        for served in self._registry.all(cluster):
            at = (served.storage.group, served.storage.plural)
            if at not in _MADE_AGAIN and served.is_storage_version:
                found.setdefault(at, served)
        order = {at: place for place, at in enumerate(_FIRST)}
        return [found[at] for at in sorted(found, key=lambda at: (order.get(at, len(order)), at))]

    async def _objects(self, served: Served, cluster: str) -> AsyncIterator[Object]:
        selection = Selection(served.storage.group, served.storage.plural, cluster)
        async for page in self._store.stream(selection):
            for record in page.records:
                obj = decode(record)
                if _is_work(served, obj):
                    obj["apiVersion"], obj["kind"] = served.storage.api_version, served.type.kind
                    yield _without_place(served, obj)

    # -- in

    async def _take(self, cluster: str, name: str, wanted: Mapping[str, Any]) -> Object:
        """Returns what became of it: how many were made, how many were there, and what was refused."""
        identities = dict((wanted.get("spec") or {}).get("identities") or {})
        made = there = 0
        refused: list[str] = []
        for obj in _owners_first(list(wanted.get("items") or ())):
            old = str(metadata(obj).get("uid") or "")
            try:
                served = await self._served(cluster, obj)
                new, is_new = await self._make(served, cluster, name, _adopted(obj, identities))
            except errors.ApiError as error:
                refused.append(f"{obj.get('kind')} {metadata(obj).get('name')}: {error.message}"[:300])
                continue
            identities[old] = new
            made, there = made + is_new, there + (not is_new)
        return {
            "apiVersion": "fleetplane.io/v1alpha1",
            "kind": KIND,
            "metadata": {"name": name},
            "status": {"made": made, "there": there, "refused": refused[:20], "identities": identities},
        }

    async def _served(self, cluster: str, obj: Mapping[str, Any]) -> Served:
        group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
        end = asyncio.get_running_loop().time() + SERVED_SECONDS
        while (found := self._registry.find_kind(cluster, group, str(obj.get("kind") or ""), version)) is None:
            if asyncio.get_running_loop().time() > end:
                raise errors.not_found(str(obj.get("kind")), str(metadata(obj).get("name")), group=group)
            await asyncio.sleep(0.05)
        return found

    async def _make(self, served: Served, cluster: str, name: str, obj: Object) -> tuple[str, bool]:
        """(its uid, whether it is new)."""
        assert self._writes is not None
        meta = metadata(obj)
        kind, namespace = served.type, str(meta.get("namespace") or "")
        managed = meta.pop("managedFields", None)
        place = Target(name, "", "create", True, kind.group, kind.version, kind.plural, "", namespace)
        call = Call(Request("POST", ""), place, served, _USER, cluster, field_manager="fleetplane")
        called = str(meta["name"])
        try:
            _, created = await self._writes.create_object(call, obj, [], managed or None)
            return str(metadata(created)["uid"]), True
        except errors.ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        place = Target(name, "", "update", True, kind.group, kind.version, kind.plural, "", namespace, called)
        call = Call(Request("PUT", ""), place, served, _USER, cluster, field_manager="fleetplane")
        uid = ""

        async def change(current: Object) -> Object:
            nonlocal uid
            uid = str(current["metadata"]["uid"])
            if kind.kind == "Namespace":
                for part in ("labels", "annotations"):
                    current["metadata"][part] = {**(meta.get(part) or {}), **(current["metadata"].get(part) or {})}
            return current

        await self._writes.change_object(call, change)
        return uid, False


def _is_work(served: Served, obj: Mapping[str, Any]) -> bool:
    at = (served.storage.group, served.storage.plural)
    meta = metadata(obj)
    if is_deleting(obj):
        return False
    if at == ("", "pods"):
        ended = (obj.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        return not ended and not any(one.get("controller") for one in meta.get("ownerReferences") or ())
    if at == ("batch", "jobs"):
        return not (is_condition_true(obj, "Complete") or is_condition_true(obj, "Failed"))
    if at == ("", "secrets"):
        return bool(obj.get("type") != "kubernetes.io/service-account-token")
    return not (at == ("", "configmaps") and meta.get("name") == "kube-root-ca.crt")


def _without_place(served: Served, obj: Object) -> Object:
    """Without what belonged to the place it was in: a node, a volume, a state."""
    obj.pop("status", None)
    meta, spec = metadata(obj), obj.get("spec") or {}
    for key in ("resourceVersion", "generation", "creationTimestamp", "selfLink"):
        meta.pop(key, None)
    if served.storage.plural == "pods" and not served.storage.group:
        spec.pop("nodeName", None)
    if served.storage.plural == "persistentvolumeclaims":
        spec.pop("volumeName", None)
        known = meta.get("annotations") or {}
        for key in [key for key in known if key.startswith(("pv.kubernetes.io/", "volume."))]:
            del known[key]
    return obj


def _adopted(obj: Mapping[str, Any], identities: Mapping[str, str]) -> Object:
    """With the owners that came along, under their new identities."""
    made: Object = orjson.loads(orjson.dumps(obj))
    meta = made["metadata"]
    meta.pop("uid", None)
    meta.pop("resourceVersion", None)
    owners = [
        one | {"uid": identities[one["uid"]]} for one in meta.pop("ownerReferences", ()) if one.get("uid") in identities
    ]
    if owners:
        meta["ownerReferences"] = owners
    return made


def _owners_first(items: list[Any]) -> list[Object]:
    """In the order given, but nobody before its owner. Cycles are broken anywhere."""
    by_uid = {str(metadata(one).get("uid")): one for one in items}
    done: dict[int, None] = {}
    ordered: list[Object] = []
    for start in items:
        stack = [start]
        while stack:
            one = stack[-1]
            done.setdefault(id(one))
            owners = [by_uid.get(str(ref.get("uid"))) for ref in metadata(one).get("ownerReferences") or ()]
            waiting = next((owner for owner in owners if owner is not None and id(owner) not in done), None)
            if waiting is not None:
                stack.append(waiting)
                continue
            stack.pop()
            ordered.append(one)
    seen: set[int] = set()
    return [one for one in ordered if not (id(one) in seen or seen.add(id(one)))]  # type: ignore[func-returns-value]
