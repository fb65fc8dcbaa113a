"""Subresources that are more than a narrower update: scale, binding, eviction, finalize, approval and kin.

``status`` needs nothing here: it is an update that may change only the status, which ``writing`` sees to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from fleetplane.apiserver import validation
from fleetplane.apiserver.call import Call, parse_write_options
from fleetplane.apiserver.decoding import decode_json, decode_object, decode_yaml, media_type, part
from fleetplane.apiserver.deleting import Deletes, read_options
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.registry import Registry, Scale, Served
from fleetplane.apiserver.representation import encode_object, load, respond_object
from fleetplane.apiserver.routing import Target
from fleetplane.apiserver.storage import ObjectStorage, key_of
from fleetplane.apiserver.writing import APPLY_TYPES, Writes, decode_copy
from fleetplane.model import errors
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.objects import Object
from fleetplane.model.patch import json_patch, merge_patch
from fleetplane.model.selectors import LabelSelector

Handler = Callable[[Call], Awaitable[Response]]
_NAMED_BY_SCALE = frozenset({("apps", "deployments"), ("apps", "replicasets"), ("", "replicationcontrollers")})
"""What is said to be missing as ``deployments/scale``."""


class Subresources:
    """Dispatches a call on a subresource that has a way of its own."""

    def __init__(
        self,
        storage: ObjectStorage,
        registry: Registry,
        writes: Writes,
        deletes: Deletes,
        environment: Environment,
        extra: Mapping[tuple[str, str], Handler],
    ) -> None:
        self._storage = storage
        self._registry = registry
        self._writes = writes
        self._deletes = deletes
        self._environment = environment
        self._handlers: dict[tuple[str, str], Handler] = {
            ("pods", "binding"): self._bind,
            ("bindings", ""): self._bind,
            ("pods", "eviction"): self._evict,
            ("namespaces", "finalize"): self._narrow(_finalizers_only),
            ("pods", "ephemeralcontainers"): self._narrow(_ephemeral_containers_only),
            ("pods", "resize"): self._narrow(_resources_only),
            ("certificatesigningrequests", "approval"): self._narrow(_approval_only),
            **extra,
        }

    def find(self, call: Call) -> Handler | None:
        """The handler of a call, None for a plain verb."""
        target = call.target
        if call.served.handler is not None:
            return call.served.handler
        if target.subresource == "scale" and call.served.scale is not None:
            return self._scale
        return self._handlers.get((target.resource, target.subresource))

    # -- scale ---------------------------------------------------------------------------------------------------------

    async def _scale(self, call: Call) -> Response:
        served, target = call.served, call.target
        scale = served.scale
        if scale is None:
            raise errors.unknown_path()
        key = key_of(served, call.key_cluster, target.namespace, target.name)
        if (served.type.group, served.type.plural) in _NAMED_BY_SCALE and await self._storage.store.get(key) is None:
            raise errors.not_found(f"{served.type.plural}/scale", target.name, group=served.type.group)
        if target.verb == "get":
            record = await self._storage.record(served, call.key_cluster, target.namespace, target.name)
            return self._answer(call, scale_of(served, scale, await load(served, record)))
        parse_write_options(call, call.request.query)
        change = _scale_change(call)

        async def make(current: Object) -> Object:
            shown = scale_of(served, scale, current)
            wanted = change(shown)
            given = part(wanted, "metadata")
            version = given.get("resourceVersion")
            if version and version != current["metadata"]["resourceVersion"]:
                raise errors.stale(served.type.plural, target.name, group=served.type.group)
            replicas = part(wanted, "spec").get("replicas", 0)
            if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
                cause = errors.FieldError.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
                raise errors.invalid("Scale", target.name, [cause], group="autoscaling")
            _set(current, scale.spec_replicas, replicas)
            return current

        whole = replace(call, target=replace(target, subresource=""))
        record_or_none, obj = await self._writes.change_object(whole, make)
        call.warnings = whole.warnings
        if record_or_none is not None:
            obj = await load(served, record_or_none)
        return self._answer(call, scale_of(served, scale, obj))

    # -- pods ----------------------------------------------------------------------------------------------------------

    async def _bind(self, call: Call) -> Response:
        parse_write_options(call, call.request.query)
        binding, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
        metadata = part(binding, "metadata")
        name = call.target.name or str(metadata.get("name") or "")
        if metadata.get("name") not in (None, "", name):
            raise errors.bad_request("the name of the binding does not match the pod in the URL")
        node = part(binding, "target").get("name")
        if not isinstance(node, str) or not node:
            cause = errors.FieldError.required("target.name")
            raise errors.invalid("Binding", name, [cause])
        pods = self._registry.find(call.key_cluster, "", "v1", "pods")
        if pods is None:
            raise errors.unknown_path()
        now = timestamp(self._environment.now())

        async def make(pod: Object) -> Object:
            if metadata.get("uid") and metadata["uid"] != pod["metadata"]["uid"]:
                raise errors.conflict("pods/binding", name, "the pod has been replaced by another of the same name")
            if pod["metadata"].get("deletionTimestamp"):
                raise errors.conflict(
                    "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host"
                )
            assigned = (pod.get("spec") or {}).get("nodeName")
            if assigned:
                raise errors.conflict("pods/binding", name, f'pod {name} is already assigned to node "{assigned}"')
            if pod["spec"].get("schedulingGates"):
                raise errors.conflict("pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
            pod["spec"]["nodeName"] = node
            for key in ("annotations", "labels"):
                if added := part(metadata, key):
                    pod["metadata"][key] = (pod["metadata"].get(key) or {}) | added
            conditions = pod.setdefault("status", {}).setdefault("conditions", [])
            conditions[:] = [one for one in conditions if one.get("type") != "PodScheduled"]
            scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
            conditions.append(scheduled)
            return pod

        target = replace(call.target, resource="pods", name=name, subresource="binding")
        await self._writes.change_object(replace(call, served=pods, target=target), make, tracked=False)
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return Response(201, orjson.dumps(status))

    async def _evict(self, call: Call) -> Response:
        parse_write_options(call, call.request.query)
        eviction, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
        target = call.target
        name = str(part(eviction, "metadata").get("name") or target.name)
        if name != target.name:
            raise errors.bad_request(f"name in URL does not match name in Eviction object: {target.name} vs {name}")
        delete = read_options(part(eviction, "deleteOptions"))
        call.dry_run = call.dry_run or delete.dry_run
        record = await self._storage.record(call.served, call.key_cluster, target.namespace, target.name)
        pod = await load(call.served, record)
        if _counts_for_budgets(pod):
            await self._spend_budget(call, pod)
        whole = replace(call, target=replace(target, subresource=""))
        await self._deletes.delete_object(whole, delete)
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return Response(201, orjson.dumps(status))

    async def _spend_budget(self, call: Call, pod: Object) -> None:
        """Take one disruption from the pod's budget, or raise 429 as clients that drain nodes expect."""
        budgets = self._registry.find(call.key_cluster, "policy", "v1", "poddisruptionbudgets")
        if budgets is None:
            return
        labels = pod["metadata"].get("labels") or {}
        namespace = call.target.namespace
        found: list[Object] = []
        selection_call = Target(call.target.cluster, "", "list", namespace=namespace)
        async for page in self._storage.store.stream(_selection(budgets, call.key_cluster, selection_call.namespace)):
            for record in page.records:
                budget = await load(budgets, record)
                selector = (budget.get("spec") or {}).get("selector")
                if selector is not None and LabelSelector.from_object(selector).matches(labels):
                    found.append(budget)
        if len(found) > 1:
            raise errors.internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        if not found:
            return
        budget_name = found[0]["metadata"]["name"]
        if not _is_ready(pod) and _unhealthy_may_go(found[0]):
            return
        now = timestamp(self._environment.now())
        pod_name = pod["metadata"]["name"]

        async def make(budget: Object) -> Object:
            status = budget.get("status") or {}
            allowed = int(status.get("disruptionsAllowed") or 0)
            observed = int(status.get("observedGeneration") or 0)
            if observed < int(budget["metadata"].get("generation") or 0):
                raise _cannot_disrupt(
                    f"The disruption budget {budget_name} is still being processed by the server.", 10
                )
            if allowed <= 0:
                healthy, wanted = int(status.get("currentHealthy") or 0), int(status.get("desiredHealthy") or 0)
                raise _cannot_disrupt(
                    f"The disruption budget {budget_name} needs {wanted} healthy pods and has {healthy} currently",
                    0,
                )
            status["disruptionsAllowed"] = allowed - 1
            status.setdefault("disruptedPods", {})[pod_name] = now
            budget["status"] = status
            return budget

        target = Target(
            call.target.cluster,
            "",
            "update",
            True,
            "policy",
            "v1",
            "poddisruptionbudgets",
            "status",
            namespace,
            budget_name,
        )
        await self._writes.change_object(replace(call, served=budgets, target=target), make, tracked=False)

    # -- narrower updates ----------------------------------------------------------------------------------------------

    def _narrow(self, keep: Callable[[Object, Object], Object]) -> Handler:
        """An update or patch of which only some fields count; reads are plain."""

        async def handle(call: Call) -> Response:
            if call.target.verb == "get":
                record = await self._storage.record(
                    call.served, call.key_cluster, call.target.namespace, call.target.name
                )
                obj = await load(call.served, record)
                return respond_object(call.served, obj, call.representation, now=self._environment.now())
            parse_write_options(call, call.request.query)
            change = _whole_change(call)

            async def make(current: Object) -> Object:
                wanted = change(decode_copy(current))
                validation.check_types(call, wanted)
                made = keep(current, wanted)
                made["metadata"]["resourceVersion"] = part(wanted, "metadata").get("resourceVersion")
                return made

            record_or_none, obj = await self._writes.change_object(call, make)
            if record_or_none is not None:
                obj = await load(call.served, record_or_none)
            return respond_object(call.served, obj, call.representation, now=self._environment.now())

        return handle

    def _answer(self, call: Call, obj: Object) -> Response:
        body, content_type = encode_object(obj, call.representation)
        return Response(200, body, content_type)


