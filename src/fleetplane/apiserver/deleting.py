"""Delete and deletecollection: what goes at once, what waits, and for whom.

An object goes when nothing holds it: no finalizer, no grace period. Otherwise it is marked (``deletionTimestamp``) and
goes with the write that removes the last hold. Propagation turns into the finalizers ``foregroundDeletion`` and
``orphan``, which the garbage collector answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from fleetplane.apiserver.admission.chain import AdmissionChain
from fleetplane.apiserver.call import Call
from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.decoding import decode_object
from fleetplane.apiserver.encoding import decode, encode
from fleetplane.apiserver.http import Response
from fleetplane.apiserver.representation import load, respond_object
from fleetplane.apiserver.selection import narrow
from fleetplane.apiserver.shared import is_shared
from fleetplane.apiserver.storage import ObjectStorage, terms_of
from fleetplane.apiserver.writing import Plan, Writes, is_held
from fleetplane.model import errors
from fleetplane.model.admission import AdmissionRequest
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.objects import Object
from fleetplane.store.protocol import Delete, Expect, PreconditionFailed, Put, Record

_ATTEMPTS = 12
_PROPAGATIONS = ("Foreground", "Background", "Orphan")
_DEFAULT_GRACE_SECONDS = 30
_RETURNS_OBJECT = frozenset(
    {
        "pods",
        "podtemplates",
        "persistentvolumes",
        "persistentvolumeclaims",
        "resourcequotas",
        "serviceaccounts",
        "services",
    }
)
_OLD_ORPHANS = frozenset({("", "replicationcontrollers")})


@dataclass(slots=True)
class DeleteOptions:
    grace_seconds: int | None = None
    propagation: str | None = None
    uid: str | None = None
    resource_version: str | None = None


class Deletes:
    """The deleting verbs over one store."""

    def __init__(
        self,
        storage: ObjectStorage,
        writes: Writes,
        admission: AdmissionChain,
        clusters: Clusters,
        environment: Environment,
    ) -> None:
        self._storage = storage
        self._writes = writes
        self._admission = admission
        self._clusters = clusters
        self._environment = environment

    async def delete(self, call: Call) -> Response:
        options = self._options(call)
        record, obj, gone = await self.delete_object(call, options)
        resource = call.served.type
        if gone and not (resource.group == "" and resource.plural in _RETURNS_OBJECT):
            details = {"name": call.target.name, "kind": resource.plural, "uid": record.uid}
            if resource.group:
                details["group"] = resource.group
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            return Response(200, orjson.dumps(status))
        return respond_object(call.served, obj, call.representation, now=self._environment.now())

    async def delete_object(self, call: Call, options: DeleteOptions) -> tuple[Record, Object, bool]:
        """Delete what the target names; (record, object as left, whether it is gone)."""
        served, target = call.served, call.target
        resource = served.type
        for _ in range(_ATTEMPTS):
            record = await self._storage.record(served, call.key_cluster, target.namespace, target.name)
            self.check_preconditions(call, record, options)
            if is_shared(record):
                message = "it is one every cluster has by default; change it instead of deleting it"
                raise errors.forbidden(message, group=resource.group, resource=resource.plural, name=target.name)
            obj = await load(served, record)
            request = AdmissionRequest(
                "DELETE",
                resource,
                call.user,
                old=obj,
                namespace=target.namespace if resource.namespaced else "",
                name=target.name,
                dry_run=call.dry_run,
                cluster=self._clusters.name_of(call.key_cluster),
            )
            await self._admission.validate(call, request)
            stored = decode(record)
            try:
                return await self._delete(call, record, stored, options)
            except PreconditionFailed:
                continue
        raise errors.stale(resource.plural, target.name, group=resource.group)

    def check_preconditions(self, call: Call, record: Record, options: DeleteOptions) -> None:
        """Raises ApiError 409 when the object is not the one the caller means."""
        resource = call.served.type
        given = (("UID", options.uid, record.uid), ("ResourceVersion", options.resource_version, str(record.revision)))
        for word, wanted, found in given:
            if wanted and wanted != found:
                raise errors.conflict(
                    resource.plural,
                    call.target.name,
                    f"Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {found}",
                    group=resource.group,
                )

    async def _delete(
        self, call: Call, record: Record, obj: Object, options: DeleteOptions
    ) -> tuple[Record, Object, bool]:
        change = self.plan(call, record, obj, options)
        gone = change is None or isinstance(change, Delete)
        if call.dry_run or change is None:
            return record, obj, isinstance(change, Delete)
        before = decode(record)
        left = await self._writes.commit_change(call.served, change)
        self._writes.tell_released(Plan(change, obj, before))
        obj["metadata"]["resourceVersion"] = str(left.revision)
        return left, obj, gone

    def plan(self, call: Call, record: Record, obj: Object, options: DeleteOptions) -> Put | Delete | None:
        """What to commit to delete an object, None when it is already on its way; ``obj`` is marked in place."""
        served = call.served
        metadata = obj["metadata"]
        before = orjson.dumps(obj)
        self._mark_propagation(call, metadata, options)
        grace = self._grace(call, obj, options)
        if not is_held(obj) and grace == 0:
            return Delete(record.key, Expect(revision=record.revision), encode(obj))
        now = self._environment.now()
        if not metadata.get("deletionTimestamp"):
            metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
            if served.behaviour.has_generation:
                metadata["generation"] = int(metadata.get("generation") or 0) + 1
            self._mark_namespace(call, obj)
        elif grace < int(metadata.get("deletionGracePeriodSeconds") or 0):
            metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
        if orjson.dumps(obj) == before:
            return None
        return Put(
            record.key,
            record.uid,
            encode(obj),
            record.encoding,
            terms_of(served, obj),
            self._writes.claims_of(served, obj),
            Expect(revision=record.revision),
        )

    def _mark_propagation(self, call: Call, metadata: Object, options: DeleteOptions) -> None:
        """Turn the propagation policy into finalizers, as the garbage collector reads them."""
        resource = call.served.type
        finalizers: list[str] = list(metadata.get("finalizers") or [])
        policy = options.propagation
        if policy is None and not {"orphan", "foregroundDeletion"} & set(finalizers):
            policy = "Orphan" if (resource.group, resource.plural) in _OLD_ORPHANS else "Background"
        if policy is not None:
            finalizers = [one for one in finalizers if one not in ("orphan", "foregroundDeletion")]
            if policy == "Orphan":
                finalizers.append("orphan")
            elif policy == "Foreground":
                finalizers.append("foregroundDeletion")
        if finalizers:
            metadata["finalizers"] = finalizers
        else:
            metadata.pop("finalizers", None)

    def _grace(self, call: Call, obj: Object, options: DeleteOptions) -> int:
        """Seconds somebody else has to end the object; 0 for kinds nobody runs."""
        if not call.served.behaviour.graceful:
            return 0
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        asked = options.grace_seconds
        if asked is None:
            asked = spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
        grace = max(int(asked), 0)
        already = obj["metadata"].get("deletionGracePeriodSeconds")
        if obj["metadata"].get("deletionTimestamp") and already is not None:
            return min(grace, int(already)) if options.grace_seconds is not None else int(already)
        return grace

    def _mark_namespace(self, call: Call, obj: Object) -> None:
        if call.served.type.kind == "Namespace" and call.served.type.group == "":
            obj.setdefault("status", {})["phase"] = "Terminating"

    async def delete_collection(self, call: Call) -> Response:
        options = self._options(call)
        narrowed = narrow(call.served, call.key_cluster, call.target.namespace, call.request.query)
        target = call.target
        items: list[Object] = []
        async for page in self._storage.store.stream(narrowed.selection):
            for record in page.records:
                if narrowed.matches is not None and not narrowed.matches(record):
                    continue
                target.namespace, target.name = record.key.namespace, record.key.name
                try:
                    _, obj, _ = await self.delete_object(call, options)
                except errors.ApiError as error:
                    if error.code != 404:
                        raise
                    continue
                items.append(obj)
        revision = await self._storage.store.revision()
        resource = call.served.type
        listed: Object = {
            "kind": resource.list_kind,
            "apiVersion": resource.api_version,
            "metadata": {"resourceVersion": str(revision)},
            "items": items,
        }
        return Response(200, orjson.dumps(listed))

    def _options(self, call: Call) -> DeleteOptions:
        query = call.request.query
        made = DeleteOptions()
        body: Object = {}
        if call.request.body.strip():
            body, _ = decode_object(call.request.body, call.request.headers.get("content-type", ""))
            if body.get("kind") not in (None, "", "DeleteOptions"):
                raise errors.bad_request(f"the body of a delete must be DeleteOptions, not {body.get('kind')}")
        made.grace_seconds = _number(body.get("gracePeriodSeconds", query.get("gracePeriodSeconds")))
        made.propagation = body.get("propagationPolicy") or query.get("propagationPolicy")
        orphan: Any = body.get("orphanDependents", query.get("orphanDependents"))
        if orphan is not None and made.propagation is None:
            made.propagation = "Orphan" if orphan in (True, "true", "1") else "Background"
        if made.propagation is not None and made.propagation not in _PROPAGATIONS:
            cause = errors.FieldError.not_supported("propagationPolicy", made.propagation, [*_PROPAGATIONS, "nil"])
            raise errors.invalid("DeleteOptions", "", [cause], group="meta.k8s.io")
        preconditions = body.get("preconditions") or {}
        made.uid = preconditions.get("uid")
        made.resource_version = preconditions.get("resourceVersion")
        dry_run = body.get("dryRun") or ([query["dryRun"]] if query.get("dryRun") else [])
        if dry_run:
            if dry_run != ["All"]:
                cause = errors.FieldError.not_supported("dryRun", dry_run, ["All"])
                raise errors.invalid("DeleteOptions", "", [cause], group="meta.k8s.io")
            call.dry_run = True
        return made


def _number(value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        raise errors.bad_request(f"gracePeriodSeconds must be a whole number, not {value!r}") from None