def _selection(served: Served, cluster: str, namespace: str) -> Any:
    from fleetplane.store.protocol import Selection  # noqa: PLC0415

    return Selection(served.storage.group, served.storage.plural, cluster, namespace)


def scale_of(served: Served, scale: Scale, obj: Mapping[str, Any]) -> Object:
    """The autoscaling/v1 Scale of an object."""
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _count(_get(obj, scale.status_replicas))}
    selector = _selector_text(served, scale, obj)
    if selector:
        status["selector"] = selector
    spec: Object = {}
    replicas = _count(_get(obj, scale.spec_replicas))
    if replicas:
        spec["replicas"] = replicas
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": spec,
        "status": status,
    }


def _selector_text(served: Served, scale: Scale, obj: Mapping[str, Any]) -> str:
    if served.custom:
        found = _get(obj, scale.label_selector) if scale.label_selector else None
        return found if isinstance(found, str) else ""
    selector = (obj.get("spec") or {}).get("selector")
    if not selector:
        return ""
    if served.type.kind == "ReplicationController":
        return str(LabelSelector.from_labels(selector))
    return str(LabelSelector.from_object(selector))


def _scale_change(call: Call) -> Callable[[Object], Object]:
    if call.target.verb == "update":
        scale, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
        if scale.get("kind") not in (None, "", "Scale"):
            raise errors.bad_request(f"the body must be a Scale, not a {scale.get('kind')}")
        return lambda _current: scale
    return _patch_change(call)


def _whole_change(call: Call) -> Callable[[Object], Object]:
    if call.target.verb == "update":
        obj, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
        return lambda _current: obj
    return _patch_change(call)


def _patch_change(call: Call) -> Callable[[Object], Object]:
    """A patch of a small object whose lists nobody merges: strategic and apply patches are merge patches here."""
    kind = media_type(call.request.headers.get("content-type", ""))
    if kind in APPLY_TYPES:
        applied, _ = decode_yaml(call.request.body)
        return lambda current: _as_object(merge_patch(current, applied))
    document, _ = decode_json(call.request.body)
    if kind == "application/json-patch+json":
        return lambda current: _as_object(json_patch(current, document))
    if kind in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        return lambda current: _as_object(merge_patch(current, document))
    raise errors.unsupported_media_type(["application/json-patch+json", "application/merge-patch+json"])


def _as_object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise errors.bad_request("the patched object would not be an object any more")
    return value


def _count(value: Any) -> int:
    """A custom resource may have anything where its definition says the replicas are."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _get(obj: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    current: Any = obj
    for key in path:
        current = current.get(key) if isinstance(current, dict) else None
    return current


def _set(obj: Object, path: tuple[str, ...], value: Any) -> None:
    current: Any = obj
    for key in path[:-1]:
        current = current.setdefault(key, {})
        if not isinstance(current, dict):
            raise errors.bad_request(f"{'.'.join(path)} cannot be set: {key} is not an object")
    current[path[-1]] = value


def _finalizers_only(current: Object, wanted: Object) -> Object:
    finalizers = (wanted.get("spec") or {}).get("finalizers") or []
    current.setdefault("spec", {})["finalizers"] = list(finalizers)
    return current


def _ephemeral_containers_only(current: Object, wanted: Object) -> Object:
    containers = (wanted.get("spec") or {}).get("ephemeralContainers") or []
    current.setdefault("spec", {})["ephemeralContainers"] = list(containers)
    return current


def _resources_only(current: Object, wanted: Object) -> Object:
    for key in ("containers", "initContainers"):
        resources = {one.get("name"): one for one in (wanted.get("spec") or {}).get(key) or []}
        for container in current["spec"].get(key) or []:
            other = resources.get(container.get("name"))
            for field in ("resources", "resizePolicy"):
                if other is not None and field in other:
                    container[field] = other[field]
    return current


def _approval_only(current: Object, wanted: Object) -> Object:
    conditions = (wanted.get("status") or {}).get("conditions") or []
    current.setdefault("status", {})["conditions"] = list(conditions)
    return current


def _counts_for_budgets(pod: Object) -> bool:
    status = pod.get("status") or {}
    return not (
        status.get("phase") in ("Succeeded", "Failed", "Pending", None) or pod["metadata"].get("deletionTimestamp")
    )


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _unhealthy_may_go(budget: Object) -> bool:
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    return int(status.get("currentHealthy") or 0) >= int(status.get("desiredHealthy") or 0) > 0


def _cannot_disrupt(detail: str, retry_after: int) -> errors.ApiError:
    cause = errors.FieldError("DisruptionBudget", "", detail)
    return errors.ApiError(
        429,
        "Cannot evict pod as it would violate the pod's disruption budget.",
        causes=[cause],
        retry_after=retry_after or None,
    )
